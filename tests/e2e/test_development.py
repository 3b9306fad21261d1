"""docs/development.md: its notebook runs, and a flow in a terminal prints what a person can use."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from e2e.prefect_api import environment

from sp_data.lake import Lake

ROOT = Path(__file__).parents[2]
OWN_LINES = re.compile(
    r"\d\d:\d\d:\d\d\.\d{3} \| (INFO|WARNING) +\| (prefect|sp_data\.[\w.]+|Flow run '[^']+'|Task run '[^']+') - "
    r"|See https://docs\.prefect\.io/"
)


def test_the_notebook_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/development.md").read_text("utf-8"), re.S | re.M)
    script = tmp_path / "notebook.py"
    script.write_text("\n".join(blocks))
    done = _python(script.name, cwd=tmp_path, home=tmp_path / "home")
    assert done.stdout.startswith("done in_=")
    assert (tmp_path / "lake" / "demo" / "recipe.json").exists()


def test_a_flow_in_a_terminal_prints_no_strangers_lines(lake_copy: Lake, prefect_home: Path) -> None:
    folder = Path(lake_copy.url).parent
    done = _python("-m", "flows.dataset", cwd=folder, home=prefect_home)
    lines = (done.stdout + done.stderr).splitlines()
    assert [line for line in lines if not OWN_LINES.match(line)] == []
    assert [line for line in lines if "Unchanged" in line]


def _python(*arguments: str, cwd: Path, home: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment(home, PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done
