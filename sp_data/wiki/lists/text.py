"""The lines of a text file whose encoding is known: UTF-8, what its mark says, or what the recipe says.

    with open_lines(Path("pictures.txt"), "") as lines:
        for line in lines:      # 'http://…/kid.png\n'; `lines.number` is its number, from 1

A byte that the encoding does not have is refused with its line: a guess would make wrong captions without a word.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

from sp_data.errors import RecipeError

LONGEST_LINE = 1 << 24
"""Characters. A longer line is no address and no caption, and would fill the memory."""
CHUNK_BYTES = 1 << 16
MARKS = (
    # The marks of UTF-32 first: that of UTF-32-LE begins with that of UTF-16-LE.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
OTHER_FORMATS = (
    (b"PK\x03\x04", "a ZIP file or an Excel workbook: save it as `CSV UTF-8`"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook: save it as `CSV UTF-8`"),
    (b"\x1f\x8b", "a gzip file: unpack it with gunzip"),
    (b"BZh", "a bzip2 file: unpack it with bunzip2"),
    (b"\xfd7zXZ\x00", "an xz file: unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "a zstd file: unpack it with unzstd"),
    (b"PAR1", "a parquet file: name it .parquet"),
    (b"%PDF", "a PDF: save the list as text"),
)
_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_SHIFTS = re.compile(r"\x1b(\$\)?[@-D]|\([BIJ])")
"""Of ISO-2022 (mail from Japan, Korea and China): its bytes are all ASCII, so they would pass as UTF-8."""


@contextlib.contextmanager
def open_lines(path: Path, encoding: str) -> Iterator[Lines]:
    """The lines of a file. `encoding`: Python's name of it; empty: UTF-8, or what the file's mark says.

    Raises RecipeError, also while the lines are read.
    """
    with path.open("rb") as file:
        head = file.read(CHUNK_BYTES)
        mark, codec = _encoding(head, encoding, path)
        file.seek(len(mark))
        yield Lines(file, codec, path, len(mark))


class Lines(Iterator[str]):
    """Lines with their ends, of which LF, CR LF and CR are known."""

    def __init__(self, file: BinaryIO, codec: str, path: Path, start: int) -> None:
        self.number = 0
        """Number of the line that was read last, from 1."""
        self.codec = codec
        self._path, self._start = path, start
        self._text = io.TextIOWrapper(file, codec, "strict", newline="")

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        try:
            line = self._text.readline(LONGEST_LINE)
        except UnicodeDecodeError as error:
            raise self._not_decodable(error) from error
        if not line:
            raise StopIteration
        self.number += 1
        if "\0" in line:
            raise refusal(self._path, "has a NUL character in it: the file is damaged, or not text", self.number)
        if "\x1b" in line and _SHIFTS.search(line):
            raise refusal(
                self._path,
                "is not UTF-8 but ISO-2022: say so, as `--set source.encoding=iso2022_jp`, or save it as UTF-8",
                self.number,
            )
        if len(line) >= LONGEST_LINE:
            raise refusal(
                self._path,
                f"is longer than {LONGEST_LINE:,} characters: each picture needs a line of its own (is a quote that "
                "opens never closed?)",
                self.number,
            )
        return line

    def _not_decodable(self, error: UnicodeDecodeError) -> RecipeError:
        line, byte = self._find_byte(error)
        if self.codec == "utf-8":
            cure = (
                "say what it is, for example `--set source.encoding=cp1252` if Excel wrote it as `CSV` on Windows, or "
                "save it as `CSV UTF-8`"
            )
        else:
            cure = "is source.encoding right, or is the file cut?"
        return refusal(self._path, f"has the byte 0x{byte:02X}, which is not {self.codec.upper()}; {cure}", line)

    def _find_byte(self, error: UnicodeDecodeError) -> tuple[int, int]:
        """The line of the first byte that cannot be decoded, and the byte. `error` names neither: it is a block's."""
        line, decoder = 1, codecs.getincrementaldecoder(self.codec)("strict")
        with self._path.open("rb") as file:
            file.seek(self._start)
            chunk = b"-"
            while chunk:
                chunk = file.read(CHUNK_BYTES)
                try:
                    line += _num_line_ends(decoder.decode(chunk, final=not chunk))
                except UnicodeDecodeError as found:
                    before = found.object[: found.start].decode(self.codec, "ignore")
                    return line + _num_line_ends(before), found.object[found.start]
        return line, error.object[error.start]


def refusal(path: Path, problem: str, line: int | None = None) -> RecipeError:
    """The error of a list that is refused: 'source.addresses: kids.csv, line 7: …', in one line."""
    where = f"{path}, line {line:,}:" if line is not None else str(path)
    return RecipeError(printable(f"source.addresses: {where} {problem}"))


def printable(text: str) -> str:
    """A text in one line, without characters that a terminal obeys."""
    return "".join(char if char.isprintable() else "\ufffd" for char in " ".join(text.split()))


def _encoding(head: bytes, asked: str, path: Path) -> tuple[bytes, str]:
    """The mark at the start of a file, and its encoding. Raises RecipeError."""
    for magic, what in OTHER_FORMATS:
        if head.startswith(magic):
            raise refusal(path, f"is {what}")
    codec = codecs.lookup(asked).name if asked else ""
    codec = {"utf-8-sig": "utf-8"}.get(codec, codec)
    for mark, marked in MARKS:
        if head.startswith(mark):
            if codec not in ("", marked, marked[:6]):
                raise refusal(path, f"begins with the mark of {marked.upper()}, but source.encoding says {asked}")
            return mark, marked
    if codec:
        # Without a mark, Python takes the byte order of this machine.
        if codec in ("utf-16", "utf-32"):
            raise refusal(
                path, f"has no byte order mark: set source.encoding to {codec}-le (Windows' own) or {codec}-be"
            )
        return b"", codec
    if b"\0" in head[:2048] and (likely := _likely_without_mark(head)):
        raise refusal(
            path,
            f"looks like {likely.upper()} without its mark; if it is, set source.encoding: `--set "
            f"source.encoding={likely}`, or save it as UTF-8",
        )
    return b"", "utf-8"


def _likely_without_mark(head: bytes) -> str:
    """In UTF-16, every other byte of an address is 0."""
    even, odd = head[0:2048:2].count(0), head[1:2048:2].count(0)
    most = len(head[:2048]) // 2 * 0.4
    return "utf-16-le" if odd > most > even else "utf-16-be" if even > most > odd else ""


def _num_line_ends(text: str) -> int:
    return len(_LINE_ENDS.findall(text))
