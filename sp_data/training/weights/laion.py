"""LAION's DALL-E 2: where its prior, decoder and upsampler are, and how they get into the lake.

They are fetched through huggingface_hub, into its cache and by its variables (HF_ENDPOINT, HF_HOME, HF_TOKEN), from
where a broken download left off; size and sha256 are checked against the hub's. The CLIP, ViT-L/14, comes from OpenAI
into clip's own cache, where embedding finds it.
"""

from __future__ import annotations

import logging
import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any

from sp_data.canonical import parse_json, sha256_of
from sp_data.errors import CorruptFile, SpDataError, UsageError
from sp_data.lake import Lake
from sp_data.runtime.progress import SILENT, Progress
from sp_data.training.weights.adopt import Adopted, adopt, find
from sp_data.training.weights.read import first_line

log = logging.getLogger(__name__)

VERSION = "1.0.2"
"""Of dalle2-pytorch, that saved all three."""
CLIP = "ViT-L/14"
SHA256_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Published:
    name: str
    """In the lake."""
    option: str
    """Of `sp-data weights laion`, that takes a local file instead."""
    repo: str
    path: str
    config: str | None
    """dalle2-pytorch's JSON beside it; None if it is in the file."""


PUBLISHED = {
    published.name: published
    for published in (
        Published("laion-prior", "prior", "laion/DALLE2-PyTorch", "prior/latest.pth", "prior/prior_config.json"),
        Published("laion-decoder", "decoder", "laion/DALLE2-PyTorch", "decoder/v1.0.2/latest.pth", None),
        Published(
            "laion-upsampler", "upsampler", "Veldrovive/upsamplers", "working/latest.pth", "working/decoder_config.json"
        ),
    )
}
NAMES = tuple(PUBLISHED)


