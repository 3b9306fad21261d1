"""A CLIP's file is data: its tensors are read, and nothing in it is run, whatever it claims to be."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clip
import pytest
import torch
from clip.model import CLIP, build_model
from fuzzing import few_and_many, fuzz, mutated
from safetensors.torch import save_file

from sp_data.dataset.embed.clip import load_clip
from sp_data.dataset.embed.clip_weights import read_state
from sp_data.errors import CorruptFile, SpDataError, StageError
from sp_data.recipe.clip_names import file_named

DIM = 64


def small_clip() -> CLIP:
    torch.manual_seed(0)
    return CLIP(DIM, 64, 1, 64, 32, 77, 49408, 64, 1, 1).eval()


class Compiled(torch.nn.Module):
    """What OpenAI published: the model, with functions of its own in TorchScript."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.visual = torch.nn.Module()
        self.register_buffer("input_resolution", torch.tensor(64))
        self.names = ["a", "b"]
        for name, value in model.state_dict().items():
            _put(self, name, value)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return text * 2


def _put(root: torch.nn.Module, name: str, value: torch.Tensor) -> None:
    *folders, last = name.split(".")
    for folder in folders:
        if not hasattr(root, folder):
            root.add_module(folder, torch.nn.Module())
        root = getattr(root, folder)
    root.register_parameter(last, torch.nn.Parameter(value.clone(), requires_grad=False))


@pytest.fixture(scope="module")
def model() -> CLIP:
    return small_clip()


@pytest.fixture(scope="module")
def files(model: CLIP, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    state = model.state_dict()
    torch.save(state, folder / "state.pt")
    torch.save(state, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, folder / "trained.pt")
    torch.jit.save(torch.jit.script(Compiled(model)), folder / "compiled.pt")  # type: ignore[no-untyped-call]
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "state.safetensors")
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["state.pt", "legacy.pt", "trained.pt", "compiled.pt", "state.safetensors"])
def test_each_form_gives_the_same_embeddings(files: dict[str, Path], model: CLIP, name: str) -> None:
    loaded = load_clip(str(files[name]), DIM)
    expected = build_model(dict(model.state_dict())).float()
    tokens = clip.tokenize(["a kid in a red coat"])
    with torch.no_grad():
        assert torch.equal(loaded.model.encode_text(tokens), expected.encode_text(tokens))


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def raw_pickle(path: Path, evil: Evil, compiled: Path) -> None:
    path.write_bytes(pickle.dumps(evil))


def torch_pickle(path: Path, evil: Evil, compiled: Path) -> None:
    torch.save({"visual.proj": evil}, path)


def legacy_pickle(path: Path, evil: Evil, compiled: Path) -> None:
    torch.save({"visual.proj": evil}, path, _use_new_zipfile_serialization=False)


def archive_with_a_pickle(path: Path, evil: Evil, compiled: Path) -> None:
    """The archive of a compiled model, whose pickle is another."""
    with zipfile.ZipFile(compiled) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, pickle.dumps(evil) if name.endswith("/data.pkl") else source.read(name))


@pytest.mark.parametrize("make", [raw_pickle, torch_pickle, legacy_pickle, archive_with_a_pickle])
def test_a_pickle_is_never_run(
    files: dict[str, Path], tmp_path: Path, make: Callable[[Path, Evil, Path], None]
) -> None:
    mark, path = tmp_path / "ran", tmp_path / "clip.pt"
    make(path, Evil(mark), files["compiled.pt"])
    with pytest.raises(CorruptFile, match=r"clip\.pt cannot be read as weights alone .*nothing in it was run"):
        load_clip(str(path), DIM)
    assert not mark.exists()


def test_the_code_of_an_archive_is_not_even_compiled(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    with zipfile.ZipFile(files["compiled.pt"]) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, b"this is no program" if "/code/" in name else source.read(name))
    with pytest.raises(RuntimeError):
        torch.jit.load(path)  # type: ignore[no-untyped-call]
    assert read_state(path).keys() >= {"visual.proj", "text_projection"}


def test_a_tensor_larger_than_its_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    storage = torch.zeros(1)
    module = torch.nn.Module()
    module.register_buffer("huge", torch.as_strided(storage, (2**40,), (0,)))
    torch.jit.save(torch.jit.script(module), path)  # type: ignore[no-untyped-call]
    with pytest.raises(CorruptFile, match="larger than its numbers"):
        read_state(path)


@pytest.mark.parametrize("name", ["nm:someone/model", "ja_clip:rinna/japanese-clip-vit-b-16", "/no/such/file.pt"])
def test_forms_of_other_packages_and_missing_files_are_refused(name: str) -> None:
    with pytest.raises(StageError):
        load_clip(name, DIM)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-L/14", None),
        ("demo", None),
        ("openai_clip:ViT-B/32", None),
        ("open_clip:ViT-B-32/laion2b_s34b_b79k", None),
        ("hf_clip:openai/clip-vit-base-patch32", None),
        ("lake/theirs/clip.pt", "lake/theirs/clip.pt"),
        ("/a/clip.pt", "/a/clip.pt"),
        ("openai_clip:clip.pt", "clip.pt"),
        ("hf_clip:/a/folder", "/a/folder"),
        ("hf_clip:./folder", "./folder"),
        ("open_clip:ViT-B-32//a/clip.pt", "/a/clip.pt"),
    ],
)
def test_which_names_stand_for_files(name: str, expected: str | None) -> None:
    assert file_named(name) == expected


@few_and_many
def test_any_file_is_read_or_refused(num_inputs: int, tmp_path: Path) -> None:
    seeds = []
    module = torch.nn.Module()
    module.register_buffer("weight", torch.arange(4.0))
    torch.jit.save(torch.jit.script(module), tmp_path / "seed.pt")  # type: ignore[no-untyped-call]
    seeds.append((tmp_path / "seed.pt").read_bytes())
    for is_zip in (True, False):
        torch.save({"weight": torch.arange(4.0)}, tmp_path / "seed.pt", _use_new_zipfile_serialization=is_zip)
        seeds.append((tmp_path / "seed.pt").read_bytes())
    path = tmp_path / "clip.pt"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_state(path)

    fuzz(
        mutated(seeds, (b"ctorch\n", b"cos\nsystem\n", b"R.", b"b.", b"Q", b"}")),
        read,
        num_inputs,
        refusals=(SpDataError,),
    )
