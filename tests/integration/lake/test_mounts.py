"""Volumes as containers have them: a lake that is mounted to be read, and outputs that are mounts below a folder that
cannot be written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sp_data.lake import Lake


@pytest.fixture(scope="module")
def _can_mount() -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("this system lets nobody mount: no user namespaces")


def run_in(mounts: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run sp-data after these mounts, which only its process sees."""
    command = " ".join([sys.executable, "-W", "ignore", "-m", "sp_data.cli", *arguments])
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{mounts} && exec {command}"],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def read_only(path: Path) -> str:
    return f"mount --bind {path} {path} && mount -o remount,ro,bind {path}"


@pytest.fixture(scope="module")
def volume(demo_lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volume")
    shutil.copytree(Path(demo_lake.root).parent, folder / "lake")
    return folder


@pytest.mark.usefixtures("_can_mount")
def test_a_read_only_lake_is_verified_shown_exported_and_read(volume: Path, demo_lake: Lake, tmp_path: Path) -> None:
    lake, name = volume / "lake", demo_lake.dataset
    for lock in (lake / name).glob(".writer*"):
        lock.unlink()
    shutil.rmtree(lake / name / "index", ignore_errors=True)
    before = sorted(str(path) for path in lake.rglob("*"))
    for arguments in (
        ("verify", name, "--reembed", "0"),
        ("status", name),
        ("export", str(tmp_path / "out"), "--to", "imagefolder", "--recipe", name),
    ):
        finished = run_in(read_only(lake), *arguments, "--lake", str(lake), cwd=volume)
        assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "out/.sp-data-export.json").exists()
    read = (
        "from sp_data import manifest; from sp_data.lake import Lake; from sp_data.dataset.loader import Samples;"
        f"lake = Lake({str(lake)!r}, {name!r}); verified = manifest.latest(lake, 'verify');"
        "print(len(Samples(verified, lake, 'train', 64)[0]['caption']))"
    )
    script = tmp_path / "read.py"
    script.write_text(read)
    command = f"{read_only(lake)} && exec {sys.executable} -W ignore {script}"
    finished = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, check=False)
    assert int(finished.stdout) > 0, finished.stderr
    assert sorted(str(path) for path in lake.rglob("*")) == before


@pytest.mark.usefixtures("_can_mount")
def test_what_writes_a_read_only_lake_says_so_in_one_sentence(volume: Path, demo_lake: Lake) -> None:
    lake = volume / "lake"
    arguments = ("gc", demo_lake.dataset, "--delete", "--keep", "1", "--lake", str(lake))
    (lake / demo_lake.dataset / "index").mkdir(exist_ok=True)
    (lake / demo_lake.dataset / "index/old.npy").write_bytes(b"waste")
    finished = run_in(read_only(lake), *arguments, cwd=volume)
    assert finished.returncode == 1
    assert "cannot be written (Read-only file system)" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.usefixtures("_can_mount")
@pytest.mark.parametrize("again", [False, pytest.param(True, marks=pytest.mark.proof)])
def test_outputs_that_are_mounts_are_written_inside(volume: Path, demo_lake: Lake, tmp_path: Path, again: bool) -> None:
    parent = tmp_path / "parent"
    for name in ("out", "reordered"):
        (tmp_path / name).mkdir()
        (parent / name).mkdir(parents=True)
    mounts = f"mount -t tmpfs t {parent}"
    for name in ("out", "reordered"):
        mounts += f" && mkdir {parent}/{name} && mount --bind {tmp_path / name} {parent}/{name}"
    mounts += f" && mount -o remount,ro {parent}"
    lake, name = volume / "lake", demo_lake.dataset
    clip = next((lake / name / "embeddings").iterdir())
    output = ("--output", str(parent / "reordered"))
    commands: list[tuple[str, ...]] = [
        ("export", str(parent / "out"), "--to", "imagefolder", "--recipe", name, "--lake", str(lake)),
        ("reorder", "--embeddings", str(clip), "--metadata", str(clip / "metadata"), "--layout", "5+2", *output),
    ]
    for arguments in commands * (2 if again else 1):
        finished = run_in(mounts, *arguments, cwd=volume)
        assert finished.returncode == 0, finished.stderr
    mark = json.loads((tmp_path / "out/.sp-data-export.json").read_text())
    assert mark["dataset"] == name
    assert not list((tmp_path / "out").glob(".*.export-*")), "nothing temporary is left"
    assert list((tmp_path / "reordered/img_emb").glob("*.npy"))
