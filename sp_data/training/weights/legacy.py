"""Weights of dalle2-pytorch 1.0, which LAION's models are, under the names of 1.15.6.

Equal weights compute something else today. Read in the released wheels:

    since    in                before                            from then on
    1.2.0    LinearAttention   plain                             v / pixels; from 1.4.0 also v of unit length
    1.4.3    Attention         softmax(q·k / √d + 128 bias)      the scale applied twice; in the prior cosine · 16
    1.9.0    prior             null_text_embed, idle guidance    null_text_encodings and two nulls, guidance
    1.10.0   Downsample        a 4 x 4 convolution, stride 2     pixel unshuffle and a 1 x 1 convolution
    1.14.0   cross attention   `.cross_attn.fn.`                 `.cross_attn.`

Two families are known: "1.0" computes as 1.0 and 1.1 did, once `patch` was applied to the model; "1.15" as today.
A network of a version between is of one of them if it has none of the parts that were different; else it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from sp_data.errors import UsageError

Family = Literal["1.0", "1.15"]
NetworkKind = Literal["prior", "unet"]
State = dict[str, Tensor]
LAYOUT, OLD_LAYOUT = "layout", "1.0"
"""A configuration of ours for weights of family "1.0" has `layout: 1.0`; dalle2-pytorch's have no such field."""
FIRST = (1, 0, 0)
LINEAR_ATTENTION_DIVIDED = (1, 2, 0)
LINEAR_ATTENTION_TODAY = (1, 4, 0)
ATTENTION_TODAY = (1, 4, 3)
PRIOR_TODAY = (1, 9, 0)
UNSHUFFLE = (1, 10, 0)
CURE = "load it with that version of dalle2-pytorch, or take weights of 1.0, 1.1 or a newer version"

NULL_WORDS_OLD, NULL_WORDS = "net.null_text_embed", "net.null_text_encodings"
NULL_TEXT, NULL_IMAGE = "net.null_text_embeds", "net.null_image_embed"
BIAS = "net.causal_transformer.rel_pos_bias.relative_attention_bias.weight"
BIAS_SCALE = 128
"""1.0 added the bias before it multiplied by its `pb_relax_alpha`."""

_OLD_DOWN = re.compile(r"downs\.\d+\.[04]\.weight")
_NEW_DOWN = re.compile(r"downs\.\d+\.[04]\.1\.weight")


def family(kind: NetworkKind, state: Mapping[str, Tensor], version: str | None, source: str) -> Family:
    """Which family a network is of, by names, shapes and, where these do not tell, its dalle2-pytorch version.

    Raises UsageError if the version is needed and not known, contradicts the layout, or computed otherwise than both.
    """
    release = _release(version, source) if version else None
    if release and release < FIRST:
        raise UsageError(f"{source} is of dalle2-pytorch {version}, older than 1.0: {CURE}")
    return _prior_family(state, release, source) if kind == "prior" else _unet_family(state, release, source)


def _prior_family(state: Mapping[str, Tensor], release: tuple[int, ...] | None, source: str) -> Family:
    if NULL_WORDS_OLD not in state:
        _contradicts(release is not None and release < PRIOR_TODAY, NULL_WORDS, "1.9", release, source)
        return "1.15"
    _contradicts(release is not None and release >= PRIOR_TODAY, NULL_WORDS_OLD, "1.8 and before", release, source)
    if release is None:
        raise _unknown_version("prior", "1.8.4", source)
    if release >= ATTENTION_TODAY:
        raise _between("a prior with cosine attention and without guidance", release, source)
    return "1.0"


def _unet_family(state: Mapping[str, Tensor], release: tuple[int, ...] | None, source: str) -> Family:
    has_new = any(_NEW_DOWN.fullmatch(name) for name in state) or any(
        ".cross_attn." in name and ".cross_attn.fn." not in name for name in state
    )
    has_old = any(_OLD_DOWN.fullmatch(name) and value.shape[-1] == 4 for name, value in state.items())
    if has_new:
        _contradicts(release is not None and release < UNSHUFFLE, "layout", "1.10 and later", release, source)
        return "1.15"
    if has_old:
        _contradicts(release is not None and release >= UNSHUFFLE, "layout", "1.9 and before", release, source)
    if release is None:
        raise _unknown_version("unet", "1.9.0", source)
    if release >= UNSHUFFLE:
        return "1.15"
    if release >= LINEAR_ATTENTION_DIVIDED and any(name.endswith(".to_qkv.weight") for name in state):
        what = "unit length" if release >= LINEAR_ATTENTION_TODAY else "a division by the pixels"
        raise _between(f"linear attention with {what}", release, source)
    if release >= ATTENTION_TODAY:
        raise _between("self-attention with today's scale behind old downsampling", release, source)
    return "1.0"


def _release(version: str, source: str) -> tuple[int, ...]:
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version.strip())
    if not match:
        raise UsageError(f"{source}: version {version!r} is not one of dalle2-pytorch; expected for example 1.0.2")
    return tuple(int(part or 0) for part in match.groups())


def _contradicts(when: bool, what: str, layout: str, release: tuple[int, ...] | None, source: str) -> None:
    if when and release is not None:
        raise UsageError(f"{source} has the {what} of dalle2-pytorch {layout}, not that of {_text(release)}")


def _unknown_version(what: str, last: str, source: str) -> UsageError:
    return UsageError(
        f"{source} does not say which dalle2-pytorch saved it, and its {what} has the names and shapes of 1.0.0 to "
        f"{last}, which computed differently: give --version, for LAION's weights 1.0.2"
    )


def _between(what: str, release: tuple[int, ...], source: str) -> UsageError:
    return UsageError(
        f"{source} is of dalle2-pytorch {_text(release)}, which had {what}, as no version has now: {CURE}"
    )


def _text(release: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in release)


def convert_unet(state: Mapping[str, Tensor]) -> State:
    """A unet's weights under today's names; names of today stay."""
    return {name.replace(".cross_attn.fn.", ".cross_attn."): value for name, value in state.items()}


def revert_unet(state: Mapping[str, Tensor]) -> State:
    """The inverse of `convert_unet`: the names of 1.13 and before."""
    return {name.replace(".cross_attn.", ".cross_attn.fn."): value for name, value in state.items()}


def convert_prior(state: Mapping[str, Tensor]) -> State:
    """A prior's weights of 1.0 under today's names, without its CLIP. A prior of 1.9 or later is returned as it is.

    The two nulls that it lacks are zeros: a patched prior never reads them.
    """
    kept = {name: value for name, value in state.items() if not name.startswith("clip.")}
    if NULL_WORDS_OLD not in kept:
        return kept
    words = kept.pop(NULL_WORDS_OLD)
    dim = words.shape[-1]
    several = kept.get("net.to_text_embeds.0.weight")
    num_text = several.shape[0] // dim if several is not None else 1
    if BIAS in kept:
        kept[BIAS] = kept[BIAS] * BIAS_SCALE
    return kept | {
        NULL_WORDS: words,
        NULL_TEXT: torch.zeros(1, num_text, dim, dtype=words.dtype, device=words.device),
        NULL_IMAGE: torch.zeros(1, dim, dtype=words.dtype, device=words.device),
    }


def revert_prior(state: Mapping[str, Tensor]) -> State:
    """The inverse of `convert_prior`."""
    kept = {name: value for name, value in state.items() if name not in (NULL_TEXT, NULL_IMAGE)}
    kept[NULL_WORDS_OLD] = kept.pop(NULL_WORDS)
    if BIAS in kept:
        kept[BIAS] = kept[BIAS] / BIAS_SCALE
    return kept
