"""Training as a user sees it: done once, resumed after a kill, refused with a reason."""

from __future__ import annotations

import contextlib
import logging
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_networks import save_openai_clip

from sp_data import manifest as manifests
from sp_data.errors import StageError, StageNotDone
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.pipeline import DATASET_STAGES, TRAINING_STAGES, run_stage, stand
from sp_data.recipe import Recipe, load_recipe
from sp_data.training import checkpoints
from sp_data.training.loop import loop
from sp_data.training.loop.metrics import read_metrics


def latest(lake: Lake, stage: str) -> Manifest:
    manifest = manifests.latest(lake, stage)
    assert manifest is not None
    return manifest


def losses(lake: Lake, kind: str) -> list[tuple[Any, ...]]:
    """The metrics that do not depend on the machine's speed."""
    rows = read_metrics(lake, latest(lake, kind).details["networks"][0]["run"])
    return [tuple(value for name, value in row.items() if name != "samples_per_second") for row in rows]


def test_every_sample_is_learnt_from_or_held_out(trained_lake: Lake) -> None:
    verified = latest(trained_lake, "verify")
    splits: dict[str, int] = {}
    for shard in verified.details["shards"]:
        splits[shard["split"]] = splits.get(shard["split"], 0) + shard["num_samples"]
    for kind in ("prior", "decoder"):
        counts = latest(trained_lake, kind).counts
        assert counts.in_ == verified.counts.out
        assert counts.out == splits["train"]
        assert counts.dropped == {f"held out ({split})": splits[split] for split in ("test", "val")}


def test_training_lowers_the_validation_loss(trained_lake: Lake) -> None:
    for kind in ("prior", "decoder"):
        rows = read_metrics(trained_lake, latest(trained_lake, kind).details["networks"][0]["run"])
        val_losses = [row["val_loss"] for row in rows if "val_loss" in row]
        assert len(val_losses) == 3
        assert val_losses[-1] < val_losses[1] < val_losses[0]


def test_a_manifest_names_the_best_checkpoint_and_its_weights(trained_lake: Lake) -> None:
    for kind in ("prior", "decoder"):
        manifest = latest(trained_lake, kind)
        saved = checkpoints.of_run(trained_lake, manifest.details["networks"][0]["run"])
        best = checkpoints.best(saved)
        assert (
            manifest.details["networks"][0]["best"]["digest"]
            == best.digest
            == trained_lake.sha256(f"{best.folder}/weights.safetensors")
        )
        assert best.dataset == latest(trained_lake, "verify").digest
        assert not manifests.missing_files(trained_lake, manifest.files, deep=True)


def test_a_second_run_is_unchanged_and_writes_nothing(trained_copy: Lake, quick_recipe: Recipe) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(trained_copy.root).rglob("*")}
    for stage in TRAINING_STAGES:
        assert run_stage(stage, quick_recipe, trained_copy).state == "unchanged"
    after = {path: path.stat().st_mtime_ns for path in Path(trained_copy.root).rglob("*")}
    assert {path for path in before if path.is_file()} == {path for path in after if path.is_file()}
    assert all(before[path] == after[path] for path in before if path.is_file())


