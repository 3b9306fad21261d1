"""Prior and decoder as stages: a verified dataset in, a checkpoint out; a child process does the work.

    runs/decoder-1f0c55ab/config.json  metrics.jsonl  samples/  checkpoints/

A run's folder is named by the identity of its stage: after a kill, the same recipe on the same dataset finds its own
checkpoints again and resumes.
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
from sp_data.runtime.progress import SHOWN, Progress
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

    `resume`: `latest` resumes from this run's latest checkpoint, if there is one; a path, from the checkpoint there.

    Raises StageError if the training fails, UsageError if `resume` names no checkpoint.
    """
    kind, verified, recipe, lake, progress = run.stage, run.inputs["verify"], run.recipe, run.lake, run.progress
    folder = run_name(kind, run.identity)
    # A lock of its own: the dataset may be scraped again during a training of several days.
    with lake.writer(kind):
        published = manifests.load(lake, kind, run.identity)
        finished = published if published and not manifests.missing_files(lake, published.files) else None
        if finished and resume == LATEST:
            return run.unchanged(finished)
        # Imported late: an unchanged run needs no torch.
        from sp_data.training import checkpoints

        settings = recipe.prior if kind == "prior" else recipe.decoder
        checkpoints.prune(lake, folder, settings.keep_checkpoints)
        start_point = (
            _latest_checkpoint(lake, folder, published)
            if resume == LATEST
            else _named_checkpoint(lake, folder, resume, kind, settings.steps)
        )
        if finished and start_point.forget_after is None and start_point.ancestor == finished.details["ancestor"]:
            return run.unchanged(finished)
        start = start_point.checkpoint.step if start_point.checkpoint else 0
        job = {
            "kind": kind,
            "recipe": recipe.model_dump(mode="json"),
            "lake": lake.url,
            "dataset": verified.identity,
            "run": folder,
            "resume": start_point.checkpoint.folder if start_point.checkpoint else None,
            "forget_after": start_point.forget_after,
            "ancestor": start_point.ancestor,
        }
        config = {"kind": kind, "run": folder, "settings": run.identity_fields, "dataset": verified.digest}
        config_entry = lake.write_bytes(f"runs/{folder}/config.json", json.dumps(config, indent=1).encode() + b"\n")
        progress.begin(kind, settings.steps, "steps")
        if start_point.checkpoint:
            progress.advance(start)
            resumed_from = start_point.checkpoint.folder
            log.info(
                "%s: goes on from step %s of %s (%s)",
                kind,
                f"{start:,}",
                f"{settings.steps:,}",
                resumed_from,
                extra=SHOWN,
            )
        if start < settings.steps:
            _run_child(job, lake, progress, start)
        return run.publish(_output(folder, verified, lake, config_entry))


@dataclass(frozen=True, slots=True)
class StartPoint:
    """Where a training begins."""

    checkpoint: Checkpoint | None
    forget_after: int | None = None
    ancestor: str = ""


def _latest_checkpoint(lake: Lake, run: str, published: Manifest | None) -> StartPoint:
    """This run's latest checkpoint. If its published best one is lost: the latest before that, to make it again."""
    from sp_data.training import checkpoints

    candidates = checkpoints.of_run(lake, run)
    forget_after = None
    if published and all(checkpoint.digest != published.details["best"]["digest"] for checkpoint in candidates):
        candidates = [checkpoint for checkpoint in candidates if checkpoint.step < published.details["best"]["step"]]
        forget_after = candidates[-1].step if candidates else 0
    latest = candidates[-1] if candidates else None
    return StartPoint(latest, forget_after, latest.ancestor if latest else "")