class HubUnreachable(SpDataError):
    """The hub, or OpenAI, does not give the file, and it is not in the cache."""

    def __init__(self, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


def fetch(
    lake: Lake,
    names: Sequence[str] = NAMES,
    *,
    files: Mapping[str, Path] | None = None,
    clip: bool = True,
    progress: Progress = SILENT,
) -> list[Adopted]:
    """Adopt LAION's networks and, if `clip`, see to it that their CLIP is in its cache. What is there stays.

    `files`: name -> a local file that is taken instead of the hub's; its configuration is taken from beside it.

    Raises UsageError for an unknown name, HubUnreachable that lists every address that could not be fetched and where
    its file goes, CorruptFile for a file with another size or sha256 than the hub says.
    """
    given = files or {}
    for name in [*names, *given]:
        if name not in PUBLISHED:
            raise UsageError(f"LAION publishes no {name!r}: expected {', '.join(NAMES)}")
    progress.begin("weights", len(names) + clip, "file")
    adopted: list[Adopted] = []
    missing: list[str] = []
    causes: list[str] = []
    ask = True
    for name in names:
        published = PUBLISHED[name]
        try:
            adopted += _adopted(lake, published, given.get(name), ask=ask)
        except HubUnreachable as error:
            # The hub's client tries for half a minute: once is enough.
            ask = ask and error.answered
            causes.append(str(error))
            missing.append(f"{_address(published.repo, published.path)} -> --{published.option} FILE")
            if published.config:
                missing.append(f"{_address(published.repo, published.config)} -> beside that file")
        progress.advance()
    if clip:
        try:
            fetch_clip()
        except HubUnreachable as error:
            causes.append(str(error))
            missing.append(f"{_clip_address()} -> {clip_file()}")
        progress.advance()
    if missing:
        unreachable = HubUnreachable(
            f"cannot fetch LAION's weights ({causes[0]}); run it again with a network, or fetch these elsewhere:"
        )
        unreachable.items = tuple(missing)
        raise unreachable
    return adopted


def _adopted(lake: Lake, published: Published, given: Path | None, *, ask: bool) -> list[Adopted]:
    if given is None and (kept := find(lake, published.name)) is not None:
        return [kept]
    if given is None:
        file = fetched(published.repo, published.path, ask=ask)
        config = fetched(published.repo, published.config, ask=ask) if published.config else None
        source = _address(published.repo, published.path)
    else:
        file, source = given, str(given)
        beside = given.with_name(Path(published.config).name) if published.config else None
        config = beside if beside is not None and beside.is_file() else None
    version = None if _says_version(published) else VERSION
    return adopt(lake, file, published.name, version=version, config=_json(config) if config else None, source=source)


def _says_version(published: Published) -> bool:
    """Whether the file is {version, config, model}."""
    return published.config is None


def fetched(repo: str, path: str, *, ask: bool = True) -> Path:
    """A file of the hub in huggingface_hub's cache; fetched, or the rest of it, if it is not there.

    `ask`: False takes only what is in the cache. Raises HubUnreachable, CorruptFile.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    address = _address(repo, path)
    if not ask:
        return _cached(repo, path, HubUnreachable(f"{address}: the hub did not answer before"))
    try:
        metadata = get_hf_file_metadata(hf_hub_url(repo, path))
    except OSError as error:
        answered = isinstance(error, HfHubHTTPError)
        return _cached(repo, path, HubUnreachable(f"{address}: {first_line(error)}", answered=answered))
    try:
        file = Path(hf_hub_download(repo, path))
    except OSError as error:
        if "Consistency check failed" in str(error):
            raise CorruptFile(f"{address} has another size than the hub says ({first_line(error)})") from error
        raise HubUnreachable(f"{address}: {first_line(error)}", answered=True) from error
    _check(file, metadata.etag or "", metadata.size, address)
    return file


def _cached(repo: str, path: str, unreachable: HubUnreachable) -> Path:
    """What the cache has of a file, whose name there is its sum. Raises HubUnreachable, CorruptFile."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        cached = Path(hf_hub_download(repo, path, local_files_only=True))
    except LocalEntryNotFoundError:
        raise unreachable from None
    _check(cached, cached.resolve().name, None, _address(repo, path))
    return cached


def _check(file: Path, etag: str, size: int | None, address: str) -> None:
    """Compare a file with its ETag, which is a sha256 of large files and git's sha1 of small ones."""
    with file.open("rb") as stream:
        if len(etag) == SHA256_DIGITS:
            digest = sha256_of(stream)
        else:
            content = stream.read()
            digest = sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    actual = file.stat().st_size
    if digest != etag or (size is not None and actual != size):
        # The next try must not find it.
        file.resolve().unlink()
        file.unlink(missing_ok=True)
        expected = f"{size:,} bytes and {etag[:16]}" if size is not None else etag[:16]
        raise CorruptFile(
            f"{address} came as {actual:,} bytes with the sum {digest[:16]}, the hub says {expected}: it is removed; "
            f"fetch it again"
        )


def _address(repo: str, path: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repo, path)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = parse_json(file.read_bytes())
    except ValueError as error:
        raise CorruptFile(f"{file} is no JSON ({first_line(error)}); fetch it again") from error
    if not isinstance(content, dict):
        raise CorruptFile(f"{file} is no configuration of dalle2-pytorch; fetch it again")
    return content


def clip_file() -> Path:
    """Where clip looks for ViT-L/14 before it downloads it."""
    return Path("~/.cache/clip").expanduser() / _clip_address().rsplit("/", 1)[-1]


def fetch_clip() -> Path:
    """ViT-L/14 in clip's cache, by clip's own download, which checks its sha256. Raises HubUnreachable, CorruptFile."""
    from clip import clip

    file = clip_file()
    try:
        clip._download(_clip_address(), str(file.parent))
    except (urllib.error.URLError, OSError) as error:
        raise HubUnreachable(f"{_clip_address()}: {first_line(error)}") from error
    except RuntimeError as error:
        file.unlink(missing_ok=True)
        raise CorruptFile(f"{_clip_address()}: {first_line(error)}; it is removed, fetch it again") from error
    return file


def _clip_address() -> str:
    from clip import clip

    return str(clip._MODELS[CLIP])
