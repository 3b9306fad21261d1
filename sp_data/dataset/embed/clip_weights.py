"""Load OpenAI's form of a CLIP from a file, without running anything that is in it.

    /a/file.pt           a state dict that torch saved, or OpenAI's own archive of a compiled model
    /a/file.safetensors  a state dict

A pickle can run any program, and an archive of a compiled model (TorchScript) is one. Of both only the tensors are
read: an unpickler that knows nothing but tensors, and stand-ins for the modules that hold them. The form's loaders in
all_clip and clip unpickle whatever they are given, so they are replaced.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from sp_data.errors import CorruptFile, StageError, reason_of
from sp_data.recipe.clip_names import OPENAI

MODULE_PREFIX = "__torch__."
"""What the classes of a compiled model are called."""
PICKLE = "data.pkl"
MAX_DEPTH = 50
"""Of modules within modules."""
DTYPE_OF = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _Module:
    """Stands in for a compiled module: holds its attributes, and does nothing."""

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _rebuilt(storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Any:
    if math.prod(size) > storage.numel():
        # A tensor that overlaps itself can be of any size, and made of one number.
        raise pickle.UnpicklingError("it holds a tensor that is larger than its numbers")
    return torch.as_strided(storage, size, stride, offset).clone()


def _parameter(data: torch.Tensor, *_: object) -> torch.Tensor:
    return data


def _tagged(value: object, *_: object) -> object:
    """Stands in for what says of a list which type it had."""
    return value


def _nothing(*_: object) -> None:
    """Stands in for what is no tensor."""


KNOWN: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("collections", "OrderedDict"): OrderedDict,
    ("torch.jit._pickle", "restore_type_tag"): _tagged,
    ("torch.jit._pickle", "build_intlist"): _tagged,
    ("torch.jit._pickle", "build_doublelist"): _tagged,
    ("torch.jit._pickle", "build_boollist"): _tagged,
    ("torch.jit._pickle", "build_tensorlist"): _tagged,
    ("torch.jit._pickle", "build_tensor_from_id"): _nothing,
    ("torch", "device"): _nothing,
}
"""Global in a pickle -> what is called instead of it. Every other one is refused."""


class _TensorsOnly(pickle.Unpickler):
    """Unpickles tensors, plain values and stand-ins; refuses every other global, by name."""

    def __init__(self, data: bytes, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(data))
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith(MODULE_PREFIX):
            return _Module
        if module == "torch" and name in DTYPE_OF:
            return DTYPE_OF[name]
        if (module, name) in KNOWN:
            return KNOWN[module, name]
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which loading would run")

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """A storage: ('storage', dtype, its file's name, device, number of elements)."""
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not str(key).isalnum():
            raise pickle.UnpicklingError(f"it holds a {kind}, and no storage")
        data = bytearray(self._archive.read(f"{self._folder}data/{key}"))
        return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a CLIP's file by name. Nothing in the file is run. Raises CorruptFile."""
    try:
        if path.suffix == ".safetensors":
            tensors: dict[str, torch.Tensor] = load_file(path)
            return tensors
        saved: object = _compiled(path) if _is_compiled(path) else _saved(path)
    except (pickle.UnpicklingError, zipfile.BadZipFile, SafetensorError) as error:
        raise _refused(path, error) from error
    except FileNotFoundError:
        raise
    except Exception as error:
        # A pickle that is broken raises whatever its broken part makes Python raise.
        raise _refused(path, error) from error
    if isinstance(saved, dict) and isinstance(saved.get("state_dict"), dict):
        saved = saved["state_dict"]
    if not isinstance(saved, dict) or not saved or not all(isinstance(value, torch.Tensor) for value in saved.values()):
        raise CorruptFile(f"{path} holds no state dict of a CLIP; save its weights alone, or as .safetensors")
    return {str(name).removeprefix("module."): value for name, value in saved.items()}


def _refused(path: Path, error: Exception) -> CorruptFile:
    # Without torch's page of advice to unpickle the file after all.
    said = ValueError(
        str(error).partition("WeightsUnpickler error:")[2].partition("Check the")[0].partition("Please")[0] or error
    )
    return CorruptFile(
        f"{path} cannot be read as weights alone ({reason_of(ValueError(said))}); nothing in it was run: save its "
        "state dict with torch.save, or as .safetensors, if you trust it"
    )


def _is_compiled(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist())


def _saved(path: Path) -> object:
    return torch.load(path, map_location="cpu", weights_only=True)


def _compiled(path: Path) -> dict[str, torch.Tensor]:
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith(f"/{PICKLE}")), None)
        if name is None:
            raise pickle.UnpicklingError(f"it has no {PICKLE}")
        model = _TensorsOnly(archive.read(name), archive, name.removesuffix(PICKLE)).load()
    return dict(_tensors(model, "", 0))


def _tensors(value: object, name: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of a module and the modules in it, named as in its state dict."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, _Module) and depth <= MAX_DEPTH:
        for attribute, inner in value.attributes.items():
            yield from _tensors(inner, f"{name}.{attribute}" if name else str(attribute), depth + 1)


def load_from_file(clip_model: str, use_jit: bool, device: str, clip_cache_path: str | None) -> tuple[Any, Any, Any]:
    """all_clip's loader of OpenAI's form, for a file: (model, preprocessing, tokenizer). Raises StageError."""
    import clip
    from clip.clip import _transform
    from clip.model import build_model

    path = Path(clip_model)
    if not path.is_file():
        raise StageError(f"there is no CLIP {clip_model!r}: expected one of {', '.join(OPENAI)}, or a file")
    state = read_state(path)
    try:
        model = build_model(state).to(device)
    except (KeyError, ValueError, RuntimeError, IndexError, TypeError, AttributeError, AssertionError) as error:
        raise CorruptFile(f"{path} holds no CLIP of OpenAI's form ({reason_of(error)})") from error
    if str(device) == "cpu":
        model.float()

    def tokenize(texts: list[str]) -> torch.Tensor:
        return cast("torch.Tensor", clip.tokenize(texts, truncate=True))

    return model, _transform(model.visual.input_resolution), tokenize


def use_safe_loaders() -> None:
    """Make all_clip load files by `load_from_file`, and refuse the forms of other packages, which run what they get."""
    from all_clip import main
    from all_clip.openai_clip import load_openai_clip

    def openai(clip_model: str, use_jit: bool, device: str, clip_cache_path: str | None) -> tuple[Any, Any, Any]:
        load = load_openai_clip if clip_model in OPENAI else load_from_file
        return cast("tuple[Any, Any, Any]", load(clip_model, use_jit, device, clip_cache_path))

    def refused(clip_model: str, *_: object) -> tuple[Any, Any, Any]:
        raise StageError(f"CLIP {clip_model!r} is of a form that sp-data does not load; give open_clip: or hf_clip:")

    for prefix in ("", "openai_clip:"):
        main._CLIP_REGISTRY[prefix] = openai
    for prefix in ("nm:", "ja_clip:"):
        main._CLIP_REGISTRY[prefix] = refused
