"""Verify finds wrong content even when every size, digest and manifest is made to agree with it."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from demo_clip_folder import CLIP

from sp_data import manifest as manifests
from sp_data.dataset.reorder.folder import reorder_folder
from sp_data.dataset.shards.stage import read_rows
from sp_data.dataset.shards.tars import read_tar, write_tar
from sp_data.dataset.verify import VerifyOptions
from sp_data.dataset.verify.close_pairs import close_pairs_path
from sp_data.dataset.verify.reembed import PictureJob, is_own
from sp_data.dataset.verify.stage import inspect
from sp_data.errors import Problem, VerifyFailed
from sp_data.keys import KeyLayout
from sp_data.lake import FileEntry, Lake
from sp_data.manifest import Counts, Manifest, made_digest
from sp_data.pipeline import DATASET_STAGES, run_stage
from sp_data.recipe import Recipe

IMG = f"reordered/{CLIP}/img_emb/img_emb_00000.npy"
EARLIER_STAGES = DATASET_STAGES[:-1]


def problems(recipe: Recipe, lake: Lake, *, deep: bool = False) -> list[Problem]:
    with pytest.raises(VerifyFailed) as failed:
        run_stage("verify", recipe, lake, options=VerifyOptions(deep))
    assert str(failed.value.problems[0]) in str(failed.value)
    return failed.value.problems


def forge(lake: Lake) -> None:
    """Make every manifest agree with the files as they are now: sizes, sha256, digests, and the later inputs."""
    digests: dict[str, str] = {}
    for stage in EARLIER_STAGES:
        manifest = manifests.latest(lake, stage)
        assert manifest is not None
        files = tuple(_entry(lake, entry) for entry in manifest.files)
        inputs = {name: digests.get(name, digest) for name, digest in manifest.inputs.items()}
        digest = made_digest(files, manifest.counts, manifest.details)
        identity = manifests.identity_of(stage, manifest.version, manifest.recipe, inputs)
        forged = manifest.model_copy(update={"files": files, "inputs": inputs, "digest": digest, "identity": identity})
        manifests.publish(lake, forged)
        digests[stage] = digest


def _entry(lake: Lake, entry: FileEntry) -> FileEntry:
    return lake.entry(entry.path, timed=entry.timed) if lake.exists(entry.path) else entry


def change(lake: Lake, path: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    rows = edit(np.load(lake.full(path)))
    np.save(lake.full(path), rows)


def swap(rows: np.ndarray) -> np.ndarray:
    rows[[0, 1]] = rows[[1, 0]]
    return rows


def shift(rows: np.ndarray) -> np.ndarray:
    return np.roll(rows, 1, axis=0)


def zero(rows: np.ndarray) -> np.ndarray:
    rows[3] = 0
    return rows


def test_a_sound_dataset_passes_a_deep_check(demo_recipe: Recipe, lake_copy: Lake) -> None:
    forge(lake_copy)
    assert run_stage("verify", demo_recipe, lake_copy, options=VerifyOptions(deep=True)).manifest.counts.out >= 95


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (swap, "does not hold the embedding of its picture; it is that of key 0000001"),
        (shift, "does not hold the embedding of its picture; it is that of key 0000019"),
        (zero, "it is zero"),
        (lambda rows: rows.astype(np.float64), r"holds (20, 128) float64, expected (20, 128) float16"),
        (lambda rows: rows[:-1], r"holds (19, 128) float16, expected (20, 128)"),
        (lambda rows: np.ascontiguousarray(rows[:, :64]), r"holds (20, 64) float16, expected (20, 128)"),
        (lambda rows: rows * np.float16(2), "it is no embedding of this shard"),
    ],
)
def test_wrong_rows_are_named_though_every_digest_agrees(
    demo_recipe: Recipe, lake_copy: Lake, edit: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    change(lake_copy, IMG, edit)
    forge(lake_copy)
    first = problems(demo_recipe, lake_copy)[0]
    assert (first.check, first.file) == ("rows", IMG)
    assert message in first.message


def test_a_change_that_keeps_every_size_is_found_by_the_command(demo_recipe: Recipe, lake_copy: Lake) -> None:
    """The digests do not agree: a run of the pipeline trusts the earlier verification, the command checks again."""
    change(lake_copy, IMG, swap)
    assert run_stage("verify", demo_recipe, lake_copy).state == "unchanged"
    assert problems(demo_recipe, lake_copy)[0].key == "0000000"


def test_a_file_lost_since_verification_is_noticed_by_a_run(demo_recipe: Recipe, lake_copy: Lake) -> None:
    assert run_stage("verify", demo_recipe, lake_copy).state == "unchanged"
    Path(lake_copy.full("shards/00000_stats.json")).unlink()
    with pytest.raises(VerifyFailed, match=r"shards/00000_stats\.json"):
        run_stage("verify", demo_recipe, lake_copy)


def test_widths_of_3_and_4_instead_of_5_and_2_are_named(demo_recipe: Recipe, lake_copy: Lake) -> None:
    folder = Path(lake_copy.full(f"reordered/{CLIP}"))
    shutil.rmtree(folder)
    embeddings = Path(lake_copy.full(f"embeddings/{CLIP}"))
    reorder_folder(embeddings, embeddings / "metadata", folder, KeyLayout(3, 4))
    first = problems(demo_recipe, lake_copy)[0]
    assert first.file == IMG
    assert "the keys seem to have been cut as 3+4 instead of 5+2" in first.message


def test_an_unnamed_file_is_found_where_loaders_would_read_it(demo_recipe: Recipe, lake_copy: Lake) -> None:
    shutil.copy(lake_copy.full(IMG), lake_copy.full(IMG).replace("00000.npy", "000.npy"))
    first = problems(demo_recipe, lake_copy)[0]
    assert first.file == IMG.replace("00000.npy", "000.npy")
    assert "no manifest names it" in first.message


def test_rows_exchanged_before_reordering_are_found_by_embedding_again(demo_recipe: Recipe, lake_copy: Lake) -> None:
    """Embeddings and reordered rows are wrong in the same way: only the pictures show it."""
    for path in (f"embeddings/{CLIP}/img_emb/img_emb_00000.npy", IMG):
        change(lake_copy, path, swap)
    forge(lake_copy)
    problems_found = problems(demo_recipe, lake_copy, deep=True)
    assert {(problem.check, problem.key) for problem in problems_found} == {
        ("pictures", "0000000"),
        ("pictures", "0000001"),
    }
    assert "the row of 0000001 is nearest" in problems_found[0].message


def test_one_changed_byte_of_a_tar_is_named_by_a_deep_check(demo_recipe: Recipe, lake_copy: Lake) -> None:
    path = Path(lake_copy.full("shards/00002.tar"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert problems(demo_recipe, lake_copy, deep=True)[0].file == "shards/00002.tar"


def rewrite_tar(lake: Lake, edit: Callable[[list[tuple[str, dict[str, bytes]]]], None]) -> None:
    path = Path(lake.full("shards/00000.tar"))
    samples = list(read_tar(path))
    edit(samples)
    write_tar(samples, path)


def test_a_picture_replaced_in_its_tar_is_found_by_embedding_again(demo_recipe: Recipe, lake_copy: Lake) -> None:
    def exchange(samples: list[tuple[str, dict[str, bytes]]]) -> None:
        samples[4][1]["jpg"], samples[5][1]["jpg"] = samples[5][1]["jpg"], samples[4][1]["jpg"]

    rewrite_tar(lake_copy, exchange)
    forge(lake_copy)
    problems_found = problems(demo_recipe, lake_copy, deep=True)
    assert {(problem.check, problem.key) for problem in problems_found} == {
        ("pictures", "0000004"),
        ("pictures", "0000005"),
    }


def test_a_caption_moved_to_its_neighbour_is_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    def exchange(samples: list[tuple[str, dict[str, bytes]]]) -> None:
        samples[4][1]["txt"], samples[5][1]["txt"] = samples[5][1]["txt"], samples[4][1]["txt"]

    rewrite_tar(lake_copy, exchange)
    forge(lake_copy)
    problems_found = problems(demo_recipe, lake_copy, deep=True)
    assert ("captions", "0000004") in {(problem.check, problem.key) for problem in problems_found}


def test_a_sample_missing_from_its_tar_is_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    rewrite_tar(lake_copy, lambda samples: samples.__delitem__(7))
    forge(lake_copy)
    first = problems(demo_recipe, lake_copy)[0]
    assert (first.check, first.key) == ("keys", "0000007")


def test_a_caption_changed_after_embedding_is_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    path = lake_copy.full(f"embeddings/{CLIP}/metadata/metadata_00000.parquet")
    table = pq.read_table(path)
    captions = table["caption"].to_pylist()
    captions[2] = "a kid of somebody else"
    pq.write_table(table.set_column(table.schema.get_field_index("caption"), "caption", pa.array(captions)), path)
    forge(lake_copy)
    first = problems(demo_recipe, lake_copy)[0]
    assert (first.check, first.key) == ("captions", "0000002")


def test_metadata_of_another_shard_is_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    folder = Path(lake_copy.full(f"embeddings/{CLIP}/metadata"))
    shutil.copy(folder / "metadata_00001.parquet", folder / "metadata_00000.parquet")
    forge(lake_copy)
    problems_found = problems(demo_recipe, lake_copy)
    assert (problems_found[0].check, problems_found[0].key) == ("keys", "0000000")
    assert "has a picture but no embedding" in problems_found[0].message


def test_a_page_in_two_splits_is_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    sharded = manifests.latest(lake_copy, "shard")
    assert sharded is not None
    other = next(shard for shard in sharded.details["shards"] if shard["split"] != "train")
    train, held_out = ("shards/00000.parquet", f"shards/{other['number']:05d}.parquet")
    page = pq.read_table(lake_copy.full(train))["page"][0].as_py()
    table = pq.read_table(lake_copy.full(held_out))
    pages = [page, *table["page"].to_pylist()[1:]]
    column = table.schema.get_field_index("page")
    pq.write_table(table.set_column(column, "page", pa.array(pages)), lake_copy.full(held_out))
    forge(lake_copy)
    first = problems(demo_recipe, lake_copy)[0]
    assert (first.check, first.file) == ("splits", held_out)
    assert repr(page) in first.message


def set_column(lake: Lake, path: str, name: str, edit: Callable[[list[Any]], list[Any]]) -> None:
    table = pq.read_table(lake.full(path))
    values = pa.array(edit(table[name].to_pylist()), table.schema.field(name).type)
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, values), lake.full(path))


def first_problem(recipe: Recipe, lake: Lake, *, deep: bool = False) -> tuple[str, str, str]:
    forge(lake)
    first = problems(recipe, lake, deep=deep)[0]
    return first.check, first.file, first.key


METADATA = f"embeddings/{CLIP}/metadata/metadata_00000.parquet"
TEXT = IMG.replace("img_emb", "text_emb")


def test_wrong_text_rows_are_found_too(demo_recipe: Recipe, lake_copy: Lake) -> None:
    change(lake_copy, TEXT, shift)
    assert first_problem(demo_recipe, lake_copy)[:2] == ("rows", TEXT)


def test_a_row_without_a_picture_must_be_zero(demo_recipe: Recipe, lake_copy: Lake) -> None:
    """Sample 5 is removed from the tar, the parquet's successes and the embeddings; its reordered row stays."""
    rewrite_tar(lake_copy, lambda samples: samples.__delitem__(5))
    failed = ["success"] * 5 + ["failed_to_resize"] + ["success"] * 14
    set_column(lake_copy, "shards/00000.parquet", "status", lambda _: failed)
    kept = [0, 1, 2, 3, 4, *range(6, 20)]
    pq.write_table(pq.read_table(lake_copy.full(METADATA)).take(kept), lake_copy.full(METADATA))
    for kind in ("img_emb", "text_emb"):
        change(lake_copy, f"embeddings/{CLIP}/{kind}/{kind}_00000.npy", lambda rows: rows[kept])
    forge(lake_copy)
    problems_found = {(problem.check, problem.file, problem.key) for problem in problems(demo_recipe, lake_copy)}
    assert ("rows", IMG, "0000005") in problems_found


def test_embeddings_that_are_not_of_unit_length_are_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    embedded = f"embeddings/{CLIP}/img_emb/img_emb_00000.npy"
    for path in (embedded, IMG):
        change(lake_copy, path, lambda rows: rows * np.float16(1.5))
    assert first_problem(demo_recipe, lake_copy) == ("numbers", embedded, "0000000")


def test_a_key_that_was_embedded_twice_is_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    set_column(lake_copy, METADATA, "image_path", lambda keys: [keys[0], keys[0], *keys[2:]])
    assert first_problem(demo_recipe, lake_copy) == ("keys", METADATA, "0000000")


def test_a_parquet_out_of_key_order_is_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    path = "shards/00000.parquet"
    table = pq.read_table(lake_copy.full(path))
    pq.write_table(table.take([1, 0, *range(2, 20)]), lake_copy.full(path))
    assert first_problem(demo_recipe, lake_copy)[:2] == ("keys", path)


def test_a_sample_without_its_text_is_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    """dalle2-pytorch's loader would drop it silently."""
    path = Path(lake_copy.full("shards/00000.tar"))
    with tarfile.open(path) as tar:
        members = [(info, tar.extractfile(info)) for info in tar]
        kept = [(info, stream.read()) for info, stream in members if stream and info.name != "0000003.txt"]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for info, data in kept:
            tar.addfile(info, io.BytesIO(data))
    assert first_problem(demo_recipe, lake_copy) == ("keys", "shards/00000.tar", "0000003")


