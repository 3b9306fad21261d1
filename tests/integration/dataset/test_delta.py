"""A week's changes: pictures are added, drawn again, deleted and renamed; only these are processed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from stages import scrape

from sp_data import manifest as manifests
from sp_data.dataset.embed import stage as embeddings
from sp_data.dataset.embed.clip import Clip
from sp_data.dataset.verify import VerifyOptions
from sp_data.demo.wiki.history import after_changes
from sp_data.demo.wiki.server import DemoWikiServer
from sp_data.demo.wiki.world import World, build_world
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.pipeline import DATASET_STAGES, run_stage
from sp_data.recipe import Recipe

Sample = tuple[str, str]
"""Title and sha1."""


@pytest.fixture
def founded(demo_recipe: Recipe) -> World:
    demo = demo_recipe.source.demo
    assert demo is not None
    return build_world(demo.num_kids, demo.seed)


def latest(lake: Lake, stage: str) -> Manifest:
    manifest = manifests.latest(lake, stage)
    assert manifest is not None
    return manifest


def run_pipeline(recipe: Recipe, lake: Lake, wiki: DemoWikiServer) -> set[str]:
    """Run scrape to verify; give the states in which they end."""
    states = {scrape(recipe.source, lake, proxy=wiki.url).state}
    return states | {run_stage(stage, recipe, lake).state for stage in DATASET_STAGES[1:]}


def tree(root: str, *folders: str) -> dict[str, tuple[int, int, int]]:
    """Path -> (inode, time of writing, bytes) of every file, including the lock."""
    files = [path for folder in folders or ("",) for path in Path(root, folder).rglob("*") if path.is_file()]
    stats = {str(path.relative_to(root)): path.stat() for path in files}
    return {path: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


def samples_of(world: World) -> set[Sample]:
    return {(f"File:{file.name}", file.sha1) for file in world.files.values()}


def test_only_new_samples_are_embedded_and_removed_ones_get_tombstones(
    demo_recipe: Recipe, lake_copy: Lake, founded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = lake_copy
    embedded_shards: list[int] = []
    write = embeddings.write_partition

    def write_and_record(clip: Clip, batches: Iterable[dict[str, Any] | None], output: Path, number: int) -> None:
        embedded_shards.append(number)
        write(clip, batches, output, number)

    monkeypatch.setattr(embeddings, "write_partition", write_and_record)
    changed = after_changes(founded, 0, new=4, replaced=3, deleted=2, renamed=2)
    added, removed = samples_of(changed) - samples_of(founded), samples_of(founded) - samples_of(changed)
    assert (len(added), len(removed)) == (4 + 3 + 2, 3 + 2 + 2)
    before = {stage: latest(lake, stage) for stage in DATASET_STAGES}
    appended = ("shards", "embeddings", "reordered", "originals", "normalised")
    files_before = tree(lake.root, *appended)
    with DemoWikiServer(changed) as wiki:
        assert run_pipeline(demo_recipe, lake, wiki) == {"done"}
        written = tree(lake.root, *appended)
        assert {path: written[path] for path in files_before} == files_before, "no file is written again"

        sharded = latest(lake, "shard")
        old, new = shards_of(before["shard"]), shards_of(sharded)[len(shards_of(before["shard"])) :]
        assert shards_of(sharded)[: len(old)] == old
        assert [shard["number"] for shard in new] == [old[-1]["number"] + 1 + index for index in range(len(new))]
        assert embedded_shards == [shard["number"] for shard in new]
        layout = KeyLayout.parse(sharded.details["layout"])
        new_names = [layout.shard_name(shard["number"]) for shard in new]
        assert sorted(sample for name in new_names for sample in samples_in(lake, name).values()) == sorted(added)
        old_names = [layout.shard_name(shard["number"]) for shard in old]
        keys = {key: sample for name in old_names for key, sample in samples_in(lake, name).items()}
        assert sorted(keys[key] for key in sharded.details["tombstones"]) == sorted(removed)
        for stage in ("shard", "embed", "reorder"):
            assert set(before[stage].files) <= set(latest(lake, stage).files), stage
        assert sharded.counts.out == before["shard"].counts.out + len(added) - len(removed)

        run_stage("verify", demo_recipe, lake, options=VerifyOptions(deep=True))

        before_idle = tree(lake.root)
        assert run_pipeline(demo_recipe, lake, wiki) == {"unchanged"}
        assert tree(lake.root) == before_idle, "an idle run writes nothing"


def shards_of(sharded: Manifest) -> list[dict[str, Any]]:
    return list(sharded.details["shards"])


def samples_in(lake: Lake, shard: str) -> dict[str, Sample]:
    """Key -> sample."""
    rows = pq.read_table(lake.full(f"shards/{shard}.parquet"), columns=["key", "title", "sha1"]).to_pylist()
    return {row["key"]: (row["title"], row["sha1"]) for row in rows}
