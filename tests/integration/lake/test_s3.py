"""A lake on S3 (a real server): a local lake's digests, one writer, no half-written file, errors in one line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path

import pytest
from demo_clip_folder import CLIP
from pytest_httpserver import HTTPServer
from s3_server import ObjectStore
from s3fs import S3FileSystem

from sp_data import manifest as manifests
from sp_data.errors import LakeBusy, LakeError
from sp_data.kept_recipe import remember_recipe
from sp_data.lake import Lake, datasets
from sp_data.lake import lease as leases
from sp_data.pipeline import DATASET_STAGES, run_stage, stand
from sp_data.recipe import Recipe
from sp_data.report.page import load_manifests, write_report
from sp_data.upkeep.why import fates

COMMAND = str(Path(sys.executable).with_name("sp-data"))


@pytest.fixture
def url(s3: ObjectStore) -> str:
    return s3.bucket(f"test-{uuid.uuid4().hex}")


@pytest.fixture
def lake(url: str) -> Lake:
    return Lake(url, "kids")


def digests(lake: Lake) -> dict[str, tuple[str, str]]:
    by_stage = load_manifests(lake, DATASET_STAGES)
    return {stage: (manifest.identity, manifest.digest) for stage, manifest in by_stage.items()}


@pytest.fixture(scope="module")
def s3_lake(demo_recipe: Recipe, s3: ObjectStore) -> Lake:
    lake = Lake(f"{s3.bucket('pipeline')}/below/it", demo_recipe.name)
    remember_recipe(demo_recipe, lake)
    for stage in DATASET_STAGES:
        assert run_stage(stage, demo_recipe, lake).state == "done"
    return lake


def test_every_stage_has_the_digest_of_a_local_lake(s3_lake: Lake, demo_lake: Lake) -> None:
    assert digests(s3_lake).keys() == set(DATASET_STAGES)
    assert digests(s3_lake) == digests(demo_lake)


def test_an_idle_run_writes_nothing_and_sends_few_requests(s3_lake: Lake, demo_recipe: Recipe, s3: ObjectStore) -> None:
    before = {name: info["LastModified"] for name, info in s3.fs.find(s3_lake.root, detail=True).items()}

    def run() -> None:
        assert {run_stage(stage, demo_recipe, s3_lake).state for stage in DATASET_STAGES} == {"unchanged"}

    assert 20 < s3.num_requests(run) < 150
    assert {name: info["LastModified"] for name, info in s3.fs.find(s3_lake.root, detail=True).items()} == before


def test_existing_files_are_found_by_listing(lake: Lake, s3: ObjectStore) -> None:
    files = tuple(lake.write_bytes(f"shards/{number:05d}.tar", b"kid") for number in range(50))
    assert s3.num_requests(lambda: manifests.missing_files(lake, files)) == 1
    for number, entry in enumerate(files[:20]):
        part = manifests.ShardPart(name=f"{number:05d}", identity="i", files=(entry,))
        manifests.publish_part(lake, "shard", part)
    assert s3.num_requests(lambda: manifests.ShardParts(lake, "shard")) == 22  # two listings and one request a part


def test_a_lost_file_comes_back_with_the_same_bytes(s3_lake: Lake, demo_recipe: Recipe) -> None:
    before = digests(s3_lake)
    s3_lake.remove(f"reordered/{CLIP}/img_emb/img_emb_00001.npy")
    assert stand(demo_recipe, s3_lake)["reorder"].state == "damaged"
    for stage in DATASET_STAGES:
        run_stage(stage, demo_recipe, s3_lake)
    assert digests(s3_lake) == before


def test_status_why_and_the_report_read_a_lake_on_s3(s3_lake: Lake, demo_recipe: Recipe) -> None:
    process = subprocess.run([COMMAND, "status", "--lake", s3_lake.url], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert {fate.title: fate.reason for fate in fates(s3_lake)}["File:Theme song.ogg"].startswith("mime-not-wanted")
    page = write_report(demo_recipe, s3_lake, load_manifests(s3_lake, DATASET_STAGES))
    assert b"<img" in s3_lake.read_bytes(page)


PUT = """
    import sys
    from pathlib import Path
    from sp_data.lake import Lake
    made = Path(sys.argv[2])
    lake = Lake(sys.argv[1], "kids")
    with lake.writer():
        print("putting", flush=True)
        while True:
            made.write_bytes(bytes(150 * 2**20))
            lake.publish(made, "shards/00000.tar")
            lake.remove("shards/00000.tar")
"""


def child(script: str, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def test_a_kill_while_a_file_is_put_leaves_it_whole_or_absent(lake: Lake, url: str, tmp_path: Path) -> None:
    process = child(PUT, url, str(tmp_path / "made"))
    sizes = set()
    try:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            sizes.add(lake.size("shards/00000.tar"))
    finally:
        process.kill()
        process.wait()
    sizes |= sizes_until_it_rests(lake, "shards/00000.tar")
    assert sizes <= {None, 150 * 2**20}
    # A dead process's lock does not block a writer on the same machine.
    with lake.writer():
        assert lake.write_bytes("shards/00000.tar", b"whole").bytes == 5
    assert lake.size("shards/00000.tar") == 5
    assert lake.read_bytes("shards/00000.tar") == b"whole"


def sizes_until_it_rests(lake: Lake, path: str, rest_s: float = 3) -> set[int | None]:
    """A server goes on with the request of a client that died; the sizes it shows meanwhile count too."""
    sizes = [lake.size(path)]
    unchanged_since = time.monotonic()
    while time.monotonic() - unchanged_since < rest_s:
        sizes.append(lake.size(path))
        if sizes[-1] != sizes[-2]:
            unchanged_since = time.monotonic()
        time.sleep(0.02)
    return set(sizes)


HOLD = """
    import sys, time
    from sp_data.lake import Lake
    with Lake(sys.argv[1], "kids").writer():
        print("held", flush=True)
        time.sleep(60)