def test_lost_weights_are_noticed_and_come_back_with_the_same_bytes(trained_copy: Lake, quick_recipe: Recipe) -> None:
    manifest = latest(trained_copy, "prior")
    lost = f"{manifest.details['networks'][0]['best']['folder']}/weights.safetensors"
    Path(trained_copy.full(lost)).unlink()
    assert stand(quick_recipe, trained_copy)["prior"].state == "damaged"
    assert run_stage("prior", quick_recipe, trained_copy).state == "done"
    assert trained_copy.sha256(lost) == manifest.details["networks"][0]["best"]["digest"]
    assert latest(trained_copy, "prior").digest == manifest.digest


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["prior"])
def test_a_killed_training_goes_on_and_ends_as_an_undisturbed_one(
    kind: str, trained_copy: Lake, trained_lake: Lake, quick_recipe: Recipe, tmp_path: Path
) -> None:
    """The command gets SIGKILL between two checkpoints; the child must die with it; the same command goes on."""
    for folder in ("runs", "manifests/prior", "manifests/decoder", "manifests/judge", "generated"):
        shutil.rmtree(trained_copy.full(folder))
    recipe_file = tmp_path / "quick.yaml"
    recipe_file.write_text(quick_recipe.model_dump_json())
    command = [sys.executable, "-m", "sp_data.cli", "train", kind, str(recipe_file)]
    command += ["--lake", str(Path(trained_copy.root).parent)]
    run = latest(trained_lake, kind).details["networks"][0]["run"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: checkpoints.of_run(trained_copy, run) != [], process)
    child = child_of(process.pid)
    process.kill()
    process.wait()
    wait_for(lambda: not Path(f"/proc/{child}").exists())
    saved = checkpoints.of_run(trained_copy, run)
    last_step = getattr(quick_recipe, kind).steps
    assert saved[-1].step < last_step, "killed too late to prove anything"
    output = on_a_terminal(command)
    name = "prior" if kind == "prior" else "unet 1"
    assert f"{name}: goes on from step {saved[-1].step} of {last_step}" in output
    assert losses(trained_copy, kind) == losses(trained_lake, kind), "bit for bit"
    assert latest(trained_copy, kind).digest == latest(trained_lake, kind).digest


def on_a_terminal(command: list[str]) -> str:
    """The output of a successful command on a terminal, without colours and cursor moves, its lines joined."""
    reading_end, terminal = pty.openpty()
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env={**os.environ, "COLUMNS": "160"}
    )
    os.close(terminal)
    output = b""
    # Reading a terminal raises OSError once its last writer has closed it.
    with contextlib.suppress(OSError), os.fdopen(reading_end, "rb", buffering=0) as stream:
        while data := stream.read(4096):
            output += data
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode("utf-8", "replace"))
    assert process.wait(30) == 0, text[-2000:]
    return " ".join(text.split())


