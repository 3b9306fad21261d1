"""Networks that a training can begin with, kept in the lake under names of their own.

    weights/laion-decoder/
      weights.safetensors    under the names of dalle2-pytorch 1.15.6; of the average, where the source has one
      adopted.json           whose they are, what they compute like, where they came from; published last

A name is for good: what was trained from `laion-decoder` says so by its sha256.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sp_data.canonical import parse_json, sha256_of
from sp_data.errors import CorruptFile, UsageError
from sp_data.lake import FileEntry, Lake
from sp_data.manifest import Frozen, missing_files
from sp_data.training.weights.legacy import LAYOUT, OLD_LAYOUT, NetworkKind, State, convert_prior, convert_unet, family
from sp_data.training.weights.read import Network, first_line, networks_of, read, read_safetensors

log = logging.getLogger(__name__)

FOLDER = "weights"
WEIGHTS = "weights.safetensors"
RECORD = "adopted.json"
CHECKPOINT = "checkpoint.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Adopted(Frozen):
    """The record of one network in the lake."""

    name: str
    kind: NetworkKind
    unet: int | None
    """1 draws, 2 and more enlarge; None for a prior."""
    legacy: bool
    """Computes as dalle2-pytorch 1.0 did: `patch` the model before the weights are loaded."""
    version: str | None
    """dalle2-pytorch's that saved them, if the file or the command said it."""
    num_parameters: int
    source: str
    """The file, folder or address as it was given."""
    source_sha256: str
    config: dict[str, Any] | None
    """dalle2-pytorch's configuration, if it came with the weights."""
    clip: str = ""
    """Folder of the CLIP whose embeddings they were trained on, with its digest; of a checkpoint of ours."""
    run: str = ""
    dataset: str = ""
    """The run of that checkpoint, and the digest of its dataset."""
    files: tuple[FileEntry, ...]

    @property
    def digest(self) -> str:
        """sha256 of the weights."""
        return self.files[0].sha256

    def __str__(self) -> str:
        what = "prior" if self.unet is None else f"unet {self.unet}"
        old = " of dalle2-pytorch 1.0" if self.legacy else ""
        return f"{self.name}: a {what}{old}, {self.num_parameters / 1e6:,.1f} million parameters"


@dataclass(frozen=True, slots=True)
class _Source:
    networks: list[Network]
    sha256: str
    is_checkpoint: bool
    legacy: bool
    """Of a checkpoint of ours, whose names are today's."""
    origin: dict[str, str]
    """Its clip, run and dataset; empty for another file."""


def adopt(
    lake: Lake,
    path: str | Path,
    name: str,
    *,
    version: str | None = None,
    config: dict[str, Any] | None = None,
    source: str | None = None,
) -> list[Adopted]:
    """Take the networks of a file, or of a checkpoint's folder, into the lake as `weights/<name>/`.

    `path`: a .pth or .safetensors of dalle2-pytorch, or a folder with checkpoint.json and weights.safetensors of any
    lake; a path or a URL. A file with several unets gives `<name>-unet1`, `<name>-unet2`. `version`: dalle2-pytorch's
    that saved the file, where the file does not say it. `config` and `source`: what to record instead of what the file
    has, and of `path`. The same weights under the same name again change nothing.

    Raises UsageError, CorruptFile.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"--name {name!r}: expected letters, digits, '-', '_' and '.', for example laion-decoder")
    shown = source or str(path)
    with lake.writer(FOLDER), _here(lake, str(path)) as local:
        opened = _open(local, shown)
        several = len(opened.networks) > 1
        return [
            _adopt_one(lake, network, f"{name}-unet{network.unet}" if several else name, opened, shown, version, config)
            for network in opened.networks
        ]


def _adopt_one(
    lake: Lake,
    network: Network,
    name: str,
    opened: _Source,
    source: str,
    version: str | None,
    config: dict[str, Any] | None,
) -> Adopted:
    if network.version and version and network.version != version:
        raise UsageError(f"{source} says that dalle2-pytorch {network.version} saved it, not --version {version}")
    version = network.version or version
    legacy = opened.legacy if opened.is_checkpoint else family(network.kind, network.state, version, source) == "1.0"
    convert = convert_prior if network.kind == "prior" else convert_unet
    folder = f"{FOLDER}/{name}"
    with lake.scratch("adopt") as scratch:
        state = _apart(convert(network.state))
        save_file(state, scratch / WEIGHTS)
        with (scratch / WEIGHTS).open("rb") as stream:
            # On the disk before the record that lists it.
            os.fsync(stream.fileno())
            digest = sha256_of(stream)
        if (kept := find(lake, name)) is not None:
            if kept.digest == digest and kept.legacy == legacy and kept.kind == network.kind:
                return kept
            raise UsageError(
                f"weights {name!r} of dataset {lake.dataset!r} are others, from {kept.source}, and trainings may have "
                f"begun with them: choose another --name, or remove {lake.full(folder)}"
            )
        files = (lake.publish(scratch / WEIGHTS, f"{folder}/{WEIGHTS}"),)
    record = Adopted(
        name=name,
        kind=network.kind,
        unet=network.unet,
        legacy=legacy,
        version=version,
        num_parameters=_num_parameters(state),
        source=source,
        source_sha256=opened.sha256,
        config=config or network.config,
        **opened.origin,
        files=files,
    )
    lake.write_bytes(f"{folder}/{RECORD}", record.model_dump_json(indent=1).encode() + b"\n", durable=True)
    log.info("weights: %s", record)
    return record


def find(lake: Lake, name: str) -> Adopted | None:
    """The record of weights whose files are there; None if there is none. Raises CorruptFile."""
    path = f"{FOLDER}/{name}/{RECORD}"
    if not NAME.fullmatch(name) or not lake.exists(path):
        return None
    try:
        record = Adopted.model_validate_json(lake.read_bytes(path))
    except ValidationError as error:
        raise CorruptFile(
            f"{lake.full(path)} is not a valid record of weights ({error.errors()[0]['msg']}); delete its folder"
        ) from error
    return None if missing_files(lake, record.files) else record


def load_start(lake: Lake, name: str) -> tuple[Adopted, dict[str, Tensor]]:
    """Adopted weights by their name, memory-mapped, after their sha256 was checked in one pass.

    Raises UsageError if there are none of this name, CorruptFile if a byte changed.
    """
    record = find_start(lake, name)
    (entry,) = record.files
    return record, checked_weights(lake, entry, f"remove its folder and adopt {record.source} again")


def find_start(lake: Lake, name: str) -> Adopted:
    """The record of weights that a recipe names. Raises UsageError if there are none of this name."""
    record = find(lake, name)
    if record is None:
        names = sorted({path.split("/")[1] for path in lake.list(FOLDER) if path.endswith(f"/{RECORD}")})
        there = f"there are {', '.join(names)}" if names else "there are none"
        raise UsageError(
            f"dataset {lake.dataset!r} has no weights {name!r}: {there}; bring some with sp-data weights "
            f"adopt, or LAION's with sp-data weights laion (--recipe {lake.dataset})"
        )
    return record


def checked_weights(lake: Lake, entry: FileEntry, cure: str) -> State:
    """A file of weights, memory-mapped, after its sha256 was checked. Raises CorruptFile with the cure."""
    with lake.local(entry.path) as local:
        with local.open("rb") as stream:
            digest = sha256_of(stream)
        if digest != entry.sha256:
            raise CorruptFile(
                f"{lake.full(entry.path)} changed: its sha256 is {digest[:16]}, its record's {entry.sha256[:16]}; "
                f"{cure}"
            )
        state: State = load_file(local)
    return state


@contextlib.contextmanager
def _here(lake: Lake, path: str) -> Iterator[Path]:
    """A path or a URL of a file or a checkpoint's folder, as a path on this machine."""
    if "://" not in path:
        yield Path(path)
        return
    with lake.scratch("fetched") as folder:
        try:
            fs, remote = fsspec.core.url_to_fs(path)
            if not fs.isdir(remote):
                copy = folder / Path(remote).name
                fs.get_file(remote, str(copy))
                yield copy
                return
            for name in (CHECKPOINT, WEIGHTS):
                fs.get_file(f"{remote.rstrip('/')}/{name}", str(folder / name))
        except (OSError, ValueError, ImportError) as error:
            raise UsageError(f"{path} cannot be fetched ({first_line(error)})") from error
        yield folder


