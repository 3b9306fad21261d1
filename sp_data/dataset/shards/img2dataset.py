"""One run of img2dataset: shards go in with their rows, and each comes out as soon as it is finished.

    scratch/in/00007.parquet       the rows of shard 00007: one input file per shard
    scratch/out-7/00007.tar …      img2dataset's own files, in the order in which its samples finished

It runs in a child process, on local copies: img2dataset installs a signal handler, starts workers that import the main
module, does not throttle its requests to a wiki, and exits 0 when it is interrupted.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sp_data.dataset.shards.plan import PlannedShard
from sp_data.errors import LakeFull, StageError
from sp_data.keys import KeyLayout
from sp_data.lake import NUM_AT_ONCE, Lake
from sp_data.parquet import read_table
from sp_data.recipe import Shard
from sp_data.runtime.subprocesses import python_child, tail

CARRIED = ("title", "sha1", "split", "page", "revision", "licence", "uploader", "variants", "path", "sample")
"""Columns that are passed through to the .json and the parquet, beside img2dataset's own."""
INPUT_SCHEMA = pa.schema(
    [("url", pa.string()), ("caption", pa.string())]
    + [(name, pa.int64() if name == "revision" else pa.string()) for name in CARRIED]
)
ADDRESS = "address"
"""Column of the input files that img2dataset ignores: the picture's address on the wiki (`url` is that of its copy on
this machine)."""
PACKAGE_OF = {"ray": "ray", "pyspark": "pyspark"}
"""Distributor -> the package that it needs."""
POLL_S = 0.1


