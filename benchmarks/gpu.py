"""What needs a GPU, in one go of at most 8 minutes on a card of 80 GB: does it run, how fast, in how much memory.

    python benchmarks/gpu.py [--toy] [--only PART,PART] [--minutes 8] [--json FILE]

    smoke      two training steps and a few sampling steps of prior and both unets at LAION's sizes (random weights)
    tests      the tests that are marked `cuda`
    speed      steps a second, peak memory and MFU: ours, dalle2-pytorch's trainer, the bare step, at equal batches
    memory     what sp_data/training/memory/estimate.py expects, beside the measured peak
    switches   the bare step with each switch alone
    loader     2,000 JPEGs of 256 px: the share of a step that is lost to reading them
    sampling   guidance by one pass of twice the batch beside dalle2-pytorch's two passes, DPM-Solver++ beside DDIM,
               bf16 with weights rounded once (as a generator draws) and at each step, beside float32; the seconds of a
               picture, drawn 1, 4 and 16 at a time
    clip       pictures a second that a CLIP of ViT-L/14's size embeds
    profile    how much of our step the GPU computes, in how many kernels, and which of them take longest
    compile    the bare step with torch.compile: two minutes, most of them compiling

Each row is printed as soon as it is measured. Each piece of work is a process of its own with a time box: one that
fails or overruns prints the first line of its error, and the next one begins on an empty GPU. The figures of all rows
go to FILE, by default $OUT/gpu.json where OUT is set. On an H200 all parts take about seven minutes.

Where sp-data is not installed, PYTHONPATH names its folder, and the machine needs, beside torch and torchvision, with
what they ask for themselves:

    pip install dalle2-pytorch accelerate diffusers importlib_metadata open_clip_torch transformers safetensors \
                pyarrow pydantic pyyaml fsspec pillow psutil pytest

Without diffusers, or importlib_metadata that it imports, there is no `sampling`. The first row names what is missing.

--toy does the same on the CPU with tiny networks, to show that it works: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import io
import itertools
import json
import math
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

Row = dict[str, Any]
"""Name of a figure -> its value."""
Results = dict[str, Row]
"""'part, name' -> its row."""
BF16_PEAK_TFLOPS = {"H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "H200": 989, "GH200": 989, "A100": 312}
"""Dense products, by the makers' data sheets; the first name that is found in the card's counts."""
GUIDANCE = 1.7
"""As dalle2-laion samples LAION's decoder."""
NEEDED = ("dalle2_pytorch", "accelerate", "diffusers", "importlib_metadata", "open_clip", "pyarrow", "pytest")
"""Modules without which a part fails, and is easily forgotten where packages are carried to a machine."""
TESTS = "tests/unit/training/test_cuda.py"
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Plan:
    """How large and how long."""

    device: str
    recipe: list[str] = field(default_factory=list)
    """What differs from the recipe `southpark`."""
    crop_px: int = 64
    num_rounds: int = 3
    num_steps: int = 5
    num_pictures: int = 2000
    picture_px: int = 256
    loader_steps: int = 30
    sampling_batches: tuple[int, ...] = (1, 4, 16)
    sampling_steps: int = 10
    picture_batches: tuple[int, ...] = (1, 4, 16)
    picture_steps: int = 16
    prior_steps: int = 25
    clip: tuple[int, int, int, int] = (1024, 24, 14, 224)
    """Width and layers of the picture tower, px of a patch and of a picture."""
    clip_batch: int = 256


