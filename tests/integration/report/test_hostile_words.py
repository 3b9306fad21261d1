"""Titles and captions that would be Markdown, HTML or a terminal's commands are text wherever they are shown."""

from __future__ import annotations

import csv
import io
import json
import signal
import sys
import unicodedata
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from PIL import Image
from pytest_httpserver import HTTPServer

from sp_data.cli.app import main
from sp_data.generation.search import Neighbour
from sp_data.kept_recipe import remember_recipe
from sp_data.lake import Lake
from sp_data.manifest import Manifest
from sp_data.pipeline import run_stage
from sp_data.recipe import Recipe
from sp_data.report import training
from sp_data.report.markdown import stage_markdown
from sp_data.report.page import load_manifests, render

HOSTILE = (
    "![b](http://evil.example/b.png) a kid",
    "[click](javascript:alert(1)) <img src=http://evil.example/c.png onerror=alert(4)>",
    "esc\x1b]8;;http://evil.example\x07link\x1b]8;;\x07\x1b[2J \u202egnp.kid",
    "a | b | <script>alert(1)</script> `x` http://evil.example/auto www.evil.example a@evil.example",
    "&lt;b&gt; **bold** _it_ # head $x$ \\| \\",
)
COLOURS = ("red", "lime", "blue", "yellow", "black")


@pytest.fixture(scope="module")
def server() -> Iterator[HTTPServer]:
    with HTTPServer() as server:
        server.expect_request("/robots.txt").respond_with_data("", status=404)
        for number, colour in enumerate(COLOURS):
            out = io.BytesIO()
            picture = Image.new("RGB", (96, 96), "white")
            picture.paste(colour, (8 * number, 5, 50 + 8 * number, 60 + 5 * number))
            picture.save(out, "PNG")
            server.expect_request(f"/{number}.png").respond_with_data(out.getvalue(), content_type="image/png")
        yield server


@pytest.fixture(scope="module")
def lake(server: HTTPServer, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A list whose captions are hostile, and so are some of its addresses."""
    folder = tmp_path_factory.mktemp("hostile")
    with (folder / "kids.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["url", "caption"])
        writer.writerows((server.url_for(f"/{number}.png"), text) for number, text in enumerate(HOSTILE))
        writer.writerows((text, "a kid") for text in HOSTILE)
    source: dict[str, Any] = {"addresses": str(folder / "kids.csv"), "contact": "me@example.org"}
    source |= {"acknowledge_terms": True, "requests_per_second": 50, "allow_private_addresses": True}
    recipe = Recipe.model_validate({"name": "hostile", "source": source, "curate": {"min_side_px": 8}})
    (folder / "hostile.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    lake = Lake(str(folder / "lake"), recipe.name)
    remember_recipe(recipe, lake)
    for stage in ("scrape", "curate"):
        run_stage(stage, recipe, lake)
    return lake


def _acts(text: str) -> list[str]:
    return [char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def test_artifacts_have_no_link_picture_or_html_but_our_own(lake: Lake) -> None:
    for manifest in load_manifests(lake, ("scrape", "curate")).values():
        document = stage_markdown(lake, manifest, "done")
        assert not _acts(document)
        tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(document)
        inner = [one for token in tokens for one in (token, *(token.children or []))]
        assert not {"html_inline", "html_block", "link_open", "code_block", "fence"} & {one.type for one in inner}
        pictures = [str(one.attrs["src"]) for one in inner if one.type == "image"]
        assert pictures and all(address.startswith("data:image/jpeg;base64,") for address in pictures)
        items = ["".join(part.content for part in one.children or []) for one in inner if one.type == "inline"]
        assert any(HOSTILE[0] in item for item in items), "and it is shown"


class _Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.metas: list[dict[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "meta":
            self.metas.append(dict(attrs))


def test_the_report_is_our_own_html(lake: Lake) -> None:
    html = render(lake, load_manifests(lake, ("scrape", "curate")), [])
    page = _Page(html)
    assert not _acts(html)
    assert not {"script", "a", "iframe", "link"} & page.tags
    assert all(value.startswith("data:image/") for name, value in page.attributes if name == "src")
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    (policy,) = (meta["content"] for meta in page.metas if meta.get("http-equiv") == "content-security-policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


@pytest.mark.parametrize("url", ["javascript:alert(document.domain)", "data:text/html,x", "//evil.example", ""])
def test_a_picture_of_the_report_leads_to_the_web_only(url: str, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"key": "0", "tar": "a.tar", "cosine": 1.0, "title": "Kid", "page": "p", "revision": 1, "licence": ""}
    fields |= {"uploader": "", "caption": "", "split": "train"}

    def links(address: str) -> list[str]:
        near = Neighbour.model_validate({**fields, "url": address})
        card = {"prompt": "p", "seed": 0, "picture": "data:,", "nearest": "data:,", "near": near, "verdict": None}
        monkeypatch.setattr(training, "cards", lambda *_: [card])
        monkeypatch.setattr(training, "lineage", lambda *_: [])
        monkeypatch.setattr(training, "trainings", lambda *_: [])
        by_stage: dict[str, Manifest] = load_manifests(lake, ("scrape", "curate"))
        html = render(lake, {**by_stage, "prior": by_stage["curate"]}, [object()])  # type: ignore[list-item]
        assert "Kid" in html
        return [value for name, value in _Page(html).attributes if name == "href"]

    assert links(url) == []
    assert links("https://kids.example/a.png") == ["https://kids.example/a.png"]


@pytest.mark.parametrize(
    "arguments", [["why"], ["why", "--json"], ["why", "File:\x1b[2J"], ["status"], ["run", "\x1b[2J"]]
)
def test_a_terminal_is_told_nothing(
    arguments: list[str], lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sp-data", *arguments, "--lake", str(Path(lake.root).parent)])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit):
            main()
    finally:
        signal.signal(signal.SIGTERM, before)
    said = capsys.readouterr()
    assert not _acts(said.out + said.err), arguments
    assert said.out or said.err.startswith("sp-data: ")
    if arguments == ["why"]:
        assert "\\x1b[2J" in said.out and "\\u202e" in said.out
        assert len(said.out.splitlines()) == 2 * len(HOSTILE)
    if "--json" in arguments:
        captions = {file["caption"] for file in json.loads(said.out)["files"]}
        assert any("\x1b[2J" in caption and "\u202e" in caption for caption in captions), "the values are unchanged"
