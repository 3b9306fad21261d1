"""Make the reference files beside this script with the real old dalle2-pytorch.

    pip download dalle2-pytorch==1.0.1 and the like; then, for each of 1.0.1, 1.4.0, 1.8.4:
    pip install --no-deps --target OLD/1.0.1 dalle2-pytorch==1.0.1
    pip install --no-deps --target OLD/exts einops-exts
    pip install --no-deps --target OLD/packaging packaging==24.2     (its Version is pickled as in 2022)
    python tests/data/legacy/make_references.py OLD/1.0.1 OLD/exts OLD/packaging

The rest (torch, kornia, ...) may be today's. dalle2-pytorch 1.0.2, which saved LAION's weights, is not on the package
index; its model file is byte for byte that of 1.0.1.

    1.0.1/decoder.pth.xz          {version, config, model}: a decoder of one unet, as LAION's scripts saved it
    1.0.1/upsampler.pth.xz         a bare state dict whose unet 1 is an Identity
    1.0.1/prior.pth.xz            a bare state dict with a CLIP in it
    1.0.1/expected.safetensors    what went into the networks and loops, and what came out
    1.4.0/, 1.8.4/                the same of two versions between

Weights take eleven values a tensor, which float16 holds and xz packs; they are computed with as float32.
"""

from __future__ import annotations

import importlib
import io
import json
import lzma
import sys
import types
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from noise import recorded_noise  # noqa: E402

UNET = {
    "dim": 8,
    "dim_mults": [1, 2],
    "cond_dim": 8,
    # As wide as the prior's, so that the three make one set.
    "image_embed_dim": 16,
    "text_embed_dim": 16,
    "cond_on_text_encodings": True,
    "max_text_len": 5,
    "num_resnet_blocks": 1,
    "attn_heads": 2,
    "attn_dim_head": 16,
    "self_attn": [False, True],
    "sparse_attn": True,
    "memory_efficient": True,
    "init_cross_embed": True,
}
UPSAMPLER = {
    "dim": 8,
    "dim_mults": [1, 2],
    "cond_dim": 8,
    "num_resnet_blocks": 1,
    "attn_heads": 2,
    "attn_dim_head": 16,
    "self_attn": [False, False],
    "sparse_attn": True,
    "init_cross_embed": False,
    "init_conv_kernel_size": 3,
    "max_text_len": 1,
}
DECODER = {
    "image_sizes": [16],
    # A linear schedule of fewer than 20 steps has betas above one.
    "timesteps": 24,
    "learned_variance": True,
    "image_cond_drop_prob": 0.1,
    "text_cond_drop_prob": 0.5,
    "use_dynamic_thres": True,
}
CASCADE = DECODER | {
    "image_sizes": [16, 32],
    "learned_variance": [True, False],
    "use_blur_for_lowres_cond": [True],
    "use_noise_for_lowres_cond": [True],
}
PRIOR_NET = {
    "dim": 16,
    "depth": 2,
    "heads": 2,
    "dim_head": 16,
    "num_timesteps": 6,
    "max_text_len": 5,
    "normformer": True,
    "num_text_embeds": 2,
}
PRIOR = {
    "image_embed_dim": 16,
    "image_size": 224,
    "timesteps": 6,
    "cond_drop_prob": 0.1,
    "sampling_clamp_l2norm": True,
}
SMALL_UNET = {
    "dim": 8,
    "dim_mults": [1],
    "cond_dim": 8,
    "image_embed_dim": 12,
    "num_resnet_blocks": 1,
    "attn_heads": 2,
    "attn_dim_head": 16,
    "self_attn": [False],
    "sparse_attn": False,
    "memory_efficient": True,
    "max_text_len": 1,
}


