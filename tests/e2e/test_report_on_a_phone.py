"""The report at a phone's width, in a real Chromium: nothing is cut off, only tables are scrolled sideways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from e2e.page_server import CHROMIUM, PHONE, chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
]

CUT_OFF = """
() => [...document.querySelectorAll('body *')].filter(element => {
  const scrolled = element.closest('table')
  return !scrolled && element.getBoundingClientRect().right > document.documentElement.clientWidth + 1
}).map(element => element.outerHTML.slice(0, 120))
"""


def test_nothing_is_cut_off(first_run: tuple[dict[str, Any], Path]) -> None:
    result, _ = first_run
    with chromium() as browser:
        page = browser.new_context(viewport=PHONE).new_page()
        page.goto(Path(result["report"]).absolute().as_uri())
        page.get_by_role("heading", name="How training went").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert page.evaluate(CUT_OFF) == []
