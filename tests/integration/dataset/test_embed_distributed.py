"""Embeddings by clip-retrieval's own command: the same rows as without it, and an error for each failure."""

from __future__ import annotations

from typing import Any

import pytest

from sp_data import manifest as manifests
from sp_data.dataset.embed import distributed as embed_distributed
from sp_data.errors import RecipeError, StageError
from sp_data.lake import Lake
from sp_data.pipeline import run_stage
from sp_data.recipe import Recipe


def with_embed(recipe: Recipe, **fields: Any) -> Recipe:
    return recipe.model_copy(update={"embed": recipe.embed.model_copy(update=fields)})


def without_the_last(lake: Lake, num_shards: int) -> Lake:
    """The lake with its last shards not embedded."""
    for path in [path for path in lake.list("manifests/embed") if "/parts/" not in path]:
        lake.remove(path)
    for path in [*lake.list("manifests/embed/parts"), *lake.list("embeddings")]:
        if any(path.rpartition(".")[0].endswith(f"0000{number}") for number in range(7 - num_shards, 7)):
            lake.remove(path)
    return lake


def files_of(lake: Lake) -> dict[str, bytes]:
    return {path: lake.read_bytes(path) for path in lake.list("embeddings")}


@pytest.mark.proof
def test_the_command_makes_the_rows_of_the_stage(demo_recipe: Recipe, lake_copy: Lake) -> None:
    run_stage("embed", with_embed(demo_recipe, precision="fp32"), without_the_last(lake_copy, 7))
    embedded, rows = manifests.latest(lake_copy, "embed"), files_of(lake_copy)
    assert len(files_of(without_the_last(lake_copy, 2))) == len(rows) - 6
    result = run_stage("embed", with_embed(demo_recipe, distributor="sequential"), lake_copy)
    assert embedded is not None
    assert (result.state, result.manifest.identity, result.manifest.digest) == (
        "done",
        embedded.identity,
        embedded.digest,
    )
    assert files_of(lake_copy) == rows
    assert result.manifest.versions["precision"] == embedded.versions["precision"] == "float32 computed, float16 stored"


def test_a_command_that_ends_without_embeddings_is_an_error(
    demo_recipe: Recipe, lake_copy: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = embed_distributed.python_child
    monkeypatch.setattr(embed_distributed, "python_child", lambda _, *rest, **more: child("this", *rest, **more))
    lake = without_the_last(lake_copy, 2)
    with pytest.raises(StageError, match=r"clip-retrieval ended \(exit 0\) without the embeddings of .*00005\.tar"):
        run_stage("embed", with_embed(demo_recipe, distributor="sequential"), lake)
    assert not any("00005" in path for path in lake.list("manifests/embed/parts"))


@pytest.mark.proof
def test_a_missing_shard_is_named_and_the_others_are_kept(
    demo_recipe: Recipe, lake_copy: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = embed_distributed._arguments
    monkeypatch.setattr(embed_distributed, "_arguments", lambda tars, *rest: arguments(tars[:-1], *rest))
    lake = without_the_last(lake_copy, 2)
    with pytest.raises(StageError, match=r"clip-retrieval ended \(exit 0\) without the embeddings of .*00006\.tar"):
        run_stage("embed", with_embed(demo_recipe, distributor="sequential"), lake)
    # The other shard is embedded and keeps its part.
    assert any("00005" in path for path in lake.list("manifests/embed/parts"))


def test_impossible_settings_are_refused_before_anything_runs(
    demo_recipe: Recipe, lake_copy: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = without_the_last(lake_copy, 2)
    odd = with_embed(demo_recipe, distributor="slurm", distributor_options={"slurm_partitions": "gpu"})
    with pytest.raises(RecipeError, match=r"no 'slurm_partitions'; clip-retrieval knows .*slurm_partition,"):
        run_stage("embed", odd, lake)
    monkeypatch.setattr(embed_distributed, "find_spec", lambda name: None)
    with pytest.raises(StageError, match="pip install pyspark"):
        run_stage("embed", with_embed(demo_recipe, distributor="pyspark"), lake)
