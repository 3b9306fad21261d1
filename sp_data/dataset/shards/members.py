"""The members of a shard's tar, read strictly: plain files KEY.EXTENSION, one after another, and nothing else.

    TarMember('000070042.jpg', offset=1536, size=20113)

A tar can say much more than that: links, devices, folders, sparse files of a terabyte, names and sizes that a later
header overrides, compression. Programs disagree on each of these, so a tar that uses one is refused by name. Headers of
times and owners, which Python writes beside each file, are passed over.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from sp_data.errors import CorruptFile

HEADER_BYTES = BLOCK_BYTES = 512
NAME = re.compile(r"[!-\-0-\[\]-~]+\.[!-.0-\[\]-~]+")
"""KEY.EXTENSION in printable ASCII: no folder; the extension may have points of its own."""
PLAIN = (b"0", b"\0")
KIND_OF = {
    b"1": "a hard link",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder",
    b"6": "a pipe",
    b"7": "a contiguous file",
    b"S": "a sparse file",
    b"L": "a name in a header of its own",
    b"K": "the target of a link",
}
MAGIC_OF = {
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\0",
    "zstd": b"\x28\xb5\x2f\xfd",
    "zip": b"PK\x03\x04",
    "lz4": b"\x04\x22\x4d\x18",
}
"""Name of a compression -> a file's first bytes."""
MAX_RECORDS_BYTES = 1 << 16
"""Of a header that holds times and owners."""
OVERRIDES = re.compile(rb"(?:^|\n)\d+ (?:path|size|linkpath|GNU\.sparse[^=]*|hdrcharset)=")
"""Records of such a header that change what the next member is."""


class TarMember(NamedTuple):
    name: str
    offset: int
    """Where its bytes begin in the tar."""
    size: int


def tar_members(path: Path, shown: str = "", cure: str = "make it again") -> Iterator[TarMember]:
    """The members in the tar's order, reading the headers only.

    `shown` is the tar's name in errors, `cure` what they advise. Raises CorruptFile for a tar that is cut, compressed,
    or holds anything but plain files KEY.EXTENSION; FileNotFoundError.
    """
    shown = shown or str(path)

    def refused(reason: str) -> CorruptFile:
        return CorruptFile(f"{shown} {reason}; {cure}")

    with path.open("rb") as stream:
        if not stream.read(1):
            raise refused("is not a complete tar: it is an empty file")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if (compression := compressed_with(data[:8])) is not None:
                raise refused(f"is compressed ({compression}): expected a plain tar")
            yield from _members(data, refused)


def compressed_with(head: bytes) -> str | None:
    """The name of the compression that a file begins with; None if it is not compressed."""
    return next((name for name, magic in MAGIC_OF.items() if head.startswith(magic)), None)


def _members(data: mmap.mmap, refused: Callable[[str], CorruptFile]) -> Iterator[TarMember]:
    offset, end = 0, len(data)
    while True:
        header = data[offset : offset + HEADER_BYTES]
        if not header:  # without the two empty blocks that end a tar: Python's tarfile takes it too
            return
        if len(header) < HEADER_BYTES:
            raise refused(f"is cut: it ends at byte {offset + len(header):,}, without its last block")
        if not header.strip(b"\0"):
            return
        size = _size(header)
        if size is None or not _is_header(header):
            raise refused(f"is not a complete tar: what is at byte {offset:,} is no header")
        body, kind = offset + HEADER_BYTES, header[156:157]
        offset = body + -(-size // BLOCK_BYTES) * BLOCK_BYTES
        if body + size > end:
            raise refused(f"is cut: it ends inside {_shown(header)}")
        if kind in (b"x", b"g"):
            if size > MAX_RECORDS_BYTES or OVERRIDES.search(data[body : body + size]):
                raise refused(
                    "gives a member's name or size in a header of its own: expected short names KEY.EXTENSION"
                )
            continue
        if kind not in PLAIN:
            raise refused(
                f"holds {KIND_OF.get(kind, 'a member of an unknown kind')} ({_shown(header)}): expected files"
            )
        name = _name(header)
        if name is None:
            raise refused(f"holds {_shown(header)}: expected names KEY.EXTENSION, such as 000070042.jpg")
        yield TarMember(name, body, size)


def _size(header: bytes) -> int | None:
    """The size that a header says, in octal digits; None if it says none."""
    digits = header[124:136].strip(b" \0")
    return int(digits, 8) if re.fullmatch(rb"[0-7]{1,12}", digits) else None


def _is_header(header: bytes) -> bool:
    """Whether the checksum is that of the header, its own field counted as spaces."""
    digits = header[148:156].strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,8}", digits):
        return False
    return int(digits, 8) == sum(header) - sum(header[148:156]) + 8 * 32


def _name(header: bytes) -> str | None:
    """A plain name KEY.EXTENSION; None for any other."""
    # The prefix, of which ustar makes folders, has a meaning only in its own format.
    is_ustar = header[257:262] == b"ustar"
    if is_ustar and header[345:500].strip(b"\0") and header[257:265] != b"ustar  \0":
        return None
    try:
        name = header[:100].partition(b"\0")[0].decode("ascii")
    except UnicodeDecodeError:
        return None
    return name if NAME.fullmatch(name) else None


def _shown(header: bytes) -> str:
    """A header's name for an error, without its control characters."""
    return ascii(header[:100].partition(b"\0")[0].decode("utf-8", "replace"))
