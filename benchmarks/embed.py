"""Pictures a second of the embed stage, compared with clip-retrieval's own command and with the bare model.

    python benchmarks/embed.py [--quick] [--json]

Made-up pictures of 256 px with a caption each, in shards of 100 (--quick: 64); ViT-B/32 with random weights under
OpenAI's names. Pictures and captions are embedded. Every side uses as many OpenMP threads as cores, and batches of 64.

    command   `clip-retrieval inference` on the same tars, compared with a process that runs the embed stage on a lake
              whose shards are done: seconds from start to end, including imports and loading the model
    loop      the model's two towers in torch.inference_mode() on batches that are already decoded and tokenized,
              compared with the stage from its first batch until its last shard is published; both in one process with
              the model loaded, in float32 and in the precision that the stage chooses

In inference_mode, autocast converts the weights to bfloat16 for each batch again. In no_grad it can convert them once:
that loop is measured too, as `over_loop_cast_once`, and is slower.

`over_command` and `over_loop` are our rate over theirs, in delivered pictures, so that a side that loses some does not
look fast; `over_loop_fp32` is the same in float32. The loop is the limit: no stage can be faster than its model.

clip-retrieval runs with its defaults, including four processes that decode, with two exceptions: --enable_metadata
True, because the metadata has the key of a row, and --batch_size 64 as ours (its default of 256 would warm up with 512
pictures, twice as many as --quick embeds). There are at least four shards: with fewer shards than processes, webdataset
raises in those that get none, and the command never ends, because at exit it waits for its two loggers, which wait for
a last message. OMP_WAIT_POLICY is PASSIVE for both: otherwise OpenMP's threads spin, and take processor time from the
processes that they wait for. A run that does not end in time is stopped and counted as if it had delivered everything
by then: `command_ended` is false, and `over_command` is a lower bound.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

# For every side, this process too: read when torch is imported.
os.environ["OMP_NUM_THREADS"] = str(os.cpu_count() or 1)
os.environ["MKL_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import numpy as np
import torch
from PIL import Image

from sp_data import manifest as manifests
from sp_data.dataset.embed import stage as embeddings
from sp_data.dataset.embed.clip import load_clip, unwarned
from sp_data.dataset.shards.tars import write_tar
from sp_data.keys import KeyLayout
from sp_data.lake import Lake
from sp_data.manifest import Counts, Manifest
from sp_data.pipeline import STAGES, stage_run
from sp_data.recipe import Embed, Recipe, Source

SIZE_PX = 256
BATCH_SIZE = 64
DIM = 512
STAGE = """
import sys
from sp_data import manifest as manifests
from sp_data.dataset.embed.stage import embed
from sp_data.lake import Lake
from sp_data.pipeline import stage_run
from sp_data.recipe import Embed, Recipe, Source
if __name__ == "__main__":
    lake = Lake(sys.argv[1], "bench")
    settings = Embed(clip_model=sys.argv[2], name="ViT-B-32", dim=int(sys.argv[3]), batch_size=int(sys.argv[4]))
    recipe = Recipe(name="bench", source=Source(wiki="http://bench.localhost"), embed=settings)
    print(embed(stage_run("embed", recipe, lake, {"shard": manifests.latest(lake, "shard")})).manifest.counts.out)
"""
PEER = (
    "clip-retrieval inference --input_dataset {tars} --output_folder {output} --clip_model {model} "
    "--input_format webdataset --enable_metadata True --batch_size {batch_size}"
)
CAST_ONCE = "bf16, cast once"
LOOP = """with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=...):
    for batch in batches:
        model.encode_image(batch["image_tensor"]), model.encode_text(batch["text_tokens"])"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="256 pictures, one round")
    parser.add_argument("--json", action="store_true", help="one object of figures")
    arguments = parser.parse_args()
    num_shards, size, rounds, limit_s = (4, 64, 1, 180) if arguments.quick else (20, 100, 3, 1800)
    num_pictures = num_shards * size

    def say(text: str) -> None:
        if not arguments.json:
            print(text, flush=True)

    with tempfile.TemporaryDirectory(prefix="sp-data-embed-") as folder:
        root = Path(folder)
        say(
            f"{num_pictures:,} pictures, {torch.get_num_threads()} threads, batches of {BATCH_SIZE}, "
            f"{rounds} round(s) each\n"
        )
        model = root / "vit-b-32.pt"
        write_model(model)
        lake = write_shards(root, num_shards, size)
        figures: dict[str, Any] = {"pictures": num_pictures}
        figures |= against_command(root, lake, model, num_pictures, rounds, limit_s, say)
        figures |= against_loop(lake, model, num_pictures, rounds, say)
    if arguments.json:
        print(json.dumps(figures))


