"""Pytest fixtures with a real MediaWiki; skipped, with the reason, where none is installed.

session_mediawiki   (session) sample.py's wiki: tests must not change it
mediawiki           the same wiki with an empty log; faults and robots.txt are reset after the test
fresh_mediawiki     an empty wiki of the test's own
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mediawiki.sample import sample_ops
from mediawiki.wiki import MediaWiki, why_not

NUM_KIDS = 80


@pytest.fixture(scope="session")
def session_mediawiki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaWiki]:
    if reason := why_not():
        pytest.skip(reason)
    with MediaWiki(tmp_path_factory.mktemp("mediawiki")) as wiki:
        wiki.apply(sample_ops(wiki.root / "sample", NUM_KIDS))
        yield wiki


@pytest.fixture
def mediawiki(session_mediawiki: MediaWiki) -> Iterator[MediaWiki]:
    session_mediawiki.clear_log()
    yield session_mediawiki
    session_mediawiki.faults()
    session_mediawiki.robots(None)


@pytest.fixture
def fresh_mediawiki(tmp_path: Path) -> Iterator[MediaWiki]:
    if reason := why_not():
        pytest.skip(reason)
    with MediaWiki(tmp_path / "mediawiki") as wiki:
        yield wiki