def old_dalle2(wheel: Path) -> Any:
    """The model file of an old wheel; its `__init__`, which needs the pydantic of its time, is not run."""
    package = types.ModuleType("dalle2_pytorch")
    package.__path__ = [str(wheel / "dalle2_pytorch")]
    sys.modules["dalle2_pytorch"] = package
    return importlib.import_module("dalle2_pytorch.dalle2_pytorch")


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """The model with weights that float16 holds, and none of them zero (its last layer begins as zeros)."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("rotary_emb.freqs"):
                continue
            if name.endswith("to_out.weight") or "rel_pos_bias" in name:
                value.normal_(0, 0.02 if "rel_pos_bias" in name else 0.05)
            elif value.ndim > 1:
                # Attention that looks hard: what changed in it shows.
                value.mul_(4.0 if name.startswith("net.") and (".to_q" in name or ".to_kv" in name) else 1.5)
            value.copy_(coarse(value))
    return model.eval()


def coarse(value: torch.Tensor) -> torch.Tensor:
    """The nearest of eleven values; one that does not vary (a norm's gain, a bias of zeros) becomes a little random."""
    spread = value.std() if value.numel() > 1 else torch.tensor(0.0)
    if spread == 0:
        return value + torch.randint(-2, 3, value.shape) / 8
    step = 2.0 ** torch.log2(spread).round() / 2
    return (value / step).round().clamp(-5, 5) * step


def save(content: dict[str, Any], path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.with_name(f"{path.name}.xz").write_bytes(lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: value if "noise_scheduler" in name or "freqs" in name else value.half() for name, value in state.items()
    }


@torch.no_grad()
def main(wheel: Path) -> None:
    dalle2 = old_dalle2(wheel)
    dalle2.tqdm = lambda steps, **_: steps
    version = importlib.import_module("dalle2_pytorch.version").__version__
    folder = HERE / version
    folder.mkdir(exist_ok=True)
    (make_all if version == "1.0.1" else make_small)(dalle2, version, folder)
    sys.stdout.write(f"{version}: {sum(file.stat().st_size for file in folder.iterdir()):,} bytes\n")


def prior_of(dalle2: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    prior = randomised(dalle2.DiffusionPrior(dalle2.DiffusionPriorNetwork(**PRIOR_NET), **PRIOR))
    torch.manual_seed(1)
    text = torch.randn(2, 5, 16)
    text[0, 3:] = 0
    inputs = {
        "embed": torch.randn(2, 16),
        "time": torch.tensor([1, 4]),
        "text_embed": torch.nn.functional.normalize(torch.randn(2, 16), dim=-1),
        "text_encodings": text,
    }
    words = {name: inputs[name] for name in ("text_embed", "text_encodings")}
    inputs["output"] = prior.net(inputs["embed"], inputs["time"], **words)
    inputs["guided"] = prior.net.forward_with_cond_scale(inputs["embed"], inputs["time"], **words, cond_scale=3.0)
    with recorded_noise(5):
        inputs["loop"] = prior.p_sample_loop((2, 16), text_cond=words)
        # Before 1.8 the caller of the loop divided by the scale of the embeddings.
        if not hasattr(prior.net, "self_cond"):
            inputs["loop"] /= prior.image_embed_scale
    return prior, {f"prior.{name}": value for name, value in inputs.items()}


def make_all(dalle2: Any, version: str, folder: Path) -> None:
    from packaging.version import Version
    from safetensors.torch import save_file

    decoder = randomised(dalle2.Decoder(dalle2.Unet(**UNET), **DECODER))
    cascade = randomised(dalle2.Decoder((dalle2.Unet(**UNET), dalle2.Unet(**UPSAMPLER)), **CASCADE))
    torch.manual_seed(2)
    inputs = {
        "unet.picture": torch.randn(2, 3, 16, 16),
        "unet.time": torch.tensor([1, 4]),
        "unet.image_embed": torch.nn.functional.normalize(torch.randn(2, 16), dim=-1),
        "unet.text_encodings": torch.randn(2, 4, 16),
        "upsampler.picture": torch.randn(2, 3, 32, 32),
        "upsampler.time": torch.tensor([1, 4]),
        "upsampler.lowres": torch.randn(2, 3, 32, 32),
        "upsampler.noise_level": torch.tensor([2, 3]),
    }
    condition = {
        "image_embed": inputs["unet.image_embed"],
        "text_encodings": inputs["unet.text_encodings"],
    }
    unet, upsampler = decoder.unets[0], cascade.unets[1]
    of_unet = (inputs["unet.picture"], inputs["unet.time"])
    outputs = {
        "unet.output": unet(*of_unet, **condition),
        "unet.guided": unet.forward_with_cond_scale(*of_unet, **condition, cond_scale=1.7),
        "upsampler.output": upsampler(
            inputs["upsampler.picture"],
            inputs["upsampler.time"],
            image_embed=condition["image_embed"],
            lowres_cond_img=inputs["upsampler.lowres"],
            lowres_noise_level=inputs["upsampler.noise_level"],
        ),
    }
    cascade.unets[0].load_state_dict(unet.state_dict())
    with recorded_noise(3):
        outputs["decoder.loop"] = decoder.sample(**condition, cond_scale=1.7)
    with recorded_noise(4):
        outputs["cascade.loop"] = cascade.sample(**condition, cond_scale=(1.7, 1.0))
    prior, of_prior = prior_of(dalle2)
    of_dream = dream_of(prior, cascade)
    save_file(
        {name: value.contiguous() for name, value in (inputs | outputs | of_prior | of_dream).items()},
        folder / "expected.safetensors",
    )

    config = {"decoder": DECODER | {"unets": [UNET]}, "seed": 0}
    state = half(decoder.state_dict())
    save({"version": Version(version), "config": config, "model": state}, folder / "decoder.pth")
    states = {name: value for name, value in half(cascade.state_dict()).items() if not name.startswith("unets.0.")}
    save(states, folder / "upsampler.pth")
    (folder / "upsampler_config.json").write_text(
        json.dumps({"decoder": CASCADE | {"unets": [UNET, UPSAMPLER]}}, indent=1) + "\n"
    )
    with_clip = half(prior.state_dict()) | {
        "clip.clip.visual.proj": torch.zeros(2, 2),
        "clip.clip.logit_scale": torch.zeros(()),
    }
    save(with_clip, folder / "prior.pth")
    (folder / "prior_config.json").write_text(json.dumps({"prior": PRIOR | {"net": PRIOR_NET}}, indent=1) + "\n")


def dream_of(prior: Any, cascade: Any) -> dict[str, torch.Tensor]:
    """Words -> prior -> decoder -> upsampler, as dalle2-laion drew: DDPM, guidance 1.7 of the first unet."""
    torch.manual_seed(3)
    words = {
        "text_embed": torch.nn.functional.normalize(torch.randn(2, 16), dim=-1),
        # More than either network reads.
        "text_encodings": torch.randn(2, 7, 16),
    }
    words["text_encodings"][0, 3:] = 0
    with recorded_noise(6):
        embed = prior.p_sample_loop((2, 16), text_cond=words) / prior.image_embed_scale
        picture = cascade.sample(image_embed=embed, text_encodings=words["text_encodings"], cond_scale=(1.7, 1.0))
    dream = words | {"image_embed": embed, "picture": picture}
    return {f"dream.{name}": value for name, value in dream.items()}


def make_small(dalle2: Any, version: str, folder: Path) -> None:
    """A unet, of 1.4.0 also one with linear attention, and a prior, each with what it computes."""
    from safetensors.torch import save_file

    expected = {}
    for name, sparse in (("plain", False), ("linear", True))[: 2 if version == "1.4.0" else 1]:
        decoder = randomised(dalle2.Decoder(dalle2.Unet(**SMALL_UNET | {"sparse_attn": sparse}), **DECODER))
        torch.manual_seed(2)
        picture, time, embed = torch.randn(2, 3, 16, 16), torch.tensor([1, 4]), torch.randn(2, 12)
        expected |= {
            f"{name}.picture": picture,
            f"{name}.time": time,
            f"{name}.image_embed": embed,
            f"{name}.output": decoder.unets[0](picture, time, image_embed=embed),
        }
        config = {"decoder": DECODER | {"unets": [SMALL_UNET | {"sparse_attn": sparse}]}}
        save({"version": version, "config": config, "model": half(decoder.state_dict())}, folder / f"{name}.pth")
    prior, of_prior = prior_of(dalle2)
    save({"version": version, "model": half(prior.state_dict())}, folder / "prior.pth")
    save_file(
        {name: value.contiguous() for name, value in (expected | of_prior).items()}, folder / "expected.safetensors"
    )


if __name__ == "__main__":
    sys.path[:0] = sys.argv[1:]
    main(Path(sys.argv[1]))
