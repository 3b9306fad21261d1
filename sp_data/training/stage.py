"""Prior and decoder as stages: a verified dataset in, a checkpoint out; the work is done in a child process group.

    runs/decoder-1f0c55ab/config.json  metrics.jsonl  samples/  checkpoints/

A run's folder is named by the identity of its stage: the same recipe on the same dataset finds its own checkpoints
again, whatever killed it, and goes on.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sp_data import manifest as manifests
from sp_data.errors import LakeFull, StageError
from sp_data.lake import FileEntry, Lake
from sp_data.manifest import Counts, Manifest
from sp_data.runtime.progress import TOLD, Progress
from sp_data.runtime.subprocesses import python_child, tail
from sp_data.stage import StageOutput, StageResult, StageRun, library_versions

if TYPE_CHECKING:
    from sp_data.training.checkpoints import Checkpoint

log = logging.getLogger(__name__)

LATEST = "latest"
POLL_S = 0.2
RUN_DIGITS = 8


def run_name(kind: str, identity: str) -> str:
    """The folder of a run below runs/."""
    return f"{kind}-{identity[:RUN_DIGITS]}"


def train(run: StageRun, *, resume: str = LATEST) -> StageResult:
    """Train the run's model, prior or decoder, until the recipe's last step; publish the best checkpoint.

    `resume`: `latest` goes on from this run's latest checkpoint, if there is one; a path, from that one.

    Raises StageError if the training fails, UsageError if `resume` names no checkpoint.
    """
    kind, verified, recipe, lake, progress = run.stage, run.inputs["verify"], run.recipe, run.lake, run.progress
    folder = run_name(kind, run.identity)
    # A lock of its own: the dataset may be scraped again while a training of days goes on.
    with lake.writer(kind):
        before = manifests.load(lake, kind, run.identity)
        done = before if before and not manifests.missing_files(lake, before.files) else None
        if done and resume == LATEST:
            return run.unchanged(done)
        # Imported late: a run that is unchanged needs no torch.
        from sp_data.training import checkpoints

        settings = recipe.prior if kind == "prior" else recipe.decoder
        checkpoints.prune(lake, folder, settings.keep_checkpoints)
        begin = (
            _latest(lake, folder, before) if resume == LATEST else _named(lake, folder, resume, kind, settings.steps)
        )
        if done and begin.forget_after is None and begin.ancestor == done.details["ancestor"]:
            return run.unchanged(done)
        start = begin.checkpoint.step if begin.checkpoint else 0
        job = {
            "kind": kind,
            "recipe": recipe.model_dump(mode="json"),
            "lake": lake.url,
            "dataset": verified.identity,
            "run": folder,
            "resume": begin.checkpoint.folder if begin.checkpoint else None,
            "forget_after": begin.forget_after,
            "ancestor": begin.ancestor,
        }
        config = {"kind": kind, "run": folder, "settings": run.identity_fields, "dataset": verified.digest}
        config_entry = lake.write_bytes(f"runs/{folder}/config.json", json.dumps(config, indent=1).encode() + b"\n")
        progress.begin(kind, settings.steps, "steps")
        if begin.checkpoint:
            progress.advance(start)
            where = begin.checkpoint.folder
            log.info(
                "%s: goes on from step %s of %s (%s)", kind, f"{start:,}", f"{settings.steps:,}", where, extra=TOLD
            )
        if start < settings.steps:
            _run_child(job, lake, progress, start)
        result = run.publish(_output(folder, verified, lake, config_entry))
        best = result.manifest.details["best"]
        log.info("%s: best is step %s, validation loss %s", kind, f"{best['step']:,}", _four(best["val_loss"]))
        return result


@dataclass(frozen=True, slots=True)
class Begin:
    """Where a training begins."""

    checkpoint: Checkpoint | None
    forget_after: int | None = None
    ancestor: str = ""


def _latest(lake: Lake, run: str, before: Manifest | None) -> Begin:
    """This run's latest checkpoint. If what was published as its best is lost: the latest before that, to make it
    again."""
    from sp_data.training import checkpoints

    there = checkpoints.found(lake, run)
    forget_after = None
    if before and all(one.digest != before.details["best"]["digest"] for one in there):
        there = [one for one in there if one.step < before.details["best"]["step"]]
        forget_after = there[-1].step if there else 0
    latest = there[-1] if there else None
    return Begin(latest, forget_after, latest.ancestor if latest else "")


def _named(lake: Lake, run: str, path: str, kind: str, steps: int) -> Begin:
    """The checkpoint that a person named; or, if this run began with that one already, what it came to since.

    Raises UsageError if there is none, StageError if it cannot be gone on from.
    """
    from sp_data.training import checkpoints

    named = checkpoints.at(lake, path)
    if named.kind != kind:
        raise StageError(f"{named} is another model than the recipe's {kind}; --resume needs the same one")
    if named.run == run:
        return Begin(named, forget_after=named.step, ancestor=named.ancestor)
    if named.step >= steps:
        raise StageError(f"{named} is already at the last of {kind}.steps = {steps:,}: raise it to go on")
    there = checkpoints.found(lake, run)
    if there and there[-1].ancestor == named.name:
        return Begin(there[-1], ancestor=named.name)
    return Begin(named, forget_after=0, ancestor=named.name)


def _run_child(job: dict[str, Any], lake: Lake, progress: Progress, start: int) -> None:
    from sp_data.training.worker import ERROR, STEP

    with lake.scratch("train") as scratch:
        job_file, child_log = scratch / "job.json", scratch / "train.log"
        job_file.write_text(json.dumps(job))
        environment = {"PYTHONUNBUFFERED": "1", "TRANSFORMERS_VERBOSITY": "error"}
        done, sentence = start, ""
        with python_child("sp_data.training.worker", str(job_file), log=child_log, environment=environment) as process:
            for line in follow(child_log, process):
                if line.startswith(STEP):
                    progress.advance(int(line.removeprefix(STEP)) - done)
                    done = int(line.removeprefix(STEP))
                elif line.startswith(ERROR):
                    sentence = line.removeprefix(ERROR)
                elif line.startswith(f"{job['kind']}:"):
                    log.info("%s", line)
                elif line.strip():
                    log.debug("%s", line)
        if process.returncode != 0:
            _fail(str(job["kind"]), process, child_log, sentence, done)


def _fail(kind: str, process: subprocess.Popen[bytes], child_log: Path, sentence: str, done: int) -> None:
    if sentence.startswith("no space left"):
        raise LakeFull(sentence)
    if sentence:
        raise StageError(sentence)
    said = child_log.read_text("utf-8", "replace")
    if "out of memory" in said.lower():
        raise StageError(f"the {kind} did not fit into memory at step {done:,}; lower {kind}.batch_size")
    if process.returncode == -signal.SIGKILL:
        raise StageError(
            f"the training of the {kind} was killed at step {done:,}, perhaps because memory ran out (then lower "
            f"{kind}.batch_size); the same command goes on from its last checkpoint"
        )
    raise StageError(
        f"the training of the {kind} ended at step {done:,} (exit {process.returncode}); the same command goes on from "
        f"its last checkpoint. It said: {tail(child_log)}"
    )


def follow(child_log: Path, process: subprocess.Popen[bytes]) -> Iterator[str]:
    """The lines of a child's log as they come, until it has ended."""
    with child_log.open("r", encoding="utf-8", errors="replace") as stream:
        rest = ""
        while True:
            ended = process.poll() is not None
            rest += stream.read()
            *lines, rest = rest.split("\n")
            yield from lines
            if ended:
                yield from [rest] if rest else []
                return
            time.sleep(POLL_S)