CUDA = Plan("cuda")
TOY = Plan(
    "cpu",
    recipe=[
        "embed.dim=32",
        *("prior.depth=1", "prior.heads=2", "prior.dim_head=8", "prior.batch_size=4"),
        *("decoder.batch_size=2", "decoder.timesteps=40", "decoder.sample_timesteps=4"),
        'decoder.unets=[{"image_size_px":16,"dim":16,"dim_mults":[1,2],"cond_dim":16,"num_resnet_blocks":1,'
        '"self_attn":[false,true],"attn_heads":2,"attn_dim_head":8,"text_encodings":true},'
        '{"image_size_px":32,"dim":16,"dim_mults":[1,2],"cond_dim":16,"num_resnet_blocks":1,'
        '"self_attn":[false,false],"attn_heads":2,"attn_dim_head":8,"sparse_attn":false}]',
    ],
    crop_px=16,
    num_rounds=1,
    num_steps=1,
    num_pictures=40,
    picture_px=32,
    loader_steps=2,
    sampling_batches=(1,),
    sampling_steps=2,
    picture_batches=(2,),
    picture_steps=2,
    prior_steps=2,
    clip=(32, 2, 16, 32),
    clip_batch=2,
)


@dataclass(frozen=True, slots=True)
class Work:
    """One row or a few, measured in a process of their own."""

    part: str
    name: str
    measure: Callable[[Plan, Results], Iterator[tuple[str, Row]]]
    """Gives (name, row) of each."""
    box_s: int


