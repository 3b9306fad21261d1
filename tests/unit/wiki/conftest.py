"""naps: waits that are noted and not slept."""

from __future__ import annotations

import time

import pytest


@pytest.fixture
def naps(monkeypatch) -> list[float]:
    """Seconds that would have been slept; nobody sleeps."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept
