"""What goes wrong around a training, and what is said then: full disks, changed bytes, other data, ended processes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from sp_data import cli
from sp_data import manifest as manifests
from sp_data.errors import LakeFull, StageError
from sp_data.generation.models import BEST, LATEST, find_checkpoints
from sp_data.generation.picture import read_origin
from sp_data.lake import Lake
from sp_data.pipeline import run_stage
from sp_data.recipe import Decoder, Recipe
from sp_data.training import checkpoints, stage
from sp_data.training.checkpoints import Checkpoint
from sp_data.training.decoder import UnetTask, draw
from sp_data.training.draws import Draws
from sp_data.training.loop.loop import Loop
from sp_data.training.loop.metrics import read_metrics
from sp_data.training.models import build_decoder, unet_config
from sp_data.training.task import Batch

RED = "a kid in a red coat"
WAIT_S = 120
SMALL_UNET = {
    "dim": 8,
    "dim_mults": [1, 2],
    "cond_dim": 16,
    "num_resnet_blocks": 1,
    "attn_heads": 2,
    "attn_dim_head": 8,
    "self_attn": [False, False],
    "sparse_attn": False,
    "init_cross_embed": False,
}
CASCADE = {
    "batch_size": 2,
    "image_cond_drop_prob": 0.1,
    "text_cond_drop_prob": 0.0,
    "unets": [{**SMALL_UNET, "image_size_px": 16}, {**SMALL_UNET, "image_size_px": 32}],
}

Command = Callable[..., SimpleNamespace]


@pytest.fixture
def sp_data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process: its exit code and what it wrote."""

    def run(*arguments: object, lake: Lake) -> SimpleNamespace:
        words = ["sp-data", *map(str, arguments), "--lake", str(Path(lake.root).parent)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code, out=out, err=err, sentence=(err.splitlines() or [""])[-1])

    return run


def network_of(lake: Lake, kind: str) -> dict[str, Any]:
    """The prior, or the first unet, as the manifest describes it."""
    manifest = manifests.latest(lake, kind)
    assert manifest is not None
    described: dict[str, Any] = manifest.details["networks"][0]
    return described


def with_prior(recipe: Recipe, **changes: object) -> Recipe:
    return recipe.model_copy(update={"prior": recipe.prior.model_copy(update=changes)})


def kept_as_yaml(recipe: Recipe, folder: Path) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(recipe.model_dump_json())
    return file


def copy_of_checkpoint(lake: Lake, checkpoint: Checkpoint, folder: str, **changes: object) -> str:
    """A checkpoint's folder copied to `folder` in the lake; with changes: from a lake that differs by these."""
    copy = Path(lake.full(folder))
    shutil.copytree(lake.full(checkpoint.folder), copy)
    record = json.loads((copy / "checkpoint.json").read_text())
    (copy / "checkpoint.json").write_text(json.dumps(record | changes))
    return folder


def change_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# An upsampler and the unet before it.