def all_work() -> list[Work]:
    """The most wanted first: the whole may be out of time before the last."""
    networks: dict[str, int | None] = {"prior": None, "unet 1": 1, "unet 2": 2}
    ways = ("ours", "dalle2-pytorch, bf16", "bare")
    speed = [(network, way) for network in ("unet 1", "prior", "unet 2") for way in ways]
    return [
        Work("card", "", card, 30),
        *(Work("smoke", name, partial(smoke, name, number), 45) for name, number in networks.items()),
        Work("tests", "", cuda_tests, 60),
        *(
            Work("speed", f"{name}, {way}", partial(speed_of, name, networks[name], way), 45)
            for name, way in [*speed, ("unet 1", "dalle2-pytorch, fp32")]
        ),
        Work("memory", "", memory, 60),
        Work("switches", "unet 1", switches, 60),
        Work("loader", "unet 1", loader, 60),
        Work("sampling", "unet 1", sampling, 60),
        Work("sampling", "pictures", pictures, 60),
        Work("clip", "", clip, 40),
        *(Work("profile", name, partial(profile, name, number), 45) for name, number in networks.items()),
        # Last, since it takes as long as all of sampling, clip and profile.
        Work("compile", "unet 1", compiled, 180),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", "--quick", action="store_true", help="tiny networks on the CPU")
    parser.add_argument("--only", default="", help="names of parts, with commas")
    parser.add_argument("--minutes", type=float, default=8.0, help="no work begins or goes on after them")
    default = Path(os.environ["OUT"]) / "gpu.json" if "OUT" in os.environ else None
    parser.add_argument("--json", type=Path, default=default, metavar="FILE", help="where the figures go")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    begun = time.monotonic()
    work = all_work()
    only = set(filter(None, arguments.only.split(",")))
    if unknown := only - {piece.part for piece in work}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    plan = TOY if arguments.toy else CUDA
    # Once for all processes that are forked.
    from _sides import import_all

    import_all()
    method = "fork" if plan.device == "cpu" else start_method()
    say("imports", "", {"seconds": round(time.monotonic() - begun, 1), "processes": method, **missing()})
    results: Results = {}
    failed: list[str] = []
    for piece in work:
        if only and piece.part not in {*only, "card"}:
            continue
        box_s = min(piece.box_s, arguments.minutes * 60 - (time.monotonic() - begun))
        for name, row in rows_of(piece, plan, results, box_s, method):
            title = ", ".join(filter(None, (piece.part, name)))
            results[title] = row
            if "failed" in row:
                failed.append(title)
            say(piece.part, name, row)
            if arguments.json:
                # After every row: whatever ends this script, they are kept.
                figures = {"seconds": round(time.monotonic() - begun, 1), "failed": failed, "rows": results}
                arguments.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    say("all", "", {"seconds": round(time.monotonic() - begun, 1), "failed parts": len(failed)})
    return 1 if failed else 0


def missing() -> Row:
    names = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return {"missing": ", ".join(names)} if names else {}


def say(part: str, name: str, row: Row) -> None:
    figures = "  ".join(f"{figure} {value}" for figure, value in row.items())
    print(f"{part:9} {name:28} {figures}", flush=True)


def start_method() -> str:
    """'fork' saves the imports, but does not work if one of them has already spoken to the GPU."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_touch_gpu)
    process.start()
    process.join(60)
    if process.exitcode == 0:
        return "fork"
    process.kill()
    return "spawn"


def _touch_gpu() -> None:
    import torch

    try:
        torch.zeros(1, device="cuda")
    except RuntimeError:
        os._exit(1)
    os._exit(0)


def rows_of(piece: Work, plan: Plan, results: Results, box_s: float, method: str) -> Iterator[tuple[str, Row]]:
    """The rows of a piece of work; where it fails or has no time left, a last one says why."""
    if box_s < 1:
        yield piece.name, {"failed": "no time left"}
        return
    context: Any = multiprocessing.get_context(method)
    pipe, end = context.Pipe()
    begun = time.monotonic()
    process = context.Process(target=_measure, args=(piece.measure, plan, results, end))
    process.start()
    end.close()
    try:
        while True:
            if not pipe.poll(max(0.0, box_s - (time.monotonic() - begun))):
                yield piece.name, {"failed": f"took longer than {box_s:.0f} s"}
                return
            message = pipe.recv()
            if message is None:
                return
            name, row = message
            yield name or piece.name, row
    except EOFError:
        process.join(5)
        yield piece.name, {"failed": f"its process ended with {process.exitcode}"}
    finally:
        # Its own children (loader, compiler, pytest) are of its group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join(10)


def _measure(
    measure: Callable[[Plan, Results], Iterator[tuple[str, Row]]], plan: Plan, results: Results, pipe: Any
) -> None:
    with contextlib.suppress(PermissionError):
        # A spawned process may lead a group already.
        os.setpgid(0, 0)
    warnings.filterwarnings("ignore")
    from _sides import import_all

    import_all()
    try:
        for row in measure(plan, results):
            pipe.send(row)
        pipe.send(None)
    except BaseException as error:  # noqa: BLE001  # it is this row's result
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        pipe.send(("", {"failed": f"{type(error).__name__}: {lines[0][:200]}"}))
        pipe.send(None)
    pipe.close()
    os._exit(0)


def recipe_of(plan: Plan) -> Any:
    from sp_data.recipe import load_recipe

    recipe = load_recipe("southpark", plan.recipe)
    unets = list(recipe.decoder.unets)
    unets[1] = unets[1].model_copy(update={"random_crop_px": plan.crop_px})
    # What they begin with makes no difference to a step, and is not here.
    unets = [unet.model_copy(update={"start": None, "gradient_checkpointing": False}) for unet in unets]
    decoder = recipe.decoder.model_copy(
        update={"unets": tuple(unets), "start": None, "device": plan.device, "gradient_checkpointing": False}
    )
    prior = recipe.prior.model_copy(update={"start": None, "device": plan.device})
    return recipe.model_copy(update={"decoder": decoder, "prior": prior})


def case_of(plan: Plan, number: int | None) -> Any:
    from _sides import Case

    recipe = recipe_of(plan)
    return Case(recipe.decoder if number else recipe.prior, number, recipe.embed.dim, plan.device)


def card(plan: Plan, results: Results) -> Iterator[tuple[str, Row]]:
    """Its name, and what it does in large products, which stands for its peak where no data sheet is known."""
    import torch

    name = torch.cuda.get_device_name() if plan.device == "cuda" else "CPU"
    size = 8192 if plan.device == "cuda" else 256
    left, right = (torch.randn(size, size, device=plan.device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    seconds = timed(plan, lambda: left @ right, 10)
    measured = 2 * size**3 / seconds / 1e12
    peak = next((peak for known, peak in BF16_PEAK_TFLOPS.items() if known in name), None)
    row: Row = {"name": name, "torch": torch.__version__, "matmul_tflops": round(measured, 3), "peak_tflops": peak}
    if plan.device == "cuda":
        row["memory_gb"] = round(torch.cuda.mem_get_info()[1] / 1e9, 1)
    yield "", row


def peak_flops(results: Results) -> float:
    row = results["card"]
    return float(row["peak_tflops"] or row["matmul_tflops"]) * 1e12


def smoke(name: str, number: int | None, plan: Plan, _: Results) -> Iterator[tuple[str, Row]]:
    """Two steps change the weights, by finite losses; sampling gives finite numbers of the right shape."""
    import torch
    from _sides import make_loop

    from sp_data.training.decoder import draw, resized
    from sp_data.training.models import OLD_LAYOUT, num_parameters
    from sp_data.training.prior import guess
    from sp_data.training.task import tensor

    case = case_of(plan, number)
    # The networks that compute with LAION's weights.
    loop = make_loop(case, OLD_LAYOUT)
    task = loop.task
    batch = case.make_batch(task, case.training.batch_size)
    before = [weight.detach().clone() for weight in task.network.parameters()]
    # After the warm-up of the learning rate; twice, because the last layer begins at zero and passes no gradient on.
    loss = max(float(loop.step(case.training.lr_warmup_steps + step, batch)) for step in range(2))
    if not math.isfinite(loss):
        raise ValueError(f"the loss is {loss}")
    num_changed = sum(not torch.equal(old, new) for old, new in zip(before, task.network.parameters(), strict=True))
    if num_changed < len(before) / 2:
        raise ValueError(f"two steps changed {num_changed} of {len(before)} weights")
    few = {key: value[:2] for key, value in batch.items()}
    task.model.eval()
    with torch.inference_mode(), torch.autocast(plan.device, torch.bfloat16):
        if number is None:
            task.model.sample_timesteps = 4
            condition = {key: few[key] for key in ("text_embed", "text_encodings") if key in few}
            made = guess(task.model, condition, case.dim)
            shape: tuple[int, ...] = (2, case.dim)
        else:
            size = int(task.config["image_size"])
            small = resized(tensor(few, "image"), int(task.config["lowres_size"])) if number > 1 else None
            words = tensor(few, "text_encodings") if task.reads_words else None
            made = draw(task.model, tensor(few, "image_embed"), words, small=small, start_at=number, steps=4)
            shape = (2, 3, size, size)
    if made.shape != shape or not torch.isfinite(made).all():
        raise ValueError(f"sampling gave {tuple(made.shape)}, expected finite numbers of {shape}")
    millions = round(num_parameters(task.network) / 1e6, 1)
    yield name, {"loss": round(loss, 4), "millions": millions, **memory_row(plan)}


def cuda_tests(plan: Plan, _: Results) -> Iterator[tuple[str, Row]]:
    """Without conftest.py, whose fixtures need packages that a machine for training need not have."""
    command = [sys.executable, "-m", "pytest", TESTS, "--noconftest", "-q", "-p", "no:cacheprovider"]
    command += ["-o", "addopts=--import-mode=importlib", *(["--collect-only"] if plan.device == "cpu" else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-2000:], sep="\n")
        lines = [line for line in done.stdout.splitlines() if line.startswith(("E ", "FAILED", "ERROR"))]
        raise ValueError(lines[0] if lines else f"pytest ended with {done.returncode}")
    counts = re.findall(r"(\d+) (passed|failed|skipped|tests? collected)", done.stdout)
    yield "", {what: int(count) for count, what in counts}


def speed_of(name: str, number: int | None, way: str, plan: Plan, results: Results) -> Iterator[tuple[str, Row]]:
    from _sides import bare, ours, peer

    case = case_of(plan, number)
    step = {
        "ours": lambda: ours(case),
        "dalle2-pytorch, bf16": lambda: peer(case, "bf16"),
        "dalle2-pytorch, fp32": lambda: peer(case, "no"),
        "bare": lambda: bare(case, as_ours=True),
    }[way]()
    row = step_row(plan, step)
    if way == "ours":
        row["tflop"] = round(flops_of(step) / 1e12, 6)
    own = row if way == "ours" else results.get(f"speed, {name}, ours", {})
    if "tflop" in own:
        row["mfu"] = round(own["tflop"] * 1e12 * row["steps_per_s"] / peak_flops(results), 4)
    if way != "ours" and "steps_per_s" in own:
        row["ours_over_this"] = round(own["steps_per_s"] / row["steps_per_s"], 3)
    yield f"{name}, {way}", {"batch": case.training.batch_size, **row}


def memory(plan: Plan, results: Results) -> Iterator[tuple[str, Row]]:
    from sp_data.training.job import TrainingJob
    from sp_data.training.memory.micro_batch import memory_of

    job = {"lake": "", "dataset": "", "run": "", "resume": None, "forget_after": None, "ancestor": ""}
    recipe = recipe_of(plan)
    for name, number in (("prior", None), ("unet 1", 1), ("unet 2", 2)):
        training = TrainingJob(kind="decoder" if number else "prior", unet=number, recipe=recipe, **job)
        begun = time.process_time()
        expected = memory_of(training, None, "cuda").at(training.settings.batch_size).total / 1e9
        row: Row = {"expected_gb": round(expected, 3), "cpu_s": round(time.process_time() - begun, 1)}
        measured = results.get(f"speed, {name}, ours", {}).get("peak_gb")
        if measured:
            row |= {"measured_gb": measured, "expected_over_measured": round(expected / measured, 3)}
        yield name, row


def switches(plan: Plan, _: Results) -> Iterator[tuple[str, Row]]:
    from _sides import bare

    from sp_data.training.switches import channels_last, fused_attention, fused_norms

    case = case_of(plan, 1)
    plain = 0.0
    ways: dict[str, list[Any]] = {
        "bare": [],
        "attention": [fused_attention],
        "norms": [fused_norms],
        "channels_last": [channels_last],
        "all three": [fused_attention, fused_norms, channels_last],
    }
    for way, chosen in ways.items():
        row = step_row(plan, bare(case, chosen))
        plain = plain or row["steps_per_s"]
        yield f"unet 1, {way}", {**row, "over_bare": round(row["steps_per_s"] / plain, 3)}
    import torch

    torch.backends.cudnn.benchmark = True
    row = step_row(plan, bare(case, chosen))
    yield "unet 1, all three, cudnn measures", {**row, "over_bare": round(row["steps_per_s"] / plain, 3)}


def compiled(plan: Plan, results: Results) -> Iterator[tuple[str, Row]]:
    from _sides import bare

    from sp_data.training.switches import compile_blocks

    # A CPU would take a minute to compile anything.
    options: dict[str, Any] = {"backend": "eager"} if plan.device == "cpu" else {}
    step = bare(case_of(plan, 1), [partial(compile_blocks, **options)], as_ours=True)
    begun = time.monotonic()
    step()
    seconds = time.monotonic() - begun
    row = step_row(plan, step)
    before = results.get("speed, unet 1, bare", {}).get("steps_per_s")
    over = {"over_bare": round(row["steps_per_s"] / before, 3)} if before else {}
    yield "unet 1", {**row, **over, "compiling_s": round(seconds, 1)}


def profile(name: str, number: int | None, plan: Plan, _: Results) -> Iterator[tuple[str, Row]]:
    import torch
    from _sides import ours
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity

    step = ours(case_of(plan, number))
    row = step_row(plan, step)
    is_gpu = plan.device == "cuda"
    activities = [ProfilerActivity.CUDA] if is_gpu else [ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(plan.num_steps):
            step()
        synchronize(plan)
    kind = DeviceType.CUDA if is_gpu else DeviceType.CPU
    kernels = [event for event in profiler.key_averages() if event.device_type == kind]

    def ms(event: Any) -> float:
        us = event.self_device_time_total if is_gpu else event.self_cpu_time_total
        return float(us) / 1000 / plan.num_steps

    busy_ms = sum(map(ms, kernels))
    yield (
        name,
        {
            **row,
            "step_ms": round(1000 / row["steps_per_s"], 1),
            "busy_ms": round(busy_ms, 1),
            "kernels": sum(event.count for event in kernels) // plan.num_steps,
        },
    )
    for place, event in enumerate(sorted(kernels, key=ms, reverse=True)[:12], start=1):
        # Numbered: long names differ behind their beginning.
        title = f"{name}, {place:2} {event.key[:90]}"
        yield (
            title,
            {"ms": round(ms(event), 2), "share": round(ms(event) / busy_ms, 3), "times": event.count // plan.num_steps},
        )


def loader(plan: Plan, _: Results) -> Iterator[tuple[str, Row]]:
    """A step with the pictures read as in a training, beside one whose batch lies in memory."""
    import torch
    from _sides import make_dataset, make_loop
    from torch.utils.data import DataLoader

    from sp_data.dataset.loader.samples import Samples
    from sp_data.lake import Lake
    from sp_data.training.loop.sampler import Batches
    from sp_data.training.task import collate, to_device
    from sp_data.training.words import keep_words, with_words

    case = case_of(plan, 1)
    loop = make_loop(case)
    training, device = case.training, loop.device
    processes = min(training.loader_processes, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory(prefix="sp-data-benchmark-") as folder, contextlib.ExitStack() as stack:
        lake = Lake(folder, "pictures")
        verified = make_dataset(lake, plan.num_pictures, plan.picture_px, case.dim, plan.num_pictures // 10)
        samples = stack.enter_context(Samples(verified, lake, "train", loop.task.image_size_px))

        def encoder() -> Any:
            return lambda captions: torch.randn(len(captions), 77, case.dim)

        keep_words(samples, "train", lake, "made-up", verified.digest, encoder)
        words = with_words(samples, "train", lake, "made-up", verified.digest, case.dim, stack)
        num_steps = 3 + plan.loader_steps
        order = Batches(
            0,
            num_steps * training.batch_size,
            num_samples=len(samples),
            batch_size=training.batch_size,
            seed=0,
        )
        batches = iter(
            DataLoader(
                words,
                batch_sampler=order,
                collate_fn=collate,
                num_workers=processes,
                pin_memory=device.type == "cuda",
                generator=torch.Generator(),
            )
        )
        # The first ones start the processes.
        for number in range(3):
            kept = to_device(next(batches), device)
            loop.step(number, kept)
        synchronize(plan)
        begun, waited = time.perf_counter(), 0.0
        for number in range(3, num_steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            loop.step(number, to_device(batch, device))
        synchronize(plan)
        read_s = (time.perf_counter() - begun) / plan.loader_steps
    numbers = itertools.count(num_steps)
    memory_s = timed(plan, lambda: loop.step(next(numbers), kept), plan.loader_steps)
    yield (
        "unet 1",
        {
            "processes": processes,
            "step_ms": round(read_s * 1e3, 2),
            "from_memory_ms": round(memory_s * 1e3, 2),
            "share_lost": round(max(0.0, 1 - memory_s / read_s), 4),
            "waited_ms": round(waited / plan.loader_steps * 1e3, 2),
            "pictures_per_s": round(training.batch_size / read_s, 1),
        },
    )


def sampling(plan: Plan, _: Results) -> Iterator[tuple[str, Row]]:
    """The first unet alone: guidance in one pass of twice the batch beside two passes, the solvers, the precisions.

    Guidance and solvers with weights that autocast rounds at each step, on both sides.
    """
    import torch

    from sp_data.generation.guidance import GuidedUnet
    from sp_data.generation.precision import autocast, round_weights
    from sp_data.generation.samplers import Condition, sample_unet
    from sp_data.training.decoder import draw
    from sp_data.training.seeds import seed_all
    from sp_data.training.task import tensor

    case = case_of(plan, 1)
    task = case.make_task()
    task.model.to(plan.device).eval()
    with_live_ends(task.network)
    rounded = copy.deepcopy(task.network)
    round_weights(rounded)
    device, steps = torch.device(plan.device), plan.sampling_steps

    def two_passes(batch: dict[str, Any]) -> torch.Tensor:
        seed_all("pictures")
        words = tensor(batch, "text_encodings")
        return draw(task.model, tensor(batch, "image_embed"), words, steps=steps, cond_scale=GUIDANCE)

    def one_pass(
        batch: dict[str, Any], sampler: Any = "ddim", precision: Any = "fp32", unet: Any = task.network
    ) -> torch.Tensor:
        seed_all("pictures")
        guided = GuidedUnet(unet, GUIDANCE, autocast=autocast(precision, device))
        condition = Condition(tensor(batch, "image_embed"), tensor(batch, "text_encodings"))
        # Without noise between the steps, as dalle2-pytorch's own.
        drawn = sample_unet(task.model, 1, guided, condition, sampler=sampler, steps=steps, eta=0)
        return drawn.float().clamp(0, 1)

    def seconds(work: Callable[[], Any]) -> float:
        # The first run chooses kernels.
        work()
        return timed(plan, work, 1)

    for size in plan.sampling_batches:
        batch = case.make_batch(task, size)
        with torch.inference_mode():
            apart = float((two_passes(batch) - one_pass(batch)).abs().max())
            with torch.autocast(plan.device, torch.bfloat16):
                two_s = seconds(partial(two_passes, batch))
            ddim_s = seconds(partial(one_pass, batch, "ddim", "bf16"))
            dpm_s = seconds(partial(one_pass, batch, "dpm++", "bf16"))
            rounded_s = seconds(partial(one_pass, batch, "dpm++", "bf16", rounded))
            fp32_s = seconds(partial(one_pass, batch, "dpm++", "fp32"))
        yield (
            f"unet 1, batch {size}",
            {
                "steps": steps,
                "two_passes_ms": round(two_s * 1e3, 2),
                "one_pass_ms": round(ddim_s * 1e3, 2),
                "one_over_two": round(ddim_s / two_s, 3),
                "ddim_steps_per_s": round(steps / ddim_s, 2),
                "dpm_steps_per_s": round(steps / dpm_s, 2),
                "fp32_steps_per_s": round(steps / fp32_s, 2),
                "rounded_once_steps_per_s": round(steps / rounded_s, 2),
                "rounded_once_over_each_step": round(dpm_s / rounded_s, 3),
                "rounded_once_over_fp32": round(fp32_s / rounded_s, 3),
                "each_step_over_fp32": round(fp32_s / dpm_s, 3),
                "greatest_difference": f"{apart:.1e}",
            },
        )


def pictures(plan: Plan, _: Results) -> Iterator[tuple[str, Row]]:
    """Seconds of a finished picture as a generator draws it in bf16: prior in float32, both unets with rounded weights,
    guided as dalle2-laion guides, by DPM-Solver++."""
    import torch

    from sp_data.generation.guidance import GuidedUnet, is_conditioned
    from sp_data.generation.precision import autocast, round_weights
    from sp_data.generation.samplers import Condition, lowres_condition, sample_unet
    from sp_data.training.models import build_decoder, unet_config
    from sp_data.training.prior import guess
    from sp_data.training.switches import fused_attention, fused_norms
    from sp_data.training.task import tensor

    case, prior_case, device = case_of(plan, 1), case_of(plan, None), torch.device(plan.device)
    prior_task = prior_case.make_task()
    prior = prior_task.model
    with device:
        decoder = build_decoder([unet_config(case.settings, number, case.dim) for number in (1, 2)])
    for model in (prior, decoder):
        fused_attention(model)
        fused_norms(model)
        model.to(device).eval()
    for unet in decoder.unets:
        with_live_ends(unet)
        round_weights(unet)
    prior.sample_timesteps = plan.prior_steps

    def drawn(batch: dict[str, Any], seconds: list[float]) -> torch.Tensor:
        condition = {name: tensor(batch, name) for name in ("text_embed", "text_encodings")}
        begun = clock(plan)
        embeds = guess(prior, condition, case.dim)
        seconds.append(clock(plan) - begun)
        made: torch.Tensor | None = None
        for number, unet in enumerate(decoder.unets, start=1):
            begun = clock(plan)
            small, level = (None, None) if made is None else lowres_condition(decoder, number, made)
            scale = GUIDANCE if is_conditioned(unet) else 1.0
            words = condition["text_encodings"] if unet.cond_on_text_encodings else None
            made = sample_unet(
                decoder,
                number,
                GuidedUnet(unet, scale, autocast=autocast("bf16", device)),
                Condition(embeds, words, small, level),
                sampler="dpm++",
                steps=plan.picture_steps,
            )
            seconds.append(clock(plan) - begun)
        assert made is not None
        return made

    for size in plan.picture_batches:
        batch = prior_case.make_batch(prior_task, size)
        seconds: list[float] = []
        with torch.inference_mode():
            # The first run chooses kernels.
            drawn(batch, [])
            made = drawn(batch, seconds)
        if not torch.isfinite(made).all():
            raise ValueError("its pictures are not finite")
        parts = zip(("a_picture", "prior", "unet_1", "unet_2"), (sum(seconds), *seconds), strict=True)
        row = {f"{name}_s": round(each / size, 4) for name, each in parts}
        yield f"pictures, batch {size}", {"steps": plan.picture_steps, **row, **memory_row(plan)}


def with_live_ends(network: Any) -> None:
    """A fresh network's last layer is zero: it would draw the same whatever it is asked for."""
    import torch

    for weight in network.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.02)


