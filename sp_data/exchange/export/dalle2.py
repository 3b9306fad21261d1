"""An export that dalle2-pytorch's own loaders and training scripts read correctly.

    shards/00003.tar                       .jpg .txt .json; live samples only, under the keys of the dataset
    decoder/img_emb/img_emb_00003.npy      row i belongs to index i of shard 3; zero where no live sample is
    decoder/text_emb/text_emb_00003.npy
    prior/img_emb/img_emb_0-train_00003.npy     prior/text_emb/…     prior/metadata/metadata_0-train_00003.parquet
                                           live rows only, the same ones in all three, train before val before test
    train_decoder_config.json  train_prior_config.json

Its decoder's loader pairs by number and index, its prior's by position in the sorted list of files: two folders, and no
other file in either. Its decoder's script draws the split from the shards' numbers with torch's generator; shards are
numbered so that what it draws is the dataset's split, and the prior's rows lie so that its split is the same.
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

from sp_data.dataset.curate.tables import SPLITS
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
"""The order in which its decoder's script hands out the numbers that it drew."""
IN_TARS = ("npy", "img_emb", "text_emb")
"""Extensions of embeddings inside a tar. Its loader looks for the last two, but webdataset decodes the first only."""


@dataclass(frozen=True, slots=True)
class Dalle2Shards:
    """Writes one shard; where its files will lie is known only once all shards are counted."""

    in_tars: bool

    def write(self, shard: LiveShard, folder: Path, work: Path) -> None:
        if self.in_tars:
            write_tar(_with_embeddings(shard), work / "tar", (*EXTENSIONS, *IN_TARS))
        elif shard.is_whole:
            link_or_copy(shard.tar, work / "tar")
        else:
            # A sample without a row ends its loader, unless that was told to go on (its script tells it).
            write_tar(shard.samples(), work / "tar")
        for kind in EMBEDDING_KINDS:
            rows = np.asarray(shard.embeddings[kind])
            placed = np.zeros_like(rows)
            placed[shard.indices] = rows[shard.indices]
            if not self.in_tars:
                np.save(work / f"decoder-{kind}.npy", placed)
            np.save(work / f"prior-{kind}.npy", rows[shard.indices])
        said = [{"key": key, "caption": shard.said[key]["caption"], **shard.attribution(key)} for key in shard.keys]
        pq.write_table(pa.Table.from_pylist(said), work / "metadata.parquet")


class Dalle2:
    """dalle2-pytorch's form; `embeddings_in_tars` is its other one, without decoder/."""

    def __init__(self, verified: Manifest, recipe: Recipe, *, embeddings_in_tars: bool = False) -> None:
        """Raises LayoutError for keys without an index, which its loader cannot cut."""
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
        num_shards = {split: sum(one.split == split for one in written) for split in SPLITS}
        num_samples = {split: sum(one.num_samples for one in written if one.split == split) for split in SPLITS}
        number_of = numbers(written)
        width = max(IMG2DATASET_SHARD_WIDTH, len(str(len(written) - 1)))
        for one in written:
            self._place(one, f"{number_of[one.number]:0{width}d}", folder, work / one.name)
        if empty := [split for split in SPLITS if not num_shards[split]]:
            log.warning(
                "no %s in this export: dalle2-pytorch's scripts want all three splits; its loaders do not",
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
            self.verified.details["clip_model"],
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
            {"number": number_of[one.number], "shard": one.name, "split": one.split, "samples": one.num_samples}
            for one in sorted(written, key=lambda one: number_of[one.number])
        ]
        return {"layout": str(self.layout), "shards": shards}

    def _place(self, one: Written, number: str, folder: Path, work: Path) -> None:
        """Move a shard's files to where their numbers say, which are known only once all shards are counted."""
        placed = {"tar": folder / "shards" / f"{number}.tar"}
        ordered = f"{SPLITS.index(one.split)}-{one.split}_{number}"
        for kind in EMBEDDING_KINDS:
            if not self.in_tars:
                placed[f"decoder-{kind}.npy"] = folder / "decoder" / kind / f"{kind}_{number}.npy"
            placed[f"prior-{kind}.npy"] = folder / "prior" / kind / f"{kind}_{ordered}.npy"
        placed["metadata.parquet"] = folder / "prior" / "metadata" / f"metadata_{ordered}.parquet"
        for name, path in placed.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            (work / name).rename(path)


def numbers(written: list[Written]) -> dict[int, int]:
    """Shard of the dataset -> its number in the export, 0 to n-1: the one that dalle2-pytorch's script draws for the
    shard's split. Within a split the order stays."""
    import torch

    drawn = iter(torch.randperm(len(written), generator=torch.Generator().manual_seed(SEED)).tolist())
    found: dict[int, int] = {}
    for split in DRAWN:
        mine = sorted(one.number for one in written if one.split == split)
        found |= zip(mine, sorted(islice(drawn, len(mine))), strict=True)
    return found


def _with_embeddings(shard: LiveShard) -> Iterator[TarSample]:
    index_of = dict(zip(shard.keys, shard.indices.tolist(), strict=True))
    for key, parts in shard.samples():
        image, text = (_npy(shard.embeddings[kind][index_of[key]]) for kind in EMBEDDING_KINDS)
        yield key, {**parts, "npy": image, "img_emb": image, "text_emb": text}


def _npy(row: npt.NDArray[np.floating[Any]]) -> bytes:
    into = io.BytesIO()
    np.save(into, np.asarray(row))
    return into.getvalue()


def link_or_copy(source: Path, into: Path) -> None:
    """A hard link where one can be made: nobody writes to a published shard. Else a copy."""
    try:
        os.link(source, into)
    except OSError:
        shutil.copyfile(source, into)
