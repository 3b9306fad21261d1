"""What is in a file of dalle2-pytorch's, of each shape that one has; nothing in it is run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from dalle2_pytorch import Decoder, DiffusionPrior, DiffusionPriorNetwork, Unet
from dalle2_pytorch.trainer import DecoderTrainer, DiffusionPriorTrainer
from legacy_references import FOLDER, network, unpacked
from packaging.version import Version
from safetensors.torch import save_file

from sp_data.errors import CorruptFile, UsageError
from sp_data.training.weights.read import networks_of, read

UNET = {
    "dim": 8,
    "dim_mults": (1, 2),
    "cond_dim": 8,
    "image_embed_dim": 16,
    "num_resnet_blocks": 1,
    "attn_heads": 1,
    "attn_dim_head": 8,
    "max_text_len": 1,
}


def test_the_decoder_of_laions_scripts_has_a_pickled_version_and_its_configuration(tmp_path: Path) -> None:
    decoder = network("1.0.1/decoder.pth", tmp_path)
    assert (decoder.kind, decoder.unet, decoder.version) == ("unet", 1, "1.0.1")
    assert decoder.config is not None and decoder.config["decoder"]["unets"][0]["dim"] == 8
    assert "init_conv.convs.0.weight" in decoder.state
    assert not any(name.startswith(("unets", "noise")) for name in decoder.state)


def test_a_version_of_todays_packaging_is_read_too(tmp_path: Path) -> None:
    torch.save({"version": Version("1.2.3"), "model": {"net.learned_query": torch.zeros(2)}}, tmp_path / "x.pth")
    (prior,) = read(tmp_path / "x.pth")
    assert prior.version == "1.2.3"


def test_a_prior_comes_without_its_clip_and_noise_schedule(tmp_path: Path) -> None:
    prior = network("1.0.1/prior.pth", tmp_path)
    assert (prior.kind, prior.unet, prior.version, prior.config) == ("prior", None, None, None)
    assert all(name.startswith("net.") for name in prior.state)


def test_an_upsampler_behind_an_identity_is_unet_2_and_alone(tmp_path: Path) -> None:
    upsampler = network("1.0.1/upsampler.pth", tmp_path)
    assert (upsampler.kind, upsampler.unet) == ("unet", 2)
    assert upsampler.state["init_conv.weight"].shape[1] == 6


def test_a_bare_unet_is_numbered_by_the_channels_that_come_in() -> None:
    for channels, number in ((3, 1), (6, 2)):
        (unet,) = networks_of({"init_conv.weight": torch.zeros(8, channels, 7, 7)}, "x")
        assert unet.unet == number


@pytest.fixture(scope="module")
def prior_trainer() -> Any:
    torch.manual_seed(0)
    net = DiffusionPriorNetwork(dim=16, depth=1, heads=1, dim_head=8, num_timesteps=10, max_text_len=1)
    trainer = DiffusionPriorTrainer(
        DiffusionPrior(net, image_embed_dim=16, timesteps=10, condition_on_text_encodings=False),
        warmup_steps=3,
        ema_update_after_step=0,
    )
    trainer(text_embed=torch.randn(4, 16), image_embed=torch.randn(4, 16))
    trainer.update()
    return trainer


def test_of_a_prior_trainers_file_the_average_is_taken_and_its_optimizer_stays_unpickled(
    prior_trainer: Any, tmp_path: Path
) -> None:
    with torch.no_grad():
        prior_trainer.ema_diffusion_prior.ema_model.net.learned_query.fill_(7)
    prior_trainer.save(str(tmp_path / "prior.pth"))
    (prior,) = read(tmp_path / "prior.pth")
    assert prior.kind == "prior" and prior.version == "1.15.6"
    assert prior.state["net.learned_query"].eq(7).all()
    assert not any("schedul" in name for name in prior.state)


def test_of_a_decoder_trainers_file_a_unet_is_averaged_once_its_average_has_begun(tmp_path: Path) -> None:
    torch.manual_seed(0)
    decoder = Decoder((Unet(**UNET), Unet(**UNET)), image_sizes=(8, 16), timesteps=20)
    trainer = DecoderTrainer(decoder, ema_update_after_step=0)
    # Only the first unet has been trained; as many updates as its average waits for.
    trainer(torch.rand(2, 3, 16, 16), image_embed=torch.randn(2, 16), unet_number=1)
    trainer.update(1)
    trainer.ema_unets[0].initted.fill_(True)
    with torch.no_grad():
        for average in trainer.ema_unets:
            average.ema_model.null_image_hiddens.fill_(7)
    trainer.save(str(tmp_path / "decoder.pth"))
    first, second = read(tmp_path / "decoder.pth")
    assert (first.unet, second.unet) == (1, 2)
    assert first.state["null_image_hiddens"].eq(7).all()
    assert not second.state["null_image_hiddens"].eq(7).any()


def test_safetensors_and_the_old_form_of_pth_are_read(tmp_path: Path) -> None:
    state = {"net.learned_query": torch.arange(2.0)}
    save_file(state, tmp_path / "x.safetensors")
    torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    for name in ("x.safetensors", "x.pth"):
        (prior,) = read(tmp_path / name)
        assert prior.state["net.learned_query"].tolist() == [0, 1]


class Trap:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_would_have_to_run_is_refused_by_name_and_does_not_run(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"model": {"net.learned_query": torch.zeros(1)}, "extra": Trap()}
    torch.save(content, "trap.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UsageError, match=r"posix\.mkdir, which loading would run"):
        read(Path("trap.pth"))
    assert not Path("sprung").exists()
    # The trap works: unpickled it is sprung.
    pickle.loads(pickle.dumps(Trap()))
    assert Path("sprung").exists()


def test_a_stand_in_makes_nothing_of_what_it_is_given(tmp_path: Path) -> None:
    """`builtins.dict` and torch's optimizers are names that files have; what stands in for them takes and drops."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    torch.save({"optimizer": optimizer, "model": {"net.learned_query": torch.zeros(1)}}, tmp_path / "x.pth")
    (prior,) = read(tmp_path / "x.pth")
    assert list(prior.state) == ["net.learned_query"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"net.x": torch.zeros(1), "head.weight": torch.zeros(1)}, "weight head.weight is neither"),
        ({"clip.x": torch.zeros(1)}, "holds no weights of a prior or a unet"),
        ({"net.x": torch.zeros(1), "unets.0.x": torch.zeros(1)}, "mixes"),
        ({"epoch": 3}, "holds epoch at its top"),
        ([1, 2], "holds a list"),
    ],
)
def test_what_is_no_prior_and_no_decoder_is_said(content: Any, named: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CorruptFile, match=named):
        read(tmp_path / "x.pth")


def test_a_file_that_was_cut_is_corrupt_and_one_that_is_missing_a_mistake(tmp_path: Path) -> None:
    whole = unpacked("1.0.1/prior.pth", tmp_path).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.safetensors").write_bytes((FOLDER / "1.0.1/expected.safetensors").read_bytes()[:1000])
    for name in ("cut.pth", "cut.safetensors"):
        with pytest.raises(CorruptFile, match="cannot be read"):
            read(tmp_path / name)
    with pytest.raises(UsageError, match="no file"):
        read(tmp_path / "missing.pth")