def against_command(
    root: Path, lake: Lake, model: Path, num_pictures: int, rounds: int, limit_s: float, say: Any
) -> dict[str, Any]:
    """Whole commands, alternately, so that a machine that slows down slows both."""
    (root / "stage.py").write_text(STAGE)
    output, last = root / "peer", len(lake.list("shards")) - 1
    theirs = PEER.format(
        tars=f"{lake.full('shards')}/{{00000..{last:05d}}}.tar",
        output=output,
        model=model,
        batch_size=BATCH_SIZE,
    ).split()
    theirs[0] = str(Path(sys.executable).parent / theirs[0])
    ours = [sys.executable, str(root / "stage.py"), str(root / "lake"), str(model), str(DIM), str(BATCH_SIZE)]
    rates: defaultdict[str, list[float]] = defaultdict(list)
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    delivered: dict[str, int] = {}
    ended = True
    for _ in range(rounds):
        for name, command in (("clip-retrieval", theirs), ("sp-data", ours)):
            run_s, has_ended = timed(command, limit_s)
            if name == "sp-data":
                if not has_ended:
                    sys.exit(f"the embed stage did not end within {limit_s} s")
                delivered[name] = rows_in(Path(lake.full("embeddings")))
            elif has_ended:
                delivered[name] = rows_in(output)
            else:
                ended, delivered[name] = False, num_pictures
            seconds[name].append(run_s)
            rates[name].append(delivered[name] / run_s)
        shutil.rmtree(output, ignore_errors=True)  # A command that was stopped early may have made none.
        clear(lake)
    say("clip-retrieval: " + PEER.format(tars="...", output="...", model="vit-b-32.pt", batch_size=BATCH_SIZE))
    say("sp-data:        embed(...) as in this file's STAGE")
    say(f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} OMP_WAIT_POLICY=PASSIVE for both\n")
    say(f"{'':16}{'seconds':>9}{'delivered':>11}{'a second':>10}")
    for name, of_rounds in rates.items():
        rate = statistics.median(of_rounds)
        say(f"{name:16}{statistics.median(seconds[name]):>9.1f}{delivered[name]:>11}{rate:>10.1f}")
    if not ended:
        say(f"clip-retrieval was stopped after {limit_s} s: it is counted as if it had delivered everything then")
    over = statistics.median(rates["sp-data"]) / statistics.median(rates["clip-retrieval"])
    say(f"over the command {over:.2f}{'' if ended else ' at least'}\n")
    return {
        "over_command": round(over, 3),
        "command_ended": ended,
        "delivered": delivered["sp-data"],
        "delivered_command": delivered["clip-retrieval"],
        "seconds": round(statistics.median(seconds["sp-data"]), 1),
        "seconds_command": round(statistics.median(seconds["clip-retrieval"]), 1),
    }


def against_loop(lake: Lake, model: Path, num_pictures: int, rounds: int, say: Any) -> dict[str, Any]:
    """The steady rates of the stage and of the bare model, in this process."""
    sharded = manifests.latest(lake, "shard")
    if sharded is None:
        raise RuntimeError("the shards that the benchmark wrote are missing")
    chosen = load_clip(str(model), DIM, "auto").precision
    precisions = ["fp32", "bf16"] if chosen == "bf16" else ["fp32"]
    batches = decoded(sharded, lake, model)
    rates: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(rounds):
        for precision in precisions:
            rates["bare loop", precision].append(loop(batches, model, num_pictures, precision))
            if precision == "bf16":
                rates["bare loop", CAST_ONCE].append(loop(batches, model, num_pictures, CAST_ONCE))
            rates["sp-data", precision].append(stage(sharded, lake, model, num_pictures, precision))
            clear(lake)
    say(LOOP + f"\n\n{'':16}{'precision':>16}{'a second':>10}")
    for (name, precision), of_rounds in rates.items():
        say(f"{name:16}{precision:>16}{statistics.median(of_rounds):>10.1f}")
    # One ratio a round: a machine that slows down slows both sides of a round.
    over = {
        precision: statistics.median(
            ours / bare for ours, bare in zip(rates["sp-data", precision[:4]], rates[name, precision], strict=True)
        )
        for name, precision in list(rates)
        if name == "bare loop"
    }
    say("over the loop " + ", ".join(f"{ratio:.2f} in {precision}" for precision, ratio in over.items()))
    say(f"the stage chooses {chosen}")
    return {
        "over_loop": round(over[chosen], 3),
        "over_loop_fp32": round(over["fp32"], 3),
        "over_loop_cast_once": round(over.get(CAST_ONCE, over[chosen]), 3),
        "precision": chosen,
        "pictures_per_second": round(statistics.median(rates["sp-data", chosen]), 1),
        "pictures_per_second_fp32": round(statistics.median(rates["sp-data", "fp32"]), 1),
    }