def _named_checkpoint(lake: Lake, run: str, path: str, kind: str, steps: int) -> StartPoint:
    """The checkpoint at the path that a person gave; this run's latest one, if this run already began with that one.

    Raises UsageError if there is none, StageError if training cannot resume from it.
    """
    from sp_data.training import checkpoints

    named = checkpoints.at(lake, path)
    if named.kind != kind:
        raise StageError(f"{named} is another model than the recipe's {kind}; --resume needs the same one")
    if named.run == run:
        return StartPoint(named, forget_after=named.step, ancestor=named.ancestor)
    if named.step >= steps:
        raise StageError(f"{named} is already at the last of {kind}.steps = {steps:,}: raise it to train on")
    whole = checkpoints.of_run(lake, run)
    if whole and whole[-1].ancestor == named.name:
        return StartPoint(whole[-1], ancestor=named.name)
    return StartPoint(named, forget_after=0, ancestor=named.name)


def _run_child(job: dict[str, Any], lake: Lake, progress: Progress, start: int) -> None:
    from sp_data.training.worker import ERROR, STEP

    with lake.scratch("train") as scratch:
        job_file, child_log = scratch / "job.json", scratch / "train.log"
        job_file.write_text(json.dumps(job))
        environment = {"PYTHONUNBUFFERED": "1", "TRANSFORMERS_VERBOSITY": "error"}
        num_done, sentence = start, ""
        with python_child("sp_data.training.worker", str(job_file), log=child_log, environment=environment) as process:
            for line in follow(child_log, process):
                if line.startswith(STEP):
                    progress.advance(int(line.removeprefix(STEP)) - num_done)
                    num_done = int(line.removeprefix(STEP))
                elif line.startswith(ERROR):
                    sentence = line.removeprefix(ERROR)
                elif line.startswith(f"{job['kind']}:"):
                    log.info("%s", line)
                elif line.strip():
                    log.debug("%s", line)
        if process.returncode != 0:
            _fail(str(job["kind"]), process, child_log, sentence, num_done)


def _fail(kind: str, process: subprocess.Popen[bytes], child_log: Path, sentence: str, num_done: int) -> None:
    if sentence.startswith("no space left"):
        raise LakeFull(sentence)
    if sentence:
        raise StageError(sentence)
    log_text = child_log.read_text("utf-8", "replace")
    if "out of memory" in log_text.lower():
        raise StageError(f"the {kind} did not fit into memory at step {num_done:,}; lower {kind}.batch_size")
    if process.returncode == -signal.SIGKILL:
        raise StageError(
            f"the training of the {kind} was killed at step {num_done:,}, perhaps because memory ran out (then lower "
            f"{kind}.batch_size); the same command goes on from its last checkpoint"
        )
    raise StageError(
        f"the training of the {kind} ended at step {num_done:,} (exit {process.returncode}); the same command goes on "
        f"from its last checkpoint. The end of its log: {tail(child_log)}"
    )


def follow(child_log: Path, process: subprocess.Popen[bytes]) -> Iterator[str]:
    """The lines of a child's log as they appear, until the child has ended."""
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

    whole = checkpoints.of_run(lake, run)
    best, last = checkpoints.best(whole), whole[-1]
    num_samples: dict[str, int] = {}
    for shard in verified.details["shards"]:
        num_samples[shard["split"]] = num_samples.get(shard["split"], 0) + shard["num_samples"]
    total = sum(num_samples.values())
    held_out = {f"held out ({name})": count for name, count in sorted(num_samples.items()) if name != "train"}
    # Tombstones and pictures without an embedding are in the shards, but are not trained on.
    if left_out := num_samples["train"] - best.num_samples:
        held_out["tombstone or no embedding"] = left_out
    if not lake.exists(metrics_path(run)):
        # The file is lost: the checkpoints hold some of its rows.
        Metrics(lake, run).write_all(
            [
                {"step": checkpoint.step, "loss": checkpoint.loss, "val_loss": checkpoint.val_loss}
                for checkpoint in whole
            ]
        )
    # Only weights are reproducible: how torch writes an optimizer depends on whether it was loaded before.
    record = lake.entry(f"{best.folder}/{checkpoints.RECORD}", timed=True)
    return StageOutput(
        counts=Counts(in_=total, out=best.num_samples, dropped=held_out),
        files=[config, record, *best.files, lake.entry(metrics_path(run), timed=True)],
        summary=f"best is step {best.step:,}, validation loss {_four(best.val_loss)}",
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
