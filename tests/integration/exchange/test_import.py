"""Import of a folder of img2dataset's and embeddings of clip-retrieval's that were made elsewhere.

They are the demo's, without anything that sp-data adds (tests/foreign_dataset.py): the embeddings are shuffled over two
partitions that do not follow the shards, and there is one sample of each kind that goes wrong in practice.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_dataset import FAILED, NO_CAPTION, NO_ROW, foreign

from sp_data import manifest as manifests
from sp_data import pipeline
from sp_data.dataset.shards.tars import read_tar, write_tar
from sp_data.errors import CorruptFile, LayoutError, SpDataError, StageError, StageNotDone, UsageError, VerifyFailed
from sp_data.exchange.export.run import export, form_of
from sp_data.exchange.imports.importer import Tally
from sp_data.exchange.imports.run import ImportRequest, import_dataset
from sp_data.kept_recipe import recall_recipe
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.recipe import Recipe
from sp_data.upkeep.why import Fate, fate_of, fates

LAYOUT = KeyLayout(5, 2)


@pytest.fixture(scope="module")
def given(demo_lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> ImportRequest:
    return foreign(demo_lake, tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="module")
def imported(given: ImportRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Manifest, Tally]:
    lake = Lake(str(tmp_path_factory.mktemp("import") / "lake"), "theirs")
    result, tally = import_dataset(given, lake)
    return lake, result.manifest, tally


def recipe_of(lake: Lake) -> Recipe:
    recipe = recall_recipe(lake)
    assert recipe is not None
    return recipe


def test_every_row_is_accounted_for(imported: tuple[Lake, Manifest, Tally], demo_lake: Lake) -> None:
    lake, verified, tally = imported
    theirs = manifests.latest(demo_lake, "verify")
    assert theirs is not None
    num_rows = sum(shard["num_rows"] for shard in theirs.details["shards"])
    counts = {stage: manifests.latest(lake, stage).counts for stage in pipeline.DATASET_STAGES}  # type: ignore[union-attr]
    assert (counts["scrape"].in_, counts["scrape"].dropped) == (num_rows, {"img2dataset: HTTP Error 404: Not Found": 1})
    assert (counts["curate"].in_, counts["curate"].dropped) == (num_rows - 1, {"no-caption": 1})
    assert counts["shard"].out == num_rows - 2
    assert (counts["embed"].in_, counts["embed"].out) == (num_rows - 1, num_rows - 3)
    assert tally.num_strays == 2, "one has no row in the shards, the download of the other failed"
    assert tally.splits.total() == num_rows - 3
    assert verified.details["tombstones"] == [NO_CAPTION]
    reasons = {fate.title: fate.reason for fate in fates(lake) if fate.reason}
    assert reasons == {FAILED: "img2dataset: HTTP Error 404: Not Found", NO_CAPTION: "no-caption"}


def test_the_tars_are_unchanged_and_each_row_belongs_to_its_key(
    imported: tuple[Lake, Manifest, Tally], given: ImportRequest
) -> None:
    lake, verified, _ = imported
    row_of: dict[str, dict[str, np.ndarray]] = {"img_emb": {}, "text_emb": {}}
    for kind, rows in row_of.items():
        for number in (0, 1):
            keys = pq.read_table(given.embeddings / "metadata" / f"metadata_{number}.parquet")["image_path"].to_pylist()
            rows |= zip(keys, np.load(given.embeddings / kind / f"{kind}_{number}.npy"), strict=True)
    for shard in verified.details["shards"]:
        tar = Path(lake.full(shard["tar"]["path"]))
        source = given.shards / tar.name
        assert tar.read_bytes() == source.read_bytes()
        assert not tar.samefile(source)
        in_tar = {key for key, _ in read_tar(tar)}
        for kind, rows in row_of.items():
            reordered = np.load(lake.full(shard[kind]["path"]))
            for index, row in enumerate(reordered):
                key = LAYOUT.key(shard["number"], index)
                is_embedded = key in in_tar and key not in (NO_ROW, NO_CAPTION)
                np.testing.assert_array_equal(row, rows[key] if is_embedded else np.zeros_like(row))


def test_the_stages_are_done_and_the_dataset_is_used_like_any_other(
    imported: tuple[Lake, Manifest, Tally], tmp_path: Path
) -> None:
    lake, verified, tally = imported
    recipe = recipe_of(lake)
    states = {name: status.state for name, status in pipeline.stand(recipe, lake, until="verify").items()}
    assert states == dict.fromkeys(pipeline.DATASET_STAGES, "done")
    for stage in pipeline.DATASET_STAGES:
        assert pipeline.run_stage(stage, recipe, lake).state == "unchanged"
    assert {shard["split"] for shard in verified.details["shards"]} == {"train", "val", "test"}
    assert recipe.shard.image_size_px == 64
    form = form_of("imagefolder", verified, recipe)
    result = export(verified, form, lake, tmp_path / "out", to="imagefolder")
    assert result.splits == dict(tally.splits)
    assert result.dropped == {"tombstone": 1, "no embedding": 1}


def test_a_lost_shard_is_not_made_by_the_shard_stage(imported: tuple[Lake, Manifest, Tally], tmp_path: Path) -> None:
    lake, _, _ = imported
    shutil.copytree(Path(lake.root).parent, tmp_path / "lake")
    copy = Lake(str(tmp_path / "lake"), lake.dataset)
    Path(copy.full("shards/00001.parquet")).unlink()
    with pytest.raises(StageNotDone, match=r"was imported, and its shard is damaged .*run `sp-data import` again"):
        pipeline.run_stage("shard", recipe_of(copy), copy)


def test_an_existing_dataset_is_not_overwritten(imported: tuple[Lake, Manifest, Tally], given: ImportRequest) -> None:
    with pytest.raises(UsageError, match="holds a dataset 'theirs' already"):
        import_dataset(given, imported[0])


def swap_two_rows(theirs: Path) -> None:
    """Exchange the embeddings of two pictures: no count, key or file shows it."""
    metadata = pq.read_table(theirs / "embeddings/metadata/metadata_0.parquet")["image_path"].to_pylist()
    first, second = (metadata.index(key) for key in sorted(metadata)[:2])
    rows = np.load(theirs / "embeddings/img_emb/img_emb_0.npy")
    rows[[first, second]] = rows[[second, first]]
    np.save(theirs / "embeddings/img_emb/img_emb_0.npy", rows)


def repeat_a_key(theirs: Path) -> None:
    path = theirs / "embeddings/metadata/metadata_0.parquet"
    table = pq.read_table(path)
    keys = table["image_path"].to_pylist()
    keys[1] = keys[0]
    pq.write_table(table.set_column(0, "image_path", pa.array(keys)), path)


def cut_the_tar(theirs: Path) -> None:
    path = theirs / "shards/00002.tar"
    write_tar(list(read_tar(path))[1:], path)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (swap_two_rows, VerifyFailed, r"embedded again, has cosine"),
        (repeat_a_key, SpDataError, r"comes twice"),
        (cut_the_tar, CorruptFile, r"00002\.tar: sample \d+ is in the tar or in the parquet"),
        (lambda theirs: (theirs / "shards/00002_stats.json").unlink(), CorruptFile, r"img2dataset did not finish"),
        (lambda theirs: (theirs / "shards/00002.tar").rename(theirs / "shards/00099.tar"), CorruptFile, r"00099"),
        (lambda theirs: shutil.rmtree(theirs / "embeddings/text_emb"), StageError, r"holds no text_emb"),
        (lambda theirs: shutil.rmtree(theirs / "shards"), StageNotDone, r"holds no NNNNN\.tar"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_reason(
    given: ImportRequest, tmp_path: Path, spoil: Callable[[Path], object], error: type[SpDataError], message: str
) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(given.shards.parent, theirs)
    spoil(theirs)
    lake = Lake(str(tmp_path / "lake"), "theirs")
    with pytest.raises(error, match=message):
        import_dataset(ImportRequest(theirs / "shards", theirs / "embeddings", "theirs", "demo", reembed=1000), lake)
    assert manifests.latest(lake, "verify") is None


def test_a_layout_that_the_names_contradict_is_refused(given: ImportRequest, tmp_path: Path) -> None:
    wrong = ImportRequest(given.shards, given.embeddings, "theirs", "demo", KeyLayout(3, 4))
    with pytest.raises(LayoutError, match=r"--layout 3\+4: .* has keys of layout 5\+2"):
        import_dataset(wrong, Lake(str(tmp_path), "theirs"))


def test_a_picture_that_is_in_two_splits_is_dropped_from_train(given: ImportRequest, tmp_path: Path) -> None:
    """The same bytes under another address: only img2dataset's own hash shows it."""
    shards = tmp_path / "shards"
    shutil.copytree(given.shards, shards)
    tables = {path: pq.read_table(path) for path in sorted(shards.glob("*.parquet"))}
    digests = {path: table["sha256"].to_pylist() for path, table in tables.items()}
    digest = digests[next(iter(tables))][0]
    for path, table in tables.items():
        column = table.schema.get_field_index("sha256")
        pq.write_table(table.set_column(column, "sha256", pa.array([digest, *digests[path][1:]])), path)
    lake = Lake(str(tmp_path / "lake"), "theirs")
    result, tally = import_dataset(ImportRequest(shards, given.embeddings, "theirs", "demo", reembed=0), lake)
    split_of = {shard["number"]: shard["split"] for shard in result.manifest.details["shards"]}
    dead = [split_of[LAYOUT.split(key)[0]] for key in result.manifest.details["tombstones"] if key != NO_CAPTION]
    assert set(dead) <= {"train", "test", "val"}
    assert dead.count("train") == list(split_of.values()).count("train")
    assert tally.dropped["duplicate"] == len(dead) == len(split_of) - 1


def test_why_takes_the_key_of_an_imported_picture(imported: tuple[Lake, Manifest, Tally]) -> None:
    lake = imported[0]
    assert isinstance(failed := fate_of(FAILED, lake), Fate)
    assert (failed.stage, failed.reason) == ("scrape", "img2dataset: HTTP Error 404: Not Found")
    assert isinstance(kept := fate_of("0000001", lake), Fate)
    assert (kept.key, kept.reason) == ("0000001", "")
    with pytest.raises(UsageError, match=r"no catalogue of 'theirs' has '0009999'.*`sp-data why --recipe theirs"):
        fate_of("0009999", lake)
