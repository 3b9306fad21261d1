"""Caption templates: text with fields in braces, and parts in brackets that go where a field is missing.

fill('{name}[ in a {coat} coat][, {gender}]', {'name': 'Ada', 'coat': 'red'})     'Ada in a red coat'
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

from sp_data.wiki.parse.page import field_name

_PART = re.compile(r"\[([^\[\]]*)\]")
_FIELD = re.compile(r"\{([^{}]+)\}")


def fill(template: str, fields: Mapping[str, str], *, may_be_bare: bool = False) -> str | None:
    """'a {hat kind}[ in {colour}]' with {'hat kind': 'cap'} -> 'a cap'.

    None if a field outside the brackets is missing, or if the template has brackets and none of them can be filled
    (unless it `may_be_bare`).
    """

    def value(match: re.Match[str]) -> str:
        return fields[field_name(match[1])]

    def is_known(text: str) -> bool:
        return all(fields.get(field_name(name)) for name in _FIELD.findall(text))

    parts = _PART.findall(template)
    if parts and not may_be_bare and not any(is_known(part) for part in parts):
        return None
    bare = _PART.sub(lambda part: part[1] if is_known(part[1]) else "", template)
    if not is_known(bare):
        return None
    return _FIELD.sub(value, bare).strip()


def drop_parts(template: str, dropout: float, rng: random.Random) -> str:
    """The template without some of its parts in brackets, each of which is left out with probability `dropout`."""
    return _PART.sub(lambda part: "" if rng.random() < dropout else part[0], template)
