"""Prefect's own page, in a real Chromium, shows what a wiki says as text: no picture, link or HTML of its making."""

from __future__ import annotations

import pytest
from e2e.page_server import CHROMIUM, chromium
from e2e.prefect_api import post

from sp_data.foreign_text import markdown, markdown_code

HOSTILE = (
    "![b](http://evil.example/b.png)",
    "[click](javascript:alert(1)) [x](http://evil.example)",
    "<img src=http://evil.example/c.png onerror=alert(4)> <a href='http://evil.example'>x</a>",
    "http://evil.example/auto www.evil.example a@evil.example <http://evil.example>",
    "a | b \\| \\\\| `c` **d** _e_ ~~f~~ # g $h$ &lt;i&gt; - j 1. k",
    "[x]: http://evil.example",
    "```mermaid graph```",
    "<style>body{display:none}</style><iframe src='http://evil.example'></iframe>",
)


def _document() -> str:
    lines = [f"## {markdown(text)}" for text in HOSTILE]
    lines += ["", *(f"- {markdown(text)}: {markdown(text)}" for text in HOSTILE), ""]
    lines += ["| a | b |", "|---|---|", *(f"| {markdown(text)} | 7 |" for text in HOSTILE), ""]
    lines += [f"- in {markdown_code(text)}" for text in HOSTILE if "`" not in text]
    lines += ["", *(f"![{markdown(text)}](data:image/gif;base64,R0lGODlhAQABAAAAACw=)" for text in HOSTILE)]
    return "\n\n".join(lines[: len(HOSTILE)]) + "\n" + "\n".join(lines[len(HOSTILE) :]) + "\n"


@pytest.mark.proof
@pytest.mark.browser
def test_an_artifact_shows_the_very_words(server: str) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    body = {"key": "hostile", "type": "markdown", "data": _document(), "description": markdown(HOSTILE[0])}
    artifact = post(server, "/artifacts/", body)["id"]
    home = server.removesuffix("/api")
    with chromium() as browser:
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda one: asked.append(one.url))
        page.goto(f"{home}/artifacts/artifact/{artifact}")
        page.get_by_text("[x]: http://evil.example").first.wait_for(timeout=60_000)
        assert not [url for url in asked if "evil.example" in url]
        links = page.evaluate("[...document.querySelectorAll('a')].map(a => a.href)")
        assert not [link for link in links if "evil.example" in link or link.startswith(("javascript:", "mailto:"))]
        made = page.evaluate(
            "[...document.querySelectorAll('[onerror], iframe[src*=evil], img[src*=evil]')].map(e => e.outerHTML)"
        )
        assert made == []
        cells = page.evaluate("[...document.querySelectorAll('td')].map(e => e.innerText.trim())")
        assert [cell for cell in cells if cell != "7"] == [" ".join(text.split()) for text in HOSTILE]
        headings = page.evaluate("[...document.querySelectorAll('h2')].map(e => e.innerText.trim())")
        assert set(HOSTILE) <= set(headings)
