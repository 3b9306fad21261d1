"""Manifests: done means that the files are there, and the identity changes exactly when one of its parts does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sp_data import manifest as manifests
from sp_data.errors import CorruptFile
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest, ShardPart, ShardParts, identity_of

parts = st.fixed_dictionaries(
    {
        "stage": st.sampled_from(["curate", "shard"]),
        "version": st.integers(1, 3),
        "recipe": st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), max_size=2),
        "inputs": st.dictionaries(st.sampled_from(["scrape", "curate"]), st.sampled_from(["d1", "d2"]), max_size=2),
    }
)


@pytest.fixture(params=["local", "memory"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    url = str(tmp_path / "lake") if request.param == "local" else f"memory://{tmp_path.name}"
    return Lake(url, "kids")


def make(lake: Lake, **changes: Any) -> Manifest:
    files = [lake.write_bytes("data/a.bin", b"12345"), lake.write_bytes("data/b.bin", b"67")]
    fields: dict[str, Any] = {
        "stage": "curate",
        "version": 1,
        "recipe": {"min_side_px": 64},
        "inputs": {"scrape": "abc"},
        "counts": Counts(in_=3, out=2, dropped={"too-small": 1}),
        "files": files,
        "details": {"splits": {"train": 2}},
    }
    return Manifest.make(**{**fields, **changes})


@given(parts, parts)
def test_identity_changes_exactly_when_one_of_its_parts_changes(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert (identity_of(**first) == identity_of(**second)) == (first == second)


def test_a_manifest_is_done_while_its_files_are_there_with_their_sizes(lake: Lake) -> None:
    manifest = make(lake)
    assert manifests.is_done(lake, "curate", manifest.identity) is None
    manifests.publish(lake, manifest)
    assert manifests.is_done(lake, "curate", manifest.identity) == manifest
    lake.write_bytes("data/a.bin", b"1234")
    assert manifests.is_done(lake, "curate", manifest.identity) is None
    assert [problem for _, problem in manifests.missing_files(lake, manifest.files)] == ["has 4 bytes instead of 5"]
    lake.write_bytes("data/a.bin", b"12345")
    assert manifests.is_done(lake, "curate", manifest.identity) == manifest
    lake.remove("data/b.bin")
    assert manifests.is_done(lake, "curate", manifest.identity) is None


def test_a_changed_byte_is_found_by_a_deep_check_only(lake: Lake) -> None:
    manifest = make(lake)
    lake.write_bytes("data/a.bin", b"12X45")
    assert manifests.missing_files(lake, manifest.files) == []
    ((entry, problem),) = manifests.missing_files(lake, manifest.files, deep=True)
    assert entry.path == "data/a.bin"
    assert "sha256" in problem


def test_the_newest_manifest_is_the_latest_and_the_old_one_stays(lake: Lake) -> None:
    first, second = make(lake), make(lake, version=2)
    manifests.publish(lake, first)
    manifests.publish(lake, second)
    assert manifests.latest(lake, "curate") == second
    assert manifests.load(lake, "curate", first.identity) == first
    manifests.make_latest(lake, first)
    assert manifests.latest(lake, "curate") == first


def test_the_digest_depends_on_the_result_and_not_on_its_time(lake: Lake) -> None:
    stats = lake.write_bytes("data/stats.json", b"12:00", timed=True)
    later = lake.write_bytes("data/stats.json", b"13:37", timed=True)
    first, second = make(lake, files=[stats]), make(lake, files=[later], versions={"numpy": "2"}, previous=make(lake))
    assert first.digest == second.digest
    assert first.digest != make(lake).digest
    assert first.digest != make(lake, files=[stats], details={}).digest


def test_a_broken_manifest_is_an_error_with_its_place(lake: Lake) -> None:
    lake.write_bytes("manifests/curate/latest.json", b'{"stage": "cura')
    with pytest.raises(CorruptFile, match=r"latest\.json is not a valid manifest"):
        manifests.latest(lake, "curate")


@pytest.mark.parametrize(
    "counts", [{"in": 3, "out": 2}, {"in": 1, "out": 1, "dropped": {"x": 1}}, {"in": 1, "out": -1}]
)
def test_counts_that_do_not_add_up_are_refused(counts: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Counts.model_validate(counts)


def test_a_part_is_found_for_its_own_identity_and_with_its_files_only(lake: Lake) -> None:
    part = ShardPart(name="00007", identity="i", files=(lake.write_bytes("shards/00007.tar", b"tar"),))
    manifests.publish_part(lake, "shard", part)
    assert ShardParts(lake, "shard").find("00007", "i") == part
    assert ShardParts(lake, "shard").find("00007", "j") is None
    assert ShardParts(lake, "shard").find("00008", "i") is None
    lake.remove("shards/00007.tar")
    assert ShardParts(lake, "shard").find("00007", "i") is None
    lake.write_bytes(manifests.part_path("shard", "00007"), b"half a part")
    assert ShardParts(lake, "shard").find("00007", "i") is None
