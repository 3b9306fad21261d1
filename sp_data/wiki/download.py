"""A response's body into a file, with its size and sha1."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import requests

from sp_data.wiki.catalogue import OK
from sp_data.wiki.http.connections import TooSlow
from sp_data.wiki.http.transport import BROKE_OFF, CHUNK_BYTES
from sp_data.wiki.refusals import CUT_OFF, TOO_LARGE, TOO_SLOW


@dataclass(frozen=True, slots=True)
class Body:
    """A received body: its size, its sha1 (hex), and a status: 'ok', 'cut-off', 'too-slow' or 'too-large'."""

    num_bytes: int
    sha1: str
    status: str


def receive(response: requests.Response, into: Path, max_bytes: int) -> Body:
    """Write a response's body into a file. Its status; reading stops beyond `max_bytes`."""
    length = response.headers.get("Content-Length", "")
    # Python reads no number of thousands of digits.
    if length.isdecimal() and (len(length) > 18 or int(length) > max_bytes):
        return Body(0, "", TOO_LARGE)
    hasher, num_bytes = hashlib.sha1(usedforsecurity=False), 0
    with into.open("wb") as stream:
        try:
            for chunk in response.iter_content(CHUNK_BYTES):
                num_bytes += len(chunk)
                if num_bytes > max_bytes:
                    return Body(num_bytes, "", TOO_LARGE)
                hasher.update(chunk)
                stream.write(chunk)
        except TooSlow:
            return Body(num_bytes, "", TOO_SLOW)
        except BROKE_OFF:
            return Body(num_bytes, "", CUT_OFF)
    return Body(num_bytes, hasher.hexdigest(), OK)
