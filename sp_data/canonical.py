"""Canonical JSON and digests: equal things have equal bytes, in every process and for every order of insertion.

The form is the core of RFC 8785 (sorted keys, no spaces, UTF-8); the values are limited to those that sort and print
the same everywhere, so floats must be finite.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, BinaryIO

CHUNK_BYTES = 1 << 20


def canonical_json(value: object) -> bytes:
    """UTF-8 bytes of `value` (None, bool, int, str, finite float, list, tuple, dict with str keys).

    Raises TypeError for other types and other keys, ValueError for NaN and infinities.
    """
    _check_keys(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def parse_json(data: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError, also for one that is nested more deeply than Python can follow."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _check_keys(value: object) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            # json.dumps would write 1 and "1" as the same key.
            if not isinstance(key, str):
                raise TypeError(f"canonical JSON takes str keys only, not {key!r}")
            _check_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_keys(inner)


def digest_of(value: object) -> str:
    """sha256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_of(stream: BinaryIO) -> str:
    """sha256 (hex) of the rest of an open binary file."""
    hasher = hashlib.sha256()
    while chunk := stream.read(CHUNK_BYTES):
        hasher.update(chunk)
    return hasher.hexdigest()
