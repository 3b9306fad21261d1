"""A hostile wiki: nothing is written outside the lake, nothing fills it, and one bad file never ends a run.

A real wiki gives no such answers, so a server of our own stands in for it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from stages import scrape
from werkzeug import Request, Response

from sp_data.errors import WikiBlocked, WikiUnreachable
from sp_data.lake import Lake
from sp_data.recipe import Source
from sp_data.wiki.catalogue import CatalogueRow, catalogue_rows, read_catalogue
from sp_data.wiki.http import transport

BODY = b"not a picture, but its sha1 is right"
SHA1 = hashlib.sha1(BODY).hexdigest()
EMOJI = "\N{FIREWORKS}" * 62 + ".png"  # 252 bytes
NAMES = (
    "../../../escaped.png",
    "/etc/passwd.png",
    "..\\..\\windows.png",
    "a/b/c.png",
    "quo\"te's.png",
    "new\nline\r\n.png",
    "$(touch x);`y`.png",
    "nul\0.png",
    "half \ud83d character.png",
    EMOJI,
    "<script>alert(1)</script>.png",
    "%2e%2e%2fescaped.png",
    ".hidden.png",
    "con.png",
)
CAPTION = (
    "<script>steal()</script>[[File:x.png|{{evil}}]]'''Bold''' <b onclick=x>and</b> &lt;safe&gt; <!-- not this -->"
)


class HostileWiki:
    """Answers what a first scrape asks; `files` are the imageinfos of its files, by name."""

    def __init__(self, server: HTTPServer, files: dict[str, dict]) -> None:
        self.server, self.files = server, files
        server.expect_request("/robots.txt").respond_with_data("", status=404)
        server.expect_request("/api.php").respond_with_handler(self.answer)
        server.expect_request("/ok.png").respond_with_data(BODY)

    def answer(self, request: Request) -> Response:
        args = request.args
        query: dict = {}
        if args.get("meta"):
            query = {"general": {"generator": "MediaWiki 1.39"}, "namespaces": {}}
        elif args.get("generator") == "allimages":
            query = {"pages": [self.page(number, name) for number, name in enumerate(self.files, start=1)]}
        elif args.get("generator") == "allpages":
            query = {"pages": [{"pageid": 1000, "ns": 0, "title": "Page"}]}
        elif args.get("pageids") == "1000":
            main = {"contentmodel": "wikitext", "content": f"<gallery>\n{EMOJI}|{CAPTION}\n</gallery>"}
            revision = {"revid": 1, "slots": {"main": main}}
            query = {"pages": [{"pageid": 1000, "ns": 0, "title": "Page", "revisions": [revision]}]}
        elif args.get("pageids"):
            query = {
                "pages": [
                    {"pageid": int(number), "title": "x", "missing": True} for number in args["pageids"].split("|")
                ]
            }
        body = {"batchcomplete": True, "curtimestamp": "2026-01-01T00:00:00Z", "query": query}
        return Response(json.dumps(body), content_type="application/json")

    def page(self, number: int, name: str) -> dict:
        info = {
            "url": self.server.url_for("/ok.png"),
            "sha1": SHA1,
            "size": len(BODY),
            "mime": "image/png",
            "width": 1,
            "height": 1,
            "timestamp": "2020-01-01T00:00:00Z",
            "user": "Mallory",
            "canonicaltitle": f"File:{name}",
        }
        return {"pageid": number, "ns": 6, "title": f"File:{name}", "imageinfo": [info | self.files[name]]}


def source(server: HTTPServer, **fields: object) -> Source:
    wiki = server.url_for("").rstrip("/")
    return Source.model_validate({"wiki": wiki, "select": "all", "requests_per_second": 0, **fields})


def rows_of(lake: Lake, result) -> dict[str, CatalogueRow]:
    return {row.name: row for row in catalogue_rows(read_catalogue(lake, result.manifest))}


@pytest.fixture
def outside(tmp_path: Path, lake: Lake) -> Iterator[None]:
    """Check after the test that nothing was written outside the lake."""
    before = {path for path in tmp_path.rglob("*") if "lake" not in path.parts}
    yield
    assert {path for path in tmp_path.rglob("*") if "lake" not in path.parts} == before
    folder = tmp_path / "lake" / "kids"
    assert {path.name for path in folder.iterdir()} <= {"originals", "catalogue", "manifests", "wiki", "quarantine"} | {
        ".writer",
        ".scratch",
    }


def test_names_that_would_be_paths_or_commands_are_rows(httpserver, lake, outside):
    HostileWiki(httpserver, {name: {} for name in NAMES})
    rows = rows_of(lake, scrape(source(httpserver), lake))
    assert len(rows) == len(NAMES)
    assert {row.status for row in rows.values()} == {"ok"}
    assert lake.list("originals") == [f"originals/{SHA1[:2]}/{SHA1}.png"]
    assert all("\n" not in row.title and row.caption for row in rows.values())
    assert rows[EMOJI].title == f"File:{EMOJI}"
    assert "half \ufffd character.png" in {row.name.lower() for row in rows.values()}


def test_captions_are_words_without_markup_or_script(httpserver, lake, outside):
    HostileWiki(httpserver, {EMOJI: {}})
    row = rows_of(lake, scrape(source(httpserver), lake))[EMOJI]
    assert row.caption == "Bold and <safe>"
    assert not any("script" in caption.text or "{{" in caption.text for caption in row.captions)


@pytest.mark.parametrize(
    ("info", "status"),
    [
        ({"sha1": "../../../../tmp/escaped"}, "hidden"),
        ({"sha1": "../" + "a" * 37}, "hidden"),
        ({"sha1": None}, "hidden"),
        ({"size": "many", "width": 10**20, "height": -1}, "sha1-mismatch"),
        ({"mime": "../../evil"}, "mime-not-wanted (../../evil)"),
        ({"url": "file:///etc/passwd"}, "address-refused (not a web address)"),
        ({"url": "http://[::1/broken"}, "address-refused (not a web address)"),
        ({"size": 10**11}, "too-large"),
    ],
    ids=["sha1 as a path", "sha1 of its length", "no sha1", "numbers", "type", "file url", "broken url", "100 GB"],
)
def test_what_a_wiki_says_of_a_file_is_not_believed(httpserver, lake, outside, info, status):
    HostileWiki(httpserver, {"Bad.png": info, "Good.png": {}})
    rows = rows_of(lake, scrape(source(httpserver), lake))
    assert (rows["Bad.png"].status, rows["Good.png"].status) == (status, "ok")


def test_bodies_without_end_and_bombs_are_cut_at_the_limit(httpserver, lake, outside):
    fetched: dict[str, int] = {}

    def endless(request: Request) -> Response:
        def chunks() -> Iterator[bytes]:
            while fetched.get("endless", 0) < 50 << 20:
                fetched["endless"] = fetched.get("endless", 0) + (1 << 16)
                yield bytes(1 << 16)

        return Response(chunks(), direct_passthrough=True)

    bomb = gzip.compress(bytes(64 << 20))
    httpserver.expect_request("/endless.png").respond_with_handler(endless)
    httpserver.expect_request("/bomb.png").respond_with_data(bomb, headers={"Content-Encoding": "gzip"})
    httpserver.expect_request("/huge.png").respond_with_handler(
        lambda request: Response(iter([b"x"]), headers={"Content-Length": str(10 << 30)})
    )
    names = {"endless": "a", "bomb": "b", "huge": "c"}
    files = {
        f"{name.title()}.png": {"url": httpserver.url_for(f"/{name}.png"), "sha1": letter * 40}
        for name, letter in names.items()
    }
    HostileWiki(httpserver, {**files, "Good.png": {}})
    rows = rows_of(lake, scrape(source(httpserver, max_file_bytes=1_000_000), lake))
    assert {row.name: row.status for row in rows.values()} == {
        "Endless.png": "too-large",
        "Bomb.png": "too-large",
        "Huge.png": "too-large",
        "Good.png": "ok",
    }
    assert fetched["endless"] < 8 << 20  # a little more than the limit, and what the sockets' buffers hold
    assert lake.list("quarantine") == []


def test_an_answer_that_is_a_bomb_ends_the_run_with_one_sentence(httpserver, lake, outside, monkeypatch):
    monkeypatch.setattr(transport, "MAX_TEXT_BYTES", 1 << 20)
    httpserver.expect_request("/robots.txt").respond_with_data("", status=404)
    bomb = gzip.compress(b'{"query": "' + bytes(8 << 20) + b'"}')
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    httpserver.expect_request("/api.php").respond_with_data(bomb, headers=headers)
    with pytest.raises(WikiUnreachable, match="broke off 3 times in the middle of an answer; what was fetched is kept"):
        scrape(source(httpserver), lake)


def test_entities_in_an_export_are_not_expanded(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("do not read")
    bomb = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 9))
    xml = (
        f'<?xml version="1.0"?><!DOCTYPE m [<!ENTITY l0 "lol">{bomb}<!ENTITY x SYSTEM "file://{secret}">]>'
        "<mediawiki><page><title>P</title><id>1</id><revision><id>2</id><model>wikitext</model>"
        "<text>A &x; &l8; kid</text></revision></page></mediawiki>"
    )
    from sp_data.wiki.http.xml_export import read_export

    pages = read_export(xml)
    assert all("do not read" not in (page.text or "") and len(page.text or "") < 100 for page in pages.values())
    for nothing in ("", " \n", "<?xml version='1.0'?>", "<!-- -->", "no xml at all"):
        assert read_export(nothing) == {}
    assert read_export("<mediawiki><page><id>1</id></page>") == {}


def test_a_picture_host_may_not_send_us_into_this_network(httpserver, lake, outside):
    fields = {
        "wiki": "http://wiki.example",
        "select": "all",
        "requests_per_second": 50,
        "contact": "me@example.org",
        "acknowledge_terms": True,
    }
    wiki = HostileWiki(httpserver, {"Bad.png": {"url": "http://cdn.example/a.png"}, "Worse.png": {}})
    wiki.files["Worse.png"] = {"url": "http://169.254.169.254/latest/meta-data", "sha1": "b" * 40}
    location = {"Location": "http://127.0.0.1:1/secret"}
    httpserver.expect_request("/a.png").respond_with_data("", status=302, headers=location)
    result = scrape(Source.model_validate(fields), lake, proxy=httpserver.url_for("/"))
    assert {row.status for row in rows_of(lake, result).values()} == {"address-refused (private address)"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Response("<html>Just a moment</html>", content_type="text/html"), WikiBlocked),
        (Response("[]", content_type="application/json"), WikiBlocked),
        (Response('{"query": ', content_type="application/json"), WikiUnreachable),
    ],
    ids=["a web page", "another JSON", "half an answer"],
)
def test_an_answer_that_is_not_mediawikis_ends_the_run_with_one_sentence(httpserver, lake, outside, answer, error):
    httpserver.expect_request("/robots.txt").respond_with_data("", status=404)
    httpserver.expect_request("/api.php").respond_with_response(answer)
    with pytest.raises(error, match=r"[Ww]hat was fetched is kept"):
        scrape(source(httpserver), lake)
