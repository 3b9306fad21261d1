"""A lake may be a stranger's: no link is followed out of a dataset's folder, to read, to write or to remove."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sp_data.errors import LakeError
from sp_data.lake import Lake


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "inner-1-2").mkdir(parents=True)
    (folder / "precious.txt").write_text("x")
    (folder / "inner-1-2/too.txt").write_text("y")
    return folder


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"), "theirs")
    lake.write_bytes("shards/00000.tar", b"tar")
    return lake


def all_of(outside: Path) -> list[str]:
    return sorted(str(path.relative_to(outside)) for path in outside.rglob("*") if path.is_file())


USES: list[Callable[[Lake, str], object]] = [
    Lake.read_bytes,
    Lake.open,
    Lake.size,
    Lake.exists,
    Lake.entry,
    Lake.sha256,
    Lake.remove,
    lambda lake, path: lake.write_bytes(path, b"theirs"),
    lambda lake, path: lake.local(path).__enter__(),
]


@pytest.mark.parametrize("use", USES)
def test_a_path_through_a_link_out_is_refused(lake: Lake, outside: Path, use: Callable[[Lake, str], object]) -> None:
    Path(lake.root, "index").symlink_to(outside)
    Path(lake.root, "shards/00001.tar").symlink_to(outside / "precious.txt")
    for path in ("index/precious.txt", "index/new.txt", "shards/00001.tar"):
        with pytest.raises(LakeError, match=r"is a link out of dataset 'theirs': links are not followed"):
            use(lake, path)
    assert all_of(outside) == ["inner-1-2/too.txt", "precious.txt"]
    assert (outside / "precious.txt").read_text() == "x"


def test_links_are_not_listed(lake: Lake, outside: Path) -> None:
    Path(lake.root, "shards/deeper").symlink_to(outside)
    Path(lake.root, "shards/00001.tar").symlink_to(outside / "precious.txt")
    assert lake.list("shards") == ["shards/00000.tar"]


@pytest.mark.parametrize("name", [".scratch", ".writer"])
def test_neither_scratch_nor_lock_may_be_a_link_out(tmp_path: Path, outside: Path, name: str) -> None:
    lake = Lake(str(tmp_path / "new"), "theirs")
    Path(lake.root).mkdir(parents=True)
    Path(lake.root, name).symlink_to(outside if name == ".scratch" else outside / "lock")
    with pytest.raises(LakeError, match="is a link out of dataset"), lake.writer():
        pass
    assert all_of(outside) == ["inner-1-2/too.txt", "precious.txt"]


def test_links_within_a_dataset_and_to_its_whole_folder_are_followed(lake: Lake, tmp_path: Path) -> None:
    Path(lake.root, "shards/00001.tar").symlink_to(Path(lake.root, "shards/00000.tar"))
    assert lake.read_bytes("shards/00001.tar") == b"tar"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/linked").symlink_to(lake.root)
    assert Lake(str(tmp_path / "elsewhere"), "linked").read_bytes("shards/00000.tar") == b"tar"
