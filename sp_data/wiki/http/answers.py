"""An answer of a wiki, read with suspicion: JSON as it should be, or as some wikis send it, or what it is instead.

Numbers that no wiki gives (1e999, 2**70) become null, so that every number in an answer can be kept in a table. Other
oddities are found where an answer is used: `query_of`, `entries`, `text_of` and `number_of` give what is there in the
type that is expected, or raise OddAnswer.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from sp_data.errors import WikiApiError

Json = dict[str, Any]

ODD_ANSWER = "odd-answer"
MAX_NUMBER = 2**53 - 1
"""JSON's greatest number that all programs read alike."""
MAX_NUMBER_DIGITS = 20
LONGEST_QUOTE = 300
_START_OF_AN_ANSWER = re.compile(
    rb'\{\s*"(?:batchcomplete|continue|curtimestamp|error|query|parse|servedby|warnings|limits|query-continue)"'
)


class OddAnswer(WikiApiError):
    """An answer that is not MediaWiki's."""

    def __init__(self, wiki: str, what: str) -> None:
        super().__init__(
            f"{wiki} gave an answer that is not MediaWiki's ({one_line(what)}); is source.wiki right?", ODD_ANSWER
        )


def read_json(body: bytes) -> Any:
    """The JSON in `body`. Raises ValueError if it is none or breaks off, RecursionError if it is too deep.

    Lone surrogates (such as \\ud83d), which cannot be written to a file, become '\ufffd'.
    """
    body = body.lstrip(b"\xef\xbb\xbf \t\r\n")
    answer = json.loads(body.decode(), parse_int=_int, parse_float=_float, parse_constant=_nothing)
    return _without_lone_surrogates(answer) if b"\\ud" in body.lower() else answer


def read_embedded_json(body: bytes) -> Any:
    """The answer that stands behind something else, such as a PHP notice. Raises ValueError if there is none."""
    if start := _START_OF_AN_ANSWER.search(body[: 1 << 16]):
        text = body[start.start() :].decode("utf-8", "replace")
        decoder = json.JSONDecoder(parse_int=_int, parse_float=_float, parse_constant=_nothing)
        return _without_lone_surrogates(decoder.raw_decode(text)[0])
    raise ValueError("no JSON")


def _int(digits: str) -> int | None:
    if len(digits) > MAX_NUMBER_DIGITS:
        return None
    number = int(digits)
    return number if abs(number) <= MAX_NUMBER else None


def _float(digits: str) -> float | None:
    number = float(digits)
    return number if abs(number) <= MAX_NUMBER else None


def _nothing(_: str) -> None:
    """For NaN and Infinity, which are not JSON."""


def _without_lone_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_without_lone_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_lone_surrogates(key): _without_lone_surrogates(item) for key, item in value.items()}
    return value


def query_of(answer: Json, wiki: str) -> Json:
    """The `query` of an answer, {} if it has none (PHP writes an empty one as a list). Raises OddAnswer."""
    query = answer.get("query") or {}
    if not isinstance(query, dict):
        raise OddAnswer(wiki, f"its `query` is {_kind(query)}")
    return query


def entries(value: object, wiki: str, what: str) -> list[Json]:
    """A list of objects, such as the pages of a query; () if there is none. Raises OddAnswer."""
    if value is None:
        return []
    if not isinstance(value, list | tuple) or not all(isinstance(entry, dict) for entry in value):
        raise OddAnswer(wiki, f"its `{what}` is {_kind(value)}")
    return list(value)


def objects_in(value: object) -> list[Json]:
    """The objects in a list that concerns one page only; what is not as it should be is left out."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def text_of(value: object) -> str:
    """A text; '' if it is missing or something else."""
    return value if isinstance(value, str) else ""


def number_of(value: object, maximum: int = MAX_NUMBER) -> int | None:
    """A whole number from 0 to `maximum`; None if it is missing or something else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= maximum else None


def one_line(text: object) -> str:
    """What a wiki says, for an error or the log: one line without control characters, not too long."""
    plain = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in str(text)[: 2 * LONGEST_QUOTE])
    words = " ".join(plain.split())
    return words if len(words) <= LONGEST_QUOTE else f"{words[:LONGEST_QUOTE]}…"


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "an object", str: "a text", bool: "true or false", type(None): "null"}
    if isinstance(value, list):
        return "a list of something else"
    return names.get(type(value), "a number")
