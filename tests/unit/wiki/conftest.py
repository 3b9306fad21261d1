"""naps: the waits of a test, recorded instead of slept."""

from __future__ import annotations

import time

import pytest


@pytest.fixture
def naps(monkeypatch) -> list[float]:
    """The seconds of each sleep; nothing sleeps."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept
