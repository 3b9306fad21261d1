"""Shards embedded by clip-retrieval's own command and its distributors: Slurm and Spark, on machines with GPUs.

    scratch/out/img_emb/img_emb_03.npy  text_emb/…  metadata/…     partition 3 is the fourth shard
    scratch/out/stats/3.json                                       number of samples; written just before the files

There are as many partitions as shards, so that a partition is a shard and no batch crosses shards. It computes in
float32, and reads and writes the lake's folder, which must lie on a disk that its machines share.
"""

from __future__ import annotations

import inspect
import json
import math
import re
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
"""Shards of one call of clip-retrieval: a killed run loses what the call had made."""
FILE_KINDS = ("img_emb", "text_emb", "metadata")


def embed_distributed(tars: list[str], settings: Embed, lake: Lake, scratch: Path) -> Iterator[dict[str, Path]]:
    """The files of each shard by kind, in the order of `tars` (paths in the lake); none if no sample could be read.

    Raises StageError if the lake is not a folder, if the distributor's package is not installed, or if clip-retrieval
    ends without a partition; RecipeError for an option that clip-retrieval does not have.
    """
    if not lake.is_local:
        raise StageError(
            f"embed.distributor {settings.distributor!r} needs a lake in a folder, and {lake.url} is not one; set it "
            "to 'here', or use a lake on a disk that the machines share"
        )
    if settings.distributor == "pyspark" and find_spec("pyspark") is None:
        raise StageError(
            "embed.distributor is 'pyspark', and the package pyspark is not installed; `pip install pyspark`"
        )
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
        existing = {kind: file for kind, file in files.items() if file.exists()}
        stats = output / "stats" / f"{number}.json"
        if not stats.exists() or len(existing) != (
            len(FILE_KINDS) if json.loads(stats.read_text())["sample_count"] else 0
        ):
            raise StageError(
                f"clip-retrieval ended (exit {child.returncode}) without the embeddings of {lake.full(tar)}; "
                f"its output ends with: {tail(log)}"
            )
        yield existing


def _arguments(tars: list[str], settings: Embed, output: Path) -> dict[str, Any]:
    from clip_retrieval.clip_inference.main import main as inference

    known_options = {name for name in inspect.signature(inference).parameters if name.startswith("slurm_")}
    if unknown := sorted(settings.distributor_options.keys() - known_options):
        raise RecipeError(
            f"embed.distributor_options has no {unknown[0]!r}; clip-retrieval knows {', '.join(sorted(known_options))}"
        )
    for name, value in settings.distributor_options.items():
        # clip-retrieval writes them into a script as they are.
        if not re.fullmatch(r"[\w.,:/=@+%-]*", str(value)):
            raise RecipeError(
                f"embed.distributor_options.{name} is {value!r}: expected letters, digits and . , : / = @ + % -"
            )
    if unusable := [tar for tar in tars if set(tar) & set("{},")]:
        raise StageError(
            f"{unusable[0]}: clip-retrieval reads braces and commas in a path as a pattern; move the lake to a folder "
            "without them"
        )
    return {
        # Its command takes many files as one text in braces.
        "input_dataset": "{" + ",".join(tars) + "}" if len(tars) > 1 else tars[0],
        "output_folder": str(output),
        "input_format": "webdataset",
        "batch_size": settings.batch_size,
        # A partition is one tar: with several decoding processes all but one would get no tar, which webdataset treats
        # as an error.
        "num_prepro_workers": 1,
        "enable_metadata": True,
        "clip_model": clip_retrieval_name(settings.clip_model),
        "distribution_strategy": settings.distributor,
        "output_partition_count": len(tars),
        **settings.distributor_options,
    }