def clock(plan: Plan) -> float:
    synchronize(plan)
    return time.perf_counter()


def clip(plan: Plan, _: Results) -> Iterator[tuple[str, Row]]:
    import torch

    with contextlib.redirect_stdout(io.StringIO()):
        import open_clip  # type: ignore[import-untyped]

    width, layers, patch_px, size_px = plan.clip
    picture_tower = {"image_size": size_px, "layers": layers, "width": width, "patch_size": patch_px}
    picture_tower["head_width"] = min(64, width)
    text_tower = {"context_length": 77, "vocab_size": 49408, "width": 768, "heads": 12, "layers": 1}
    with torch.device(plan.device):
        # Only its picture tower is used.
        model = open_clip.CLIP(768, picture_tower, text_tower, quick_gelu=True)
    model = model.to(plan.device).eval()
    pictures = torch.rand(plan.clip_batch, 3, size_px, size_px, device=plan.device)
    for precision in ("bf16", "fp32"):
        with torch.inference_mode(), torch.autocast(plan.device, torch.bfloat16, enabled=precision == "bf16"):
            embedding = model.encode_image(pictures)
            seconds = timed(plan, lambda: model.encode_image(pictures), 3)
        if not torch.isfinite(embedding).all():
            raise ValueError("its embeddings are not finite")
        yield precision, {"batch": plan.clip_batch, "pictures_per_s": round(plan.clip_batch / seconds, 1)}


def step_row(plan: Plan, step: Callable[[], Any]) -> Row:
    """The median of some rounds, after the first steps, in which kernels are chosen and the optimizer is made."""
    import torch

    if plan.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(3 if plan.device == "cuda" else 1):
        step()
    seconds = statistics.median(timed(plan, step, plan.num_steps) for _ in range(plan.num_rounds))
    return {"steps_per_s": round(1 / seconds, 3), **memory_row(plan)}


def memory_row(plan: Plan) -> Row:
    import torch

    return {"peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2)} if plan.device == "cuda" else {}


def timed(plan: Plan, work: Callable[[], Any], times: int) -> float:
    """Seconds of one, averaged over so many in a row."""
    synchronize(plan)
    begun = time.perf_counter()
    for _ in range(times):
        work()
    synchronize(plan)
    return (time.perf_counter() - begun) / times


def synchronize(plan: Plan) -> None:
    import torch

    if plan.device == "cuda":
        torch.cuda.synchronize()


def flops_of(step: Callable[[], Any]) -> int:
    """Of products and convolutions, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


if __name__ == "__main__":
    sys.exit(main())
