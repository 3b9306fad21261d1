"""Each switch against the model as dalle2-pytorch wrote it: same outputs, same gradients, same parameters."""

import copy
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sp_data.training.dalle2 import dalle2_module
from sp_data.training.switches import channels_last, compile_blocks, fused_attention, fused_norms

CLOSE = 2e-6
"""Relative to the norm of the original's, in float32: rounding in another order."""
DIM = 32
NUM_BLOCKS = 20
"""Of the decoder below."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def no_few_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take torch's kernel in bfloat16 on a CPU also where it would be slower."""
    monkeypatch.setattr("sp_data.training.switches.FEW_KEYS", 0)


def _gradients(module: nn.Module, compute: Callable[[nn.Module], Tensor]) -> tuple[Tensor, Tensor]:
    """Output and gradients, each as one vector, in the dtype that the module computes."""
    module.zero_grad()
    torch.manual_seed(1)
    out = compute(module)
    (out.double() * torch.linspace(-1, 2, out.numel()).view(out.shape)).sum().backward()  # type: ignore[no-untyped-call]
    gradients = [
        (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).flatten().double()
        for parameter in module.parameters()
    ]
    return out.detach().flatten().double(), torch.cat(gradients)


def _difference(result: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> float:
    """The larger of the relative errors of output and gradients."""
    return max(float((x - y).norm() / y.norm()) for x, y in zip(result, expected, strict=True))


def _attention(**options: Any) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    """An Attention with its inputs; `bias` in the options gives it a learned position bias, `mask` a mask."""
    module = dalle2_module()
    has_bias, has_mask = options.pop("bias", False), options.pop("mask", False)
    attention = module.Attention(DIM, heads=4, dim_head=16, **options)
    attention.position = module.RelPosBias(heads=4) if has_bias else None
    x = torch.randn(3, 10, DIM)
    mask = torch.rand(3, 10) > 0.4 if has_mask else None

    def compute(attention: Any) -> Tensor:
        bias = attention.position(10, 11, device=x.device) if has_bias else None
        out: Tensor = attention(x, mask=mask, attn_bias=bias)
        return out

    return attention, compute


def _cross_attention(*, has_mask: bool = False, **options: Any) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    attention = dalle2_module().CrossAttention(DIM, context_dim=24, heads=4, dim_head=16, **options)
    x, context = torch.randn(3, 10, DIM), torch.randn(3, 6, 24)
    mask = torch.rand(3, 6) > 0.4 if has_mask else None
    return attention, lambda attention: attention(x, context, mask=mask)


def _rotary() -> nn.Module:
    rotary: nn.Module = dalle2_module().RotaryEmbedding(dim=16)
    return rotary


ATTENTIONS: dict[str, Callable[[], tuple[nn.Module, Callable[[nn.Module], Tensor]]]] = {
    "plain": _attention,
    "causal": lambda: _attention(causal=True),
    "causal, biased": lambda: _attention(causal=True, bias=True),
    "as in a prior": lambda: _attention(causal=True, bias=True, rotary_emb=_rotary()),
    "biased": lambda: _attention(bias=True),
    "masked": lambda: _attention(mask=True),
    "masked, causal": lambda: _attention(mask=True, causal=True),
    "masked, causal, biased": lambda: _attention(mask=True, causal=True, bias=True),
    "no cosine": lambda: _attention(cosine_sim=False, causal=True, bias=True, rotary_emb=_rotary()),
    "cross": _cross_attention,
    "cross, masked": lambda: _cross_attention(has_mask=True),
    "cross, cosine": lambda: _cross_attention(cosine_sim=True, norm_context=True),
    "cross, dropout without effect": lambda: _cross_attention(dropout=0.5),
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_fused_attention_computes_what_the_written_out_one_does(name: str) -> None:
    attention, compute = ATTENTIONS[name]()
    expected = _gradients(attention, compute)
    assert fused_attention(attention) == 1
    assert _difference(_gradients(attention, compute), expected) < CLOSE


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.usefixtures("no_few_keys")
def test_fused_attention_in_bfloat16_is_as_close_to_float32_as_the_written_out_one(name: str) -> None:
    attention, compute = ATTENTIONS[name]()
    exact = _gradients(attention, compute)

    def compute_in_bf16(attention: nn.Module) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return compute(attention)

    error = _difference(_gradients(attention, compute_in_bf16), exact)
    fused_attention(attention)
    assert _difference(_gradients(attention, compute_in_bf16), exact) < 1.25 * error < 0.1


def test_fused_attention_reads_scale_and_cosine_sim_when_it_is_called() -> None:
    attention: Any
    attention, compute = _attention(causal=True, bias=True, rotary_emb=_rotary())
    cosine = _gradients(attention, compute)
    fused_attention(attention)
    # Weights of dalle2-pytorch 1.0 to 1.3 need these.
    attention.cosine_sim, attention.scale = False, 16**-0.25
    fused = _gradients(attention, compute)
    written_out = type(attention)(DIM, heads=4, dim_head=16, causal=True, rotary_emb=attention.rotary_emb)
    written_out.position = attention.position
    written_out.load_state_dict(attention.state_dict())
    written_out.cosine_sim, written_out.scale = False, 16**-0.25
    assert _difference(fused, _gradients(written_out, compute)) < CLOSE
    assert _difference(fused, cosine) > 0.1


def test_fused_attention_drops_in_training_only() -> None:
    attention, compute = _attention(dropout=0.5)
    fused_attention(attention)
    with torch.no_grad():
        assert not torch.equal(compute(attention), compute(attention))
        attention.eval()
        assert torch.equal(compute(attention), compute(attention))


def test_fused_attention_drops_a_weight_as_often_as_the_written_out_one() -> None:
    attention, compute = _attention(dropout=0.25)
    # Without the last norm, dropout keeps the expected output.
    attention.to_out = nn.Identity()

    def mean() -> Tensor:
        with torch.no_grad():
            return torch.stack([compute(attention) for _ in range(2000)]).std(dim=0)

    expected = mean()
    fused_attention(attention)
    assert float((mean() - expected).norm() / expected.norm()) < 0.05


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("name", ["LayerNorm", "ChanLayerNorm"])
def test_fused_norms_are_as_close_to_float64_as_the_written_out_ones(name: str, stable: bool) -> None:
    norm = getattr(dalle2_module(), name)(DIM, stable=stable)
    nn.init.normal_(norm.g)
    norm.x = nn.Parameter(torch.randn(4, DIM, 6, DIM).abs() + 0.5)
    exact = copy.deepcopy(norm).double()
    # float64 is below float32 to these norms: it would take their larger epsilon.
    exact.fp16_eps = exact.eps

    def compute(norm: Any) -> Tensor:
        out: Tensor = norm(norm.x)
        return out

    reference = _gradients(exact, compute)
    error = _difference(_gradients(norm, compute), reference)
    assert fused_norms(norm) == 1
    assert _difference(_gradients(norm, compute), reference) < 2.5 * error < CLOSE


@pytest.mark.parametrize("name", ["LayerNorm", "ChanLayerNorm"])
def test_fused_norms_keep_the_larger_epsilon_and_the_dtype_below_float32(name: str) -> None:
    norm = getattr(dalle2_module(), name)(DIM)
    # So small that epsilon decides.
    x = (torch.randn(2, DIM, 4, DIM) * 0.01).bfloat16()
    low = copy.deepcopy(norm).bfloat16()
    expected, expected_low = norm(x), low(x)
    fused_norms(norm)
    fused_norms(low)
    assert norm(x).dtype == expected.dtype == torch.float32
    assert low(x).dtype == expected_low.dtype == torch.bfloat16
    assert float((norm(x) - expected).detach().norm() / expected.detach().norm()) < 0.01
    error_low = (low(x).float() - expected_low.float()).detach().norm() / expected_low.detach().float().norm()
    assert float(error_low) < 0.01


def _decoder(**options: Any) -> tuple[Any, Callable[[nn.Module], Tensor]]:
    """A decoder of 11 kinds of block, with noise, times and dropped conditions that depend on torch's seed alone."""
    module = dalle2_module()
    unet = module.Unet(
        dim=16, dim_mults=(1, 2), image_embed_dim=DIM, cond_dim=24, attn_heads=2, attn_dim_head=8,
        self_attn=(False, True), sparse_attn=True, text_embed_dim=DIM, cond_on_text_encodings=True, max_text_len=5,
        **options,
    )  # fmt: skip
    decoder = module.Decoder(
        unet=(unet,), image_sizes=(16,), timesteps=50, image_cond_drop_prob=0.5, text_cond_drop_prob=0.5
    )
    # Unets begin with an output of zeros, which has no gradients to compare.
    nn.init.normal_(decoder.unets[0].to_out.weight, std=0.02)
    images, embeds, words = torch.rand(4, 3, 16, 16), torch.randn(4, DIM), torch.randn(4, 5, DIM)
    return decoder, lambda decoder: decoder(images, image_embed=embeds, text_encodings=words)


def _prior() -> tuple[Any, Callable[[nn.Module], Tensor]]:
    module = dalle2_module()
    net = module.DiffusionPriorNetwork(
        dim=DIM, depth=2, heads=2, dim_head=16, num_timesteps=50, max_text_len=5, normformer=True
    )
    prior = module.DiffusionPrior(net=net, image_embed_dim=DIM, timesteps=50, cond_drop_prob=0.3)
    text, image, words = torch.randn(4, DIM), torch.randn(4, DIM), torch.randn(4, 5, DIM)
    # DiffusionPrior scales the embedding that it is given in place.
    return prior, lambda prior: prior(text_embed=text, image_embed=image.clone(), text_encodings=words)


MODELS: dict[str, Callable[[], tuple[Any, Callable[[nn.Module], Tensor]]]] = {"decoder": _decoder, "prior": _prior}
SWITCHES: dict[str, Callable[[nn.Module], Any]] = {
    "fused_attention": fused_attention,
    "fused_norms": fused_norms,
    "channels_last": channels_last,
    "compile_blocks": functools.partial(compile_blocks, backend="eager"),
}


@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("name", [*SWITCHES, "all"])
def test_a_whole_model_gives_the_same_loss_gradients_and_names(name: str, model_name: str) -> None:
    model, compute = MODELS[model_name]()
    names = list(model.state_dict())
    expected = _gradients(model, compute)
    for switch in SWITCHES.values() if name == "all" else [SWITCHES[name]]:
        switch(model)
    # The prior ends with a norm that divides by the largest number first.
    assert _difference(_gradients(model, compute), expected) < (CLOSE if model_name == "decoder" else 3 * CLOSE)
    assert list(model.state_dict()) == names


def test_every_attention_and_norm_of_a_model_is_replaced() -> None:
    decoder, _ = _decoder()
    prior, _ = _prior()
    # Two levels: cross attention in 9 of the ResnetBlocks, self attention on the lower level and in the middle.
    kinds = dalle2_module()
    for model in (decoder, prior):
        attentions = [part for part in model.modules() if isinstance(part, kinds.Attention | kinds.CrossAttention)]
        norms = [part for part in model.modules() if isinstance(part, kinds.LayerNorm | kinds.ChanLayerNorm)]
        assert fused_attention(model) == len(attentions) > 0
        assert fused_norms(model) == len(norms) > 0
        assert all("forward" in vars(part) for part in (*attentions, *norms))


def test_a_copy_of_a_switched_model_uses_its_own_weights() -> None:
    prior, compute = _prior()
    fused_attention(prior)
    fused_norms(prior)
    expected = _gradients(prior, compute)
    average = copy.deepcopy(prior)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.mul_(0.5)
    assert _difference(_gradients(average, compute), expected) == 0
    assert _difference(_gradients(prior, compute), expected) > 0.01


def test_linear_layers_that_lora_wraps_are_used() -> None:
    peft = pytest.importorskip("peft")
    prior, compute = _prior()
    expected = _gradients(prior, compute)[0]
    fused_attention(prior)
    config = peft.LoraConfig(r=2, target_modules=["to_q", "to_kv"], init_lora_weights=False)
    peft.inject_adapter_in_model(config, prior)
    adapted = _gradients(prior, compute)[0]
    assert float((adapted - expected).norm() / expected.norm()) > 1e-3
    adapters = {name: weight.grad for name, weight in prior.named_parameters() if "lora_" in name}
    assert adapters
    assert all(gradient is not None and bool(gradient.any()) for gradient in adapters.values())


@pytest.mark.parametrize("name", ["none", *SWITCHES])
def test_gradient_checkpointing_changes_nothing_but_memory(name: str) -> None:
    decoder, compute = _decoder()
    if name in SWITCHES:
        SWITCHES[name](decoder)
    expected, num_saved = _counting_what_is_saved(decoder, compute)
    random_state = torch.get_rng_state()
    decoder.unets[0].checkpoint_during_training = True
    result, num_saved_with_checkpoints = _counting_what_is_saved(decoder, compute)
    assert _difference(result, expected) == 0
    assert torch.equal(torch.get_rng_state(), random_state)
    assert num_saved_with_checkpoints < (0.9 if name == "compile_blocks" else 0.5) * num_saved


def _counting_what_is_saved(
    model: nn.Module, compute: Callable[[nn.Module], Tensor]
) -> tuple[tuple[Tensor, Tensor], int]:
    """`_gradients`, and how many numbers the forward pass kept for the backward pass."""
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = _gradients(model, compute)
    return result, sum(saved)


def test_gradient_checkpointing_does_not_warn() -> None:
    decoder, compute = _decoder(checkpoint_during_training=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _gradients(decoder, compute)


@pytest.mark.proof
@pytest.mark.parametrize("model_name", MODELS)
def test_blocks_compiled_to_machine_code_give_the_same_loss_and_gradients(model_name: str) -> None:
    model, compute = MODELS[model_name]()
    expected = _gradients(model, compute)
    assert compile_blocks(model) > 0
    assert _difference(_gradients(model, compute), expected) < 1e-5


def test_a_block_is_compiled_once_for_its_shapes_and_none_is_left_out() -> None:
    decoder, compute = _decoder()
    graphs: list[Any] = []

    def record(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    assert compile_blocks(decoder, backend=record, fullgraph=True) == NUM_BLOCKS
    # Beyond its limit of compilations of a function, torch would call the rest uncompiled.
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        _gradients(decoder, compute)
    num_graphs = len(graphs)
    # Blocks of equal shapes share one.
    assert torch._dynamo.config.get_config_copy()["recompile_limit"] > num_graphs > 8
    _gradients(decoder, compute)
    assert len(graphs) == num_graphs
