"""Files of old dalle2-pytorch compute what they always did: against what its real code made of the same inputs."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from dalle2_pytorch import dalle2_pytorch as dalle2
from dalle2_pytorch.train_configs import DecoderConfig, DiffusionPriorConfig
from legacy_references import config, converted, difference, expected, network, recorded_noise
from tqdm.auto import tqdm

from sp_data.errors import UsageError
from sp_data.training.weights.fill import fill
from sp_data.training.weights.legacy import convert_unet, family
from sp_data.training.weights.patch import patch

CLOSE = 1e-5
FAR = 0.3


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(dalle2, "tqdm", partial(tqdm, disable=True))


def decoder_of(settings: dict[str, Any], *, patched: bool = True) -> Any:
    torch.manual_seed(0)
    decoder = DecoderConfig(**settings).create().eval().requires_grad_(False)
    if patched:
        patch(decoder)
    return decoder


def prior_of(settings: dict[str, Any], *, patched: bool = True) -> Any:
    torch.manual_seed(0)
    prior = DiffusionPriorConfig(**settings).create().eval().requires_grad_(False)
    if patched:
        patch(prior)
    return prior


@pytest.fixture(scope="module")
def outputs() -> dict[str, torch.Tensor]:
    return expected("1.0.1")


@pytest.fixture
def decoder(tmp_path: Path) -> Any:
    one = network("1.0.1/decoder.pth", tmp_path)
    assert one.config
    decoder = decoder_of(one.config["decoder"])
    fill(decoder.unets[0], converted(one), "decoder.pth")
    return decoder


@pytest.fixture
def cascade(decoder: Any, tmp_path: Path) -> Any:
    cascade = decoder_of(config("1.0.1/upsampler_config.json")["decoder"])
    fill(cascade.unets[0], decoder.unets[0].state_dict(), "decoder.pth")
    fill(cascade.unets[1], converted(network("1.0.1/upsampler.pth", tmp_path)), "upsampler.pth")
    return cascade


@pytest.fixture
def prior(tmp_path: Path) -> Any:
    prior = prior_of(config("1.0.1/prior_config.json")["prior"])
    fill(prior, converted(network("1.0.1/prior.pth", tmp_path)), "prior.pth")
    return prior


def unet_inputs(of: dict[str, torch.Tensor]) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    return (of["unet.picture"], of["unet.time"]), {
        "image_embed": of["unet.image_embed"],
        "text_encodings": of["unet.text_encodings"],
    }


def upsampled(unet: Any, of: dict[str, torch.Tensor]) -> torch.Tensor:
    output: torch.Tensor = unet(
        of["upsampler.picture"],
        of["upsampler.time"],
        image_embed=of["unet.image_embed"],
        lowres_cond_img=of["upsampler.lowres"],
        lowres_noise_level=of["upsampler.noise_level"],
    )
    return output


def words(of: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: of[f"prior.{name}"] for name in ("text_embed", "text_encodings")}


def test_a_unet_computes_what_1_0_computed(decoder: Any, outputs: dict[str, torch.Tensor]) -> None:
    inputs, condition = unet_inputs(outputs)
    unet = decoder.unets[0]
    assert difference(unet(*inputs, **condition), outputs["unet.output"]) <= CLOSE
    guided = unet.forward_with_cond_scale(*inputs, **condition, cond_scale=1.7)
    assert difference(guided, outputs["unet.guided"]) <= CLOSE


def test_an_upsampler_on_a_noisy_picture_computes_what_1_0_computed(
    cascade: Any, outputs: dict[str, torch.Tensor]
) -> None:
    assert difference(upsampled(cascade.unets[1], outputs), outputs["upsampler.output"]) <= CLOSE


def test_a_prior_computes_what_1_0_computed_and_its_guidance_changes_nothing(
    prior: Any, outputs: dict[str, torch.Tensor]
) -> None:
    inputs = (outputs["prior.embed"], outputs["prior.time"])
    plain = prior.net(*inputs, **words(outputs))
    assert difference(plain, outputs["prior.output"]) <= CLOSE
    guided = prior.net.forward_with_cond_scale(*inputs, **words(outputs), cond_scale=3.0)
    assert torch.equal(guided, plain)
    assert difference(guided, outputs["prior.guided"]) <= CLOSE


def test_whole_loops_with_the_same_noise_end_where_those_of_1_0_ended(
    decoder: Any, cascade: Any, prior: Any, outputs: dict[str, torch.Tensor]
) -> None:
    _, condition = unet_inputs(outputs)
    with recorded_noise(3):
        assert difference(decoder.sample(**condition, cond_scale=1.7), outputs["decoder.loop"]) <= CLOSE
    with recorded_noise(4):
        assert difference(cascade.sample(**condition, cond_scale=(1.7, 1.0)), outputs["cascade.loop"]) <= CLOSE
    with recorded_noise(5):
        assert difference(prior.p_sample_loop((2, 16), text_cond=words(outputs)), outputs["prior.loop"]) <= CLOSE


def test_without_the_patch_the_same_weights_compute_something_else(
    cascade: Any, tmp_path: Path, outputs: dict[str, torch.Tensor]
) -> None:
    settings = config("1.0.1/upsampler_config.json")["decoder"]
    unpatched = decoder_of(settings, patched=False)
    inputs, condition = unet_inputs(outputs)
    unpatched.unets[0].load_state_dict(cascade.unets[0].state_dict(), strict=False)
    assert difference(unpatched.unets[0](*inputs, **condition), outputs["unet.output"]) > FAR
    unpatched.unets[1].load_state_dict(cascade.unets[1].state_dict(), strict=False)
    assert difference(upsampled(unpatched.unets[1], outputs), outputs["upsampler.output"]) > FAR

    unpatched_prior = prior_of(config("1.0.1/prior_config.json")["prior"], patched=False)
    fill(unpatched_prior, converted(network("1.0.1/prior.pth", tmp_path)), "prior.pth")
    output = unpatched_prior.net(outputs["prior.embed"], outputs["prior.time"], **words(outputs))
    assert difference(output, outputs["prior.output"]) > FAR


def test_each_parameter_of_a_patched_model_gets_a_finite_gradient(
    cascade: Any, prior: Any, outputs: dict[str, torch.Tensor]
) -> None:
    cascade.requires_grad_(True)
    prior.requires_grad_(True)
    inputs, condition = unet_inputs(outputs)
    # Guidance reads the nulls; an upsampler has none of these conditions, so its own stay unused.
    dropped = cascade.unets[0](*inputs, **condition, image_cond_drop_prob=0.5, text_cond_drop_prob=0.5)
    (dropped.square().mean() + upsampled(cascade.unets[1], outputs).square().mean()).backward()
    prior.net(outputs["prior.embed"], outputs["prior.time"], **words(outputs)).square().mean().backward()
    unused = {name for name, value in cascade.unets[0].named_parameters() if value.grad is None}
    unused |= {name for name, value in prior.net.named_parameters() if value.grad is None and "freqs" not in name}
    assert not unused
    parameters = [*cascade.parameters(), *prior.parameters()]
    assert all(bool(value.grad.isfinite().all()) for value in parameters if value.grad is not None)


def test_the_patch_survives_the_copy_that_an_average_makes_and_a_second_patch(
    decoder: Any, prior: Any, outputs: dict[str, torch.Tensor]
) -> None:
    unet, network = copy.deepcopy(decoder.unets[0]), copy.deepcopy(prior.net)
    patch(unet)
    patch(network)
    inputs, condition = unet_inputs(outputs)
    assert difference(unet(*inputs, **condition), outputs["unet.output"]) <= CLOSE
    output = network(outputs["prior.embed"], outputs["prior.time"], **words(outputs))
    assert difference(output, outputs["prior.output"]) <= CLOSE


def test_norms_take_one_eps_at_every_precision(decoder: Any, outputs: dict[str, torch.Tensor]) -> None:
    inputs, condition = unet_inputs(outputs)
    unet = decoder.unets[0]
    with torch.autocast("cpu", torch.bfloat16):
        patched = difference(unet(*inputs, **condition).float(), outputs["unet.output"])
        for module in unet.modules():
            if hasattr(module, "fp16_eps"):
                module.fp16_eps = 0.3
        other = difference(unet(*inputs, **condition).float(), outputs["unet.output"])
    assert patched < 0.1 < other


def test_a_prior_and_a_unet_without_linear_attention_of_1_4_0_compute_what_they_did(tmp_path: Path) -> None:
    of = expected("1.4.0")
    one = network("1.4.0/plain.pth", tmp_path)
    assert one.config
    assert family(one.kind, one.state, one.version, "plain.pth") == "1.0"
    decoder = decoder_of(one.config["decoder"])
    fill(decoder.unets[0], converted(one), "plain.pth")
    output = decoder.unets[0](of["plain.picture"], of["plain.time"], image_embed=of["plain.image_embed"])
    assert difference(output, of["plain.output"]) <= CLOSE
    two = network("1.4.0/prior.pth", tmp_path)
    assert family(two.kind, two.state, two.version, "prior.pth") == "1.0"
    prior = prior_of(config("1.0.1/prior_config.json")["prior"])
    fill(prior, converted(two), "prior.pth")
    assert difference(prior.net(of["prior.embed"], of["prior.time"], **words(of)), of["prior.output"]) <= CLOSE
    with recorded_noise(5):
        assert difference(prior.p_sample_loop((2, 16), text_cond=words(of)), of["prior.loop"]) <= CLOSE


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("1.4.0/linear.pth", r"1\.4\.0, which had linear attention"),
        ("1.8.4/plain.pth", r"1\.8\.4, which had self-attention"),
        ("1.8.4/prior.pth", r"1\.8\.4, which had a prior with cosine attention"),
    ],
)
def test_what_only_a_version_between_computed_is_refused_by_name(file: str, named: str, tmp_path: Path) -> None:
    one = network(file, tmp_path)
    with pytest.raises(UsageError, match=named):
        family(one.kind, one.state, one.version, file)


def test_what_names_and_shapes_cannot_tell_needs_the_version(tmp_path: Path) -> None:
    for file in ("1.0.1/upsampler.pth", "1.0.1/prior.pth"):
        one = network(file, tmp_path)
        assert one.version is None
        with pytest.raises(UsageError, match=r"give --version, for LAION's weights 1\.0\.2"):
            family(one.kind, one.state, None, file)
        assert family(one.kind, one.state, "1.0.2", file) == "1.0"
        with pytest.raises(UsageError, match=r"not that of 1.15.6"):
            family(one.kind, one.state, "1.15.6", file)
        with pytest.raises(UsageError, match="expected for example"):
            family(one.kind, one.state, "latest", file)
        with pytest.raises(UsageError, match=r"older than 1.0"):
            family(one.kind, one.state, "0.26.2", file)


def test_todays_layout_is_known_without_a_version_and_never_taken_for_an_old_one() -> None:
    settings = config("1.0.1/upsampler_config.json")["decoder"]
    state = decoder_of(settings, patched=False).unets[0].state_dict()
    assert family("unet", state, None, "x.pth") == "1.15"
    assert convert_unet(state).keys() == state.keys()
    with pytest.raises(UsageError, match=r"1.10 and later, not that of 1.0.2"):
        family("unet", state, "1.0.2", "x.pth")
    prior = prior_of(config("1.0.1/prior_config.json")["prior"], patched=False).state_dict()
    assert family("prior", prior, None, "x.pth") == "1.15"
    with pytest.raises(UsageError, match=r"not that of 1.4.0"):
        family("prior", prior, "1.4.0", "x.pth")


def test_a_weight_that_fits_nothing_is_named(decoder: Any) -> None:
    state = decoder.unets[0].state_dict()
    with pytest.raises(UsageError, match=r"w.pth does not fit the model: extra.weight is no weight of the model"):
        fill(decoder.unets[0], state | {"extra.weight": torch.zeros(1)}, "w.pth")
    less = {name: value for name, value in state.items() if name != "to_out.bias"}
    with pytest.raises(UsageError, match=r"to_out.bias is missing"):
        fill(decoder.unets[0], less, "w.pth")
    with pytest.raises(UsageError, match=r"to_out.bias is \(1,\), the model's \(6,\)"):
        fill(decoder.unets[0], state | {"to_out.bias": torch.zeros(1)}, "w.pth")
