"""Options of sampling: which sampler, how many steps, how much guidance. docs/generation.md says what each does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from sp_data.errors import UsageError

Sampler = Literal["dpm++", "ddim", "ddpm"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
NEGATIVE_COND_SCALE = 2.0
"""Guidance where a negative prompt is given and no scale: at 1 a negative prompt changes nothing."""
MAX_BEST_OF = 64


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """None: what suits the models (`generator.ImageGenerator.settled`)."""

    sampler: Sampler | None = None
    """dpm++: DPM-Solver++ 2M (Lu et al., arXiv:2211.01095), good from 8 steps on; ddim: dalle2-pytorch's DDIM
    (arXiv:2010.02502); ddpm: as trained, all timesteps (arXiv:2006.11239). None: dpm++, and ddim to inpaint."""
    steps: int | tuple[int, ...] | None = None
    """Of the decoder's sampler: for every unet, or one number a unet."""
    eta: float = 1.0
    """Noise of ddim: 1 as much as ddpm, 0 none."""
    cond_scale: float | tuple[float, ...] | None = None
    """Guidance of the decoder (arXiv:2207.12598), for every unet or one number a unet. 1: none; above 1 follows the
    image embedding more closely."""
    prior_cond_scale: float = 1.0
    """Guidance of the prior: above 1 follows the words more closely."""
    prior_steps: int | None = None
    negative_prompt: str = ""
    """What the picture should not show: guidance leads away from it, in the prior and in the decoder."""
    best_of: int = 1
    """Draw so many candidates, with seeds of their own, and keep the one that CLIP finds nearest to the prompt."""
    resample_times: int = 5
    """Inpainting: how often a step is repeated, so that new and kept parts fit (RePaint, arXiv:2201.09865)."""
    stop_unet: int | None = None
    """The last unet that draws, from 1: the picture stays as small as that unet draws it."""

    def __post_init__(self) -> None:
        """Raises UsageError for what no models can do."""
        if self.sampler is not None and self.sampler not in SAMPLERS:
            raise UsageError(f"sampler {self.sampler!r}: expected one of {', '.join(SAMPLERS)}")
        for name, value, low, high in (
            ("eta", self.eta, 0, 1),
            ("prior-cond-scale", self.prior_cond_scale, 0, 100),
            ("best-of", self.best_of, 1, MAX_BEST_OF),
            ("resample-times", self.resample_times, 1, 100),
        ):
            if not low <= value <= high:
                raise UsageError(f"--{name} {value:g}: expected {low} to {high}")
        for scale in _each(self.cond_scale):
            if not 0 <= scale <= 100:
                raise UsageError(f"--cond-scale {scale:g}: expected 0 to 100")


def _each(value: float | tuple[float, ...] | None) -> tuple[float, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


@dataclass(frozen=True, slots=True)
class SettledOptions:
    """The options of one drawing, each decided and checked against the models."""

    sampler: Sampler
    steps: tuple[int, ...]
    """One a unet."""
    eta: float
    cond_scale: tuple[float, ...]
    """One a unet; 1 for a unet without a condition."""
    prior_cond_scale: float
    prior_steps: int
    negative_prompt: str
    best_of: int
    resample_times: int
    start_unet: int
    stop_unet: int
