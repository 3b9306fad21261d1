"""What goes wrong on a machine that runs sp-data day and night, each done to a real Prefect server and a real worker.

After each fault the next run ends well, and gives what it would have given: the digests of `reference`.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from e2e.deployed import Place
from e2e.machine import ZOMBIE_S, Dataset, Machine
from e2e.prefect_api import post, wait_for

pytestmark = pytest.mark.proof
LIMIT = "sp-data-dataset-kids"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("machine"))
    try:
        machine.start_server()
        machine.deploy()
        machine.start()
        yield machine
    finally:
        machine.stop()


@pytest.fixture
def place(machine: Machine) -> Place:
    machine.start()  # a test that failed may have left a part down
    return machine.place


@pytest.fixture(scope="module")
def reference(machine: Machine) -> Dataset:
    """The dataset as a run makes it to which nothing happens."""
    dataset = Dataset(machine.folder / "lake-reference")
    ended = run(machine.place, dataset)
    assert ended["state"]["name"].startswith("Changed: +"), ended["state"]["message"]
    return dataset


@pytest.fixture
def begun(machine: Machine, tmp_path: Path) -> Dataset:
    """A dataset that is not there yet."""
    return Dataset(machine.folder / f"lake-{tmp_path.name}")


@pytest.fixture
def whole(machine: Machine, reference: Dataset, tmp_path: Path) -> Dataset:
    """A copy of `reference` that a test may damage."""
    return reference.copy_to(machine.folder / f"lake-{tmp_path.name}")


def start(place: Place, dataset: Dataset, flow: str = "dataset", **more: Any) -> str:
    deadline = time.monotonic() + 30
    while True:
        try:
            return place.start(f"{flow}/{dataset.name}", lake=str(dataset.lake), **more)
        except urllib.error.HTTPError as error:
            # A server that was just started again, on SQLite: the database is locked.
            if error.code != 503 or time.monotonic() > deadline:
                raise
        time.sleep(1)


def run(place: Place, dataset: Dataset, **more: Any) -> dict[str, Any]:
    return place.finished(start(place, dataset, **more), 180)


def failed_in_one_sentence(ended: dict[str, Any]) -> str:
    message = str(ended["state"]["message"])
    assert ended["state"]["type"] == "FAILED", ended["state"]
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def test_a_run_outlives_its_worker(machine: Machine, place: Place, reference: Dataset, begun: Dataset) -> None:
    started = start(place, begun)
    begun.wait_for("scrape")
    machine.kill_worker()
    try:
        ended = place.finished(started)
    finally:
        machine.start_worker()
    assert ended["state"]["name"].startswith("Changed: +"), ended["state"]["message"]
    assert begun.digests() == reference.digests()


def test_a_run_outlives_an_absence_of_the_server(
    machine: Machine, place: Place, reference: Dataset, begun: Dataset
) -> None:
    started = start(place, begun)
    begun.wait_for("scrape")
    machine.kill_server()
    time.sleep(20)
    machine.start_server()
    ended = place.finished(started)
    assert ended["state"]["name"].startswith("Changed: +"), ended["state"]["message"]
    assert begun.digests() == reference.digests()
    # The server forgot who held the slot.
    after = run(place, begun)
    assert after["state"]["name"] == "Unchanged"
    assert machine.slots(LIMIT) == 0


def test_a_machine_that_was_started_again_goes_on(
    machine: Machine, place: Place, reference: Dataset, begun: Dataset
) -> None:
    zombie = start(place, begun)
    before = begun.wait_for("curate")
    machine.kill_worker()
    machine.kill_run(zombie)
    machine.kill_server()
    assert not begun.path_of("verify").exists()
    machine.start_server()
    machine.start_worker()
    assert place.run(zombie)["state"]["type"] == "RUNNING"
    assert machine.slots(LIMIT) == 1
    ended = run(place, begun)
    assert ended["state"]["name"].startswith("Changed: +"), ended["state"]["message"]
    assert begun.digests() == reference.digests()
    assert begun.manifest("curate") == before, "what was finished is not made again"
    assert [line for line in place.log(ended["id"]) if "held by a run that is gone: freed" in line]
    crashed = place.finished(zombie, ZOMBIE_S + 60)
    assert crashed["state"]["type"] == "CRASHED"
    assert "start it again: it goes on where it was" in crashed["state"]["message"]


def test_a_slot_of_a_killed_run_is_freed_for_the_next(
    machine: Machine, place: Place, reference: Dataset, begun: Dataset
) -> None:
    """Also while the run is still called Running, and before Prefect's lease of five minutes ends."""
    zombie = start(place, begun)
    begun.wait_for("scrape")
    machine.kill_worker()
    machine.kill_run(zombie)
    machine.start_worker()
    assert machine.slots(LIMIT) == 1
    ended = run(place, begun)
    assert ended["state"]["name"].startswith("Changed: +"), ended["state"]["message"]
    assert begun.digests() == reference.digests()
    assert [line for line in place.log(ended["id"]) if "held by a run that is gone: freed" in line]
    assert place.finished(zombie, ZOMBIE_S + 60)["state"]["type"] == "CRASHED"
    assert machine.slots(LIMIT) == 0


