"""Text that others wrote, made safe for where it is shown: titles, captions, reasons, names, whatever a wiki sends.

    one_line(text)          for a terminal, a log, an error: no control character reaches them
    markdown(text)          as Markdown that shows just this text: no link, picture or HTML of its own
    markdown_code(text)     the same in a code span;  markdown_link(text, address) a link, to http and https only
    html_text(text)         as HTML, in an element or an attribute
    json_text(value)        as JSON without a character that a terminal acts on
    OneLineFormatter        log lines;  OneLineFilter the same for a handler of another library

It imports nothing of sp_data, so that errors and logs can use it.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from functools import cache
from html import escape
from typing import Any
from urllib.parse import quote, urlsplit

JOINERS = "\u200c\u200d"
"""Invisible, and yet needed: Persian words and composed emoji are spelt with them."""
_BREAKS = re.compile(r"[ \t]*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029][\s\x1c-\x1e]*")
_JSON_STRINGS = re.compile(r"[^\x20-\x7e]")
# Each means something to some Markdown: those of CommonMark and GitHub's, formulas, footnotes, emoji by name, and what
# makes an address of bare words ('www.', '://', 'a@b').
_MARKS = re.compile(r"[\\`*_{}\[\]()#+\-!~^$=:.@/&<>|]")
_LINK_UNSAFE = re.compile(r"[^A-Za-z0-9/:?#@!$&*+,;=%._~-]")


@cache
def _is_active(character: str) -> bool:
    """Whether a terminal or a page may act on a character instead of showing it: control characters, what turns the
    direction of the text around it, invisible ones, and halves of a pair."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in JOINERS


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def one_line(text: object) -> str:
    """The text on one line; what a terminal would act on is written as '\\x1b' or '\\u202e'."""
    shown = str(text)
    if shown.isprintable():
        return shown
    shown = _BREAKS.sub(" ", shown).replace("\t", " ")
    return "".join(_escaped(character) if _is_active(character) else character for character in shown)


def lines(text: str) -> str:
    """As `one_line`, for a text that has lines of its own, such as a traceback."""
    return "\n".join(one_line(line) for line in text.splitlines())


def markdown(text: object) -> str:
    """Markdown that shows the text as it is: in a paragraph, a heading, an item, a table's cell or a picture's name."""
    return _MARKS.sub(r"\\\g<0>", re.sub(" {2,}", " ", one_line(text)).strip())


def markdown_code(text: object) -> str:
    """A code span that shows the text as it is; not for a table, whose cells end at a bar."""
    shown = one_line(text).strip()
    if not shown:
        return ""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    space = " " if "`" in (shown[0], shown[-1]) else ""
    return f"{fence}{space}{shown}{space}{fence}"


def markdown_link(text: object, address: str) -> str:
    """A link; the text alone where the address is not one of the web."""
    safe = web_address(address)
    return f"[{markdown(text)}]({safe})" if safe else markdown(text)


def web_address(address: str) -> str:
    """The address with what Markdown could read otherwise percent-encoded; empty if it is none of the web."""
    if not is_web_address(address):
        return ""
    return _LINK_UNSAFE.sub(lambda found: quote(found[0], safe="", errors="replace"), address)


def is_web_address(address: object) -> bool:
    """Whether a link may lead there: http or https, a host, and nothing that a browser reads in another way."""
    if not isinstance(address, str) or not address.startswith(("http://", "https://")):
        return False
    if "\\" in address or any(_is_active(character) or character.isspace() for character in address):
        return False
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False


def html_text(text: object) -> str:
    """HTML that shows the text, in an element or in a quoted attribute."""
    return escape(one_line(text))


def json_text(value: Any) -> str:
    """JSON on one line. What a terminal would act on is escaped, as JSON's strings may be: the value is the same."""

    def plain(found: re.Match[str]) -> str:
        character = found[0]
        return json.dumps(character)[1:-1] if _is_active(character) else character

    # Beyond ASCII there are only strings.
    return _JSON_STRINGS.sub(plain, json.dumps(value, ensure_ascii=False))


class OneLineFormatter(logging.Formatter):
    """Each record on one line; a traceback below it on its own lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return lines(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return lines(super().formatStack(stack_info))


class OneLineFilter(logging.Filter):
    """The same for a handler that has a formatter of its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = one_line(record.getMessage()), None
        if record.exc_info:
            # Formatters take what one before them has written.
            record.exc_text = lines(record.exc_text or logging.Formatter().formatException(record.exc_info))
        return True
