"""FID and KID by torchmetrics, where the weights of their Inception network are on this machine. Nothing is downloaded.

    file = inception_weights()      a path, or Unavailable: why there is none, and where to put it
    FidKid  <-  fid_and_kid(load_inception(file), drawn, real)

Both compare with ImageNet's features and are meant for thousands of pictures. FID is biased upwards in small sets (at
500 pictures by more than models differ); KID is unbiased and has an error bar. Judge by CMMD, and give these for
comparison with others' figures.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sp_data.errors import CorruptFile, DataError

if TYPE_CHECKING:
    import torch
    from torch import nn

VARIABLE = "SP_DATA_INCEPTION_WEIGHTS"
"""Environment variable with the path of the weights; else they are where torch-fidelity would keep them."""
FILE = "weights-inception-2015-12-05-6726825d.pth"
"""torch-fidelity's Inception; the end of the name is the beginning of its sha256."""
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
FEATURES = 2048
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
"""torchmetrics' and the paper's; smaller sets take subsets of half of their pictures."""
BATCH = 64


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Why FID and KID are not computed, and what to do."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class FidKid:
    fid: float
    kid: float
    kid_error: float
    """Standard deviation over subsets of the pictures."""
    num_drawn: int
    num_real: int

    @property
    def figures(self) -> dict[str, float]:
        return {"fid": self.fid, "kid": self.kid, "kid_error": self.kid_error}

    def __str__(self) -> str:
        return (
            f"FID {self.fid:.2f}, KID {self.kid:.4f} ± {self.kid_error:.4f} of {self.num_drawn:,} drawn pictures to "
            f"{self.num_real:,} real ones"
        )


def inception_weights(path: Path | None = None) -> Path | Unavailable:
    """The file with Inception's weights: `path` if given, else the variable's, else the one in torch hub's cache."""
    if path is not None:
        file, named = path, "the path given"
    elif os.environ.get(VARIABLE):
        file, named = Path(os.environ[VARIABLE]), VARIABLE
    else:
        # torch.hub.get_dir() without torch's import, which takes seconds.
        home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
        file, named = Path(home).expanduser() / "hub" / "checkpoints" / FILE, "torch hub's cache"
    if file.is_file():
        return file
    return Unavailable(
        f"FID and KID are left out: {named} has no Inception weights at {file}; they are never downloaded. Put {URL} "
        f"there, or set {VARIABLE} to its path"
    )


def load_inception(file: Path) -> nn.Module:
    """Inception, as FID and KID use it: uint8 pictures `(n, 3, height, width)` -> features `(n, 2048)`.

    Raises CorruptFile if the file is not torch-fidelity's: other weights give other figures, and torch-fidelity would
    unpickle whatever it is.
    """
    expected = FILE.removesuffix(".pth").rpartition("-")[2]
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not digest.startswith(expected):
        raise CorruptFile(
            f"{file} has the sha256 {digest[:8]}…, and Inception's weights have {expected}…; fetch {URL} again"
        )
    from torchmetrics.image.fid import NoTrainInceptionV3

    return NoTrainInceptionV3("inception-v3-compat", [str(FEATURES)], feature_extractor_weights_path=str(file))


def fid_and_kid(features: nn.Module, drawn: torch.Tensor, real: torch.Tensor) -> FidKid:
    """FID and KID between drawn `(m, 3, height, width)` and real pictures `(n, ...)`, uint8.

    `features` maps uint8 pictures to `(n, dim)` float32; its device is used. Raises DataError for fewer than 4 of
    either, or for pictures that are not uint8.
    """
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    for name, pictures in (("drawn", drawn), ("real", real)):
        if pictures.dtype != torch.uint8 or pictures.dim() != 4 or len(pictures) < 4:
            raise DataError(
                f"{name} pictures are {pictures.dtype} of the shape {tuple(pictures.shape)}, expected uint8 of "
                "(n, 3, height, width) with n >= 4"
            )
    size = min(KID_SUBSET_SIZE, min(len(drawn), len(real)) // 2)
    with warnings.catch_warnings(), torch.inference_mode(), torch.random.fork_rng(devices=[]):
        # That it keeps all features in memory: 10,000 of them are 82 MB.
        warnings.filterwarnings("ignore", message=".*Kernel Inception Distance", category=UserWarning)
        # Its subsets are taken by torch's random numbers: equal pictures give equal figures.
        torch.manual_seed(0)
        of_drawn, of_real = _features(features, drawn), _features(features, real)
        # Inception runs once for both: they are given its features, and an identity in its place.
        identity = torch.nn.Identity()
        identity.num_features = torch.tensor(of_real.shape[1])
        fid = FrechetInceptionDistance(identity)
        kid = KernelInceptionDistance(identity, subsets=KID_SUBSETS, subset_size=size)
        for metric in (fid, kid):
            metric.update(of_drawn, real=False)
            metric.update(of_real, real=True)
        kid_mean, kid_error = kid.compute()
        return FidKid(float(fid.compute()), float(kid_mean), float(kid_error), len(drawn), len(real))


def _features(features: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """`(n, dim)` float32, on the CPU."""
    import torch

    device = next((parameter.device for parameter in features.parameters()), pictures.device)
    return torch.cat([features(batch.to(device)).float().cpu() for batch in torch.split(pictures, BATCH)])
