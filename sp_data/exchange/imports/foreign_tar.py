"""The tar of a foreign shard: kept byte for byte if it is plain, written anew if only its names are odd, else refused.

taken as it is      KEY.jpg  KEY.txt  KEY.json, and other plain files KEY.EXTENSION beside them
written anew        ./KEY.jpg   KEY.JPG   KEY.jpeg   ._KEY.jpg (macOS's, left out)   names in headers of their own
refused             links, devices, folders, sparse and compressed members, folders in names, pictures other than
                    JPEG, a name that comes twice
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from sp_data.dataset.shards.members import HEADER_BYTES, NAME, compressed_with, tar_members
from sp_data.dataset.shards.tars import write_members
from sp_data.errors import CorruptFile, reason_of

JPEG = {"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg"}
OTHER_PICTURES = ("png", "webp", "gif", "avif", "bmp", "tif", "tiff", "jxl", "heic")
LONGEST_NAME = 100
"""Bytes of a name in a plain header."""
CURE = "make the shard again with img2dataset, or pack its files again with `tar --format=ustar` under such names"


def is_plain(tar: Path) -> bool:
    """Whether a foreign tar can be taken byte for byte; if not, `write_plain` makes one that can.

    Raises CorruptFile for a tar that cannot be taken either way.
    """
    with tar.open("rb") as stream:
        head = stream.read(HEADER_BYTES)
    if compression := compressed_with(head):
        raise CorruptFile(f"{tar} is compressed ({compression}): expected a plain tar; decompress it, keeping its name")
    try:
        names = [member.name for member in tar_members(tar)]
    except CorruptFile:
        names = None
    if names is not None and all(_plain_name(name) == name for name in names):
        _check(names, tar)
        return True
    _check([name for name, _ in _foreign_members(tar)], tar)
    return False


def write_plain(tar: Path, into: Path) -> None:
    """Write a tar's samples to another one, under plain names. Raises CorruptFile."""
    try:
        with tarfile.open(tar, "r:") as source:
            samples: dict[str, dict[str, tarfile.TarInfo]] = {}
            for name, member in _members(source, tar):
                key, _, extension = name.partition(".")
                samples.setdefault(key, {})[extension] = member
            write_members(
                (
                    (f"{key}.{extension}", _bytes(source, member))
                    for key, parts in samples.items()
                    for extension, member in parts.items()
                ),
                into,
            )
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise CorruptFile(f"{tar} is not a complete tar ({reason_of(error)}); {CURE}") from error


def _bytes(source: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = source.extractfile(member)
    assert stream is not None, "only files are listed"
    data = stream.read()
    if len(data) != member.size:
        raise tarfile.ReadError(f"it ends inside {_shown(member.name)}")
    return data


def _foreign_members(tar: Path) -> list[tuple[str, tarfile.TarInfo]]:
    try:
        with tarfile.open(tar, "r:") as source:
            return list(_members(source, tar))
    except (tarfile.TarError, ValueError, OverflowError, EOFError, MemoryError, RecursionError) as error:
        raise CorruptFile(f"{tar} is not a complete tar ({reason_of(error)}); {CURE}") from error


def _members(source: tarfile.TarFile, tar: Path) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The files that count, each with its plain name. Raises CorruptFile for what is no file KEY.EXTENSION."""
    end = tar.stat().st_size
    for member in source:
        if member.isdir() and member.name.strip("./") == "":
            continue
        if _is_of_macos(member.name):
            continue
        if not member.isreg() or member.issparse():
            raise CorruptFile(f"{tar} holds {_kind(member)} ({_shown(member.name)}): expected files alone; {CURE}")
        name = _plain_name(member.name)
        if name is None:
            raise CorruptFile(
                f"{tar} holds {_shown(member.name)}: expected names KEY.EXTENSION without folders, such as "
                f"000070042.jpg; {CURE}"
            )
        if member.size < 0 or member.offset_data + member.size > end:
            raise CorruptFile(f"{tar} is not a complete tar: it ends inside {_shown(member.name)}; {CURE}")
        yield name, member


def _is_of_macos(name: str) -> bool:
    """Whether macOS added this file beside the real ones."""
    *folders, last = name.split("/")
    return last.startswith("._") or last == ".DS_Store" or "__MACOSX" in folders


def _plain_name(name: str) -> str | None:
    """KEY.EXTENSION, without ./ before it and in small letters; None for a name that is not one."""
    while name.startswith("./"):
        name = name[2:]
    key, _, extension = name.partition(".")
    extension = extension.lower()
    plain = f"{key}.{JPEG.get(extension, extension)}"
    return plain if NAME.fullmatch(plain) and len(plain) <= LONGEST_NAME else None


def _check(names: list[str], tar: Path) -> None:
    """Raises CorruptFile for a name that comes twice, and for a picture that is no JPEG."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise CorruptFile(f"{tar} holds {name} twice: which one is meant is not known; {CURE}")
        seen.add(name)
    for name in names:
        key, _, extension = name.partition(".")
        if extension in OTHER_PICTURES and f"{key}.jpg" not in seen:
            raise CorruptFile(
                f"{tar} holds pictures as .{extension} ({name}): expected .jpg; make the shards again with "
                "`img2dataset --encode_format jpg`, or convert them to JPEG"
            )


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a link"
    if member.isdir():
        return "a folder"
    if member.issparse():
        return "a sparse file"
    return "a device or a pipe" if member.isdev() else "a member of an unknown kind"


def _shown(name: str) -> str:
    return ascii(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…")
