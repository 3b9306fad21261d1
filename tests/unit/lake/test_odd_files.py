"""Manifests, recipes and checkpoints' records in a stranger's lake: read, or refused in one sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzzing import few_and_many, fuzz, mutated, mutated_json

from sp_data import manifest as manifests
from sp_data.errors import CorruptFile, RecipeError, SpDataError
from sp_data.kept_recipe import RECIPE_FILE, recall_recipe
from sp_data.lake import Lake
from sp_data.manifest import Counts, FileEntry, Manifest
from sp_data.recipe import load_recipe
from sp_data.training import checkpoints

DEEP = b'{"a": ' + b"[" * 200_000
FILE = {"path": "shards/00000.tar", "sha256": "0" * 64}
SHARD = {"number": 0, "split": "train", "num_rows": 2, "num_samples": 2}
VERIFIED = Manifest.make(
    stage="verify",
    version=1,
    recipe={},
    inputs={},
    counts=Counts(in_=2, out=2),
    files=[FileEntry(path="shards/00000.tar", bytes=1, sha256="0" * 64)],
    details={
        "layout": "5+1",
        "clip": "tiny-1",
        "dim": 4,
        "tombstones": ["000001"],
        "shards": [{**SHARD, "tar": FILE, "parquet": FILE, "img_emb": FILE, "text_emb": FILE}],
    },
)
WHOLE: dict[str, Any] = VERIFIED.model_dump(mode="json", by_alias=True)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path), "theirs")


def put(lake: Lake, path: str, data: bytes) -> None:
    lake.write_bytes(path, data)


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    fields = json.loads(json.dumps(WHOLE))
    change(fields)
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    "data",
    [
        DEEP,
        b"[]",
        b"\xff\xfe\x00\xd8",
        changed(lambda fields: fields["files"][0].update(path="../../../etc/passwd")),
        changed(lambda fields: fields["files"][0].update(path="/etc/passwd")),
        changed(lambda fields: fields["files"][0].update(bytes=2**80)),
        changed(lambda fields: fields["files"][0].update(bytes=-1)),
        changed(lambda fields: fields.update(identity="../../x")),
        changed(lambda fields: fields.update(stage="shard")),
        changed(lambda fields: fields.update(details={})),
        changed(lambda fields: fields["details"].update(shards=[{}])),
        changed(lambda fields: fields["details"].update(tombstones=[1])),
        changed(lambda fields: fields["details"].update(clip="../../x")),
        changed(lambda fields: fields["details"]["shards"][0].update(num_rows=2**40)),
        changed(lambda fields: fields["details"].update(layout=5)),
    ],
)
def test_a_manifest_that_does_not_fit_is_a_damaged_file(lake: Lake, data: bytes) -> None:
    put(lake, "manifests/verify/latest.json", data)
    with pytest.raises(CorruptFile, match=r"manifests/verify/latest\.json is (not a valid manifest|a manifest of)"):
        manifests.latest(lake, "verify")


def test_a_whole_manifest_is_read(lake: Lake) -> None:
    manifests.publish(lake, VERIFIED)
    assert manifests.latest(lake, "verify") == VERIFIED


@few_and_many
def test_any_manifest_is_read_or_refused(lake: Lake, num_inputs: int) -> None:
    def read(value: object) -> None:
        put(lake, "manifests/verify/latest.json", json.dumps(value).encode())
        if manifest := manifests.latest(lake, "verify"):
            assert str(manifest.details["layout"])
            manifests.missing_files(lake, manifest.files)

    fuzz(mutated_json([WHOLE]), read, num_inputs, refusals=(SpDataError,))


@pytest.mark.parametrize("data", [DEEP, b"{", b"[]", b"null", b"\xff\xfe\x00\xd8", "﻿{}".encode("utf-16")])
def test_a_kept_recipe_that_cannot_be_read_is_refused(lake: Lake, data: bytes) -> None:
    put(lake, RECIPE_FILE, data)
    with pytest.raises((CorruptFile, RecipeError), match=r"recipe\.json"):
        recall_recipe(lake)


@pytest.mark.parametrize("path", [RECIPE_FILE, "manifests/verify/latest.json"])
def test_a_pipe_is_no_file_and_is_not_waited_for(lake: Lake, path: str) -> None:
    place = Path(lake.full(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(place)
    with pytest.raises(CorruptFile, match="not a file but a pipe"):
        recall_recipe(lake) if path == RECIPE_FILE else manifests.latest(lake, "verify")


def test_a_kept_recipe_of_gigabytes_is_not_read(lake: Lake) -> None:
    put(lake, RECIPE_FILE, b"{}")
    os.truncate(lake.full(RECIPE_FILE), 3 << 30)
    with pytest.raises(CorruptFile, match=r"3,221,225,472 bytes: expected at most"):
        recall_recipe(lake)


@few_and_many
def test_any_kept_recipe_is_read_or_refused(lake: Lake, num_inputs: int) -> None:
    seed = load_recipe("demo").model_dump(mode="json")

    def read(value: object) -> None:
        put(lake, RECIPE_FILE, json.dumps(value).encode())
        recall_recipe(lake)

    fuzz(mutated_json([seed]), read, num_inputs, refusals=(SpDataError,))


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        f"{ALIASES}name: *h",
        "&a [*a]",
        "name: x\nsource: &a {wiki: *a}",
        "[" * 5_000,
        "- " * 5_000,
        "name: !!python/object/apply:os.system ['true']",
        "name: 2020-99-99",
        f"name: {'9' * 10_000}",
        "<<: [1]",
        "name: !!binary x",
    ],
)
def test_a_recipe_that_repeats_itself_or_is_no_plain_text_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"r\.yaml"):
        load_recipe(str(path))


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_recipe_that_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "r.yaml"
    make(path)
    with pytest.raises(RecipeError, match=r"r\.yaml is not a file"):
        load_recipe(str(path))


@few_and_many
def test_any_recipe_is_read_or_refused(tmp_path: Path, num_inputs: int) -> None:
    path = tmp_path / "r.yaml"
    seed = b"name: kids\nsource:\n  wiki: http://a.example\n  select: all\ncurate: {min_side_px: 32}\n"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        load_recipe(str(path))

    tokens = (
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!int ",
        b"!!timestamp ",
        b"? ",
        b"- ",
        b"{",
        b"[",
        b"|\n",
        b"\xff",
        b"\t",
        b"%YAML 9\n",
    )
    fuzz(mutated([seed], tokens), read, num_inputs, refusals=(SpDataError,))


RECORD = {
    "kind": "prior",
    "run": "prior-aaaaaaaa",
    "step": 1,
    "loss": 1.0,
    "val_loss": None,
    "num_samples": 1,
    "dataset": "x",
    "clip": "x",
    "settings": {},
    "model": {},
    "num_parameters": 1,
    "files": [{"path": "runs/prior-aaaaaaaa/checkpoints/step-00000001/weights.safetensors", "bytes": 1, "sha256": "0"}],
}


@pytest.mark.parametrize(
    "change", [{"run": "../../../etc"}, {"files": []}, {"step": -1}, {"files": [{"path": "/etc/x"}]}]
)
def test_a_record_that_leads_elsewhere_is_refused(lake: Lake, change: dict[str, Any]) -> None:
    put(lake, "runs/a/checkpoints/b/checkpoint.json", json.dumps(RECORD | change).encode())
    with pytest.raises(CorruptFile, match=r"checkpoint\.json"):
        checkpoints.read(lake, "runs/a/checkpoints/b/checkpoint.json")


@few_and_many
def test_any_record_is_read_or_refused(lake: Lake, num_inputs: int) -> None:
    def read(value: object) -> None:
        put(lake, "runs/a/checkpoints/b/checkpoint.json", json.dumps(value).encode())
        assert checkpoints.read(lake, "runs/a/checkpoints/b/checkpoint.json").name

    fuzz(mutated_json([RECORD]), read, num_inputs, refusals=(SpDataError,))


def test_a_state_that_is_no_state_or_would_run_something_is_a_damaged_file(lake: Lake, tmp_path: Path) -> None:
    import hashlib
    import os
    import pickle

    import torch

    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {mark}",)

    folder = "runs/prior-aaaaaaaa/checkpoints/step-00000001"
    path = tmp_path / "state.pt"
    for value in (Evil(), {"weights": Evil()}, [1, 2], "text"):
        torch.save(value, path)
        for data in (path.read_bytes(), pickle.dumps(value), b""):
            put(lake, f"{folder}/state.pt", data)
            entry = {"path": f"{folder}/state.pt", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            record = checkpoints.Checkpoint.model_validate({**RECORD, "files": [*RECORD["files"], entry]})  # type: ignore[misc]
            with pytest.raises(CorruptFile, match=r"state\.pt"):
                checkpoints.load_state(lake, record)
    assert not mark.exists()
