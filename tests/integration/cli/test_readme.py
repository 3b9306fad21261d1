"""What README.md tells a newcomer to type works."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from sp_data.lake import Lake

PROJECT = Path(__file__).parents[3]


def test_its_lines_of_python_work(demo_lake: Lake, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PROJECT.joinpath("README.md").read_text("utf-8"), re.DOTALL)
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
