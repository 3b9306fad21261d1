"""What a scrape of a list saves for the next one: which addresses gave no picture, and when they were last asked for.

    wiki/failures.json.gz      {"version": 1, "failures": {"http://…/gone.png": {"status": "not-found", …}}}

The file only saves requests. If it is missing or cannot be read, the next run asks for all of these addresses.
"""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from dataclasses import asdict
from typing import Any

from sp_data.lake import Lake
from sp_data.wiki.refusals import FetchRefusal

log = logging.getLogger(__name__)

PATH = "wiki/failures.json.gz"
VERSION = 1

Failures = dict[str, FetchRefusal]
"""By address."""


def load_failures(lake: Lake) -> Failures:
    """The failures of earlier runs; empty if there are none or they cannot be read."""
    try:
        saved: Any = json.loads(gzip.decompress(lake.read_bytes(PATH)))
        if saved["version"] != VERSION:
            return {}
        return {
            str(url): FetchRefusal(str(one["status"]), int(one["runs"]), float(one["at"]), bool(one["was_asked"]))
            for url, one in saved["failures"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        log.info("%s cannot be read; every address without a picture is asked for again", lake.full(PATH))
        return {}


def save_failures(lake: Lake, failures: Failures) -> None:
    """Write them; an equal file is left alone."""
    if failures == load_failures(lake):
        return
    saved = {"version": VERSION, "failures": {url: asdict(failures[url]) for url in sorted(failures)}}
    body = json.dumps(saved, ensure_ascii=False).encode()
    lake.write_bytes(PATH, gzip.compress(body, 6, mtime=0), durable=True)