def test_an_empty_caption_is_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    for path in (METADATA, "shards/00000.parquet"):
        set_column(lake_copy, path, "caption", lambda captions: [" ", *captions[1:]])
    assert first_problem(demo_recipe, lake_copy) == ("captions", METADATA, "0000000")


def test_a_sample_in_a_shard_of_another_split_is_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    set_column(lake_copy, "shards/00000.parquet", "split", lambda splits: [*splits[:4], "val", *splits[5:]])
    assert first_problem(demo_recipe, lake_copy) == ("splits", "shards/00000.parquet", "0000004")


def test_a_stage_that_was_made_from_another_snapshot_is_found(demo_recipe: Recipe, demo_lake: Lake) -> None:
    by_stage = {stage: manifests.latest(demo_lake, stage) for stage in EARLIER_STAGES}
    sound = {stage: manifest for stage, manifest in by_stage.items() if manifest}
    sound["embed"] = sound["embed"].model_copy(update={"inputs": {"shard": "another"}})
    context = inspect(sound, demo_recipe, demo_lake, VerifyOptions(reembed=0))
    assert [problem.message for problem in context.problems] == [
        f"embed was not made from this shard; run {demo_lake.command('embed')} again"
    ]


@pytest.mark.parametrize(("kind", "content"), [("img_emb", "picture"), ("text_emb", "caption")])
def test_wrong_rows_are_found_though_no_other_row_is_nearer(
    demo_recipe: Recipe, lake_copy: Lake, kind: str, content: str
) -> None:
    """Every row of the shard is turned by the same angle: no neighbour is nearer, only the cosine shows it."""

    def turned(rows: np.ndarray) -> np.ndarray:
        wide = rows.astype(np.float32)
        wide[:, :64] *= 1.3
        return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float16)

    for path in (f"embeddings/{CLIP}/{kind}/{kind}_00000.npy", IMG.replace("img_emb", kind)):
        change(lake_copy, path, turned)
    forge(lake_copy)
    problems_found = problems(demo_recipe, lake_copy, deep=True)
    assert {problem.check for problem in problems_found} == {"pictures"}
    assert len(problems_found) == 20
    assert all(f"its {content}, embedded again, has cosine" in problem.message for problem in problems_found)


