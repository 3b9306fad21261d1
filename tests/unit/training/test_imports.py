"""What importing dalle2-pytorch for its models costs, and what it must not change."""

import json
import subprocess
import sys
from typing import Any

HEAVY = (
    "boto3",
    "coca_pytorch",
    "open_clip",
    "pandas",
    "scipy",
    "sklearn",
    "sympy",
    "timm",
    "torch._dynamo",
    "torch._inductor",
    "transformers",
    "vector_quantize_pytorch",
    "wandb",
    "x_clip",
)
"""None of them is needed to build, draw or differentiate a model."""

BUILD = """
import json, sys, torch
from sp_data.training.dalle2 import dalle2_configs, dalle2_module
unet = dict(dim=16, dim_mults=[1, 2], cond_dim=8, image_embed_dim=16)
decoder = dict(unets=[unet], image_sizes=[16], timesteps=4, learned_variance=False)
net = dict(dim=16, depth=1, heads=2, dim_head=8, max_text_len=4)
"""
DIRECT = """
module = dalle2_module()
decoder = module.Decoder(unet=[module.Unet(**unet)], image_sizes=[16], timesteps=4, learned_variance=False)
"""
CONFIGURED = """
decoder = dalle2_configs().DecoderConfig(**decoder).create()
prior = dalle2_configs().DiffusionPriorConfig(net=net, image_embed_dim=16, image_size=16, timesteps=4).create()
"""
USE = """
decoder(torch.rand(2, 3, 16, 16), image_embed=torch.randn(2, 16)).backward()
decoder.sample(image_embed=torch.randn(2, 16))
"""


def _child(code: str) -> tuple[Any, str]:
    """The JSON that a fresh Python prints in its last line, and what it prints to standard error."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def _loaded() -> str:
    return f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))\n"


def test_models_are_built_trained_and_drawn_without_heavy_modules_or_a_word_on_the_terminal() -> None:
    for build in (DIRECT, CONFIGURED):
        loaded, said = _child(BUILD + build + USE + _loaded())
        assert loaded == []
        assert said == ""


def test_whoever_needs_a_deferred_module_gets_it() -> None:
    code = BUILD + DIRECT + (
        "import open_clip, torch._dynamo, x_clip, vector_quantize_pytorch\n"
        "torch.optim.AdamW(decoder.parameters()).zero_grad()\n"
        "vae = module.VQGanVAE(dim=16, image_size=16, layers=1, use_vgg_and_gan=False, vq_codebook_size=16)\n"
        "print(json.dumps([len(open_clip.list_pretrained()) > 10, len(dalle2_configs().list_pretrained()) > 10,\n"
        "    isinstance(vae.vq, vector_quantize_pytorch.VectorQuantize), callable(module.CLIP),\n"
        "    isinstance(x_clip.CLIP.__new__(x_clip.CLIP), module.CLIP), isinstance(decoder, module.CLIP),\n"
        "    torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1)).item()]))\n"
    )  # fmt: skip
    assert _child(code)[0] == [True, True, True, True, True, False, 2.0]


def test_the_import_order_does_not_matter() -> None:
    code = "import open_clip, dalle2_pytorch\n" + BUILD + DIRECT + USE
    code += "print(json.dumps(module is dalle2_pytorch.dalle2_pytorch and module.CLIP is dalle2_pytorch.CLIP))\n"
    assert _child(code)[0] is True


def test_the_samplers_of_dalle2_pytorch_draw_no_bar() -> None:
    code = BUILD + DIRECT + "decoder.sample(image_embed=torch.randn(1, 16))\nprint(json.dumps(module.tqdm is not None))"
    assert _child(code)[1] == ""
