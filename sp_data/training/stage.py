"""Prior and decoder as stages: a verified dataset in, checkpoints out; a child process for each network does the work.

    runs/prior-4b7e21c0/config.json  metrics.jsonl  samples/  checkpoints/
    runs/decoder-unet1-1f0c55ab/…
    runs/decoder-unet2-93d1aa02/…

Each unet of the decoder is a training of its own, one after the other. A run's folder is named by what its network is
made from: after a kill, the same recipe on the same dataset finds its own checkpoints again and resumes, and a field of
one unet repeats that unet alone.
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
from sp_data.canonical import digest_of, parse_json
from sp_data.errors import LakeFull, StageError
from sp_data.lake import FileEntry, Lake
from sp_data.manifest import Counts, Manifest
from sp_data.recipe import Recipe, Training
from sp_data.runtime.progress import SHOWN, Progress
from sp_data.runtime.subprocesses import python_child, tail
from sp_data.stage import StageOutput, StageResult, StageRun, library_versions
from sp_data.training.grid import grid_path
from sp_data.training.loop.early_stopping import is_exhausted
from sp_data.training.loop.metrics import Metrics, metrics_path, read_metrics

if TYPE_CHECKING:
    from sp_data.training.checkpoints import Checkpoint

log = logging.getLogger(__name__)

LATEST = "latest"
POLL_S = 0.2
RUN_DIGITS = 8
GRACE_S = 120.0
"""How long a training may take to save when it is told to stop."""
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "memoryerror")
"""How CUDA, torch on a CPU, and Python with numpy say it, in lower case."""


@dataclass(frozen=True, slots=True)
class Network:
    """One network of a stage: the prior, or one unet of the decoder."""

    kind: str
    unet: int | None
    """From 1; None: the prior."""
    name: str
    """For people: 'prior', 'decoder', 'unet 2'."""
    field: str
    """Where the recipe sets it."""
    settings: Training
    identity_fields: dict[str, Any]
    """What of the recipe names its weights."""
    run: str
    """Its folder below runs/."""


def networks_of(kind: str, recipe: Recipe, dataset: str) -> list[Network]:
    """The networks that a stage trains on the dataset with this digest, in order."""
    if kind == "prior":
        fields = recipe.prior.identity_fields()
        return [Network("prior", None, "prior", "prior", recipe.prior, fields, _run_name("prior", fields, dataset))]
    decoder = recipe.decoder
    networks = []
    for number in range(1, len(decoder.unets) + 1):
        fields = decoder.unet_identity_fields(number)
        is_alone = len(decoder.unets) == 1
        networks.append(
            Network(
                "decoder",
                number,
                "decoder" if is_alone else f"unet {number}",
                "decoder" if is_alone else f"decoder.unets.{number - 1}",
                decoder.training_of(number),
                fields,
                _run_name(f"decoder-unet{number}", fields, dataset),
            )
        )
    return networks


def _run_name(prefix: str, fields: dict[str, Any], dataset: str) -> str:
    return f"{prefix}-{digest_of({'fields': fields, 'dataset': dataset})[:RUN_DIGITS]}"


def train(run: StageRun, *, resume: str = LATEST) -> StageResult:
    """Train the stage's networks until the recipe's last step; publish the best checkpoint of each.

    `resume`: `latest` resumes from each run's latest checkpoint, if there is one; a path, from the checkpoint there.

    Raises StageError if a training fails, UsageError if `resume` names no checkpoint.
    """
    kind, verified, lake = run.stage, run.inputs["verify"], run.lake
    # A lock of its own: the dataset may be scraped again during a training of several days.
    with lake.writer(kind):
        published = manifests.load(lake, kind, run.identity)
        finished = published if published and not manifests.missing_files(lake, published.files) else None
        if finished and resume == LATEST:
            return run.unchanged(finished)
        networks = networks_of(kind, run.recipe, verified.digest)
        _check_batches(networks, verified)
        # Imported late: an unchanged run needs no torch.
        from sp_data.training import checkpoints

        named = None if resume == LATEST else checkpoints.at(lake, resume)
        if named is not None and (named.kind, named.unet) not in [(network.kind, network.unet) for network in networks]:
            raise StageError(f"{named} is another model than the recipe's {kind}; --resume needs the same one")
        starts = [_start_point(network, lake, published, named) for network in networks]
        if finished and all(
            start.forget_after is None and start.ancestor == details["ancestor"]
            for start, details in zip(starts, finished.details["networks"], strict=True)
        ):
            return run.unchanged(finished)
        for network in networks:
            # Before the first one trains for days.
            _ensure_start(network, lake, run.progress)
        run.progress.begin(kind, sum(network.settings.steps for network in networks), "steps")
        files: list[FileEntry] = []
        for network, start in zip(networks, starts, strict=True):
            files.append(_write_config(network, networks, verified, lake))
            _train_network(network, start, run, verified)
        evaluation = _evaluate(networks, run, verified)
        return run.publish(_output(networks, verified, lake, files, evaluation))


def _ensure_start(network: Network, lake: Lake, progress: Progress) -> None:
    """Fetch LAION's weights if the recipe begins with them and the lake does not have them.

    Raises UsageError if the lake has no weights of this name, StageError if they are of another kind of network.
    """
    name = network.settings.start
    if name is None:
        return
    from sp_data.training.weights.adopt import find, find_start
    from sp_data.training.weights.laion import NAMES, fetch

    if name in NAMES and find(lake, name) is None:
        fetch(lake, [name], files={}, clip=False, progress=progress)
    adopted = find_start(lake, name)
    # An upsampler may take any other's place in a cascade, if it enlarges as it does.
    if (adopted.unet and min(adopted.unet, 2)) != (network.unet and min(network.unet, 2)):
        what = "a prior" if adopted.unet is None else f"unet {adopted.unet}"
        raise StageError(f"{network.field}.start: the weights {name!r} are of {what}; choose others")


def _train_network(network: Network, start: StartPoint, run: StageRun, verified: Manifest) -> None:
    lake, progress = run.lake, run.progress
    step = start.checkpoint.step if start.checkpoint else 0
    progress.advance(step)
    if start.checkpoint:
        log.info(
            "%s: goes on from step %s of %s (%s)",
            network.name,
            f"{step:,}",
            f"{network.settings.steps:,}",
            start.checkpoint.folder,
            extra=SHOWN,
        )
    patience = network.settings.early_stopping_patience
    if step >= network.settings.steps or is_exhausted(read_metrics(lake, network.run), patience, step):
        return
    job = {
        "kind": network.kind,
        "unet": network.unet,
        "recipe": run.recipe.model_dump(mode="json"),
        "lake": lake.url,
        "dataset": verified.identity,
        "run": network.run,
        "resume": start.checkpoint.folder if start.checkpoint else None,
        "forget_after": start.forget_after,
        "ancestor": start.ancestor,
    }
    # For who trains it on several machines; each knows its own way to the lake.
    lake.write_bytes(f"runs/{network.run}/job.json", json.dumps({**job, "lake": ""}).encode())
    _run_child("sp_data.training.worker", job, network, lake, progress, step)


def _evaluate(networks: list[Network], run: StageRun, verified: Manifest) -> dict[str, Any]:
    """The figures of the finished decoder, and what they say in words; empty if the recipe asks for none."""
    wanted = run.recipe.decoder.evaluation_samples
    if networks[0].kind != "decoder" or not wanted:
        return {}
    from sp_data.training import checkpoints
    from sp_data.training.evaluation import evaluation_path

    lake = run.lake
    best = [checkpoints.best(checkpoints.of_run(lake, network.run)) for network in networks]
    path = evaluation_path(networks[-1].run, [checkpoint.digest for checkpoint in best], wanted)
    if not lake.exists(path):
        job = {
            "recipe": run.recipe.model_dump(mode="json"),
            "lake": lake.url,
            "dataset": verified.identity,
            "checkpoints": [checkpoint.folder for checkpoint in best],
            "path": path,
        }
        run.progress.begin("measure", wanted, "pictures")
        _run_child("sp_data.training.evaluation", job, networks[-1], lake, run.progress, 0)
    result: dict[str, Any] = parse_json(lake.read_bytes(path))
    for verdict in result["verdicts"]:
        log.info("decoder: %s", verdict)
    return result


def _check_batches(networks: list[Network], verified: Manifest) -> None:
    """Raises StageError if a batch would hold a picture twice."""
    num_samples = _samples_by_split(verified).get("train", 0)
    for network in networks:
        if num_samples and network.settings.batch_size > num_samples:
            raise StageError(
                f"{network.field}.batch_size {network.settings.batch_size:,} is more than the {num_samples:,} pictures "
                f"of the train split; lower it"
            )


def _samples_by_split(verified: Manifest) -> dict[str, int]:
    num_samples: dict[str, int] = {}
    for shard in verified.details["shards"]:
        num_samples[shard["split"]] = num_samples.get(shard["split"], 0) + shard["num_samples"]
    return num_samples


def _write_config(network: Network, networks: list[Network], verified: Manifest, lake: Lake) -> FileEntry:
    config = {
        "kind": network.kind,
        "run": network.run,
        "unet": network.unet,
        # The runs that make a decoder together, in the order of its unets.
        "runs": [other.run for other in networks],
        "settings": network.identity_fields,
        "dataset": verified.digest,
    }
    return lake.write_bytes(f"runs/{network.run}/config.json", json.dumps(config, indent=1).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class StartPoint:
    """Where a training begins."""

    checkpoint: Checkpoint | None
    forget_after: int | None = None
    ancestor: str = ""


def _start_point(network: Network, lake: Lake, published: Manifest | None, named: Checkpoint | None) -> StartPoint:
    from sp_data.training import checkpoints

    checkpoints.prune(lake, network.run, network.settings.checkpoints_total_limit)
    if named is not None and named.unet == network.unet:
        return _named_checkpoint(network, lake, named)
    return _latest_checkpoint(network, lake, published)


def _latest_checkpoint(network: Network, lake: Lake, published: Manifest | None) -> StartPoint:
    """The run's latest checkpoint. If its published best one is lost: the latest before that, to make it again."""
    from sp_data.training import checkpoints

    candidates = checkpoints.of_run(lake, network.run)
    forget_after = None
    by_run = {one["run"]: one for one in published.details["networks"]} if published else {}
    details = by_run.get(network.run)
    if details and all(checkpoint.digest != details["best"]["digest"] for checkpoint in candidates):
        candidates = [checkpoint for checkpoint in candidates if checkpoint.step < details["best"]["step"]]
        forget_after = candidates[-1].step if candidates else 0
    latest = candidates[-1] if candidates else None
    return StartPoint(latest, forget_after, latest.ancestor if latest else "")


