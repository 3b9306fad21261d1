"""The client against busy, broken or hostile wikis: a small server gives the answers that a test wants."""

from __future__ import annotations

import gzip
import io
import json
import socket
import time

import pytest
import requests
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from sp_data.errors import RecipeError, WikiApiError, WikiBlocked, WikiUnreachable
from sp_data.recipe import Source
from sp_data.wiki import download
from sp_data.wiki.http.client import WikiClient
from sp_data.wiki.http.politeness import Pace, user_agent
from sp_data.wiki.http.retries import check_wait
from sp_data.wiki.http.transport import AddressRefused

SITEINFO = {"batchcomplete": True, "query": {"general": {"generator": "MediaWiki 1.39"}, "namespaces": {}}}


def source(wiki: str, **fields: object) -> Source:
    return Source.model_validate({"wiki": wiki.rstrip("/"), "select": "all", "requests_per_second": 0, **fields})


@pytest.fixture
def server(httpserver: HTTPServer) -> HTTPServer:
    return emptied(httpserver)


def emptied(server: HTTPServer) -> HTTPServer:
    """The server without handlers, except one that answers 404 for robots.txt."""
    server.clear()
    server.expect_request("/robots.txt").respond_with_data("", status=404)
    return server


def serve(server: HTTPServer, *answers: dict | Response, path: str = "/api.php") -> list[Request]:
    """Give these answers and repeat the last one; siteinfo is answered too. Returns the list that gets each request."""
    received: list[Request] = []
    pending = list(answers)

    def answer(request: Request) -> Response:
        if request.args.get("meta", "").startswith("siteinfo"):
            return Response(json.dumps(SITEINFO), content_type="application/json")
        received.append(request)
        reply = pending.pop(0) if len(pending) > 1 else pending[0]
        return reply if isinstance(reply, Response) else Response(json.dumps(reply), content_type="application/json")

    server.expect_request(path).respond_with_handler(answer)
    return received


def page(title: str, **props: object) -> dict:
    return {"ns": 6, "title": title, **props}


def test_pages_of_several_answers_are_merged_until_the_batch_is_complete(server):
    received = serve(
        server,
        {"query": {"pages": [page("A", categories=[1]), page("B")]}, "continue": {"clcontinue": "x", "continue": "||"}},
        {
            "batchcomplete": True,
            "query": {"pages": [page("A", categories=[1, 2], imageinfo=["i"]), page("B", categories=[3])]},
            "continue": {"gaicontinue": "C", "continue": "gaicontinue||"},
        },
        {"batchcomplete": True, "query": {"pages": [page("C")]}},
    )
    with WikiClient(source(server.url_for("/"))) as client:
        pages = list(client.pages({"generator": "allimages"}))
    assert pages == [page("A", categories=[1, 2], imageinfo=["i"]), page("B", categories=[3]), page("C")]
    assert [request.args.get("clcontinue") for request in received] == [None, "x", None]
    assert received[0].args.to_dict().items() >= {"maxlag": "5", "formatversion": "2", "generator": "allimages"}.items()


def test_an_answer_that_continues_where_it_was_ends_the_run(server):
    serve(server, {"query": {}, "continue": {"continue": "x"}})
    with (
        WikiClient(source(server.url_for("/"))) as client,
        pytest.raises(WikiApiError, match="continue where it was"),
    ):
        list(client.pages({"generator": "allimages"}))


def test_a_lagged_wiki_is_waited_for(server):
    lag = Response(
        json.dumps({"error": {"code": "maxlag", "info": "Waiting for a database server: 6 seconds lagged."}}),
        content_type="application/json",
        headers={"Retry-After": "0"},
    )
    received = serve(server, lag, lag, {"batchcomplete": True, "query": {"pages": [page("A")]}})
    with WikiClient(source(server.url_for("/"))) as client:
        assert list(client.pages({"generator": "allimages"})) == [page("A")]
    assert len(received) == 3


def test_the_api_may_live_below_w(server):
    serve(server, {"batchcomplete": True, "query": {"pages": [page("A")]}}, path="/w/api.php")
    server.expect_request("/api.php").respond_with_data("nothing here", status=404)
    with WikiClient(source(server.url_for("/"))) as client:
        assert list(client.pages({"generator": "allimages"})) == [page("A")]


def test_gzip_is_asked_for_and_understood(server):
    body = gzip.compress(json.dumps({"batchcomplete": True, "query": {"pages": [page("A")]}}).encode())
    packed = Response(body, content_type="application/json", headers={"Content-Encoding": "gzip"})
    received = serve(server, packed)
    with WikiClient(source(server.url_for("/"))) as client:
        assert list(client.pages({"generator": "allimages"})) == [page("A")]
    assert "gzip" in received[0].headers["Accept-Encoding"]


def test_json_that_breaks_off_is_asked_for_again_and_then_given_up(server):
    broken = Response('{"batchcomplete": true, "query"', content_type="application/json")
    serve(server, broken, {"batchcomplete": True, "query": {"pages": [page("A")]}})
    with WikiClient(source(server.url_for("/"))) as client:
        assert list(client.pages({"generator": "allimages"})) == [page("A")]
    emptied(server)
    serve(server, broken)
    with (
        WikiClient(source(server.url_for("/"))) as client,
        pytest.raises(WikiUnreachable, match="broke off 3 times"),
    ):
        list(client.pages({"generator": "allimages"}))