def test_a_swap_with_a_near_twin_is_found_by_the_nearest_row() -> None:
    """Two rows so alike that by cosine alone each would pass for the other."""
    first = np.zeros(128, np.float32)
    first[0] = 1
    twin = first.copy()
    twin[1] = 0.04
    twin /= np.linalg.norm(twin)
    assert first @ twin > 0.999
    assert not is_own(np.array([first @ twin, 1.0]), 0, 0.999), "the neighbour is nearer: swapped"
    assert is_own(np.array([1.0, first @ twin]), 0, 0.999)
    assert not is_own(np.array([0.99, 0.5]), 0, 0.999)


def test_counts_that_do_not_match_are_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    curated = manifests.latest(lake_copy, "curate")
    assert curated is not None
    edited = json.loads(lake_copy.read_bytes("manifests/curate/latest.json"))
    edited["counts"]["out"] -= 1
    edited["counts"]["dropped"]["too-small"] += 1
    lake_copy.write_bytes("manifests/curate/latest.json", json.dumps(edited).encode())
    forge(lake_copy)
    first = problems(demo_recipe, lake_copy)[0]
    assert first.check == "counts"
    assert "curate let out 105, shard took in 106" in first.message


def test_a_cut_npy_is_named(demo_recipe: Recipe, lake_copy: Lake) -> None:
    path = Path(lake_copy.full(IMG))
    path.write_bytes(path.read_bytes()[:-2])
    problems_found = problems(demo_recipe, lake_copy)
    assert (problems_found[0].check, problems_found[0].file) == ("files", IMG)
    forge(lake_copy)
    assert "img_emb_00000.npy is no whole .npy file" in problems(demo_recipe, lake_copy)[0].message