"""


def test_a_second_writer_is_refused_and_the_first_is_named(lake: Lake, url: str) -> None:
    process = child(HOLD, url)
    try:
        with pytest.raises(LakeBusy, match=rf"dataset 'kids' in .* process {process.pid} on .*wait"), lake.writer():
            pass
        with lake.writer("reports"):  # nobody else writes to this one
            pass
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with lake.writer():
        pass
    assert not lake.fs.exists(f"{lake.root}/.writer")


def left_by_another_machine(lake: Lake) -> None:
    lake.fs.pipe_file(f"{lake.root}/.writer", b'{"token": "x", "pid": 1, "host": "elsewhere", "place": "far"}')


def test_a_lock_that_nobody_renews_is_taken_over_by_one(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by_another_machine(lake)
    with pytest.raises(LakeBusy, match="on elsewhere"), lake.writer():
        pass
    monkeypatch.setattr(leases, "LASTS_S", 0.5)
    time.sleep(2)
    first, second = (leases.Lease(lake.fs, f"{lake.root}/.writer", "it") for _ in range(2))
    stale = first._read()
    assert stale is not None
    assert stale.is_stale
    # Both found it stale; the store lets one of them take it over.
    assert [first._take_over(stale), second._take_over(stale)] == [True, False]


def test_the_lock_file_of_a_local_lake_that_was_copied_along_locks_nothing(lake: Lake) -> None:
    lake.fs.pipe_file(f"{lake.root}/.writer", b"")
    with lake.writer():
        assert lake.fs.cat_file(f"{lake.root}/.writer") != b""


def test_a_lock_is_renewed_while_it_is_held(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEWED_S", 0.1)
    with lake.writer():
        before = lake.fs.info(f"{lake.root}/.writer")["ETag"]
        time.sleep(0.5)
        assert lake.fs.info(f"{lake.root}/.writer")["ETag"] != before


def test_a_writer_whose_lock_was_taken_writes_no_more_and_leaves_it(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEWED_S", 0.1)
    with lake.writer():
        left_by_another_machine(lake)
        time.sleep(0.5)
        with pytest.raises(LakeBusy, match="could not renew its lock"):
            lake.write_bytes("a", b"")
    assert b"elsewhere" in lake.fs.cat_file(f"{lake.root}/.writer")
    assert not lake.exists("a")


def test_files_that_others_write_and_remove_are_noticed_at_once(lake: Lake) -> None:
    # Not the instance that s3fs caches for this process, which would know of its own writes.
    other = S3FileSystem(skip_instance_cache=True)
    assert lake.list("shards") == []
    other.pipe_file(lake.full("shards/00000.tar"), b"a")
    assert lake.list("shards") == ["shards/00000.tar"]
    other.rm_file(lake.full("shards/00000.tar"))
    assert not lake.exists("shards/00000.tar")


def test_a_missing_bucket_is_reported_and_not_created(s3: ObjectStore) -> None:
    nowhere = Lake("s3://no-such-bucket/lake", "kids")
    for work in (
        lambda: nowhere.write_bytes("a", b""),
        lambda: nowhere.read_bytes("a"),
        lambda: nowhere.size("a"),
        lambda: nowhere.list("a"),
        lambda: nowhere.writer().__enter__(),
        lambda: datasets("s3://no-such-bucket/lake"),
    ):
        with pytest.raises(LakeError, match=r"^bucket 'no-such-bucket' does not exist; create it"):
            work()
    assert not s3.fs.exists("no-such-bucket")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1"},
            r"cannot be reached .*is AWS_ENDPOINT_URL right",
        ),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, r"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_an_unreachable_store_is_reported_in_one_line(url: str, environment: dict[str, str], message: str) -> None:
    process = subprocess.run(
        [COMMAND, "scrape", "demo", "--lake", url], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    (line,) = [line for line in process.stderr.splitlines() if line.startswith("sp-data: ")]
    assert re.search(message, line)


def test_a_refusal_names_the_keys_to_check(
    s3: ObjectStore, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    httpserver.expect_request(re.compile(".*")).respond_with_data(refusal, status=403, content_type="application/xml")
    monkeypatch.setenv("AWS_ENDPOINT_URL", httpserver.url_for("").rstrip("/"))
    S3FileSystem.clear_instance_cache()
    lake = Lake("s3://bucket", "kids")
    S3FileSystem.clear_instance_cache()
    for work in (
        lambda: lake.write_bytes("a", b""),
        lambda: lake.size("a"),
        lambda: lake.list("a"),
        lambda: lake.writer().__enter__(),
    ):
        with pytest.raises(LakeError, match=r"is refused .*; are AWS_ACCESS_KEY_ID .* in 'bucket'\?$"):
            work()


def test_nothing_is_left_in_the_temporary_place(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    leftover = tmp_path / "sp-data-shard-killed"
    leftover.mkdir()
    os.utime(leftover, (0, 0))
    with lake.writer():
        lake.write_bytes("a", b"a")
        with lake.local("a"), lake.scratch("b"):
            pass
    assert list(tmp_path.iterdir()) == []