def decoded(sharded: Manifest, lake: Lake, model: Path) -> list[dict[str, Any]]:
    """The batches that the stage makes, in memory."""
    clip, settings = load_clip(str(model), DIM, "fp32"), settings_of(model, "fp32")
    work = [
        embeddings.Work(f"{shard['number']:05d}", shard["number"], "", shard["num_samples"])
        for shard in sharded.details["shards"]
    ]
    with unwarned(), embeddings.read_ahead(embeddings.read_batches(work, clip, settings, lake)) as read:
        return [batch for _, batch in read if batch is not None]


def loop(batches: list[dict[str, Any]], model: Path, num_pictures: int, precision: str) -> float:
    """Pictures a second of the model alone."""
    clip_model, delivered = load_clip(str(model), DIM, "fp32").model, 0
    started = time.perf_counter()
    mode = torch.no_grad() if precision == CAST_ONCE else torch.inference_mode()
    with mode, torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32"):
        for batch in batches:
            rows = clip_model.encode_image(batch["image_tensor"]), clip_model.encode_text(batch["text_tokens"])
            delivered += min(map(len, rows))
    seconds = time.perf_counter() - started
    if delivered != num_pictures:
        sys.exit(f"the loop gave {delivered} of {num_pictures} rows")
    return delivered / seconds


def stage(sharded: Manifest, lake: Lake, model: Path, num_pictures: int, precision: str) -> float:
    """Pictures a second of the embed stage, from the start of the first batch to the publication of the last shard."""
    seconds: list[float] = []
    read_ahead = embeddings.read_ahead

    @contextlib.contextmanager
    def timed_reading(batches: Any) -> Any:
        started = time.perf_counter()
        with read_ahead(batches) as read:
            yield read
        seconds.append(time.perf_counter() - started)

    embeddings.read_ahead = timed_reading
    try:
        settings = settings_of(model, precision)
        recipe = Recipe(name="bench", source=Source(wiki="http://bench.localhost"), embed=settings)
        delivered = embeddings.embed(stage_run("embed", recipe, lake, {"shard": sharded})).manifest.counts.out
    finally:
        embeddings.read_ahead = read_ahead
    if delivered != num_pictures:
        sys.exit(f"sp-data gave {delivered} of {num_pictures} rows")
    return delivered / seconds[0]


def settings_of(model: Path, precision: Any) -> Embed:
    return Embed(clip_model=str(model), name="ViT-B-32", dim=DIM, batch_size=BATCH_SIZE, precision=precision)


def write_model(path: Path) -> None:
    """Write OpenAI's ViT-B/32 with its initial weights, in float16 as OpenAI's files are."""
    with unwarned():
        from clip.model import CLIP

    torch.manual_seed(0)
    clip = CLIP(DIM, 224, 12, 768, 32, 77, 49408, 512, 8, 12)
    torch.save({name: weights.half() for name, weights in clip.state_dict().items()}, path)


def write_shards(root: Path, num_shards: int, size: int) -> Lake:
    """A lake in which only the shard stage is done."""
    lake = Lake(str(root / "lake"), "bench")
    layout = KeyLayout.of_shards(size)
    dice = np.random.default_rng(0)
    Path(lake.full("shards")).mkdir(parents=True)
    shards, files = [], []
    for number in range(num_shards):
        path = f"shards/{layout.shard_name(number)}.tar"
        samples = []
        for row in range(size):
            coarse = Image.fromarray(dice.integers(0, 255, (8, 8, 3), dtype=np.uint8))
            encoded = io.BytesIO()
            coarse.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC).save(encoded, "JPEG", quality=95)
            key = layout.key(number, row)
            samples.append((key, {"jpg": encoded.getvalue(), "txt": f"a kid of number {key}".encode(), "json": b"{}"}))
        write_tar(samples, Path(lake.full(path)))
        files.append(lake.entry(path))
        shards.append({"number": number, "split": "train", "num_samples": size})
    manifest = Manifest.make(
        stage="shard",
        version=STAGES["shard"].version,
        recipe={},
        inputs={},
        counts=Counts(in_=num_shards * size, out=num_shards * size),
        files=files,
        details={"layout": str(layout), "shards": shards},
        versions={},
        previous=None,
    )
    manifests.publish(lake, manifest)
    return lake


def clear(lake: Lake) -> None:
    """Remove what the stage wrote."""
    for folder in ("embeddings", "manifests/embed"):
        shutil.rmtree(lake.full(folder))


def rows_in(folder: Path) -> int:
    """Pictures that have both embeddings."""
    rows = [
        sum(len(np.load(path, mmap_mode="r")) for path in folder.rglob(f"{kind}_*.npy"))
        for kind in ("img_emb", "text_emb")
    ]
    return min(rows)


def timed(command: list[str], limit_s: float) -> tuple[float, bool]:
    """Seconds, and whether the command ended by itself; if not, it is stopped with its child processes."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
        try:
            failed = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return limit_s, False
        if failed:
            errors.seek(0)
            sys.exit(errors.read())
    return time.perf_counter() - started, True


main()