def test_an_upsampler_enlarges_the_very_picture_that_the_unet_before_it_is_taught() -> None:
    """A pattern of single pixels is grey when it is made small by a filter; every second pixel would be all black."""
    stripes = torch.zeros(2, 3, 32, 32)
    stripes[0, :, :, ::2] = 1
    stripes[1, :, ::2, 1::2] = stripes[1, :, 1::2, ::2] = 1
    batch: Batch = {"image": stripes, "image_embed": torch.nn.functional.normalize(torch.ones(2, 24), dim=-1)}
    taught, condition = (seen_in_training(number, batch) for number in (1, 2))
    assert torch.equal(condition["lowres_cond_img"], taught["target"].repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(condition["target"], stripes)
    inside = condition["lowres_cond_img"][..., 4:-4, 4:-4]
    assert (inside - 0.5).abs().max() < 0.1, "grey"
    # What dalle2-pytorch itself would take.
    nearest = torch.nn.functional.interpolate(stripes, 16, mode="nearest")
    assert not (nearest - taught["target"]).abs().max() < 0.4


def seen_in_training(number: int, batch: Batch) -> dict[str, Any]:
    """What a unet's loss is computed from, in a step without blur."""
    task = UnetTask(Decoder.model_validate(CASCADE), number, 24)
    seen: dict[str, Any] = {}

    def p_losses(network: object, target: torch.Tensor, times: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.update(options, target=target)
        return torch.zeros(())

    task.model.p_losses = p_losses
    draws = (Draws((0, "step", step), 2, None, torch.device("cpu")) for step in range(100))
    task.loss(batch, next(one for one in draws if one.scalar("blur") > 0.5))
    return seen


def test_guidance_runs_a_unet_without_a_condition_once_a_step() -> None:
    settings = Decoder.model_validate(CASCADE)
    decoder = build_decoder([unet_config(settings, number, 24) for number in (1, 2)]).eval()
    num_calls = [0, 0]

    def counting(index: int) -> None:
        forward = decoder.unets[index].forward

        def counted(*arguments: Any, **options: Any) -> Any:
            num_calls[index] += 1
            return forward(*arguments, **options)

        decoder.unets[index].forward = counted

    for index in (0, 1):
        counting(index)
    embeds = torch.nn.functional.normalize(torch.ones(1, 24), dim=-1)
    for cond_scale, expected in ((1.0, [4, 4]), (2.0, [8, 4])):
        num_calls[:] = [0, 0]
        with torch.inference_mode():
            draw(decoder, embeds, steps=4, cond_scale=cond_scale)
        assert num_calls == expected


# A full disk.

SAFETENSORS_OWN = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
TORCHS_OWN = RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 416128 vs 416080")


@pytest.fixture
def disk_full_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Let the `number`-th save find the disk full while it writes one of its files."""

    def arm(file: str, number: int) -> None:
        function = {"weights": "save_file", "state": "torch.save"}[file]
        original: Any = {"weights": save_file, "state": torch.save}[file]
        num_calls = 0
        monkeypatch.setattr(
            "sp_data.training.checkpoints.shutil.disk_usage",
            lambda _: SimpleNamespace(free=10**12 if num_calls < number else 0),
        )

        def write(value: Any, target: Any) -> None:
            nonlocal num_calls
            num_calls += 1
            if num_calls < number:
                original(value, target)
            elif file == "weights":
                target.write_bytes(b"half of it")
                raise SAFETENSORS_OWN
            else:
                target.write(b"half of it")
                raise TORCHS_OWN

        monkeypatch.setattr(f"sp_data.training.checkpoints.{function}", write)

    return arm


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("file", ["weights", "state"])
def test_a_disk_that_is_full_while_saving_says_so_and_keeps_what_was(
    file: str,
    trained_copy: Lake,
    quick_recipe: Recipe,
    disk_full_at: Callable[[str, int], None],
    sp_data: Command,
    tmp_path: Path,
) -> None:
    before = {path.name for path in Path(trained_copy.full("runs")).iterdir()}
    other = with_prior(quick_recipe, seed=8, steps=16, save_every=4)
    disk_full_at(file, 2)
    ended = sp_data("train", "prior", kept_as_yaml(other, tmp_path), lake=trained_copy)
    assert ended.code == 1
    assert ended.sentence.startswith("sp-data: no space left for ")
    assert ended.sentence.endswith("free some, then run the same command again")
    assert "step-00000008" in ended.sentence
    (run,) = {path.name for path in Path(trained_copy.full("runs")).iterdir()} - before
    assert [checkpoint.step for checkpoint in checkpoints.of_run(trained_copy, run)] == [4]
    assert not list(Path(trained_copy.full(f"runs/{run}")).rglob("*step-00000008*"))
    assert not [path for path in Path(trained_copy.full(".scratch")).rglob("*") if path.is_file()]


@pytest.mark.usefixtures("in_process")
def test_once_there_is_room_the_same_command_goes_on(
    trained_copy: Lake, quick_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = with_prior(quick_recipe, seed=8, steps=8, save_every=4)
    with monkeypatch.context() as full:
        targets: list[Path] = []

        def only_once(weights: dict[str, torch.Tensor], target: Path) -> None:
            targets.append(target)
            if len(targets) > 1:
                raise SAFETENSORS_OWN
            save_file(weights, target)

        full.setattr(checkpoints, "save_file", only_once)
        with pytest.raises(LakeFull):
            run_stage("prior", other, trained_copy)
    with caplog.at_level(logging.INFO, "sp_data"):
        assert run_stage("prior", other, trained_copy).state == "done"
    assert "goes on from step 4 of 8" in caplog.text


def test_an_error_of_torchs_that_no_disk_caused_stays_what_it_is(
    trained_lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkpoint,) = find_checkpoints("prior", trained_lake, [BEST])

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("sp_data.training.checkpoints.torch.save", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        checkpoints.save(Lake(str(tmp_path), "demo"), checkpoint, {"a": torch.zeros(2)}, {"step": 1})


# Commands and bytes.


def test_dream_takes_a_setting_for_a_dataset_that_is_called_like_no_recipe(
    trained_copy: Lake, sp_data: Command, tmp_path: Path
) -> None:
    Path(trained_copy.root).rename(Path(trained_copy.root).with_name("mykids"))
    lake = Lake(str(Path(trained_copy.root).parent), "mykids")
    options = ("--set", "decoder.sample_timesteps=3", "--out", tmp_path / "out", "--quiet")
    ended = sp_data("dream", RED, *options, lake=lake)
    assert ended.code == 0, ended.err
    (picture,) = (tmp_path / "out").iterdir()
    assert read_origin(picture.read_bytes(), str(picture))["steps"] == [3, 3]


@pytest.mark.parametrize("kind", ["prior", "decoder"])
def test_dream_refuses_weights_of_which_a_byte_changed(
    kind: str, trained_copy: Lake, sp_data: Command, tmp_path: Path
) -> None:
    weights = Path(trained_copy.full(f"{network_of(trained_copy, kind)['best']['folder']}/weights.safetensors"))
    change_a_byte(weights)
    ended = sp_data("dream", RED, "--out", tmp_path / "out", lake=trained_copy)
    assert ended.code == 1
    assert ended.sentence.startswith(f"sp-data: {weights} was changed since it was written: its sha256 is ")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("file", ["weights.safetensors", "state.pt"])
def test_resume_refuses_a_checkpoint_of_which_a_byte_changed(
    file: str, trained_copy: Lake, quick_recipe: Recipe, sp_data: Command, tmp_path: Path
) -> None:
    last = network_of(trained_copy, "prior")["last"]["folder"]
    change_a_byte(Path(trained_copy.full(f"{last}/{file}")))
    longer = kept_as_yaml(with_prior(quick_recipe, steps=80), tmp_path)
    ended = sp_data("train", "prior", longer, "--resume", last, lake=trained_copy)
    assert ended.code == 1
    assert ended.sentence.startswith(f"sp-data: {trained_copy.full(last)}/{file} was changed since it was written")


# Checkpoints of other runs, lakes and datasets.


def test_a_run_that_was_copied_whole_is_found_as_latest_and_best(
    trained_lake: Lake, demo_lake: Lake, lake_copy: Lake
) -> None:
    for kind in ("prior", "decoder"):
        manifest = manifests.latest(trained_lake, kind)
        assert manifest is not None
        for network in manifest.details["networks"]:
            shutil.copytree(trained_lake.full(f"runs/{network['run']}"), lake_copy.full(f"runs/{network['run']}"))
        for choice in (BEST, LATEST):
            expected = [checkpoint.name for checkpoint in find_checkpoints(kind, trained_lake, [choice])]
            assert [checkpoint.name for checkpoint in find_checkpoints(kind, lake_copy, [choice])] == expected


def test_a_copied_checkpoint_draws_under_any_name(trained_copy: Lake, sp_data: Command, tmp_path: Path) -> None:
    """Its old folder is gone, so that nothing can come from there."""
    arguments: list[object] = []
    for kind in ("prior", "decoder"):
        for checkpoint in find_checkpoints(kind, trained_copy, [BEST]):
            folder = copy_of_checkpoint(trained_copy, checkpoint, f"runs/of-a-friend/checkpoints/{checkpoint.run}")
            arguments += ["--checkpoint", folder]
            shutil.rmtree(trained_copy.full(f"runs/{checkpoint.run}"))
    ended = sp_data("dream", RED, "--steps", 2, "--out", tmp_path / "out", "--quiet", *arguments, lake=trained_copy)
    assert ended.code == 0, ended.err
    assert len(list((tmp_path / "out").iterdir())) == 1


@pytest.mark.usefixtures("in_process")
def test_a_checkpoint_of_another_dataset_is_resumed_and_the_new_dataset_recorded(
    trained_copy: Lake, quick_recipe: Recipe
) -> None:
    (here,) = find_checkpoints("prior", trained_copy, [LATEST])
    folder = copy_of_checkpoint(
        trained_copy, here, "runs/theirs/checkpoints/good", run="prior-theirs", dataset="f" * 64
    )
    run_stage("prior", with_prior(quick_recipe, steps=64, save_every=4), trained_copy, resume=folder)
    (resumed,) = find_checkpoints("prior", trained_copy, [LATEST])
    assert (resumed.step, resumed.dataset) == (64, here.dataset)
    assert resumed.ancestor == f"prior-theirs/step-00000060/{here.digest[:16]}"


@pytest.mark.usefixtures("in_process")
def test_a_checkpoint_of_another_clip_is_refused(trained_copy: Lake, quick_recipe: Recipe) -> None:
    (here,) = find_checkpoints("prior", trained_copy, [LATEST])
    folder = copy_of_checkpoint(trained_copy, here, "runs/theirs/checkpoints/good", run="prior-theirs", clip="b32-0000")
    before = sorted(Path(trained_copy.full("runs")).rglob("*.safetensors"))
    with pytest.raises(StageError, match=rf"was trained on embeddings of b32-0000, and this dataset has .*{here.clip}"):
        run_stage("prior", with_prior(quick_recipe, steps=64), trained_copy, resume=folder)
    assert sorted(Path(trained_copy.full("runs")).rglob("*.safetensors")) == before


@pytest.mark.usefixtures("in_process")
def test_after_resume_the_recipes_optimizer_settings_count_and_the_kept_averages(
    trained_copy: Lake, quick_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[dict[str, Any]], float]] = []
    train_step = Loop.step

    def step(self: Loop, number: int, batch: Batch) -> torch.Tensor:
        loss = train_step(self, number, batch)
        groups = [
            {name: value for name, value in one.items() if name != "params"} for one in self.optimizer.param_groups
        ]
        (age,) = {float(state["step"]) for state in self.optimizer.state.values()}
        seen.append((groups, age))
        return loss

    monkeypatch.setattr(Loop, "step", step)
    last = network_of(trained_copy, "prior")["last"]["folder"]
    changes = {"learning_rate": 3e-5, "lr_scheduler": "constant", "lr_warmup_steps": 0, "weight_decay": 0.3}
    run_stage("prior", with_prior(quick_recipe, steps=62, adam_epsilon=1e-7, **changes), trained_copy, resume=last)
    assert len(seen) == 2
    for number, (groups, age) in enumerate(seen):
        assert [group["lr"] for group in groups] == [3e-5, 3e-5]
        assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
        assert [group["eps"] for group in groups] == [1e-7, 1e-7]
        assert age == 61 + number, "of 60 steps before"


@pytest.mark.usefixtures("in_process")
def test_another_precision_trains_again_and_each_checkpoint_tells_its_own(
    trained_copy: Lake, quick_recipe: Recipe
) -> None:
    results = []
    for precision in ("bf16", "fp32"):
        changed = with_prior(quick_recipe, precision=precision, steps=2, save_every=2)
        results.append(run_stage("prior", changed, trained_copy))
        (checkpoint,) = find_checkpoints("prior", trained_copy, [LATEST])
        assert checkpoint.settings["precision"] == precision
    assert [result.state for result in results] == ["done", "done"]
    assert len({result.manifest.details["networks"][0]["best"]["digest"] for result in results}) == 2


# Which run is the newest.


def stop_after(step: int) -> Any:
    def check(_: Loop, row: dict[str, Any]) -> None:
        if row["step"] > step:
            raise KeyboardInterrupt

    return check


@pytest.mark.usefixtures("in_process")
def test_latest_is_the_run_that_trains_now_and_best_the_one_that_finished(
    trained_copy: Lake, quick_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = network_of(trained_copy, "prior")
    monkeypatch.setattr(Loop, "_check", stop_after(6))
    with pytest.raises(KeyboardInterrupt):
        run_stage("prior", with_prior(quick_recipe, seed=2, steps=20, save_every=4), trained_copy)
    (latest,) = find_checkpoints("prior", trained_copy, [LATEST])
    assert latest.step == 4
    assert latest.run != finished["run"]
    (best,) = find_checkpoints("prior", trained_copy, [BEST])
    assert (best.run, best.digest) == (finished["run"], finished["best"]["digest"])


@pytest.mark.parametrize("newest", ["prior-00000000", "prior-ffffffff"])
def test_the_newest_run_is_the_one_that_saved_last_however_it_is_called(newest: str, trained_copy: Lake) -> None:
    for path in trained_copy.list("manifests/prior"):
        trained_copy.remove(path)
    (run,) = {one.run for one in find_checkpoints("prior", trained_copy, [LATEST])}
    for name in ("prior-00000000", "prior-ffffffff"):
        copy = Path(trained_copy.full(f"runs/{name}"))
        shutil.copytree(trained_copy.full(f"runs/{run}"), copy)
        (copy / "config.json").write_text(json.dumps({"kind": "prior", "run": name, "runs": [name], "dataset": ""}))
        for file in copy.rglob("checkpoint.json"):
            record = json.loads(file.read_text().replace(run, name))
            hour = 2 if name == newest else 1
            file.write_text(json.dumps(record | {"made_at": f"2100-01-01T0{hour}:00:00+00:00"}))
    assert [one.run for choice in (LATEST, BEST) for one in find_checkpoints("prior", trained_copy, [choice])] == [
        newest,
        newest,
    ]


# How a training ends.


@pytest.mark.usefixtures("in_process")
def test_a_training_that_stops_early_is_done(
    trained_copy: Lake, quick_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    losses = iter([0.5, 0.4, 0.45, 0.41, 0.3])
    evaluate = Loop._evaluate
    monkeypatch.setattr(Loop, "_evaluate", lambda self: {**evaluate(self), "val_loss": next(losses)})
    patient = with_prior(quick_recipe, seed=4, steps=40, save_every=4, early_stopping_patience=2)
    with caplog.at_level(logging.INFO, "sp_data"):
        result = run_stage("prior", patient, trained_copy)
    assert "prior: stops at step 16: the validation loss has not fallen for 2 evaluations" in caplog.text
    assert result.state == "done"
    network = network_of(trained_copy, "prior")
    assert (network["best"]["step"], network["last"]["step"]) == (8, 16)
    assert run_stage("prior", patient, trained_copy).state == "unchanged"
    assert next(losses) == 0.3, "the fifth evaluation never came"


def fake_child(script: str) -> Any:
    """In place of the training: a shell that writes a log and ends as the script says."""

    @contextlib.contextmanager
    def child(module: str, *_: str, log: Path, **__: object) -> Iterator[subprocess.Popen[bytes]]:
        assert module == "sp_data.training.worker"
        with log.open("wb") as output:
            process = subprocess.Popen(["sh", "-c", script], stdout=output, stderr=subprocess.STDOUT)
        yield process
        process.wait()

    return child


def cpu_out_of_memory() -> str:
    """What torch says on this machine."""
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    return str(raised.value).splitlines()[0]


CUDA_OUT_OF_MEMORY = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.15 GiB"
)


@pytest.mark.parametrize(
    ("log_text", "ending"),
    [
        (CUDA_OUT_OF_MEMORY, "exit 1"),
        (cpu_out_of_memory, "exit 1"),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8.00 EiB for an array", "exit 1"),
        ("", "kill -9 $$"),
    ],
    ids=["cuda", "torch", "numpy", "the kernel"],
)
def test_memory_that_ran_out_is_answered_with_the_settings_that_need_less(
    log_text: str | Callable[[], str],
    ending: str,
    trained_copy: Lake,
    quick_recipe: Recipe,
    sp_data: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = log_text if isinstance(log_text, str) else log_text()
    (tmp_path / "said").write_text(f"::step 7\n{text}\n")
    monkeypatch.setattr(stage, "python_child", fake_child(f"cat '{tmp_path}/said'; {ending}"))
    other = kept_as_yaml(with_prior(quick_recipe, seed=6), tmp_path)
    ended = sp_data("train", "prior", other, lake=trained_copy)
    assert ended.code == 1
    assert "at step 7" in ended.sentence
    assert "lower prior.micro_batch_size" in ended.sentence
    assert "gradient_checkpointing" not in ended.sentence, "the prior has none"
    assert ended.sentence.startswith("sp-data: the prior did not fit into memory" if text else "sp-data: the training")
    assert text or "was killed at step 7, perhaps because memory ran out" in ended.sentence


class Training:
    """`sp-data train prior` of a recipe without an end, as a process."""

    def __init__(self, lake: Lake, recipe: Recipe, folder: Path, processes: int) -> None:
        endless = {"seed": 5, "steps": 100_000, "save_every": 100_000, "log_every": 5, "processes": processes}
        recipe_file = kept_as_yaml(with_prior(recipe, **endless), folder)
        self.lake = lake
        self.command = [sys.executable, "-m", "sp_data.cli", "train", "prior", str(recipe_file)]
        self.command += ["--lake", str(Path(lake.root).parent)]
        self.known = self.runs()

    def runs(self) -> set[str]:
        return {path.name for path in Path(self.lake.full("runs")).iterdir()}

    @property
    def run(self) -> str:
        (name,) = self.runs() - self.known
        return name

    def signal_beyond(self, step: int, number: int, whom: Callable[[int], int]) -> str:
        """Send a signal to one of the command's descendants once some steps are done; gives the command's sentence."""
        process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + WAIT_S
        while self.runs() == self.known or not [row for row in read_metrics(self.lake, self.run) if row["step"] > step]:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(whom(process.pid), number)
        _, said = process.communicate(timeout=WAIT_S)
        assert process.returncode == 1
        return said.splitlines()[-1]


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_worker_told_to_stop_saves_and_one_that_is_killed_is_missed(
    trained_copy: Lake, quick_recipe: Recipe, tmp_path: Path
) -> None:
    """SIGTERM and SIGKILL to the worker alone; the command says what happened, and goes on the next time."""
    training = Training(trained_copy, quick_recipe, tmp_path, processes=1)
    said = training.signal_beyond(0, signal.SIGTERM, lambda pid: children_of(pid)[0])
    (saved,) = checkpoints.of_run(trained_copy, training.run)
    assert said.endswith(
        f"was told to stop at step {saved.step:,}, and saved first; the same command goes on from there"
    )
    said = training.signal_beyond(saved.step, signal.SIGKILL, lambda pid: children_of(pid)[0])
    assert "the training of the prior was killed at step" in said
    assert said.endswith("the same command goes on from its last checkpoint")
    assert checkpoints.of_run(trained_copy, training.run) == [saved]


@pytest.mark.proof
@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_two_processes_that_is_killed_is_missed(
    rank: int, trained_copy: Lake, quick_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    training = Training(trained_copy, quick_recipe, tmp_path, processes=2)
    said = training.signal_beyond(5, signal.SIGKILL, lambda pid: children_of(children_of(pid)[0])[rank])
    assert "the training of the prior was killed at step" in said
    assert said.endswith("the same command goes on from its last checkpoint")