def test_forge_alone_changes_no_digest(lake_copy: Lake) -> None:
    """`forge` itself changes nothing that verify checks; otherwise the tests above would prove nothing."""
    before = {stage: manifests.latest(lake_copy, stage) for stage in EARLIER_STAGES}
    forge(lake_copy)
    after = {stage: manifests.latest(lake_copy, stage) for stage in EARLIER_STAGES}
    assert [manifest.digest for manifest in before.values() if manifest] == [
        manifest.digest for manifest in after.values() if manifest
    ]
    assert isinstance(before["scrape"], Manifest)
    assert io.BytesIO(lake_copy.read_bytes(IMG)).read(6) == b"\x93NUMPY"


def curated_path(lake: Lake) -> str:
    curated = manifests.latest(lake, "curate")
    assert curated is not None
    return next(entry.path for entry in curated.files if not entry.path.endswith(".dropped.parquet"))


def test_a_picture_that_was_not_kept_needs_a_tombstone(demo_recipe: Recipe, lake_copy: Lake) -> None:
    shard = pq.read_table(lake_copy.full("shards/00000.parquet"))
    kept = pq.read_table(lake_copy.full(curated_path(lake_copy)))
    title = shard["title"][2].as_py()
    pq.write_table(kept.filter(pc.not_equal(kept["title"], title)), lake_copy.full(curated_path(lake_copy)))
    forge(lake_copy)
    first = problems(demo_recipe, lake_copy)[0]
    assert (first.check, first.key) == ("samples", shard["key"][2].as_py())
    assert "has no tombstone" in first.message


def test_a_tombstone_of_a_picture_that_was_kept_is_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    sharded = manifests.latest(lake_copy, "shard")
    assert sharded is not None
    details = {**sharded.details, "tombstones": ["0000001"]}
    manifests.publish(lake_copy, sharded.model_copy(update={"details": details}))
    forge(lake_copy)
    first = problems(demo_recipe, lake_copy)[0]
    title = pq.read_table(lake_copy.full("shards/00000.parquet"))["title"][1].as_py()
    assert (first.check, first.message) == ("samples", f"{title} was kept by curate, but is alive in no shard")