def _named_checkpoint(network: Network, lake: Lake, named: Checkpoint) -> StartPoint:
    """The checkpoint that a person named; the run's latest one, if the run already began with that one.

    Raises StageError if training cannot resume from it.
    """
    from sp_data.training import checkpoints

    if named.run == network.run and not named.place:
        return StartPoint(named, forget_after=named.step, ancestor=named.ancestor)
    if named.step >= network.settings.steps:
        raise StageError(
            f"{named} is already at the last of {network.field}.steps = {network.settings.steps:,}: raise it to train "
            "on"
        )
    whole = checkpoints.of_run(lake, network.run)
    if whole and whole[-1].ancestor == named.name:
        return StartPoint(whole[-1], ancestor=named.name)
    return StartPoint(named, forget_after=0, ancestor=named.name)


def _run_child(module: str, job: dict[str, Any], network: Network, lake: Lake, progress: Progress, start: int) -> None:
    from sp_data.training.worker import ERROR, STEP, STOPPED

    with lake.scratch("train") as scratch:
        job_file, child_log = scratch / "job.json", scratch / "train.log"
        job_file.write_text(json.dumps(job))
        environment = {"PYTHONUNBUFFERED": "1", "TRANSFORMERS_VERBOSITY": "error"}
        num_done, sentence, is_stopped = start, "", False
        with python_child(module, str(job_file), log=child_log, environment=environment, grace_s=GRACE_S) as process:
            for line in follow(child_log, process):
                if line.startswith(STEP):
                    progress.advance(int(line.removeprefix(STEP)) - num_done)
                    num_done = int(line.removeprefix(STEP))
                elif line.startswith(ERROR):
                    sentence = sentence or line.removeprefix(ERROR)
                elif line.startswith(STOPPED):
                    is_stopped = True
                elif line.startswith((f"{network.name}:", "words:")):
                    log.info("%s", line)
                    if line.startswith(f"{network.name}: checkpoint ") and lake.exists(grid_path(network.run)):
                        progress.show(f"{network.name} of {lake.dataset}", lake.read_bytes(grid_path(network.run)))
                elif line.strip():
                    log.debug("%s", line)
        if is_stopped:
            raise StageError(
                f"the training of the {network.name} was told to stop at step {num_done:,}, and saved first; the same "
                "command goes on from there"
            )
        if process.returncode != 0:
            _fail(network, process, child_log, sentence, num_done)