def _open(path: Path, source: str) -> _Source:
    if not path.is_dir():
        networks = read(path)
        with path.open("rb") as stream:
            return _Source(networks, sha256_of(stream), is_checkpoint=False, legacy=False, origin={})
    try:
        record = parse_json((path / CHECKPOINT).read_bytes())
        kind, model = record["kind"], record["model"]
        recorded = next(entry["sha256"] for entry in record["files"] if entry["path"].endswith(WEIGHTS))
        with (path / WEIGHTS).open("rb") as stream:
            sha256 = sha256_of(stream)
    except FileNotFoundError as error:
        raise UsageError(
            f"{source} is no checkpoint: it has no {Path(str(error.filename)).name}; expected a folder such as "
            f"runs/decoder-…/checkpoints/step-00000500, or a .pth or .safetensors file"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise CorruptFile(f"{source}/{CHECKPOINT} is not a checkpoint's record ({first_line(error)})") from error
    if sha256 != recorded:
        raise CorruptFile(f"{source}/{WEIGHTS} changed: its sha256 is {sha256[:16]}, its record's {recorded[:16]}")
    networks = [
        Network(
            kind=network.kind,
            unet=record.get("unet") or network.unet if network.kind == "unet" else None,
            state=network.state,
            version=None,
            config=model,
        )
        for network in networks_of(read_safetensors(path / WEIGHTS), source)
    ]
    if (kind == "prior") != (networks[0].kind == "prior"):
        raise CorruptFile(f"{source} is recorded as a {kind}, but {WEIGHTS} holds a {networks[0].kind}")
    origin = {name: str(record.get(name, "")) for name in ("clip", "run", "dataset")}
    legacy = model.get(LAYOUT) == OLD_LAYOUT
    return _Source(networks, sha256, is_checkpoint=True, legacy=legacy, origin=origin)


def _apart(state: State) -> State:
    """The weights in the order of their names, none of them sharing memory with another, as safetensors needs them."""
    apart: State = {}
    seen: set[int] = set()
    for name in sorted(state):
        value = state[name].detach().contiguous()
        if value.data_ptr() in seen:
            value = value.clone()
        seen.add(value.data_ptr())
        apart[name] = value
    return apart


def _num_parameters(state: State) -> int:
    """The layers of a prior share one table of rotary frequencies; it counts once."""
    rotary = {name for name in state if name.endswith(".rotary_emb.freqs")}
    shared = {min(rotary)} if rotary else set()
    return sum(value.numel() for name, value in state.items() if name not in rotary or name in shared)