def test_a_caption_changed_in_every_file_is_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    """Shard and embeddings agree on it; only curate's table, from which the sample was planned, differs."""
    parquet = pq.read_table(lake_copy.full("shards/00000.parquet"))
    key = parquet["key"][0].as_py()
    set_column(lake_copy, "shards/00000.parquet", "caption", lambda captions: ["another", *captions[1:]])
    keys = pq.read_table(lake_copy.full(METADATA))["image_path"].to_pylist()
    set_column(
        lake_copy,
        METADATA,
        "caption",
        lambda captions: [
            "another" if other == key else caption for other, caption in zip(keys, captions, strict=True)
        ],
    )
    assert first_problem(demo_recipe, lake_copy) == ("samples", "shards/00000.parquet", key)


def test_near_duplicates_in_two_splits_are_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    kept = pq.read_table(lake_copy.full(curated_path(lake_copy))).to_pylist()
    train = next(row for row in kept if row["split"] == "train")
    held_out = next(row_number for row_number, row in enumerate(kept) if row["split"] != "train")
    for name in ("phash", "thumb"):
        set_column(
            lake_copy,
            curated_path(lake_copy),
            name,
            lambda values, name=name: [
                train[name] if index == held_out else value for index, value in enumerate(values)
            ],
        )
    forge(lake_copy)
    first = problems(demo_recipe, lake_copy)[0]
    assert first.check == "splits"
    assert train["title"] in first.message and kept[held_out]["title"] in first.message


def test_a_sample_that_is_in_its_tar_only_is_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    path = Path(lake_copy.full("shards/00000.tar"))
    samples = list(read_tar(path))
    write_tar([*samples, ("0000099", samples[-1][1])], path)
    forge(lake_copy)
    problems_found = problems(demo_recipe, lake_copy)
    assert ("keys", "shards/00000.tar", "0000099") not in [
        (problem.check, problem.file, problem.key) for problem in problems_found
    ]
    assert ("keys", "shards/00000.parquet", "0000099") in [
        (problem.check, problem.file, problem.key) for problem in problems_found
    ]
    assert any("holds 21 samples, the shard manifest says 20" in problem.message for problem in problems_found)


def test_a_sample_that_is_twice_in_its_tar_is_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    path = Path(lake_copy.full("shards/00000.tar"))
    samples = list(read_tar(path))
    write_tar([*samples, samples[0]], path)
    forge(lake_copy)
    problems_found = problems(demo_recipe, lake_copy)
    assert {(problem.check, problem.key) for problem in problems_found} == {("keys", "0000000")}
    assert {problem.message for problem in problems_found} == {
        f"holds 0000000.{name} 2 times" for name in ("jpg", "txt", "json")
    }


def test_a_licence_changed_in_the_tar_is_found_by_a_deep_check(demo_recipe: Recipe, lake_copy: Lake) -> None:
    path = Path(lake_copy.full("shards/00000.tar"))
    samples = list(read_tar(path))
    key, parts = samples[3]
    samples[3] = (key, {**parts, "json": json.dumps({**json.loads(parts["json"]), "licence": "CC0"}).encode()})
    write_tar(samples, path)
    forge(lake_copy)
    run_stage("verify", demo_recipe, lake_copy, options=VerifyOptions(reembed=0))
    (problem,) = problems(demo_recipe, lake_copy, deep=True)
    assert (problem.check, problem.file, problem.key) == ("samples", "shards/00000.tar", key)
    assert "its .json says licence 'CC0'" in problem.message


def test_a_picture_that_lives_under_two_keys_is_found(demo_recipe: Recipe, lake_copy: Lake) -> None:
    """Row 1 of a shard repeats row 0 in every column that identifies a sample."""
    path = Path(lake_copy.full("shards/00000.parquet"))
    table = pq.read_table(path)
    for name in ("title", "sha1", "caption", "variants", "split", "sample"):
        values = table[name].to_pylist()
        table = table.set_column(
            table.schema.get_field_index(name), name, pa.array([values[0], values[0], *values[2:]], pa.string())
        )
    pq.write_table(table, path)
    forge(lake_copy)
    problems_found = problems(demo_recipe, lake_copy)
    same = [problem for problem in problems_found if problem.message == "is the same sample as key 0000000"]
    assert [(problem.check, problem.key) for problem in same] == [("samples", "0000001")]