def test_a_wiki_that_asks_for_a_long_pause_is_left_alone(server):
    serve(server, Response("slow down", status=429, headers={"Retry-After": "3600"}))
    started = time.monotonic()
    with (
        WikiClient(source(server.url_for("/"))) as client,
        pytest.raises(WikiBlocked, match="left alone for 60 minutes"),
    ):
        list(client.pages({"generator": "allimages"}))
    assert time.monotonic() - started < 5


def test_a_wiki_that_never_stops_saying_429_blocks(server, naps):
    received = serve(server, Response("slow down", status=429, headers={"Retry-After": "0"}))
    with WikiClient(source(server.url_for("/"))) as client, pytest.raises(WikiBlocked, match="too many requests"):
        list(client.pages({"generator": "allimages"}))
    assert len(received) == 6
    backoff = [round(seconds - seconds % 1) for seconds in naps if seconds > 0.5]
    assert len(backoff) == 4
    assert all(least <= seconds <= least + 1 for least, seconds in zip((1, 2, 4, 8), backoff, strict=True))


def test_a_silent_wiki_is_named(naps):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        wiki = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with (
            WikiClient(source(wiki, timeout_s=0.05)) as client,
            pytest.raises(WikiUnreachable, match=r"did not answer within 0\.05 s; what was fetched is kept"),
        ):
            _ = client.namespaces


def test_a_wiki_elsewhere_gets_no_request_from_a_source_that_is_not_polite(server):
    serve(server, {})
    elsewhere = source("http://wiki.example", requests_per_second=1)
    proxy = server.url_for("/")
    with WikiClient(elsewhere, proxy) as client, pytest.raises(RecipeError, match=r"source\.contact is empty"):
        _ = client.namespaces
    assert server.log == []


@pytest.fixture
def elsewhere(server) -> WikiClient:
    """A client of http://wiki.example; a proxy on this machine answers for it."""
    politeness = {"requests_per_second": 50, "contact": "me@example.org", "acknowledge_terms": True}
    return WikiClient(source("http://wiki.example", **politeness), server.url_for("/"))


@pytest.mark.parametrize(
    "inside", ["http://127.0.0.1:1/x", "http://10.0.0.7/x", "http://[::1]/x", "http://169.254.169.254/"]
)
def test_a_redirect_to_a_private_address_is_refused(server, elsewhere, inside):
    server.expect_request("/a.png").respond_with_data("", status=302, headers={"Location": inside})
    with pytest.raises(AddressRefused, match="private"), elsewhere.transport.original("http://cdn.example/a.png"):
        pass
    with pytest.raises(AddressRefused, match="private"), elsewhere.transport.original(inside):
        pass


def test_other_redirects_are_followed_but_not_for_ever(server, elsewhere):
    moved = {"Location": "http://other.example/b.png?x=1"}
    server.expect_request("/a.png").respond_with_data("", status=301, headers=moved)
    server.expect_request("/b.png").respond_with_data("picture")
    with elsewhere.transport.original("http://cdn.example/a.png?cb=1") as response:
        assert response.content == b"picture"
    received = [request for request, _ in server.log if request.path == "/b.png"]
    assert [request.query_string for request in received] == [b"x=1"]
    emptied(server)
    server.expect_request("/a.png").respond_with_data("", status=301, headers={"Location": "/a.png"})
    with pytest.raises(AddressRefused, match="too many"), elsewhere.transport.original("http://cdn.example/a.png"):
        pass
    with pytest.raises(AddressRefused, match="web address"), elsewhere.transport.original("file:///etc/passwd"):
        pass


def response(body: bytes, **headers: str) -> requests.Response:
    answer = requests.Response()
    answer.raw = io.BytesIO(body)
    answer.headers.update(headers)
    return answer


def test_a_picture_beyond_the_limit_is_not_read_further(tmp_path):
    into = tmp_path / "body"
    by_length = download.receive(response(b"x", **{"Content-Length": "10000000000"}), into, 1000)
    assert (by_length.status, by_length.num_bytes) == (download.TOO_LARGE, 0)
    endless = response(bytes(10 * download.CHUNK_BYTES))
    cut = download.receive(endless, into, 1000)
    assert (cut.status, cut.num_bytes) == (download.TOO_LARGE, download.CHUNK_BYTES)
    whole = download.receive(response(b"abc"), into, 3)
    assert (whole.status, whole.num_bytes, whole.sha1) == ("ok", 3, "a9993e364706816aba3e25717850c26c9cd0d89d")
    assert into.read_bytes() == b"abc"


def test_requests_to_one_host_keep_their_distance():
    now = 0.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    pace = Pace(2.0, clock=lambda: now, sleep=sleep)
    for _ in range(4):
        pace.wait("a")
    pace.wait("b")
    assert len(slept) == 3
    assert all(0.5 <= seconds <= 0.6 for seconds in slept)
    Pace(0, sleep=sleep).wait("a")
    assert len(slept) == 3


def test_the_agent_says_what_it_is_and_whose():
    assert user_agent("me@example.org\r\nX: y").startswith("sp-data/")
    assert "\n" not in user_agent("me@example.org\r\nX: y")
    assert user_agent("Zoë 日本").endswith("Zoë ??)")
    assert "; " not in user_agent(" ")


def test_short_waits_are_accepted_and_long_ones_are_not():
    check_wait(10)
    with pytest.raises(WikiBlocked, match="left alone for 10 minutes"):
        check_wait(600)
