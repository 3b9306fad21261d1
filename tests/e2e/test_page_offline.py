"""The page where there is no network but loopback: nothing is missing, and one socket listens."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.page_server import CHROMIUM

from sp_data.lake import Lake

NAMESPACE = ["unshare", "--map-root-user", "--net"]


def _why_not() -> str:
    if not CHROMIUM.exists():
        return f"{CHROMIUM} is not installed"
    if not shutil.which("ip") or subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode != 0:
        return "no network namespace can be made here"
    return ""


@pytest.mark.proof
@pytest.mark.browser
def test_the_page_needs_no_network_and_listens_once_on_loopback(trained_copy: Lake) -> None:
    if reason := _why_not():
        pytest.skip(reason)
    script = Path(__file__).with_name("offline_visit.py")
    command = [*NAMESPACE, sys.executable, str(script), trained_copy.url, trained_copy.dataset]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["drawn"], seen["outside"], seen["errors"]) == (2, [], [])
    places = [line.split()[3] for line in seen["listens"].splitlines()]
    port = seen["address"].rpartition(":")[2]
    assert f"127.0.0.1:{port}" in places
    # The other one, if any, is the browser's own.
    assert all(place.startswith("127.0.0.1:") for place in places), places
