"""Randomness as a pure function of its purpose, so that nothing depends on what ran before."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def number_of(*purpose: object) -> int:
    """A 63-bit number for ('seed', 7, 'step', 120)."""
    return int.from_bytes(hashlib.sha256(repr(purpose).encode()).digest()[:8], "big") >> 1


def seed_all(*purpose: object) -> None:
    """Seed torch (every device), numpy and Python: dalle2-pytorch draws from all three."""
    number = number_of(*purpose)
    torch.manual_seed(number)
    np.random.seed(number % 2**32)
    random.seed(number)
