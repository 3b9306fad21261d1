"""The export that dalle2-pytorch's own loaders and training scripts read correctly.

    shards/00003.tar                       .jpg .txt .json; live samples only, under the keys of the dataset
    decoder/img_emb/img_emb_00003.npy      row i belongs to index i of shard 3; zero if that is no live sample
    decoder/text_emb/text_emb_00003.npy
    prior/img_emb/img_emb_0-train_00003.npy     prior/text_emb/…     prior/metadata/metadata_0-train_00003.parquet
                                           live rows only, the same in all three; train before val before test
    train_decoder_config.json  train_prior_config.json

The decoder's loader pairs by number and index, the prior's by position in the sorted list of files: hence two folders,
and no other file in either. The decoder's script draws the splits from the shard numbers with torch's generator; shards
are numbered so that it draws the dataset's splits, and the prior's rows are in an order that gives the same splits.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sp_data.dataset.curate.splits import SPLITS
from sp_data.dataset.reorder.partitions import EMBEDDING_KINDS
from sp_data.dataset.shards.tars import EXTENSIONS, TarSample, write_tar
from sp_data.errors import LayoutError
from sp_data.exchange.export.base import Written
from sp_data.exchange.export.dalle2_config import SEED, decoder_training, prior_training, shares
from sp_data.exchange.export.live_shard import LiveShard
from sp_data.keys import IMG2DATASET_SHARD_WIDTH, KeyLayout
from sp_data.manifest import Manifest
from sp_data.recipe import Recipe

log = logging.getLogger(__name__)

DRAWN = ("train", "test", "val")
"""The order in which the decoder's script assigns the numbers it draws to splits."""
IN_TARS = ("npy", "img_emb", "text_emb")
"""Extensions of embeddings inside a tar. The loader reads the last two, but webdataset decodes only the first."""


@dataclass(frozen=True, slots=True)
class Dalle2Shards:
    """Writes one shard to its working folder: its number in the export is known only once all shards are counted."""

    in_tars: bool

    def write(self, shard: LiveShard, folder: Path, work: Path) -> None:
        if self.in_tars:
            write_tar(_with_embeddings(shard), work / "tar", (*EXTENSIONS, *IN_TARS))
        elif shard.is_whole:
            link_or_copy(shard.tar, work / "tar")
        else:
            # A sample without a row stops the loader unless it is told to go on (the script tells it).
            write_tar(shard.samples(), work / "tar")
        for kind in EMBEDDING_KINDS:
            embeddings = np.asarray(shard.embeddings[kind])
            live_only = np.zeros_like(embeddings)
            live_only[shard.indices] = embeddings[shard.indices]
            if not self.in_tars:
                np.save(work / f"decoder-{kind}.npy", live_only)
            np.save(work / f"prior-{kind}.npy", embeddings[shard.indices])
        rows = [{"key": key, "caption": shard.rows[key]["caption"], **shard.attribution(key)} for key in shard.keys]
        pq.write_table(pa.Table.from_pylist(rows), work / "metadata.parquet")


