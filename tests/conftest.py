"""Fixtures for every test.

demo_recipe     the demo's recipe with 100 kids
road_lake       (session) a lake in which the whole road ran once on 100 kids; never written to by a test
lake_copy       a copy of it that a test may damage
mediawiki       (session) a real MediaWiki on loopback: tests/mediawiki/fixture.py
s3              (session) a real S3 server on loopback: tests/s3_server.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from sp_data.kept_recipe import remember_recipe
from sp_data.lake import Lake
from sp_data.pipeline import DATASET_STAGES, run_stage
from sp_data.recipe import Recipe, load_recipe

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

pytest_plugins = ["mediawiki.fixture", "s3_server"]

NUM_KIDS = 100
TESTS = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what shares a lake, a wiki or a server on one worker of pytest-xdist; unit tests go by file."""
    for item in items:
        place = item.path.relative_to(TESTS)
        group = place.parent if place.parts[0] in ("e2e", "integration") else place
        item.add_marker(pytest.mark.xdist_group(str(group)))


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("pytest-xdist does not group tests with this pytest: each fixture would be made twice")


@pytest.fixture(scope="session")
def demo_recipe() -> Recipe:
    return load_recipe("demo", [f"source.demo.num_kids={NUM_KIDS}", "shard.samples_per_shard=20"])


@pytest.fixture(scope="session")
def road_lake(demo_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(str(tmp_path_factory.mktemp("road") / "lake"), demo_recipe.name)
    remember_recipe(demo_recipe, lake)
    for stage in DATASET_STAGES:
        assert run_stage(stage, demo_recipe, lake).state == "done"
    return lake


@pytest.fixture
def lake_copy(road_lake: Lake, tmp_path: Path) -> Lake:
    shutil.copytree(Path(road_lake.root).parent, tmp_path / "lake")
    return Lake(str(tmp_path / "lake"), road_lake.dataset)
