"""The files that the real old dalle2-pytorch made: tests/data/legacy/make_references.py."""

from __future__ import annotations

import importlib.util
import json
import lzma
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sp_data.training.weights import legacy
from sp_data.training.weights.read import Network, read

FOLDER = Path(__file__).parent / "data/legacy"


def _noise_module() -> Any:
    spec = importlib.util.spec_from_file_location("legacy_noise", FOLDER / "noise.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recorded_noise = _noise_module().recorded_noise


def unpacked(name: str, into: Path) -> Path:
    """A reference file such as `1.0.1/decoder.pth`, as it was before it was packed."""
    file = into / name.replace("/", "-")
    file.write_bytes(lzma.decompress((FOLDER / f"{name}.xz").read_bytes()))
    return file


def network(name: str, into: Path) -> Network:
    (only,) = read(unpacked(name, into))
    return only


def expected(version: str) -> dict[str, Tensor]:
    return load_file(FOLDER / version / "expected.safetensors")


def config(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return content


def in_full(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """float16, as the files keep it, as float32, as it was computed with."""
    return {name: value.float() for name, value in state.items()}


def converted(network: Network) -> dict[str, Tensor]:
    convert = legacy.convert_prior if network.kind == "prior" else legacy.convert_unet
    return convert(in_full(network.state))


def difference(actual: Tensor, wanted: Tensor) -> float:
    """Relative: |actual - wanted| / |wanted|."""
    actual = actual.detach()
    return float(torch.linalg.vector_norm(actual - wanted) / torch.linalg.vector_norm(wanted))