def wait_for(condition: Any, process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold within 180 s"
        assert process is None or process.poll() is None, "the command ended first"
        time.sleep(0.02)


def child_of(pid: int) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                line = (entry / "cmdline").read_text()
            except OSError:
                continue
            if int(fields[1]) == pid and "sp_data.training.worker" in line:
                return int(entry.name)
    raise AssertionError(f"process {pid} has no training child")


def test_an_interrupted_training_leaves_no_child(trained_copy: Lake, quick_recipe: Recipe, tmp_path: Path) -> None:
    recipe_file = tmp_path / "long.yaml"
    longer = quick_recipe.prior.model_copy(update={"steps": 5000, "save_every": 5000})
    recipe_file.write_text(quick_recipe.model_copy(update={"prior": longer}).model_dump_json())
    command = [sys.executable, "-m", "sp_data.cli", "train", "prior", str(recipe_file)]
    command += ["--lake", str(Path(trained_copy.root).parent)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    metrics = Path(trained_copy.full("runs"))
    wait_for(lambda: len(list(metrics.glob("prior-*/metrics.jsonl"))) > 1)
    child = child_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.splitlines()[-1].endswith("the same command goes on from there")
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.usefixtures("in_process")
def test_going_on_from_a_named_checkpoint_goes_back_to_it(
    trained_copy: Lake, trained_lake: Lake, quick_recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    run = latest(trained_copy, "prior").details["networks"][0]["run"]
    first = checkpoints.of_run(trained_copy, run)[0]
    assert first.step < quick_recipe.prior.steps
    # Processes that read ahead change nothing.
    reading_ahead = quick_recipe.model_copy(
        update={"prior": quick_recipe.prior.model_copy(update={"loader_processes": 2})}
    )
    with caplog.at_level(logging.INFO, "sp_data"):
        assert run_stage("prior", reading_ahead, trained_copy, resume=first.folder).state == "done"
    assert f"goes on from step {first.step}" in caplog.text
    assert losses(trained_copy, "prior") == losses(trained_lake, "prior")


@pytest.mark.usefixtures("in_process")
def test_a_longer_training_goes_on_from_a_shorter_one(
    trained_copy: Lake, quick_recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    best = latest(trained_copy, "prior").details["networks"][0]["last"]["folder"]
    longer = quick_recipe.model_copy(update={"prior": quick_recipe.prior.model_copy(update={"steps": 80})})
    manifest = run_stage("prior", longer, trained_copy, resume=best).manifest
    assert [row["step"] for row in read_metrics(trained_copy, manifest.details["networks"][0]["run"])] == [
        65,
        70,
        75,
        80,
    ]
    assert manifest.details["networks"][0]["last"]["step"] == 80
    assert run_stage("prior", longer, trained_copy, resume=best).state == "unchanged"
    # Stopped after its first checkpoint, as by a kill: the same command goes on from there.
    later = longer.model_copy(update={"prior": longer.prior.model_copy(update={"steps": 100})})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Loop, "_check", stop_after(80))
        with pytest.raises(KeyboardInterrupt):
            run_stage("prior", later, trained_copy, resume=best)
    caplog.clear()
    with caplog.at_level(logging.INFO, "sp_data"):
        ended = run_stage("prior", later, trained_copy, resume=best).manifest
    assert "goes on from step 80 of 100" in caplog.text
    assert ended.details["networks"][0]["ancestor"].startswith(latest_run_name(best))


def latest_run_name(folder: str) -> str:
    """runs/prior-1f0c55ab/checkpoints/step-00000060 -> prior-1f0c55ab/step-00000060"""
    _, run, _, step = folder.split("/")
    return f"{run}/{step}"


def stop_after(step: int) -> Any:
    def check(_: loop.Loop, row: dict[str, Any]) -> None:
        if row["step"] > step:
            raise KeyboardInterrupt

    return check


@pytest.mark.usefixtures("in_process")
def test_a_checkpoint_of_another_model_is_refused(trained_copy: Lake, quick_recipe: Recipe) -> None:
    wider = quick_recipe.model_copy(update={"prior": quick_recipe.prior.model_copy(update={"depth": 1, "steps": 80})})
    best = latest(trained_copy, "prior").details["networks"][0]["best"]["folder"]
    with pytest.raises(StageError, match=r"is another model than the recipe's prior; --resume needs the same one"):
        run_stage("prior", wider, trained_copy, resume=best)


def test_a_refused_checkpoint_costs_nothing(trained_copy: Lake, quick_recipe: Recipe) -> None:
    """The prior's checkpoint given for the decoder by mistake: every checkpoint of the decoder stays."""
    run = latest(trained_copy, "decoder").details["networks"][0]["run"]
    before = checkpoints.of_run(trained_copy, run)
    wrong = latest(trained_copy, "prior").details["networks"][0]["best"]["folder"]
    with pytest.raises(StageError, match="is another model than the recipe's decoder"):
        run_stage("decoder", quick_recipe, trained_copy, resume=wrong)
    assert checkpoints.of_run(trained_copy, run) == before


@pytest.mark.usefixtures("in_process")
def test_lost_weights_of_the_best_come_back_though_it_is_not_the_last(
    trained_copy: Lake, quick_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = loop.Loop._evaluate
    worse_each_time = iter(range(1, 100))

    def rising(self: loop.Loop) -> dict[str, float]:
        return {**evaluate(self), "val_loss": float(next(worse_each_time))}

    monkeypatch.setattr(loop.Loop, "_evaluate", rising)
    other = quick_recipe.model_copy(update={"prior": quick_recipe.prior.model_copy(update={"seed": 3})})
    manifest = run_stage("prior", other, trained_copy).manifest
    assert (manifest.details["networks"][0]["best"]["step"], manifest.details["networks"][0]["last"]["step"]) == (
        20,
        60,
    )
    lost = f"{manifest.details['networks'][0]['best']['folder']}/weights.safetensors"
    trained_copy.remove(lost)
    worse_each_time = iter(range(1, 100))
    again = run_stage("prior", other, trained_copy).manifest
    assert trained_copy.sha256(lost) == manifest.details["networks"][0]["best"]["digest"]
    assert again.digest == manifest.digest


def test_lost_metrics_are_restored_from_the_checkpoints(trained_copy: Lake, quick_recipe: Recipe) -> None:
    manifest = latest(trained_copy, "prior")
    path = f"runs/{manifest.details['networks'][0]['run']}/metrics.jsonl"
    trained_copy.remove(path)
    assert run_stage("prior", quick_recipe, trained_copy).state == "done"
    assert latest(trained_copy, "prior").digest == manifest.digest
    assert [row["step"] for row in read_metrics(trained_copy, manifest.details["networks"][0]["run"])] == [40, 60]
    assert run_stage("prior", quick_recipe, trained_copy).state == "unchanged"


@pytest.mark.usefixtures("in_process")
def test_a_training_that_diverges_ends_before_it_is_saved(trained_copy: Lake, quick_recipe: Recipe) -> None:
    wild = quick_recipe.prior.model_copy(update={"learning_rate": 1.0, "max_grad_norm": 1e30, "lr_warmup_steps": 0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sp_data.training.prior.PriorTask.loss", lambda *_: torch.tensor(float("nan"), requires_grad=True)
        )
        with pytest.raises(StageError, match=r"is no number any more at step 5; lower prior\.learning_rate"):
            run_stage("prior", quick_recipe.model_copy(update={"prior": wild}), trained_copy)
    assert run_stage("prior", quick_recipe, trained_copy).state == "unchanged", "an earlier training is unharmed"


@pytest.mark.usefixtures("in_process")
def test_weights_that_diverged_in_the_last_step_are_not_saved(trained_copy: Lake, quick_recipe: Recipe) -> None:
    """No loss shows it: the val split, which would, is empty."""
    step = loop.Loop.step

    def poisoned(self: loop.Loop, number: int, batch: Any) -> torch.Tensor:
        loss = step(self, number, batch)
        if number == 19:
            with torch.no_grad():
                next(self.task.network.parameters()).fill_(float("nan"))
            self.average.update()
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Loop, "_evaluate", lambda _: {})
        patch.setattr(loop.Loop, "step", poisoned)
        other = quick_recipe.model_copy(update={"prior": quick_recipe.prior.model_copy(update={"seed": 13})})
        with pytest.raises(StageError, match=r"a weight of the prior is no number any more at step 20; lower prior\."):
            run_stage("prior", other, trained_copy)
    assert run_stage("prior", quick_recipe, trained_copy).state == "unchanged"


@pytest.mark.usefixtures("in_process")
def test_a_training_killed_before_its_first_checkpoint_notes_its_steps_once(
    trained_copy: Lake, quick_recipe: Recipe
) -> None:
    other = quick_recipe.model_copy(update={"prior": quick_recipe.prior.model_copy(update={"seed": 12})})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Loop, "_check", stop_after(10))
        run_stage("prior", other, trained_copy)
    (run,) = {path.split("/")[1] for path in trained_copy.list("runs") if path.endswith("metrics.jsonl")} - {
        network["run"] for kind in ("prior", "decoder") for network in latest(trained_copy, kind).details["networks"]
    }
    with Path(trained_copy.full(f"runs/{run}/metrics.jsonl")).open("a") as stream:
        stream.write('{"step": 15, "lo')
    run_stage("prior", other, trained_copy)
    assert [row["step"] for row in read_metrics(trained_copy, run)] == list(range(5, 61, 5))


@pytest.mark.usefixtures("in_process")
def test_lora_goes_on_where_it_was_and_only_beside_the_weights_it_belongs_to(
    trained_copy: Lake, quick_recipe: Recipe
) -> None:
    def with_lora(**fields: Any) -> Recipe:
        prior = quick_recipe.prior.model_copy(update={"lora_rank": 4, "learning_rate": 1e-3, **fields})
        return quick_recipe.model_copy(update={"prior": prior})

    manifest = run_stage("prior", with_lora(), trained_copy).manifest
    undisturbed = losses(trained_copy, "prior")
    run = manifest.details["networks"][0]["run"]
    first, last = checkpoints.of_run(trained_copy, run)[0], checkpoints.of_run(trained_copy, run)[-1]
    assert run_stage("prior", with_lora(), trained_copy, resume=first.folder).state == "done"
    assert losses(trained_copy, "prior") == undisturbed, "bit for bit"
    assert latest(trained_copy, "prior").digest == manifest.digest
    with pytest.raises(StageError, match=r"has lora_alpha 16, the recipe 99; set it back, or adopt the checkpoint"):
        run_stage("prior", with_lora(lora_alpha=99, steps=80), trained_copy, resume=last.folder)
    with pytest.raises(StageError, match=r"has seed 0, the recipe 1"):
        run_stage("prior", with_lora(seed=1, steps=80), trained_copy, resume=last.folder)


@pytest.mark.usefixtures("in_process")
def test_fewer_sampling_steps_train_nothing_again(trained_copy: Lake, quick_recipe: Recipe) -> None:
    faster = quick_recipe.model_copy(
        update={"decoder": quick_recipe.decoder.model_copy(update={"sample_timesteps": 4})}
    )
    assert [run_stage(stage, faster, trained_copy).state for stage in TRAINING_STAGES] == [
        "unchanged",
        "unchanged",
        "done",
    ]


def test_the_dataset_may_be_written_while_a_training_goes_on(trained_copy: Lake, quick_recipe: Recipe) -> None:
    with trained_copy.writer("prior"):
        assert run_stage("verify", quick_recipe, trained_copy).state == "unchanged"
        other = Lake(trained_copy.url, trained_copy.dataset)
        with other.writer(), other.scratch("held") as held:
            assert held.exists()


def test_a_checkpoint_beyond_the_last_step_is_refused(trained_copy: Lake, quick_recipe: Recipe) -> None:
    last = latest(trained_copy, "prior").details["networks"][0]["last"]["folder"]
    other = quick_recipe.model_copy(update={"prior": quick_recipe.prior.model_copy(update={"seed": 9})})
    with pytest.raises(StageError, match=r"already at the last of prior\.steps = 60: raise it"):
        run_stage("prior", other, trained_copy, resume=last)


def test_the_childs_error_is_the_commands_error(trained_copy: Lake, quick_recipe: Recipe) -> None:
    """A file of the dataset that is all zeros: the command raises the error of its child process."""
    emptied = Path(trained_copy.full(latest(trained_copy, "verify").details["shards"][0]["img_emb"]["path"]))
    size = emptied.stat().st_size
    emptied.write_bytes(b"\0" * size)
    other = quick_recipe.model_copy(update={"prior": quick_recipe.prior.model_copy(update={"seed": 5})})
    with pytest.raises(StageError, match=r"img_emb_00000\.npy"):
        run_stage("prior", other, trained_copy)


def test_without_a_verified_dataset_there_is_no_training(quick_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(StageNotDone, match="prior needs verify of dataset 'demo', which is missing"):
        run_stage("prior", quick_recipe, Lake(str(tmp_path), "demo"))


def test_training_leaves_the_dataset_stages_unchanged(trained_lake: Lake, demo_lake: Lake) -> None:
    for stage in DATASET_STAGES:
        assert latest(trained_lake, stage).digest == latest(demo_lake, stage).digest


@pytest.mark.usefixtures("in_process")
def test_a_cascade_of_two_unets_trains_and_enlarges(trained_copy: Lake) -> None:
    small = "{dim: 8, dim_mults: [1, 2], cond_dim: 8, num_resnet_blocks: 1, attn_heads: 1, attn_dim_head: 8, "
    small += "self_attn: [false, false], sparse_attn: false, init_cross_embed: false, image_size_px: "
    cascade = load_recipe(
        "demo",
        [
            "source.demo.num_kids=100",
            "shard.samples_per_shard=20",
            "decoder.steps=2",
            "decoder.batch_size=4",
            "decoder.sample_timesteps=2",
            "decoder.objective=noise",
            f"decoder.unets=[{small}16}}, {small}32}}]",
        ],
    )
    manifest = run_stage("decoder", cascade, trained_copy).manifest
    assert manifest.details["networks"][0]["last"]["step"] == 2
    from sp_data.generation.generator import ImageGenerator
    from sp_data.generation.models import load_models

    models = load_models(cascade, trained_copy)
    (dreamt,) = ImageGenerator(models, "fp32").dream(["a kid"])
    assert dreamt.picture.size == (32, 32)
    assert models.decoder.image_sizes == (16, 32)


@pytest.mark.usefixtures("in_process")
def test_models_that_look_at_words_train_and_dream(trained_copy: Lake, tmp_path: Path) -> None:
    """With a CLIP in OpenAI's format whose text tower is as wide as its embeddings, like ViT-L/14."""
    weights = tmp_path / "clip.pt"
    save_openai_clip(weights)
    unet = "{dim: 8, dim_mults: [1, 2], cond_dim: 8, num_resnet_blocks: 1, attn_heads: 1, attn_dim_head: 8, "
    unet += "self_attn: [false, false], sparse_attn: false, image_size_px: 16, text_encodings: true}"
    wordy = load_recipe(
        "demo",
        [
            "source.demo.num_kids=100",
            "shard.samples_per_shard=20",
            f"embed={{clip_model: {weights}, name: words, dim: 64}}",
            "prior.text_encodings=true",
            "prior.max_text_len=77",
            "prior.steps=3",
            "prior.batch_size=4",
            "decoder.steps=2",
            "decoder.batch_size=4",
            "decoder.sample_timesteps=2",
            "decoder.image_cond_drop_prob=0.1",
            f"decoder.unets=[{unet}]",
        ],
    )
    for stage in ("embed", "reorder", "verify", "prior", "decoder"):
        assert run_stage(stage, wordy, trained_copy).state == "done"
    from sp_data.generation.generator import ImageGenerator
    from sp_data.generation.models import load_models
    from sp_data.generation.options import SamplingOptions

    check_words(trained_copy, wordy)
    models = load_models(wordy, trained_copy)
    generator = ImageGenerator(models, "fp32")
    (plain,) = generator.dream(["a kid"])
    (guided,) = generator.dream(["a kid"], options=SamplingOptions(cond_scale=2.0))
    assert plain.picture.size == (16, 16)
    assert plain.png() != guided.png()


def check_words(lake: Lake, recipe: Recipe) -> None:
    """They were encoded once for both trainings, and are what the CLIP says, rounded to half precision."""
    from sp_data.dataset.embed.clip import load_clip
    from sp_data.dataset.loader import Samples
    from sp_data.training.words import WordEncoder, with_words

    verified = latest(lake, "verify")
    assert len(lake.list("words")) == 4, "two files for each of train and val"
    clip = str(verified.details["clip"])
    with Samples(verified, lake, "train") as samples, contextlib.ExitStack() as stack:
        kept = with_words(samples, "train", lake, clip, verified.digest, recipe.embed.dim, stack)
        encoded = WordEncoder(load_clip(recipe.embed.clip_model, recipe.embed.dim))([samples.caption(3)])[0]
        assert torch.equal(kept[3]["text_encodings"], encoded.half())
        assert kept[3]["key"] == samples[3]["key"]


@pytest.mark.usefixtures("in_process")
def test_words_of_a_narrower_text_tower_are_refused(trained_copy: Lake, quick_recipe: Recipe) -> None:
    words = quick_recipe.prior.model_copy(update={"text_encodings": True, "max_text_len": 77})
    with pytest.raises(StageError, match=r"text tower is 40 wide, its embeddings 128.*set text_encodings to false"):
        run_stage("prior", quick_recipe.model_copy(update={"prior": words}), trained_copy)


def test_a_runs_files_do_not_tell_where_it_was_made(trained_lake: Lake) -> None:
    """Neither the lake's path nor the machine's name."""
    for path in Path(trained_lake.full("runs")).rglob("*.json*"):
        assert str(trained_lake.root) not in path.read_text("utf-8")
        assert os.uname().nodename not in path.read_text("utf-8")