def _output(run: str, verified: Manifest, lake: Lake, config: FileEntry) -> StageOutput:
    from sp_data.training import checkpoints
    from sp_data.training.metrics import Metrics, metrics_path

    whole = checkpoints.found(lake, run)
    best, last = checkpoints.best(whole), whole[-1]
    split: dict[str, int] = {}
    for shard in verified.details["shards"]:
        split[shard["split"]] = split.get(shard["split"], 0) + shard["num_samples"]
    total = sum(split.values())
    held_out = {f"held out ({name})": count for name, count in sorted(split.items()) if name != "train"}
    # Tombstones and pictures without an embedding are in the shards, and are not learnt from.
    if left_out := split["train"] - best.num_samples:
        held_out["tombstone or no embedding"] = left_out
    if not lake.exists(metrics_path(run)):
        # Lost: what the checkpoints know of it is kept.
        Metrics(lake, run).write_all([{"step": one.step, "loss": one.loss, "val_loss": one.val_loss} for one in whole])
    # Only weights are proof: how torch writes down an optimizer depends on whether that one was ever loaded.
    record = lake.entry(f"{best.folder}/{checkpoints.RECORD}", timed=True)
    return StageOutput(
        counts=Counts(in_=total, out=best.num_samples, dropped=held_out),
        files=[config, record, *best.files, lake.entry(metrics_path(run), timed=True)],
        details={
            "run": run,
            "best": {"step": best.step, "val_loss": best.val_loss, "folder": best.folder, "digest": best.digest},
            "last": {"step": last.step, "val_loss": last.val_loss, "folder": last.folder, "digest": last.digest},
            "num_parameters": best.num_parameters,
            "clip": best.clip,
            "measured": best.measured,
            "ancestor": best.ancestor,
        },
        versions=library_versions("dalle2-pytorch", "torch", "numpy"),
    )


def _four(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
