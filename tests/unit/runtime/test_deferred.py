"""Deferred imports, over modules that are written for each test."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sp_data.runtime.deferred import DeferredName, deferred


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`light` imports what it needs of `heavy`, a package."""
    (tmp_path / "heavy" / "parts").mkdir(parents=True)
    (tmp_path / "heavy" / "__init__.py").write_text("class Wheel:\n    spokes = 5\n\ndef turn(n): return n + 1\n")
    (tmp_path / "heavy" / "parts" / "__init__.py").write_text("AXLE = [1, 2]\n")
    (tmp_path / "light.py").write_text(
        "import heavy\nimport heavy.parts as parts\nfrom heavy import Wheel, turn\nfrom heavy.parts import AXLE\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("heavy", "light")]:
        del sys.modules[name]


@pytest.mark.usefixtures("modules")
def test_a_deferred_module_is_imported_at_its_first_use_and_not_before() -> None:
    with deferred("heavy"):
        light = importlib.import_module("light")
    assert not [name for name in sys.modules if name.startswith("heavy")]
    assert not isinstance(3, light.Wheel)
    assert "heavy" not in sys.modules
    assert light.turn(1) == 2
    assert "heavy" in sys.modules
    assert isinstance(light.Wheel(), sys.modules["heavy"].Wheel)
    assert isinstance(light.Wheel(), light.Wheel)

    class Own(light.Wheel):  # type: ignore[misc, name-defined]
        pass

    assert issubclass(Own, sys.modules["heavy"].Wheel)
    assert light.Wheel.spokes == 5
    assert light.heavy.turn is sys.modules["heavy"].turn


@pytest.mark.usefixtures("modules")
def test_a_submodule_under_a_name_of_its_own_is_deferred_too() -> None:
    with deferred("heavy"):
        light = importlib.import_module("light")
    assert "heavy.parts" not in sys.modules
    assert light.AXLE.index(2) == 1
    assert light.parts.AXLE is sys.modules["heavy.parts"].AXLE


@pytest.mark.usefixtures("modules")
def test_after_the_block_an_import_gives_the_real_module() -> None:
    with deferred("heavy"):
        importlib.import_module("light")
    assert importlib.import_module("heavy").Wheel.spokes == 5
    assert importlib.import_module("heavy.parts").AXLE == [1, 2]


@pytest.mark.usefixtures("modules")
def test_what_is_used_within_the_block_is_imported_there() -> None:
    with deferred("heavy"):
        light = importlib.import_module("light")
        assert light.turn(1) == 2
        assert importlib.import_module("heavy").Wheel.spokes == 5


@pytest.mark.usefixtures("modules")
def test_a_module_that_is_imported_already_stays_the_same() -> None:
    real = importlib.import_module("heavy")
    with deferred("heavy"):
        light = importlib.import_module("light")
    assert light.heavy is real
    assert light.Wheel is real.Wheel


def test_a_module_that_is_not_installed_is_still_missing() -> None:
    with deferred("no_such_module"), pytest.raises(ModuleNotFoundError, match="no_such_module"):
        importlib.import_module("no_such_module")


@pytest.mark.usefixtures("modules")
def test_a_deferred_submodule_of_an_imported_package_leaves_no_trace_in_it() -> None:
    heavy = importlib.import_module("heavy")
    with deferred("heavy.parts"):
        light = importlib.import_module("light")
    assert isinstance(light.AXLE, DeferredName)
    assert "parts" not in vars(heavy)
    assert light.AXLE.index(2) == 1


@pytest.mark.usefixtures("modules")
def test_an_error_within_the_block_ends_the_deferral() -> None:
    with pytest.raises(RuntimeError, match="stop"), deferred("heavy"):
        importlib.import_module("light")
        raise RuntimeError("stop")
    assert importlib.import_module("heavy").Wheel.spokes == 5
