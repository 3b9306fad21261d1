"""What was decided about a dataset and its models, by a person or a run, and is to hold for the next runs.

follow_up/refused.json    {"digest": …} of the dataset that someone did not want to fine-tune on
follow_up/drawn.json      {"digest": …} of the decoder by which the fixed prompts were drawn

A file each: who decides one thing does not overwrite another, and needs no lock.
"""

from __future__ import annotations

import json
from typing import Literal

from sp_data.canonical import parse_json
from sp_data.lake import Lake

Decision = Literal["refused", "drawn"]
MAX_BYTES = 1 << 16


def decide(lake: Lake, what: Decision, digest: str) -> None:
    """Keep a decision, in place of an earlier one."""
    lake.write_bytes(_path(what), json.dumps({"digest": digest}).encode() + b"\n", durable=True)


def decided(lake: Lake, what: Decision) -> str | None:
    """The digest that was decided about last; None if there is none, or if the file cannot be read as one."""
    try:
        decision = parse_json(lake.read_bytes(_path(what), MAX_BYTES))
    except (FileNotFoundError, ValueError):
        # A file that is damaged costs a question that is asked again.
        return None
    digest = decision.get("digest") if isinstance(decision, dict) else None
    return digest if isinstance(digest, str) else None


def _path(what: Decision) -> str:
    return f"follow_up/{what}.json"