class Img2datasetRun:
    """Shards of one layout and size, made in a folder of this machine."""

    def __init__(self, layout: KeyLayout, settings: Shard, lake: Lake, scratch: Path) -> None:
        """Raises StageError if the distributor that the recipe asks for is not installed."""
        package = PACKAGE_OF.get(settings.distributor)
        if package and find_spec(package) is None:
            # img2dataset itself would make no shard and exit 0.
            raise StageError(
                f"shard.distributor is {settings.distributor!r}, and the package {package} is not installed; "
                f"`pip install {package}`, or set shard.distributor to multiprocessing"
            )
        self._layout, self._settings, self._lake, self._scratch = layout, settings, lake, scratch
        self._shards: list[PlannedShard] = []
        (scratch / "in").mkdir()

    def add(self, shard: PlannedShard, rows: pa.Table) -> None:
        """Add a shard; `rows` has the columns of INPUT_SCHEMA, `path` being paths in the lake."""
        with ThreadPoolExecutor(1 if self._lake.is_local else NUM_AT_ONCE) as pool:
            urls = list(pool.map(self._local_url, rows["path"].to_pylist()))
        table = rows.select([name for name in INPUT_SCHEMA.names if name != "url"])
        table = table.add_column(0, "url", pa.array(urls, pa.string())).cast(INPUT_SCHEMA)
        # One input file per shard: a shard of img2dataset never reaches into the next file.
        pq.write_table(table.append_column(ADDRESS, rows["url"].cast(pa.string())), self._input(shard))
        self._shards.append(shard)

    def addresses(self, shard: PlannedShard) -> list[str]:
        """The wiki's address of each picture of a shard, by index."""
        path = self._input(shard)
        addresses: list[str] = read_table(path, str(path), [ADDRESS])[ADDRESS].to_pylist()
        return addresses

    def finished(self) -> Generator[tuple[PlannedShard, Path], None, None]:
        """Run, and yield each shard with the folder it lies in, as soon as img2dataset has finished it.

        Raises StageError if img2dataset ends without a shard, LakeFull.
        """
        unfinished: dict[int, tuple[PlannedShard, Path]] = {}
        jobs = []
        for run in consecutive_runs(self._shards):
            first = run[0].number
            inputs, outputs = self._scratch / f"in-{first}", self._scratch / f"out-{first}"
            inputs.mkdir()
            outputs.mkdir()
            for shard in run:
                (inputs / self._input(shard).name).hardlink_to(self._input(shard))
                unfinished[shard.number] = (shard, outputs)
            if first:
                # `extend` continues after the highest number that it finds: this file says where to start.
                (outputs / f"{self._layout.shard_name(first - 1)}_stats.json").write_text("{}")
            jobs.append(self._job(inputs, outputs, len(run)))
        yield from self._run(jobs, unfinished)

    def _run(
        self, jobs: list[dict[str, Any]], unfinished: dict[int, tuple[PlannedShard, Path]]
    ) -> Iterator[tuple[PlannedShard, Path]]:
        job_file, child_log = self._scratch / "job.json", self._scratch / "img2dataset.log"
        job_file.write_text(json.dumps(jobs))
        # wandb, which img2dataset imports, leaves temporary folders behind: in the scratch folder they are removed.
        (self._scratch / "tmp").mkdir()
        environment = {
            "NO_ALBUMENTATIONS_UPDATE": "1",
            "WANDB_MODE": "disabled",
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(self._scratch / "tmp"),
            # Ray puts its sockets below its own: a socket's path has 107 bytes at most.
            "RAY_TMPDIR": os.environ.get("RAY_TMPDIR", tempfile.gettempdir()),
        }
        with python_child(
            "sp_data.dataset.shards.img2dataset_worker", str(job_file), log=child_log, environment=environment
        ) as process:
            while unfinished:
                ended = process.poll() is not None
                finished = [
                    number
                    for number, (_, folder) in sorted(unfinished.items())
                    if (folder / f"{self._layout.shard_name(number)}_stats.json").exists()
                ]
                for number in finished:
                    yield unfinished.pop(number)
                if unfinished and ended and not finished:
                    _raise_failure(process, child_log, self._layout.shard_name(min(unfinished)))
                if not finished:
                    time.sleep(POLL_S)

    def _input(self, shard: PlannedShard) -> Path:
        return self._scratch / "in" / f"{self._layout.shard_name(shard.number)}.parquet"

    def _local_url(self, path: str) -> str:
        """A file:// address that img2dataset can open: of the lake's own file, or of a copy where it is remote."""
        if self._lake.is_local:
            return Path(self._lake.full(path)).as_uri()
        copy = self._scratch / "pictures" / path
        if not copy.exists():  # another sample may have the same bytes
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = copy.with_name(f".{uuid.uuid4().hex}")
            partial.write_bytes(self._lake.read_bytes(path))
            partial.replace(copy)
        return copy.as_uri()

    def _job(self, inputs: Path, outputs: Path, num_shards: int) -> dict[str, Any]:
        settings = self._settings
        return {
            "url_list": str(inputs),
            "output_folder": str(outputs),
            "input_format": "parquet",
            "output_format": "webdataset",
            "url_col": "url",
            "caption_col": "caption",
            "save_additional_columns": list(CARRIED),
            "number_sample_per_shard": 10**self._layout.index_width,
            "oom_shard_count": self._layout.shard_width,
            "image_size": settings.image_size_px,
            "resize_mode": settings.resize_mode,
            "encode_format": "jpg",
            "encode_quality": settings.jpeg_quality,
            "processes_count": min(settings.processes or os.cpu_count() or 1, num_shards),
            "thread_count": 4,
            "extract_exif": False,
            "compute_hash": "sha256",
            "incremental_mode": "extend",
            "enable_wandb": False,
            "distributor": settings.distributor,
        }


def consecutive_runs(shards: list[PlannedShard]) -> list[list[PlannedShard]]:
    """Group shards with consecutive numbers: img2dataset numbers its shards consecutively."""
    runs: list[list[PlannedShard]] = []
    for shard in sorted(shards, key=lambda shard: shard.number):
        if runs and runs[-1][-1].number + 1 == shard.number:
            runs[-1].append(shard)
        else:
            runs.append([shard])
    return runs


def _raise_failure(process: subprocess.Popen[bytes], child_log: Path, name: str) -> None:
    output = tail(child_log)
    if "No space left" in child_log.read_text("utf-8", "replace"):
        raise LakeFull(
            f"no space left while img2dataset wrote shard {name}; free some space, then run the same command again"
        )
    raise StageError(
        f"img2dataset ended (exit {process.returncode}) without shard {name}; its output ends with: {output}"
    )
