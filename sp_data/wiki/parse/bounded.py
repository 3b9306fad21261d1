"""The readers of wikitext and HTML, within limits: anybody may write a page that takes a parser hours.

    read_page(text, title, page_id, revision, spaces)   Page(...), or raises GivenUp("it takes more than 10 s to read")

MediaWiki itself takes no page of more than 2 MB; a page of that size without tricks is read in 2 to 5 s.
"""

from __future__ import annotations

import pickle
import re
from functools import cache

from pydantic import TypeAdapter

from sp_data.errors import StageError
from sp_data.runtime.bounded import BoundedWorker, DoesNotStart, GivenUp
from sp_data.wiki.parse.file_page import FilePage
from sp_data.wiki.parse.page import Page
from sp_data.wiki.parse.titles import Namespaces

CPU_S = 10.0
LONGEST_TEXT = 4 << 20
LONGEST_HTML = 16 << 20
"""In characters. A page's HTML is several times longer than its wikitext."""

MOST_UNCLOSED = 2_000
"""More openings of one kind than closings: no page has them, and the parser's time grows with their square."""
_PAIRS = (("{{", "}}"), ("[[", "]]"), ("[http", "]"), ("{|", "|}"), ("<!--", "-->"))
_TAG = re.compile(r"<(?!(?:br|hr|p|li|wbr|dd|dt|tr|td|th)\b)[a-z]", re.IGNORECASE)
"""The start of a tag that has an end."""

_PAGE = TypeAdapter(Page)
_FILE_PAGE = TypeAdapter(FilePage)


def read_page(text: str, title: str, page_id: int, revision: int, spaces: Namespaces) -> Page:
    """As `wikitext.read`. Raises GivenUp."""
    _check_length(text, LONGEST_TEXT)
    _check_openings(text)
    return _PAGE.validate_json(_call(("wikitext", _pickled(spaces), (text, title, page_id, revision))))


def read_file_page(text: str, spaces: Namespaces) -> FilePage:
    """As `file_page.read`. Raises GivenUp."""
    _check_length(text, LONGEST_TEXT)
    _check_openings(text)
    return _FILE_PAGE.validate_json(_call(("file page", _pickled(spaces), (text,))))


def read_html(html: str, title: str, page_id: int, revision: int) -> Page:
    """As `html.read`. Raises GivenUp."""
    _check_length(html, LONGEST_HTML)
    return _PAGE.validate_json(_call(("html", b"", (html, title, page_id, revision))))


def _check_length(text: str, longest: int) -> None:
    if len(text) > longest:
        raise GivenUp(f"it has {len(text):,} characters, and no more than {longest:,} are read")


def _check_openings(text: str) -> None:
    unclosed = {opening: text.count(opening) - text.count(closing) for opening, closing in _PAIRS}
    unclosed["<"] = len(_TAG.findall(text)) - text.count("</") - text.count("/>")
    for opening, number in unclosed.items():
        if number > MOST_UNCLOSED:
            raise GivenUp(f"it has {number:,} unclosed {opening}, and no more than {MOST_UNCLOSED:,} are read")


def _call(request: object) -> bytes:
    try:
        return _worker().call(request)
    except DoesNotStart as error:
        raise StageError(f"no page can be read: {error}") from error


@cache
def _worker() -> BoundedWorker:
    """The child of this process, which all scrapes share; it starts with the first page."""
    return BoundedWorker("sp_data.wiki.parse.worker", CPU_S)


_last_pickled: tuple[Namespaces, bytes] | None = None


def _pickled(spaces: Namespaces) -> bytes:
    global _last_pickled
    if _last_pickled is None or _last_pickled[0] is not spaces:
        _last_pickled = (spaces, pickle.dumps(spaces))
    return _last_pickled[1]