class Dalle2:
    """dalle2-pytorch's form; `embeddings_in_tars` gives its other variant, without decoder/."""

    def __init__(self, verified: Manifest, recipe: Recipe, *, embeddings_in_tars: bool = False) -> None:
        """Raises LayoutError for keys without an index, which the loader cannot read."""
        self.verified, self.recipe, self.in_tars = verified, recipe, embeddings_in_tars
        self.layout = KeyLayout.parse(verified.details["layout"])
        if not self.layout.index_width:
            raise LayoutError(
                f"keys of layout {self.layout} have no index, and dalle2-pytorch's loader reads one from each; export "
                "to imagefolder instead"
            )

    @property
    def writer(self) -> Dalle2Shards:
        return Dalle2Shards(self.in_tars)

    def finish(self, written: list[Written], folder: Path, work: Path, target: Path) -> dict[str, Any]:
        num_shards = {split: sum(shard.split == split for shard in written) for split in SPLITS}
        num_samples = {split: sum(shard.num_samples for shard in written if shard.split == split) for split in SPLITS}
        number_of = numbers(written)
        width = max(IMG2DATASET_SHARD_WIDTH, len(str(len(written) - 1)))
        for shard in written:
            self._place(shard, f"{number_of[shard.number]:0{width}d}", folder, work / shard.name)
        if empty := [split for split in SPLITS if not num_shards[split]]:
            log.warning(
                "this export has no %s: dalle2-pytorch's scripts need all three splits, its loaders do not",
                " and no ".join(empty),
            )
        dim = int(self.verified.details["dim"])
        decoder = decoder_training(
            self.recipe,
            dim,
            target.absolute(),
            num_samples=num_samples["train"],
            splits=shares(**{f"num_{split}": num for split, num in num_shards.items()}),
            shard_width=width,
            index_width=self.layout.index_width,
            num_shards=len(written),
            embeddings=None if self.in_tars else target.absolute() / "decoder" / "img_emb",
        )
        prior = prior_training(
            self.recipe,
            str(self.verified.details.get("clip_model", "")),
            dim,
            target.absolute(),
            num_samples=sum(num_samples.values()),
            num_train=num_samples["train"],
            splits=shares(**{f"num_{split}": num for split, num in num_samples.items()}),
        )
        for name, config in (("decoder", decoder), ("prior", prior)):
            text = json.dumps(config, indent=2, ensure_ascii=False)
            (folder / f"train_{name}_config.json").write_text(text + "\n", encoding="utf-8")
        shards = [
            {
                "number": number_of[shard.number],
                "shard": shard.name,
                "split": shard.split,
                "samples": shard.num_samples,
            }
            for shard in sorted(written, key=lambda shard: number_of[shard.number])
        ]
        return {"layout": str(self.layout), "shards": shards}

    def _place(self, shard: Written, number: str, folder: Path, work: Path) -> None:
        """Move a shard's files from `work` to their names in `folder`, which have its number."""
        targets = {"tar": folder / "shards" / f"{number}.tar"}
        ordered = f"{SPLITS.index(shard.split)}-{shard.split}_{number}"
        for kind in EMBEDDING_KINDS:
            if not self.in_tars:
                targets[f"decoder-{kind}.npy"] = folder / "decoder" / kind / f"{kind}_{number}.npy"
            targets[f"prior-{kind}.npy"] = folder / "prior" / kind / f"{kind}_{ordered}.npy"
        targets["metadata.parquet"] = folder / "prior" / "metadata" / f"metadata_{ordered}.parquet"
        for name, path in targets.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            (work / name).rename(path)


def numbers(written: list[Written]) -> dict[int, int]:
    """Shard of the dataset -> its number in the export, 0 to n-1: one that dalle2-pytorch's script draws for its split.

    Within a split, shards keep their order.
    """
    import torch

    drawn = iter(torch.randperm(len(written), generator=torch.Generator().manual_seed(SEED)).tolist())
    number_by_shard: dict[int, int] = {}
    for split in DRAWN:
        shards = sorted(shard.number for shard in written if shard.split == split)
        number_by_shard |= zip(shards, sorted(islice(drawn, len(shards))), strict=True)
    return number_by_shard


def _with_embeddings(shard: LiveShard) -> Iterator[TarSample]:
    index_of = dict(zip(shard.keys, shard.indices.tolist(), strict=True))
    for key, parts in shard.samples():
        image, text = (_npy(shard.embeddings[kind][index_of[key]]) for kind in EMBEDDING_KINDS)
        yield key, {**parts, "npy": image, "img_emb": image, "text_emb": text}


def _npy(row: npt.NDArray[np.floating[Any]]) -> bytes:
    target = io.BytesIO()
    np.save(target, np.asarray(row))
    return target.getvalue()


def link_or_copy(source: Path, target: Path) -> None:
    """Make a hard link if possible, since published shards are never written to; else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
