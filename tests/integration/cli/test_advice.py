"""What an error advises is a command that exists, and names the dataset."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from sp_data.cli.app import whole_app
from sp_data.lake import LAKE_VARIABLE, Lake
from sp_data.pipeline import PIPELINE, command_for

PROJECT = Path(__file__).parents[3]
NEEDS_NO_DATASET = {"dream", "import"}
"""Commands that an error may name bare: the one that made a PNG, and the one that makes a dataset."""


@pytest.fixture(scope="module")
def commands() -> set[str]:
    group = typer.main.get_command(whole_app())
    assert isinstance(group, TyperGroup)
    return set(group.commands)


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for folder in ("sp_data", "tasks", "flows"):
        for path in (PROJECT / folder).rglob("*.py"):
            yield path, ast.parse(path.read_text("utf-8"))


def texts(tree: ast.Module) -> Iterator[str]:
    """Every string of a module but its docstrings."""
    bodies = [node.body for node in ast.walk(tree) if hasattr(node, "body") and isinstance(node.body, list)]
    docstrings = {id(statement.value) for body in bodies for statement in body if isinstance(statement, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_no_message_names_a_command_without_its_dataset() -> None:
    for path, tree in sources():
        for text in texts(tree):
            for command in re.findall(r"`sp-data (\w+)", text):
                named = command in NEEDS_NO_DATASET or path.name == "reference.py"
                assert named, f"{path}: {text!r} advises a command by hand; use Lake.command"


def test_every_command_that_is_advised_exists(commands: set[str]) -> None:
    advised = [
        node.args[0].value.split()[0]
        for _, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "command"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    ]
    assert len(advised) > 10
    assert set(advised) <= commands


@pytest.mark.parametrize("stage", [stage.name for stage in PIPELINE])
def test_every_stage_has_the_command_that_an_error_advises(stage: str, commands: set[str], tmp_path: Path) -> None:
    program, command, *arguments = command_for(stage, Lake(str(tmp_path), "mywiki")).strip("`").split()
    assert (program, command in commands) == ("sp-data", True)
    assert "mywiki" in arguments


def test_a_command_names_the_lake_where_it_is_not_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LAKE_VARIABLE, raising=False)
    assert Lake("./lake", "mywiki").command("gc", "--delete") == "`sp-data gc mywiki --delete`"
    assert Lake("my lake", "mywiki").command("embed") == "`sp-data embed mywiki --lake 'my lake'`"
    monkeypatch.setenv(LAKE_VARIABLE, "my lake")
    assert Lake("my lake", "mywiki").command("train prior") == "`sp-data train prior mywiki`"
