"""The lake: whole files or none, one writer, no path outside it; local, in memory and on S3 alike."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from pathlib import Path

import pytest
from s3_server import ObjectStore

from sp_data.errors import LakeBusy, LakeError, LakeFull
from sp_data.lake import Lake, datasets


@pytest.fixture(params=["local", "memory", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    if request.param == "s3":
        store: ObjectStore = request.getfixturevalue("s3")
        return Lake(store.bucket(f"unit-{uuid.uuid4().hex}"), "kids")
    url = str(tmp_path / "lake") if request.param == "local" else f"memory://{tmp_path.name}"
    return Lake(url, "kids")


def test_what_is_written_is_read(lake: Lake) -> None:
    entry = lake.write_bytes("shards/00000.tar", b"kid")
    assert (entry.path, entry.bytes) == ("shards/00000.tar", 3)
    assert lake.read_bytes("shards/00000.tar") == b"kid"
    assert lake.sha256("shards/00000.tar") == entry.sha256
    assert lake.entry("shards/00000.tar") == entry
    with lake.open("shards/00000.tar") as stream:
        assert stream.read() == b"kid"
    with lake.local("shards/00000.tar") as path:
        assert path.read_bytes() == b"kid"
        assert path.name == "00000.tar"


def test_sizes_and_listings(lake: Lake) -> None:
    lake.write_bytes("shards/00001.tar", b"ab")
    lake.write_bytes("shards/deeper/00000.tar", b"a")
    assert lake.size("shards/00001.tar") == 2
    assert lake.size("shards/00002.tar") is None
    assert lake.size("shards") is None
    paths = ["shards/00001.tar", "shards/deeper/00000.tar", "shards/00002.tar", "nothing/a"]
    assert lake.sizes_of(paths) == {"shards/00001.tar": 2, "shards/deeper/00000.tar": 1}
    assert lake.sizes_of([]) == {}
    assert lake.list("shards") == ["shards/00001.tar", "shards/deeper/00000.tar"]
    assert lake.list("nothing") == []
    lake.remove("shards/00001.tar")
    lake.remove("shards/00001.tar")
    assert lake.list("shards") == ["shards/deeper/00000.tar"]


def test_a_copy_is_made_once_for_a_writer_and_never_older_than_the_file(lake: Lake) -> None:
    lake.write_bytes("a", b"one")
    with lake.writer():
        with lake.local("a") as first, lake.local("a") as second:
            assert first == second
        lake.write_bytes("a", b"two")
        with lake.local("a") as path:
            assert path.read_bytes() == b"two"
        lake.remove("a")
        with pytest.raises(FileNotFoundError), lake.local("a") as path:
            path.read_bytes()
    assert lake.is_local or not path.exists()


def test_publishing_the_same_bytes_again_leaves_the_file_alone(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"), "kids")
    lake.write_bytes("a", b"same")
    before = Path(lake.full("a")).stat()
    file = tmp_path / "made"
    file.write_bytes(b"same")
    lake.publish_if_new(file, "a")
    assert Path(lake.full("a")).stat().st_ino == before.st_ino
    file.write_bytes(b"else")
    lake.publish_if_new(file, "a")
    assert lake.read_bytes("a") == b"else"


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "", "a\0b"])
def test_no_path_leaves_the_dataset(lake: Lake, path: str) -> None:
    with pytest.raises(LakeError, match="leaves the dataset"):
        lake.write_bytes(path, b"")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden"])
def test_a_dataset_is_a_plain_folder_name(name: str) -> None:
    with pytest.raises(LakeError, match="plain folder name"):
        Lake("memory://x", name)


def test_an_unknown_protocol_is_one_sentence() -> None:
    with pytest.raises(LakeError, match="cannot be opened"):
        Lake("gopher://x", "kids")


def test_a_full_disk_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(str(tmp_path), "kids")

    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(LakeFull, match=r"no space left for .*/a; free some"):
        lake.write_bytes("a", b"1")
    monkeypatch.undo()
    assert not lake.exists("a")
    assert list((tmp_path / "kids" / ".scratch").iterdir()) == []


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("")
    with pytest.raises(LakeError, match="choose another --lake"):
        Lake(str(tmp_path / "lake"), "kids").write_bytes("a", b"1")


def test_two_writers_of_one_process_are_refused(lake: Lake) -> None:
    refused: list[BaseException] = []

    def second() -> None:
        try:
            with lake.writer():
                pass
        except LakeBusy as busy:
            refused.append(busy)

    with lake.writer(), lake.writer():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1
    with lake.writer():
        pass


HOLD = """
    import sys, time
    from sp_data.lake import Lake
    with Lake(sys.argv[1], "kids").writer():
        print("held", flush=True)
        time.sleep(60)
"""


def holder(root: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_writer_in_another_process_is_named_and_its_lock_dies_with_it(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), "kids")
    process = holder(tmp_path)
    try:
        with pytest.raises(LakeBusy, match=f"written by process {process.pid} on"), lake.writer():
            pass
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    started = time.monotonic()
    with lake.writer():
        assert time.monotonic() - started < 1


def test_files_left_by_a_killed_writer_are_removed_by_the_next(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), "kids")
    process = holder(tmp_path)
    leftover = tmp_path / "kids" / ".scratch" / "shard-x" / "00000.tar"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with lake.writer():
        assert not leftover.exists()


def test_datasets_are_the_folders_with_manifests(tmp_path: Path) -> None:
    assert datasets(str(tmp_path / "none")) == []
    for name in ("kids", "southpark"):
        Lake(str(tmp_path), name).write_bytes("manifests/scrape/latest.json", b"{}")
    (tmp_path / "else").mkdir()
    assert datasets(str(tmp_path)) == ["kids", "southpark"]


def test_the_folders_right_below_a_folder_are_listed(lake: Lake) -> None:
    for path in ("thumbs/ab/a.png", "thumbs/1-64/ab/a.png", "thumbs/list.txt"):
        lake.write_bytes(path, b"")
    assert lake.subfolders("thumbs") == ("thumbs/1-64", "thumbs/ab")
    assert lake.subfolders("nowhere") == ()
