"""The splits, and which one a picture is in: all pictures of a page are in the same."""

from __future__ import annotations

import hashlib
from typing import Literal

from sp_data.recipe import Curate

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def split_for(owner: str, settings: Curate) -> Split:
    """The split of everything that belongs to one page: a pure function of its title, so it survives re-scrapes."""
    fraction = int.from_bytes(hashlib.sha256(owner.encode()).digest()[:8], "big") / 2**64
    if fraction < settings.val_share:
        return "val"
    return "test" if fraction < settings.val_share + settings.test_share else "train"
