"""Which versions of MediaWiki are scraped, and what becomes of a wiki that does not tell its language."""

from __future__ import annotations

import json
import logging

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from sp_data.errors import WikiApiError, WikiError
from sp_data.recipe import Source
from sp_data.wiki.facts import Facts
from sp_data.wiki.files import ask_files, wikitext_of
from sp_data.wiki.http.client import WikiClient


def client_of(server: HTTPServer, answer) -> tuple[WikiClient, list[Request]]:
    received: list[Request] = []

    def handle(request: Request) -> Response:
        received.append(request)
        return Response(json.dumps(answer(request)), content_type="application/json")

    server.expect_request("/robots.txt").respond_with_data("", status=404)
    server.expect_request("/api.php").respond_with_handler(handle)
    wiki = {"wiki": server.url_for("").rstrip("/"), "select": "all", "requests_per_second": 0}
    return WikiClient(Source.model_validate(wiki)), received


def siteinfo(generator: str, **more: object) -> dict:
    return {"query": {"general": {"generator": generator, "lang": "de"}, "namespaces": {}, **more}}


@pytest.mark.parametrize("generator", ["MediaWiki 1.19.24", "MediaWiki 1.24.6", "MediaWiki 1.5"])
def test_a_wiki_that_is_too_old_is_refused_by_its_version_at_the_first_request(httpserver, generator):
    # As MediaWiki 1.19 answers: names stand in '*'.
    spaces = {"6": {"id": 6, "*": "File", "canonical": "File"}}
    old = {
        "query": {"general": {"generator": generator}, "namespaces": spaces, "namespacealiases": [{"id": 6, "*": "I"}]}
    }
    client, received = client_of(httpserver, lambda request: old)
    with client, pytest.raises(WikiError, match=rf"runs {generator}; sp-data needs MediaWiki 1\.25 or later"):
        client.greet()
    assert len(received) == 1


@pytest.mark.parametrize("generator", ["MediaWiki 1.25.0", "MediaWiki 1.31.16", "MediaWiki 1.43.0-wmf.5", "Fork 3", ""])
def test_other_wikis_are_greeted(httpserver, generator):
    client, _ = client_of(httpserver, lambda request: siteinfo(generator))
    with client:
        client.greet()


@pytest.mark.parametrize(("generator", "knows_slots"), [("MediaWiki 1.31.1", False), ("MediaWiki 1.32.0", True)])
def test_content_is_read_with_and_without_slots(httpserver, generator, knows_slots):
    main = {"contentmodel": "wikitext", "content": "== Summary ==\nA kid."}
    revision = {"revid": 1, "slots": {"main": main}} if knows_slots else {"revid": 1, **main}
    info = {"url": "http://x/A.png", "sha1": "a" * 40, "canonicaltitle": "File:A.png"}
    page = {"pageid": 1, "ns": 6, "title": "File:A.png", "imageinfo": [info], "revisions": [revision]}

    def answer(request: Request) -> dict:
        return siteinfo(generator) if "meta" in request.args else {"batchcomplete": True, "query": {"pages": [page]}}

    client, received = client_of(httpserver, answer)
    facts = Facts()
    with client:
        ask_files(client, facts, ["A.png"])
    assert facts.file_pages["A.png"].summary == "A kid."
    assert ("rvslots" in received[-1].args) == knows_slots


@pytest.mark.parametrize(
    ("revision", "text"),
    [
        ({"slots": {"main": {"contentmodel": "wikitext", "content": "a"}}}, "a"),
        ({"contentmodel": "wikitext", "content": "a"}, "a"),
        ({"content": "a"}, "a"),
        ({"contentmodel": "css", "content": "a"}, None),
        ({"slots": {"main": {"contentmodel": "Scribunto", "content": "a"}}}, None),
        ({"slots": {"main": {"texthidden": True}}}, None),
        ({"texthidden": True}, None),
        ({}, None),
    ],
)
def test_the_wikitext_of_a_revision(revision, text):
    assert wikitext_of({"revisions": [revision]}) == text


def test_a_wiki_that_does_not_tell_its_language_is_read_as_english_and_it_is_said(httpserver, caplog):
    client, received = client_of(httpserver, lambda request: siteinfo("MediaWiki 1.39.1"))
    with client, caplog.at_level(logging.WARNING):
        assert client.namespaces.words.option("thumb") is not None
    assert "does not tell its magic words and messages; English ones are assumed" in caplog.text
    assert len(received) == 1


def test_a_wiki_that_refuses_to_tell_its_language_is_asked_without(httpserver, caplog):
    def answer(request: Request) -> dict:
        if "allmessages" in request.args["meta"]:
            return {"error": {"code": "badvalue", "info": "Unrecognized value."}}
        return siteinfo("MediaWiki 1.39.1", namespaces={"6": {"id": 6, "name": "Datei"}})

    client, received = client_of(httpserver, answer)
    with client, caplog.at_level(logging.INFO):
        assert client.namespaces.file_name("Datei:a.png") == "A.png"
    assert "refuses to tell its language" in caplog.text
    assert len(received) == 2


def test_the_first_refusal_is_the_reason_if_both_are_refused(httpserver):
    client, _ = client_of(
        httpserver, lambda request: {"error": {"code": "readapidenied", "info": "You need to log in."}}
    )
    with client, pytest.raises(WikiApiError, match="You need to log in"):
        client.greet()
