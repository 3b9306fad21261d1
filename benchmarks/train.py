"""Training steps a second, compared with dalle2-pytorch's trainers and with a bare loop of torch, on a CPU.

    python benchmarks/train.py [--quick] [--full] [--json]

1. A unet of 13 million parameters (64 px, batches of 8) and a prior of 23 million (77 words, batches of 16): our
   loop, dalle2-pytorch's trainer fed from memory, the bare step with our switches, and each switch alone. One thread
   each, in processes that take turns; CPU seconds of a step, the median of three or more.
2. The demo's step (its first unet, batches of 16) in wall seconds: two processes of a thread each, which is how a
   training divides itself on two cores; one process with two threads; and such a process under OMP_WAIT_POLICY=PASSIVE.
   On this machine as it is, and beside a process that is always busy.
3. The CPU seconds that a training spends before its first step, all its processes together: `python -m
   sp_data.training.worker` on a made-up dataset, until it reports a step, less a step.

--quick: smaller networks and fewer steps, a minute; without it some ten. --full: torch.compile too, minutes more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # Read by OpenMP when it is loaded: threads wait for each other as they do by default.
    os.environ.pop("OMP_WAIT_POLICY", None)
os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from _sides import Case, Seconds, Side, Step

UNET = {
    "image_size_px": 64,
    "dim": 48,
    "dim_mults": [1, 2, 4],
    "num_resnet_blocks": 1,
    "self_attn": [False, True, True],
    # dalle2-pytorch's default: the first attention sees 32 x 32 places, not 16 x 16.
    "memory_efficient": False,
}
SMALL_UNET = {**UNET, "dim": 16, "cond_dim": 64, "attn_heads": 4, "attn_dim_head": 32}
DIM = {"decoder": 768, "prior": 512}
"""Of the embeddings."""
IMPORTS = 3
STEPS_TO_REPORT = 6
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller networks and fewer steps")
    parser.add_argument("--full", action="store_true", help="torch.compile too")
    parser.add_argument("--json", action="store_true", help="one object of figures")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")

    def say(text: str) -> None:
        if not arguments.json:
            print(text, flush=True)

    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        # Its processes import everything anew, which takes as long as here: begun first.
        passive = _demo_sides(arguments.quick, only="passive", stack=stack)
        import torch
        from _sides import import_all

        # Forked processes must not inherit a pool of threads.
        torch.set_num_threads(1)
        import_all()
        figures: dict[str, float] = {}
        for name, case in _cases(arguments.quick).items():
            figures |= measure_network(name, case, arguments, say)
        figures |= measure_demo(passive, arguments.quick, say, stack)
        figures |= measure_imports(say, at_a_time=IMPORTS if arguments.quick else 1)
    if arguments.json:
        print(json.dumps(figures))


def _cases(quick: bool) -> dict[str, Case]:
    from _sides import Case

    from sp_data.recipe import Decoder, Prior

    unet = SMALL_UNET if quick else UNET
    prior = {"depth": 2 if quick else 6, "heads": 8, "batch_size": 4 if quick else 16, "dropout": 0.0}
    return {
        "decoder": Case(Decoder.model_validate({"unets": [unet], "batch_size": 2 if quick else 8}), 1, DIM["decoder"]),
        "prior": Case(
            Prior.model_validate({**prior, "max_grad_norm": None, "learning_rate": 3e-4}), None, DIM["prior"]
        ),
    }


def measure_network(
    name: str, case: Case, arguments: argparse.Namespace, say: Callable[[str], None]
) -> dict[str, float]:
    from _sides import PEER, Side, bare, ours, peer

    from sp_data.training.models import num_parameters
    from sp_data.training.switches import channels_last, compile_blocks, fused_attention, fused_norms

    ways: dict[str, Callable[[], Step]] = {
        "sp-data": lambda: ours(case),
        "dalle2-pytorch, bf16": lambda: peer(case, "bf16"),
        "dalle2-pytorch, fp32": lambda: peer(case, "no"),
        "bare, our switches": lambda: bare(case, as_ours=True),
        "bare": lambda: bare(case),
        "bare, fused_attention": lambda: bare(case, [fused_attention]),
        "bare, fused_norms": lambda: bare(case, [fused_norms]),
        "bare, channels_last": lambda: bare(case, [channels_last]),
    }
    if arguments.full:
        ways["bare, compile"] = lambda: bare(case, [compile_blocks])
    task = case.make_task()
    size = num_parameters(task.network) / 1e6
    say(
        f"{name}: {size:.1f} million parameters, batches of {case.training.batch_size}, one thread; the others by turns"
    )
    sides = {way: Side(partial(_of_any_rank, make)) for way, make in ways.items()}
    seconds = by_turns(sides, num_rounds=3 if arguments.quick else 5, num_steps=1)
    cpu = {way: statistics.median(each.cpu for each in all_of) for way, all_of in seconds.items()}
    say(f"  {'':24}{'CPU s a step':>13}{'steps of ours':>15}{'over bare':>11}")
    for way, value in cpu.items():
        say(f"  {way:24}{value:>13.3f}{cpu['sp-data'] / value:>15.2f}{cpu['bare'] / value:>11.2f}")
    for precision in ("bf16", "no"):
        say("  theirs: " + PEER[name].format(precision=precision, number=1))
    say("")
    over = {
        f"{name}_over_peer": cpu["dalle2-pytorch, bf16"] / cpu["sp-data"],
        f"{name}_over_peer_default": cpu["dalle2-pytorch, fp32"] / cpu["sp-data"],
        f"{name}_over_floor": cpu["bare, our switches"] / cpu["sp-data"],
        f"{name}_attention_alone": cpu["bare"] / cpu["bare, fused_attention"],
        f"{name}_norms_alone": cpu["bare"] / cpu["bare, fused_norms"],
        f"{name}_channels_last_alone": cpu["bare"] / cpu["bare, channels_last"],
    }
    if arguments.full:
        over[f"{name}_compile_alone"] = cpu["bare"] / cpu["bare, compile"]
    rounded = {figure: round(value, 3) for figure, value in over.items()}
    return {**rounded, f"{name}_step_cpu_s": round(cpu["sp-data"], 4), f"{name}_parameters_millions": round(size, 2)}


def _of_any_rank(make: Callable[[], Step], _: int) -> Step:
    return make()


def by_turns(sides: dict[str, Side], num_rounds: int, num_steps: int) -> dict[str, list[Seconds]]:
    """A machine that slows down slows all of them."""
    seconds: dict[str, list[Seconds]] = {way: [] for way in sides}
    for _ in range(num_rounds):
        for way, side in sides.items():
            seconds[way].append(side.run(num_steps))
    for side in sides.values():
        side.close()
    return seconds


def measure_demo(
    passive: dict[str, Side], quick: bool, say: Callable[[str], None], stack: contextlib.ExitStack
) -> dict[str, float]:
    sides = {**_demo_sides(quick, only="fork", stack=stack), **passive}
    num_rounds, round_s = (3, 0.7) if quick else (7, 2.0)
    seconds: dict[str, dict[str, float]] = {}
    for place in ("quiet", "busy"):
        with busy_process() if place == "busy" else contextlib.nullcontext():
            rounds: dict[str, list[float]] = {way: [] for way in sides}
            for _ in range(num_rounds):
                for way, side in sides.items():
                    # As many steps as a round has time for, by the last one.
                    last = rounds[way][-1] if rounds[way] else side.run(1).wall
                    rounds[way].append(side.run(max(1, int(round_s / last))).wall)
            seconds[place] = {way: statistics.median(each) for way, each in rounds.items()}
    for side in sides.values():
        side.close()
    say("the demo's step: its first unet, batches of 16, wall milliseconds")
    say(f"  {'':24}{'as it is':>10}{'beside a busy process':>24}")
    for way in sides:
        say(f"  {way:24}{seconds['quiet'][way] * 1e3:>10.0f}{seconds['busy'][way] * 1e3:>24.0f}")
    say("")
    figures = {
        "demo_step_over_two_threads": seconds["quiet"]["two threads"] / seconds["quiet"]["sp-data"],
        "demo_step_over_two_threads_busy": seconds["busy"]["two threads"] / seconds["busy"]["sp-data"],
        "demo_step_over_passive": seconds["quiet"]["two passive threads"] / seconds["quiet"]["sp-data"],
        "demo_step_over_passive_busy": seconds["busy"]["two passive threads"] / seconds["busy"]["sp-data"],
    }
    steps = {f"demo_step_ms{'' if place == 'quiet' else '_busy'}": seconds[place]["sp-data"] * 1e3 for place in seconds}
    return {name: round(value, 3) for name, value in {**figures, **steps}.items()}


def _demo_sides(quick: bool, only: str, stack: contextlib.ExitStack) -> dict[str, Side]:
    from _sides import Side

    if only == "passive":
        environment = {"OMP_WAIT_POLICY": "PASSIVE"}
        return {"two passive threads": Side(_two_threads, method="spawn", environment=environment)}
    meeting_point = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sp-data-benchmark-"))) / "store"
    ours = partial(_two_processes, str(meeting_point))
    return {"sp-data": Side(ours, processes=2), "two threads": Side(_two_threads)}


def _demo_case(processes: int) -> Case:
    from _sides import Case

    from sp_data.recipe.named import demo

    return Case(demo().decoder, 1, demo().embed.dim, processes=processes)


def _two_threads(_: int) -> Step:
    import torch
    from _sides import ours

    torch.set_num_threads(2)
    return ours(_demo_case(1))


def _two_processes(meeting_point: str, rank: int) -> Step:
    from _sides import ours

    from sp_data.training.launch import join

    # The port is not used: they meet in the file.
    join(rank, 2, meeting_point, port=29_500, has_cuda=False)
    return ours(_demo_case(2))


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    process = multiprocessing.get_context("fork").Process(target=_be_busy, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _be_busy() -> None:
    while True:
        pass


def measure_imports(say: Callable[[str], None], at_a_time: int) -> dict[str, float]:
    from _sides import make_dataset

    from sp_data.lake import Lake
    from sp_data.recipe import load_recipe

    recipe = load_recipe("demo", ["decoder.save_every=1000000"])
    with tempfile.TemporaryDirectory(prefix="sp-data-benchmark-") as folder:
        lake = Lake(folder, recipe.name)
        verified = make_dataset(lake, 64, 64, recipe.embed.dim, 32)
        job = {
            "kind": "decoder",
            "unet": 1,
            "recipe": recipe.model_dump(mode="json"),
            "lake": lake.url,
            "dataset": verified.identity,
            "run": "benchmark",
            "resume": None,
            "forget_after": None,
            "ancestor": "",
        }
        job_file = Path(folder) / "job.json"
        job_file.write_text(json.dumps(job), "utf-8")
        # This process has imported the same modules: their bytecode is written.
        with ThreadPoolExecutor(at_a_time) as threads:
            each = list(threads.map(before_first_step, [job_file] * IMPORTS))
    seconds = statistics.median(each)
    listed = ", ".join(f"{value:.1f}" for value in each)
    say(f"before its first step a training of the demo's first unet spends {seconds:.1f} CPU seconds ({listed})")
    return {"child_import_cpu_s": round(seconds, 2)}


def before_first_step(job_file: Path) -> float:
    """CPU seconds of a training, all processes of its group together, until its first step, less a step."""
    child = subprocess.Popen(
        [sys.executable, "-m", "sp_data.training.worker", str(job_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "2", "PYTHONDONTWRITEBYTECODE": ""},
        start_new_session=True,
    )
    at_step: dict[int, float] = {}
    lines = []
    try:
        for line in child.stdout or ():
            lines.append(line)
            if line.startswith("::step "):
                at_step[int(line.split()[1])] = cpu_s_of_group(child.pid)
            if len(at_step) == STEPS_TO_REPORT:
                break
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if len(at_step) < STEPS_TO_REPORT:
        raise RuntimeError("the training ended early:\n" + "".join(lines))
    # The first steps allocate: those between the second and the last are alike.
    step_s = (at_step[STEPS_TO_REPORT] - at_step[2]) / (STEPS_TO_REPORT - 2)
    return at_step[1] - step_s


def cpu_s_of_group(group: int) -> float:
    """User and system time of the processes of a group, as the kernel counts it."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in brackets, may hold spaces.
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_A_SECOND


if __name__ == "__main__":
    main()
