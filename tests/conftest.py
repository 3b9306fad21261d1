"""Fixtures for every test.

demo_recipe     the demo's recipe with 100 kids
demo_lake       (once a run) a lake in which the dataset stages ran once on 100 kids; never written to by a test
lake_copy       a copy of it that a test may damage
quick_recipe    the demo's recipe with some ten seconds of training; trained_lake, trained_copy: tests/trained_lake.py
mediawiki       a real MediaWiki on loopback; session_mediawiki and fresh_mediawiki too: tests/mediawiki/fixture.py
s3              (session) a real S3 server on loopback: tests/s3_server.py
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from shared_lake import copied, made_once

from sp_data.kept_recipe import remember_recipe
from sp_data.lake import Lake
from sp_data.pipeline import DATASET_STAGES, run_stage
from sp_data.recipe import Recipe, load_recipe

# The time an example takes depends on how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

pytest_plugins = ["mediawiki.fixture", "s3_server", "trained_lake"]

# Each process of img2dataset's spends seconds on imports, and pytest-xdist's workers keep the processors busy.
HUNDRED_KIDS = ["source.demo.num_kids=100", "shard.samples_per_shard=20", "shard.processes=1"]
TESTS = Path(__file__).parent
SHARE_A_SERVER = (Path("e2e"), Path("integration/wiki"))


def pytest_configure() -> None:
    # A command that a shell script starts in the background ignores it, and so do its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A forked child, such as a loader's, has none of the threads of a flow that ran in this process, and would end with
    # an error because it cannot wait for them.
    os.register_at_fork(after_in_child=threading._threading_atexits.clear)  # type: ignore[attr-defined]  # no public name


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that share a server or a wiki on one worker of pytest-xdist; group the others by file."""
    for item in items:
        test_file = item.path.relative_to(TESTS)
        group = test_file.parent if test_file.parent in SHARE_A_SERVER else test_file
        item.add_marker(pytest.mark.xdist_group(str(group)))
    # These tests take longest: started last, they would keep one worker busy after the other has finished.
    items.sort(key=lambda item: item.path.parent.relative_to(TESTS) not in SHARE_A_SERVER)


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("pytest-xdist does not group tests with this pytest: each fixture would be made twice")


@pytest.fixture(scope="session")
def demo_recipe() -> Recipe:
    return load_recipe("demo", HUNDRED_KIDS)


@pytest.fixture(scope="session")
def demo_lake(demo_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    def make(folder: Path) -> Lake:
        lake = Lake(str(folder / "lake"), demo_recipe.name)
        remember_recipe(demo_recipe, lake)
        for stage in DATASET_STAGES:
            assert run_stage(stage, demo_recipe, lake).state == "done"
        return lake

    return made_once("demo", make, tmp_path_factory)


@pytest.fixture
def lake_copy(demo_lake: Lake, tmp_path: Path) -> Lake:
    return copied(demo_lake, tmp_path)