def test_two_runs_of_one_dataset_wait_for_each_other_and_other_datasets_go_on(
    machine: Machine, place: Place, reference: Dataset, begun: Dataset
) -> None:
    other = Dataset(begun.lake, "others")
    both = [start(place, begun), start(place, begun, "pipeline", until="verify")]
    third = start(place, other)
    ended = [place.finished(one) for one in (*both, third)]
    assert [one["state"]["type"] for one in ended] == ["COMPLETED"] * 3
    assert sorted(one["state"]["name"].partition(":")[0] for one in ended[:2]) == ["Changed", "Unchanged"]
    assert begun.digests() == reference.digests()
    waited = ended[1] if ended[1]["state"]["name"] == "Unchanged" else ended[0]
    worked = ended[0] if waited is ended[1] else ended[1]
    said = [line for line in place.log(waited["id"]) if line.startswith("waiting for dataset kids: ")]
    assert worked["id"] in said[0]
    assert not [line for line in place.log(third) if "waiting for" in line]
    assert ended[2]["start_time"] < worked["end_time"]
    assert worked["start_time"] < ended[2]["end_time"]


@pytest.mark.parametrize(
    "lost",
    [
        "shards/**/*.tar",
        "embeddings/**/img_emb*.npy",
        "manifests/curate/latest.json",
        "manifests/shard/*.json",
        "originals/**/*",
    ],
)
def test_an_output_deleted_by_hand_comes_back(place: Place, reference: Dataset, whole: Dataset, lost: str) -> None:
    files = sorted(path for path in whole.folder.glob(lost) if path.is_file())
    assert files, sorted({path.parent.relative_to(whole.folder) for path in whole.folder.rglob("*.*")})
    content = files[0].read_bytes()
    files[0].unlink()
    ended = run(place, whole)
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    assert whole.digests() == reference.digests()
    assert "manifests" in lost or files[0].read_bytes() == content


def test_a_failed_run_is_retried_from_the_ui_and_goes_on(place: Place, reference: Dataset, begun: Dataset) -> None:
    in_the_way = begun.folder / "embeddings"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("no folder")
    failed = run(place, begun)
    assert "cannot be written (Not a directory)" in failed_in_one_sentence(failed)
    kept = begun.manifest("shard")
    in_the_way.unlink()
    # What the button Retry sends.
    again = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}}
    post(place.server, f"/flow_runs/{failed['id']}/set_state", again)
    wait_for("the retry", lambda: place.run(failed["id"])["run_count"] == 2, 60)
    ended = place.finished(failed["id"])
    assert ended["state"]["name"].startswith("Changed: +"), ended["state"]["message"]
    assert begun.manifest("shard") == kept, "what was finished is not made again"
    assert begun.digests() == reference.digests()


def test_a_manifest_of_a_newer_version_is_refused_and_kept(place: Place, whole: Dataset) -> None:
    path = newer(whole, "shard", whole)
    before = {file: file.read_bytes() for file in whole.folder.rglob("manifests/**/*.json")}
    message = failed_in_one_sentence(run(place, whole))
    assert str(path) in message
    assert "install that version" in message
    assert {file: file.read_bytes() for file in whole.folder.rglob("manifests/**/*.json")} == before


def newer(of: Dataset, stage: str, into: Dataset) -> Path:
    """Put a manifest there as a newer version of the stage would have made it."""
    manifest = of.manifest(stage)
    path = into.path_of(stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**manifest, "version": manifest["version"] + 1}))
    return path


@pytest.mark.parametrize("size_kb", [1_000, 2_700])
def test_a_full_disk_ends_the_run_in_one_sentence(
    place: Place, reference: Dataset, begun: Dataset, size_kb: int
) -> None:
    begun.lake.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(begun.lake)])
    if mounted.returncode:
        pytest.skip("may not mount a small disk")
    try:
        failed = run(place, begun)
        assert "no space left" in failed_in_one_sentence(failed)
        assert begun.digests().items() <= reference.digests().items()
        subprocess.run(["mount", "-o", "remount,size=64m", str(begun.lake)], check=True)
        ended = run(place, begun)
        assert ended["state"]["name"].startswith("Changed: +"), ended["state"]["message"]
        assert begun.digests() == reference.digests()
    finally:
        subprocess.run(["umount", str(begun.lake)], check=True)


def test_a_clock_a_day_back_changes_nothing(place: Place, reference: Dataset, whole: Dataset) -> None:
    """Everything in the lake was made tomorrow."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    for path in whole.folder.rglob("*"):
        if path.is_file():
            if "manifests" in path.parts and "parts" not in path.parts:
                made_at = {"made_at": tomorrow.isoformat(timespec="seconds")}
                path.write_text(json.dumps(json.loads(path.read_text()) | made_at))
            os.utime(path, (tomorrow.timestamp(), tomorrow.timestamp()))
    next(whole.folder.glob("shards/**/*.tar")).unlink()
    ended = run(place, whole)
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    assert whole.manifest("shard")["made_at"] < whole.manifest("curate")["made_at"]
    assert whole.digests() == reference.digests()
    assert run(place, whole)["state"]["name"] == "Unchanged"
