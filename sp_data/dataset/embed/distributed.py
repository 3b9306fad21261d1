"""Shards embedded by clip-retrieval's own command and its distributors: Slurm and Spark, on machines with GPUs.

    scratch/out/img_emb/img_emb_03.npy  text_emb/…  metadata/…     partition 3 is the fourth shard it was given
    scratch/out/stats/3.json                                       how many samples it has; written just before them

As many partitions as shards, so that a partition is a shard and a batch never crosses one. It computes in float32, and
reads and writes the lake's folder, which lies on a disk that its machines share.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sp_data.dataset.embed.clip import clip_retrieval_name
from sp_data.errors import RecipeError, StageError
from sp_data.lake import Lake
from sp_data.recipe import Embed
from sp_data.runtime.subprocesses import python_child, tail

SHARDS_A_RUN = 256
"""A run that is killed loses what its call of clip-retrieval had made."""
FILE_KINDS = ("img_emb", "text_emb", "metadata")


def embed_distributed(tars: list[str], settings: Embed, lake: Lake, scratch: Path) -> Iterator[dict[str, Path]]:
    """The files of each shard by kind, in the order of `tars` (paths in the lake); none where no sample could be read.

    Raises StageError if the lake is not a folder, if what the distributor needs is not installed, or if clip-retrieval
    ends without a partition; RecipeError for an option that it does not have.
    """
    if not lake.is_local:
        raise StageError(
            f"embed.distributor {settings.distributor!r} reads and writes files, and {lake.url} is no folder; set it "
            "to 'here', or use a lake on a disk that the machines share"
        )
    if settings.distributor == "pyspark" and find_spec("pyspark") is None:
        raise StageError("embed.distributor is 'pyspark', and the package is not installed; `pip install pyspark`")
    output = scratch / "out"
    arguments = _arguments([lake.full(tar) for tar in tars], settings, output)
    job, log = scratch / "clip-retrieval.json", scratch / "clip-retrieval.log"
    job.write_text(json.dumps(arguments))
    with python_child(
        "sp_data.dataset.embed.distributed_worker", str(job), log=log, environment={"WANDB_MODE": "disabled"}
    ) as child:
        child.wait()
    digits = int(math.log10(len(tars))) + 1
    for number, tar in enumerate(tars):
        files = {
            kind: output / kind / f"{kind}_{number:0{digits}d}.{'parquet' if kind == 'metadata' else 'npy'}"
            for kind in FILE_KINDS
        }
        there = {kind: file for kind, file in files.items() if file.exists()}
        stats = output / "stats" / f"{number}.json"
        if not stats.exists() or len(there) != (
            len(FILE_KINDS) if json.loads(stats.read_text())["sample_count"] else 0
        ):
            raise StageError(
                f"clip-retrieval ended (exit {child.returncode}) without the embeddings of {lake.full(tar)}; it said: "
                f"{tail(log)}"
            )
        yield there


def _arguments(tars: list[str], settings: Embed, output: Path) -> dict[str, Any]:
    from clip_retrieval.clip_inference.main import main as inference

    known = {name for name in inspect.signature(inference).parameters if name.startswith("slurm_")}
    if odd := sorted(settings.distributor_options.keys() - known):
        raise RecipeError(
            f"embed.distributor_options has no {odd[0]!r}; clip-retrieval knows {', '.join(sorted(known))}"
        )
    if bad := [tar for tar in tars if set(tar) & set("{},")]:
        raise StageError(f"{bad[0]}: clip-retrieval takes braces and commas for patterns; move the lake")
    return {
        # One text in braces is how its command takes many files.
        "input_dataset": "{" + ",".join(tars) + "}" if len(tars) > 1 else tars[0],
        "output_folder": str(output),
        "input_format": "webdataset",
        "batch_size": settings.batch_size,
        # A partition is one tar: of several processes that decode, all but one would find none, which webdataset takes
        # for an error.
        "num_prepro_workers": 1,
        "enable_metadata": True,
        "clip_model": clip_retrieval_name(settings.clip_model),
        "distribution_strategy": settings.distributor,
        "output_partition_count": len(tars),
        **settings.distributor_options,
    }
