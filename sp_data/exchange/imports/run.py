"""Import: make a verified dataset of someone's own img2dataset folder and clip-retrieval embeddings.

The tars are kept byte for byte. Everything else that a dataset has is made from them: a catalogue with img2dataset's
rows, splits by shard, embeddings sorted by shard, and a manifest of every stage (importer.py), so that `verify`,
`status`, `train` and `export` need not know where a dataset comes from. Embed, reorder and verify are the ordinary
stages; embed finds the imported embeddings done.

Every row is accounted for: a failed download has img2dataset's reason in the catalogue; curate drops a picture that has
no caption or is in two splits; a picture without an embedding is lost in embed; an embedding without a picture is a
stray.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sp_data import manifest as manifests
from sp_data import pipeline
from sp_data.arrays import map_array
from sp_data.dataset.curate.decoding import Refused, check_header
from sp_data.dataset.reorder.folder import reorder_folder
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.dataset.shards.tars import read_tar
from sp_data.errors import LayoutError, StageError, UsageError
from sp_data.exchange.imports.img2dataset_folder import EmbeddedCaptions, ForeignShard, find_shards, splits_of
from sp_data.exchange.imports.importer import Importer, Tally
from sp_data.kept_recipe import recall_recipe, remember_recipe
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.recipe import Recipe, build
from sp_data.runtime.progress import SILENT, Progress
from sp_data.stage import StageResult

FEW_SHARDS = 1000
"""Embeddings may name shards up to this number that are not there."""


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What to import, and how."""

    shards: Path
    embeddings: Path
    """Holds img_emb/, text_emb/ and metadata/."""
    name: str
    clip_model: str
    layout: KeyLayout | None = None
    """None: the layout that the shards' names and keys prove."""
    reembed: int | None = None
    """How many pictures verify embeds again; None: the recipe's default."""


def import_dataset(given: ImportRequest, lake: Lake, *, progress: Progress = SILENT) -> tuple[StageResult, Tally]:
    """Make the dataset and verify it. After an interruption it starts again; files in the lake are not copied again.

    Raises UsageError if the dataset exists already, LayoutError, StageNotDone, CorruptFile, DuplicateKey if something
    is wrong with the folders, VerifyFailed with every problem.
    """
    earlier_recipe = recall_recipe(lake)
    if manifests.latest(lake, "verify") or (earlier_recipe and earlier_recipe.source.imported is None):
        raise UsageError(f"{lake.url} holds a dataset {lake.dataset!r} already; choose another --name")
    with lake.writer(), lake.scratch("import") as scratch:
        (scratch / "given").mkdir()
        shards, layout = find_shards(given.shards, given.layout, scratch / "given")
        captions = EmbeddedCaptions(given.embeddings / "metadata", layout, scratch / "captions")
        _check_numbers(captions, shards, given, layout)
        dim = _reorder(given, layout, scratch / "reordered", progress)
        recipe = _recipe(given, dim, _picture_side(shards))
        split_of = splits_of(shards, recipe.curate)
        importer = Importer(recipe, lake, layout, scratch, captions)
        progress.begin("import", len(shards), "shards")
        # Held-out shards come first: a picture that is in train as well is dropped from train.
        for shard in sorted(shards, key=lambda shard: (split_of[shard.number] == "train", shard.number)):
            importer.take(shard, split_of[shard.number])
            progress.advance()
        tally = importer.tally
        tally.num_strays += _strays_elsewhere(captions, shards)
        if not tally.splits.total() or tally.num_lost == sum(entry["num_samples"] for entry in tally.shards):
            raise StageError(
                f"no picture of {given.shards} has both a caption and an embedding in {given.embeddings}: "
                "are they of one run?"
            )
        recipe = importer.publish()
    remember_recipe(recipe, lake)
    embedded = pipeline.run_stage("embed", recipe, lake, progress=progress)
    if {*embedded.manifest.files} != {entry for part in tally.parts for entry in part.files}:
        raise StageError(
            f"dataset {lake.dataset!r} holds embeddings of another import; remove {lake.root} or choose another --name"
        )
    pipeline.run_stage("reorder", recipe, lake, progress=progress)
    return pipeline.run_stage("verify", recipe, lake, progress=progress), tally


def _reorder(given: ImportRequest, layout: KeyLayout, folder: Path, progress: Progress) -> int:
    """Sort the embeddings by shard; gives their width. Raises StageError and what `reorder_folder` raises."""
    reorder_folder(given.embeddings, given.embeddings / "metadata", folder, layout, progress=progress)
    widths = {}
    for kind in EMBEDDING_KINDS:
        first = next((folder / kind).glob("*.npy"), None) if (folder / kind).is_dir() else None
        if first is None:
            raise StageError(f"{given.embeddings} holds no {kind}/: run clip-retrieval with pictures and text enabled")
        widths[kind] = int(map_array(first).shape[1])
    if len(set(widths.values())) > 1:
        raise StageError(f"{given.embeddings} holds embeddings of two widths {widths}: they are not of one CLIP")
    return widths[EMBEDDING_KINDS[0]]


def _picture_side(shards: list[ForeignShard]) -> int:
    """The longer side of the first picture, in pixels."""
    for shard in shards:
        for _, parts in read_tar(shard.tar):
            # The importer drops those that are none, with the reason.
            with contextlib.suppress(Refused):
                return max(check_header(parts.get("jpg", b"")))
    raise StageError(f"{shards[0].source.parent} holds no picture that can be read: every download failed")


def _check_numbers(
    captions: EmbeddedCaptions, shards: list[ForeignShard], given: ImportRequest, layout: KeyLayout
) -> None:
    """Raises LayoutError for embeddings of shards far beyond those that were given: each would get a file of zeros."""
    last, last_embedded = max(shard.number for shard in shards), max(captions.shards(), default=0)
    if last_embedded > max(FEW_SHARDS, 2 * last):
        raise LayoutError(
            f"{given.embeddings / 'metadata'} names shard {layout.shard_name(last_embedded)}, the last one in "
            f"{given.shards} is {layout.shard_name(last)}: they are not of one run, or the layout is not {layout}"
        )


def _recipe(given: ImportRequest, dim: int, side_px: int) -> Recipe:
    fields: dict[str, Any] = {
        "name": given.name,
        "source": {
            "imported": {"shards": str(given.shards.absolute()), "embeddings": str(given.embeddings.absolute())}
        },
        "shard": {"image_size_px": side_px},
        "embed": {
            "clip_model": given.clip_model,
            "name": re.sub(r"[^A-Za-z0-9.-]+", "-", given.clip_model).strip(".-")[-60:] or "clip",
            "dim": dim,
        },
    }
    if side_px < 64:  # the default size of the decoder
        fields["decoder"] = {"unets": [{"image_size_px": side_px}]}
    if given.reembed is not None:
        fields["verify"] = {"reembed": given.reembed}
    return build(fields, f"of dataset {given.name!r}")


def _strays_elsewhere(captions: EmbeddedCaptions, shards: list[ForeignShard]) -> int:
    numbers = {shard.number for shard in shards}
    return sum(len(captions.of_shard(number)) for number in captions.shards() - numbers)