def _fail(network: Network, process: subprocess.Popen[bytes], child_log: Path, sentence: str, num_done: int) -> None:
    if sentence.startswith("no space left"):
        raise LakeFull(sentence)
    if sentence:
        raise StageError(sentence)
    less = f"lower {network.field}.micro_batch_size"
    if network.unet is not None:
        less += f", or set {network.field}.gradient_checkpointing to true"
    log_text = child_log.read_text("utf-8", "replace")
    if any(words in log_text.lower() for words in OUT_OF_MEMORY):
        raise StageError(f"the {network.name} did not fit into memory at step {num_done:,}; {less}")
    if process.returncode == -signal.SIGKILL or "signal SIGKILL" in log_text:
        raise StageError(
            f"the training of the {network.name} was killed at step {num_done:,}, perhaps because memory ran out (then "
            f"{less}); the same command goes on from its last checkpoint"
        )
    raise StageError(
        f"the training of the {network.name} ended at step {num_done:,} (exit {process.returncode}); the same command "
        f"goes on from its last checkpoint. The end of its log: {tail(child_log)}"
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


def _output(
    networks: list[Network], verified: Manifest, lake: Lake, files: list[FileEntry], evaluation: dict[str, Any]
) -> StageOutput:
    from sp_data.training import checkpoints
    from sp_data.training.measures.overfitting import overfitting

    details = []
    for network in networks:
        whole = checkpoints.of_run(lake, network.run)
        best, last = checkpoints.best(whole), whole[-1]
        if not lake.exists(metrics_path(network.run)):
            # The file is lost: the checkpoints hold some of its rows.
            Metrics(lake, network.run).write_all(
                [
                    {"step": checkpoint.step, "loss": checkpoint.loss, "val_loss": checkpoint.val_loss}
                    for checkpoint in whole
                ]
            )
        over = overfitting(read_metrics(lake, network.run))
        if over is not None:
            log.warning("%s: %s", network.name, over)
        # Only weights are reproducible: how torch writes an optimizer depends on whether it was loaded before.
        files.append(lake.entry(f"{best.folder}/{checkpoints.RECORD}", timed=True))
        files += [*best.files, lake.entry(metrics_path(network.run), timed=True)]
        details.append(
            {
                "name": network.name,
                "unet": network.unet,
                "run": network.run,
                "best": _described(best),
                "last": _described(last),
                "num_parameters": best.num_parameters,
                "measured": best.measured,
                "ancestor": best.ancestor,
                "over_fitting": str(over) if over is not None else "",
            }
        )
    num_samples = _samples_by_split(verified)
    held_out = {f"held out ({name})": count for name, count in sorted(num_samples.items()) if name != "train"}
    # Tombstones and pictures without an embedding are in the shards, but are not trained on.
    if left_out := num_samples["train"] - best.num_samples:
        held_out["tombstone or no embedding"] = left_out
    return StageOutput(
        counts=Counts(in_=sum(num_samples.values()), out=best.num_samples, dropped=held_out),
        files=files,
        summary="; ".join(_line(one, len(details)) for one in details),
        details={"networks": details, "clip": best.clip, "evaluation": evaluation},
        versions=library_versions("dalle2-pytorch", "torch", "numpy"),
    )


def _line(network: dict[str, Any], num_networks: int) -> str:
    best = network["best"]
    name = f"{network['name']}'s " if num_networks > 1 else ""
    return f"{name}best is step {best['step']:,}, validation loss {_four(best['val_loss'])}"


def _described(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "step": checkpoint.step,
        "val_loss": checkpoint.val_loss,
        "folder": checkpoint.folder,
        "digest": checkpoint.digest,
    }


def _four(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