def test_a_missing_reordered_file_is_named_once(demo_recipe: Recipe, lake_copy: Lake) -> None:
    lake_copy.remove(IMG)
    problems_found = problems(demo_recipe, lake_copy)
    assert [problem.message for problem in problems_found if problem.file == IMG] == ["is missing (reorder)"]


def test_pictures_that_a_clip_finds_alike_are_listed_and_are_no_problem(demo_recipe: Recipe, lake_copy: Lake) -> None:
    closer = demo_recipe.model_copy(update={"verify": demo_recipe.verify.model_copy(update={"close_cosine": 0.5})})
    run_stage("verify", closer, lake_copy, options=VerifyOptions(reembed=0))
    reordered = manifests.latest(lake_copy, "reorder")
    assert reordered is not None
    rows = list(csv.DictReader(io.StringIO(lake_copy.read_bytes(close_pairs_path(reordered.digest)).decode())))
    assert len(rows) > 10
    assert [row["cosine"] for row in rows] == sorted((row["cosine"] for row in rows), reverse=True)
    of_key = {
        row["key"]: row
        for path in lake_copy.list("shards")
        if path.endswith(".parquet")
        for row in read_rows(lake_copy, path)
    }
    for row in rows:
        for key, title, split in (("key", "title", "split"), ("other_key", "other_title", "other_split")):
            assert (row[title], row[split]) == (of_key[row[key]]["title"], of_key[row[key]]["split"])


def test_the_pictures_to_embed_again_come_from_any_shard(
    demo_recipe: Recipe, demo_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys_by_shard: dict[int, set[str]] = {}

    def record(job: PictureJob) -> list[Problem]:
        keys_by_shard.update({shard["number"]: set(keys or ()) for shard, keys in job.shards})
        return []

    monkeypatch.setattr("sp_data.dataset.verify.stage.check_pictures", record)
    sound = {stage: manifest for stage in EARLIER_STAGES if (manifest := manifests.latest(demo_lake, stage))}
    inspect(sound, demo_recipe, demo_lake, VerifyOptions(reembed=30))
    assert sum(map(len, keys_by_shard.values())) == 30
    assert len(keys_by_shard) >= 4


def test_a_stage_that_took_in_less_than_was_let_out_is_found(demo_recipe: Recipe, demo_lake: Lake) -> None:
    sound = {stage: manifest for stage in EARLIER_STAGES if (manifest := manifests.latest(demo_lake, stage))}
    few = Counts(in_=sound["reorder"].counts.in_ - 3, out=sound["reorder"].counts.out - 3)
    sound["reorder"] = sound["reorder"].model_copy(update={"counts": few})
    context = inspect(sound, demo_recipe, demo_lake, VerifyOptions(reembed=0))
    assert [problem.message for problem in context.problems] == ["embed let out 106, reorder took in 103"]


@pytest.mark.parametrize("field", ["tombstones", "shards"])
def test_an_edited_dataset_manifest_is_named(demo_recipe: Recipe, lake_copy: Lake, field: str) -> None:
    """Training and export read it; its digest is left unchanged."""
    for path in [path for path in lake_copy.list("manifests/verify") if path.endswith(".json")]:
        manifest = json.loads(lake_copy.read_bytes(path))
        first, second = manifest["details"]["shards"][:2]
        if field == "shards":
            first["img_emb"], second["img_emb"] = second["img_emb"], first["img_emb"]
        else:
            manifest["details"]["tombstones"] = ["0000001"]
        lake_copy.write_bytes(path, json.dumps(manifest).encode())
    problems_found = problems(demo_recipe, lake_copy)
    assert {problem.check for problem in problems_found} == {"files"}
    assert all(
        f"it was edited; delete it and run {lake_copy.command('verify')}" in problem.message
        for problem in problems_found
    )
    with pytest.raises(VerifyFailed):
        run_stage("verify", demo_recipe, lake_copy)
    assert len(problems_found) == 2
    for problem in problems_found:
        lake_copy.remove(problem.file)
    assert run_stage("verify", demo_recipe, lake_copy).manifest.is_as_made
