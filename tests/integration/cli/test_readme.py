"""What README.md tells a newcomer to type works."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click import Group
from typer.main import get_command

from sp_data.cli.app import whole_app
from sp_data.lake import Lake
from sp_data.recipe import build

PROJECT = Path(__file__).parents[3]
README = PROJECT.joinpath("README.md").read_text("utf-8")
TYPED = re.findall(r"^(?:\.venv/bin/)?sp-data (.*)$", README, re.MULTILINE)


def test_its_lines_of_python_work(demo_lake: Lake, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    shutil.copytree(Path(demo_lake.root).parent, tmp_path / "lake")
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert re.fullmatch(
        r"\d+ \d{7} a kid in a \w+ coat .* torch\.Size\(\[3, 64, 64\]\) torch\.Size\(\[128\]\)\n", process.stdout
    )


def test_no_page_links_to_a_missing_file() -> None:
    for page in (*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("line", TYPED)
def test_a_command_in_it_has_these_options(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("kid.png", "mask.png", "theirs.pth", "….png"):
        (tmp_path / name).touch()
    group, arguments = get_command(whole_app()), shlex.split(line, comments=True)
    # It is parsed and not run; an unknown command or option, or a value out of bounds, raises.
    while isinstance(group, Group):
        group, name = group.commands[arguments[0]], arguments[0]
        arguments = arguments[1:]
    group.make_context(name, arguments)


def test_its_recipe_of_an_own_wiki_is_one_alone_and_with_the_trainings_of_a_gpu() -> None:
    dataset, trainings = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
    assert build(dataset, "README").name == "mywiki"
    recipe = build({**dataset, **trainings}, "README")
    assert [unet.start for unet in recipe.decoder.unets] == ["laion-decoder", "laion-upsampler"]
    (path,) = re.findall(r"```yaml\n# (\S+)\n", README)
    named = {word for line in TYPED for word in shlex.split(line, comments=True) if word.endswith(".yaml")}
    assert named == {path}, "the file is called everywhere as where it is written"


def test_its_table_has_every_page_of_the_docs() -> None:
    table = README[README.index("## The docs") :]
    assert {path.name for path in PROJECT.glob("docs/*.md")} == set(re.findall(r"\]\(docs/(\S+\.md)\)", table))
