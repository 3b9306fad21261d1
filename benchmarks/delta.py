"""What a week's changes cost, compared with the first run: seconds, bytes, pictures embedded, requests to the wiki.

    python benchmarks/delta.py [--quick] [--json]

The benchmark serves the demo's wiki and runs scrape to verify on it. Then 15 pictures are added, 5 replaced, 5 deleted
and 5 renamed, and the stages run again; then once more with nothing changed. Each run is a process of its own. Its
clock starts after the stages' modules are imported; what a stage imports later (torch, for example) counts.

Bytes written are the sizes of all files in the lake that are new, or whose inode or modification time changed during
the stage: the whole file, even if a single byte changed. Files that the stage removes again (scratch) do not count, nor
does the lock file's line that names its holder.

The floor of a week's bytes is the new data: 20 originals, 25 samples with their rows. A renamed picture is a new
sample, because its name is part of it. The floor of a week's seconds is the import of torch and the loading of the
model, once to embed and once to verify.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sp_data.demo.wiki.history import after_changes
from sp_data.demo.wiki.server import DemoWikiServer
from sp_data.demo.wiki.world import build_world
from sp_data.pipeline import DATASET_STAGES

STAGES = DATASET_STAGES
NEW, REPLACED, DELETED, RENAMED = 15, 5, 5, 5
IDLE_ROUNDS = 3
SEED = 0
RUN = """
import json, os, sys, time
from pathlib import Path
import pyarrow.parquet as pq
from sp_data.dataset.curate import stage as _
from sp_data.dataset.embed import stage as embeddings
from sp_data.dataset.reorder import stage as _
from sp_data.dataset.shards import stage as _
from sp_data.dataset.verify import stage as _
from sp_data.wiki import scrape as _
from sp_data.lake import Lake
from sp_data.pipeline import run_stage
from sp_data.recipe import load_recipe

def tree(root):
    paths = [path for path in root.rglob("*") if path.is_file()]
    return {path: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for path in paths for stat in [path.stat()]}

embedded = []
write = embeddings.write_partition

def counted(clip, batches, output, number):
    write(clip, batches, output, number)
    embedded.extend(pq.read_metadata(path).num_rows for path in (output / "metadata").iterdir())

embeddings.write_partition = counted
if __name__ == "__main__":
    recipe = load_recipe("demo", [f"source.demo.num_kids={sys.argv[2]}"])
    lake, proxy = Lake(sys.argv[1], recipe.name), sys.argv[3]
    root, before = Path(lake.root), tree(Path(lake.root))
    for stage in sys.argv[4:]:
        started = time.perf_counter()
        # Only scrape needs the address of the served wiki; without it, it would serve the demo's wiki itself.
        result = run_stage(stage, recipe, lake, **({"proxy": proxy} if stage == "scrape" else {}))
        seconds = time.perf_counter() - started
        after = tree(root)
        written = {path: stat for path, stat in after.items() if before.get(path) != stat}
        figures = {"stage": stage, "state": result.state, "seconds": seconds, "files": len(written)}
        figures |= {"bytes": sum(size for _, _, size in written.values()), "embedded": sum(embedded)}
        print(json.dumps(figures), flush=True)
        embedded.clear()
        before = after
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 kids instead of 1,600, one idle run")
    parser.add_argument("--json", action="store_true", help="one object of figures")
    parser.add_argument("--kids", type=int, metavar="N")
    arguments = parser.parse_args()
    num_kids = arguments.kids or (200 if arguments.quick else 1600)
    world = build_world(num_kids, SEED)
    for file in world.files.values():
        _ = file.data  # drawn now, so that drawing is not measured
    changed = after_changes(world, SEED, new=NEW, replaced=REPLACED, deleted=DELETED, renamed=RENAMED)
    with tempfile.TemporaryDirectory(prefix="sp-data-delta-") as folder, DemoWikiServer(world) as wiki:
        lake = Path(folder) / "lake"
        full = run_stages(lake, num_kids, wiki)
        wiki.world = changed
        delta = run_stages(lake, num_kids, wiki)
        if (states := {stage["state"] for stage in delta.values()}) != {"done"}:
            sys.exit(f"after a week's changes all stages should be 'done', but they were {states}")
        idles = [run_stages(lake, num_kids, wiki) for _ in range(1 if arguments.quick else IDLE_ROUNDS)]
    if (states := {stage["state"] for idle in idles for stage in idle.values()}) != {"unchanged"}:
        sys.exit(f"with nothing to do all stages should be 'unchanged', but they were {states}")
    idle = {stage: {**idles[-1][stage], "seconds": middle(run[stage]["seconds"] for run in idles)} for stage in STAGES}
    figures = {
        "pictures": total(full, "embedded"),
        "bytes_delta_over_full": round(total(delta, "bytes") / total(full, "bytes"), 4),
        "seconds_delta_over_full": round(total(delta, "seconds") / total(full, "seconds"), 3),
        "pictures_embedded": total(delta, "embedded"),
        "requests": total(delta, "requests"),
        "seconds_idle": round(middle(total(run, "seconds") for run in idles), 3),
        "bytes_idle": max(total(run, "bytes") for run in idles),
        "files_idle": max(total(run, "files") for run in idles),
    }
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"{figures['pictures']:,} pictures; {NEW} added, {REPLACED} replaced, {DELETED} deleted, {RENAMED} renamed\n")
    print(f"{'':8}{'first run':>31}{'a week later':>31}{'nothing changed':>31}")
    print(f"{'':8}" + 3 * f"{'seconds':>10}{'kB':>11}{'files':>10}")
    for stage in STAGES:
        print(f"{stage:8}" + "".join(row(run[stage]) for run in (full, delta, idle)))
    sums = [{name: total(run, name) for name in ("seconds", "bytes", "files")} for run in (full, delta, idle)]
    print(f"{'all':8}" + "".join(map(row, sums)))
    for name in ("embedded", "requests"):
        print(f"{name:8}" + "".join(f"{total(run, name):>31,}" for run in (full, delta, idle)))
    print(
        f"\nbytes over the first run {figures['bytes_delta_over_full']:.1%}, "
        f"seconds over the first run {figures['seconds_delta_over_full']:.1%}"
    )


def run_stages(lake: Path, num_kids: int, wiki: DemoWikiServer) -> dict[str, dict[str, Any]]:
    """Stage -> its state and figures: seconds, bytes, files, pictures embedded, requests."""
    requests_before = wiki.requests.total()
    command = [sys.executable, "-c", RUN, str(lake), str(num_kids), wiki.url, *STAGES]
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    if process.returncode:
        sys.exit(process.stderr)
    lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    figures = {line["stage"]: {**line, "requests": 0} for line in lines}
    figures["scrape"]["requests"] = wiki.requests.total() - requests_before
    return figures


def total(run: dict[str, dict[str, Any]], name: str) -> Any:
    return sum(stage[name] for stage in run.values())


def middle(values: Iterable[float]) -> float:
    return statistics.median(values)


def row(figures: dict[str, Any]) -> str:
    return f"{figures['seconds']:>10.2f}{figures['bytes'] / 1000:>11,.1f}{figures['files']:>10,}"


main()
