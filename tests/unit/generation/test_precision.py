"""In bf16 the weights of products are rounded once, which changes no bit of what is drawn."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_networks import DIM, condition, random_decoder, unet_config

import sp_data.generation.precision as precision_module
from sp_data.generation.guidance import GuidedUnet
from sp_data.generation.noise import NoiseByPicture
from sp_data.generation.precision import (
    autocast,
    faster_precision,
    product_weights,
    round_weights,
    settle_precision,
)
from sp_data.generation.samplers import Condition, lowres_condition, sample_unet
from sp_data.training.dalle2 import dalle2_module
from sp_data.training.switches import fused_attention, fused_norms

CPU = torch.device("cpu")
WORDS = {"cond_on_text_encodings": True}
ATTENTIVE = {"self_attn": [True, True], "sparse_attn": True, "init_cross_embed": True, "self_cond": True}
SHAPES = [
    pytest.param({}, id="plain"),
    pytest.param(WORDS, id="words"),
    pytest.param(ATTENTIVE, id="attention"),
    pytest.param({"resnet_weight_standardization": True, "pixel_shuffle_upsample": False}, id="standardized weights"),
]


def models_of(*changes: dict[str, Any]) -> Any:
    """What of Models the precision asks for."""
    unets = [unet_config(number, unet=changes[number - 1]) for number in range(1, len(changes) + 1)]
    decoder = random_decoder(*unets).eval().requires_grad_(False)
    fused_attention(decoder)
    fused_norms(decoder)
    return SimpleNamespace(decoder=decoder, device=CPU, dim=DIM)


def draw(decoder: Any, scale: float, sampler: Any) -> torch.Tensor:
    """Through all unets, in bf16."""
    rows = condition(2)
    made: torch.Tensor | None = None
    with torch.inference_mode():
        for number, unet in enumerate(decoder.unets, start=1):
            with NoiseByPicture(f"unet {number}", [1, 2]):
                small, level = (None, None) if made is None else lowres_condition(decoder, number, made)
                words = rows["text_encodings"] if unet.cond_on_text_encodings else None
                guided = GuidedUnet(unet, scale if number == 1 else 1.0, autocast=autocast("bf16", CPU))
                asked = Condition(rows["image_embed"], words, small, level)
                made = sample_unet(decoder, number, guided, asked, sampler=sampler, steps=3)
    assert made is not None
    return made


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize(("scale", "sampler"), [(1.0, "ddim"), (2.5, "dpm++")])
def test_rounded_once_or_at_each_step_the_pictures_are_the_same(
    changes: dict[str, Any], scale: float, sampler: str
) -> None:
    decoder = models_of(changes, {}).decoder
    expected = draw(decoder, scale, sampler)
    for unet in decoder.unets:
        round_weights(unet)
    assert torch.equal(draw(decoder, scale, sampler), expected)


def test_only_what_autocast_rounds_is_rounded() -> None:
    unet = models_of({"resnet_weight_standardization": True, **ATTENTIVE}).decoder.unets[0]
    round_weights(unet)
    rounded = {name for name, weight in unet.named_parameters() if weight.dtype == torch.bfloat16}
    exact = {name for name, weight in unet.named_parameters() if weight.dtype == torch.float32}
    assert rounded | exact == {name for name, _ in unet.named_parameters()}
    assert {"to_out.weight", "to_out.bias", "to_image_hiddens.0.weight"} <= rounded
    assert {"null_image_embed", "null_image_hiddens"} <= exact
    standardized = [module for module in unet.modules() if isinstance(module, dalle2_module().WeightStandardizedConv2d)]
    assert standardized
    assert {weight.dtype for module in standardized for weight in module.parameters()} == {torch.float32}


def test_measuring_leaves_the_weights_as_they_were() -> None:
    models = models_of({}, {})
    before = copy.deepcopy(models.decoder.state_dict())
    addresses = [weight.data_ptr() for weight in models.decoder.parameters()]
    assert faster_precision(models) in ("fp32", "bf16")
    assert [weight.data_ptr() for weight in models.decoder.parameters()] == addresses
    after = models.decoder.state_dict()
    assert all(torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items())


def test_a_pass_that_fails_leaves_the_weights_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    models = models_of({})

    def fail(_: Any, precision: str) -> float:
        if precision == "bf16":
            raise torch.OutOfMemoryError
        return 1.0

    monkeypatch.setattr(precision_module, "_seconds", fail)
    with pytest.raises(torch.OutOfMemoryError):
        faster_precision(models)
    assert {weight.dtype for weight in models.decoder.parameters()} == {torch.float32}


def test_bf16_is_measured_with_rounded_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    models, seen = models_of({}), {}

    def measure(_: Any, precision: str) -> float:
        seen[precision] = {weight.dtype for weight in product_weights(models.decoder.unets[-1])}
        return {"fp32": 0.9, "bf16": 0.1}[precision]

    monkeypatch.setattr(precision_module, "_seconds", measure)
    assert faster_precision(models) == "bf16"
    assert seen == {"fp32": {torch.float32}, "bf16": {torch.bfloat16}}


@pytest.mark.parametrize("chosen", ["fp32", "bf16"])
def test_what_is_settled_decides_whether_weights_are_rounded(chosen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    models = models_of({}, {})
    monkeypatch.setattr(precision_module, "faster_precision", lambda _: chosen)
    assert settle_precision(models, "auto") == chosen
    dtype = torch.bfloat16 if chosen == "bf16" else torch.float32
    for unet in models.decoder.unets:
        assert {weight.dtype for weight in product_weights(unet)} == {dtype}


def test_rounded_weights_draw_in_no_other_precision() -> None:
    models = models_of({})
    settle_precision(models, "bf16")
    assert settle_precision(models, "auto") == settle_precision(models, "bf16") == "bf16"
    with pytest.raises(ValueError, match="load them again"):
        settle_precision(models, "fp32")
