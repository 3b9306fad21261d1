"""What becomes of one picture: it is fetched once, or has a reason why not."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pytest_httpserver import HTTPServer

from sp_data.demo.wiki.server import DemoWikiServer
from sp_data.demo.wiki.world import World
from sp_data.errors import WikiBlocked, WikiUnreachable
from sp_data.lake import Lake
from sp_data.recipe import Source
from sp_data.wiki.facts import WikiFile
from sp_data.wiki.http.client import WikiClient
from sp_data.wiki.originals import FAILURES_IN_A_ROW, Originals, original_path, usual_host
from sp_data.wiki.refusals import FetchRefusal

BODY = b"not really a picture"
SHA1 = hashlib.sha1(BODY).hexdigest()


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(str(tmp_path), "kids")


@pytest.fixture
def originals(httpserver: HTTPServer, lake: Lake) -> Iterator[Originals]:
    httpserver.expect_request("/robots.txt").respond_with_data("", status=404)
    source = Source.model_validate(
        {"wiki": httpserver.url_for("").rstrip("/"), "select": "all", "requests_per_second": 0, "max_file_bytes": 1000}
    )
    with WikiClient(source) as client:
        yield Originals(client, lake)


@pytest.fixture
def kid(httpserver: HTTPServer) -> WikiFile:
    return WikiFile(
        name="Kid.png",
        page_id=1,
        url=httpserver.url_for("/kid.png"),
        sha1=SHA1,
        bytes=len(BODY),
        mime="image/png",
        width=1,
        height=1,
        uploaded_at="2020-01-01T00:00:00Z",
        uploader="Ada",
        categories=(),
    )


def num_requests(server: HTTPServer) -> int:
    return sum(request.path == "/kid.png" for request, _ in server.log)


def test_a_picture_is_fetched_once(httpserver, originals, kid, lake):
    httpserver.expect_request("/kid.png", query_string="format=original").respond_with_data(BODY)
    assert [originals.ensure(kid), originals.ensure(kid), originals.ensure(replace(kid, name="Twin.png"))] == ["ok"] * 3
    assert num_requests(httpserver) == originals.num_fetched == 1
    assert lake.read_bytes(original_path(kid)) == BODY
    assert original_path(kid) == f"originals/{SHA1[:2]}/{SHA1}.png"


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"mime": "application/ogg"}, "mime-not-wanted (application/ogg)"),
        ({"bytes": 1001}, "too-large"),
        ({"sha1": ""}, "hidden"),
        ({"url": ""}, "hidden"),
    ],
)
def test_a_picture_that_the_listing_rules_out_costs_no_request(httpserver, originals, kid, changed, status):
    assert originals.ensure(replace(kid, **changed)) == status
    assert httpserver.log == []


@pytest.mark.parametrize(("code", "status"), [(404, "not-found"), (410, "not-found"), (403, "http-403")])
def test_a_refusal_is_a_reason_and_is_not_retried(httpserver, originals, kid, code, status):
    httpserver.expect_request("/kid.png").respond_with_data("no", status=code)
    assert originals.ensure(kid) == status
    assert num_requests(httpserver) == 1


def test_other_bytes_are_put_aside(httpserver, originals, kid, lake):
    httpserver.expect_request("/kid.png").respond_with_data(BODY[::-1])
    assert originals.ensure(kid) == "sha1-mismatch"
    assert lake.list("originals") == []
    assert lake.read_bytes(f"quarantine/sha1-mismatch-{SHA1}.png") == BODY[::-1]


def test_more_bytes_than_the_limit_are_not_kept(httpserver, originals, kid, lake):
    httpserver.expect_request("/kid.png").respond_with_data(bytes(1001))
    assert originals.ensure(kid) == "too-large"
    assert lake.list("originals") == lake.list("quarantine") == []


def test_something_that_is_not_an_address_is_a_reason(originals, kid):
    assert originals.ensure(replace(kid, url="ftp://x/kid.png")) == "address-refused (not a web address)"


def test_one_broken_picture_is_a_reason_but_many_in_a_row_are_a_broken_wiki(httpserver, originals, kid, naps):
    httpserver.expect_request("/kid.png").respond_with_data("no", status=500)
    for number in range(1, FAILURES_IN_A_ROW):
        assert originals.ensure(replace(kid, sha1=str(number) * 40)) == "http-500"
    with pytest.raises(WikiUnreachable, match="5 pictures in a row; what was fetched is kept"):
        originals.ensure(kid)


def test_a_host_that_refuses_every_picture_is_not_asked_for_all_of_them(httpserver, originals, kid):
    httpserver.expect_request("/kid.png").respond_with_data("no", status=403)
    with pytest.raises(WikiBlocked, match="answers HTTP 403 for 5 pictures in a row"):
        for number in range(10):
            originals.ensure(replace(kid, sha1=f"{number}" * 40))
    assert num_requests(httpserver) == FAILURES_IN_A_ROW


def test_a_picture_that_never_comes_is_asked_for_in_three_runs_and_then_no_more(httpserver, originals, kid):
    httpserver.expect_request("/kid.png").respond_with_data("gone", status=404)
    assert [originals.ensure(kid) for _ in range(5)] == ["not-found"] * 5
    assert num_requests(httpserver) == 3


def test_another_host_that_refuses_is_left_alone_and_the_usual_one_goes_on(httpserver, lake, kid, naps):
    httpserver.expect_request("/robots.txt").respond_with_data("", status=404)
    httpserver.expect_request("/kid.png").respond_with_data(BODY)
    source = Source.model_validate({"wiki": httpserver.url_for("").rstrip("/"), "requests_per_second": 0})
    with WikiClient(source) as client:
        originals = Originals(client, lake, usual_host=usual_host([kid]))
        dead = [replace(kid, url=f"http://127.0.0.1:9/{number}.png", sha1=f"{number}" * 40) for number in range(3)]
        assert [originals.ensure(file) for file in dead] == ["host-refuses"] * 3
        assert originals.ensure(kid) == "ok"


@pytest.mark.parametrize(
    "url",
    [
        "http://example..com/x.png",
        "http://127.0.0.1:99999/x.png",
        "http://[x/y.png",
        "http:///x.png",
        "x.png",
        "http://a b/",
    ],
)
def test_an_address_that_no_host_can_have_is_a_reason(originals, kid, url):
    assert originals.ensure(replace(kid, url=url)).startswith("address-refused")


def test_a_redirect_to_no_address_and_a_broken_robots_txt_do_not_end_the_run(lake, kid):
    rules = b"User-agent: *\nDisallow: //[\nDisallow: /private"

    def answer(path: str) -> tuple[int, dict[str, str], bytes]:
        return (200, {}, rules) if path == "/robots.txt" else (302, {"Location": "http://[x"}, b"")

    source = Source.model_validate({"wiki": "http://paper-kids.localhost", "requests_per_second": 0})
    with DemoWikiServer(World("Nothing", {}, {}, ())) as wiki, WikiClient(source, wiki.url) as client:
        wiki.fault = answer
        originals = Originals(client, lake)
        moved = replace(kid, url="http://paper-kids.localhost/kid.png")
        assert originals.ensure(moved) == "address-refused (not a web address)"
        private = replace(kid, url="http://paper-kids.localhost/private/kid.png", sha1="b" * 40)
        assert originals.ensure(private) == "refused"


@pytest.mark.parametrize(
    ("tags", "forbidden"),
    [
        ("noai", True),
        ("noindex, NoImageAI", True),
        ("sp-data: noai", True),
        ("otherbot: noai, noimageai", False),
        ("otherbot: noindex, sp-data: noimageai", True),
        ("max-snippet: 5, noai", True),
        ("noindex", False),
        ("", False),
    ],
)
def test_a_picture_that_is_not_for_models_is_not_kept(httpserver, originals, kid, lake, tags, forbidden):
    httpserver.expect_request("/kid.png").respond_with_data(BODY, headers={"X-Robots-Tag": tags})
    assert originals.ensure(kid) == ("noai" if forbidden else "ok")
    assert bool(lake.list("originals")) is not forbidden


@pytest.fixture
def breaking_host() -> Iterator[str]:
    """The address of a host whose connections always break."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def close_all() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listening.accept()[0].close()

        threading.Thread(target=close_all, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_picture_whose_connection_always_breaks_is_a_reason_and_the_others_are_fetched(
    httpserver, originals, kid, naps, breaking_host
):
    httpserver.expect_request("/kid.png").respond_with_data(BODY)
    location = {"Location": f"{breaking_host}/kid.png"}
    httpserver.expect_request("/moved.png").respond_with_data("", status=302, headers=location)
    broken = replace(kid, url=httpserver.url_for("/moved.png"), sha1="b" * 40)
    assert [originals.ensure(file) for file in (broken, kid)] == ["unreachable", "ok"]
    # It comes last the next time, whatever its name.
    assert originals.in_order([broken, replace(kid, name="Zoë.png")])[-1] == broken


def test_a_host_whose_connections_always_break_ends_the_run_after_some_pictures(originals, kid, naps, breaking_host):
    files = [replace(kid, url=f"{breaking_host}/{number}.png", sha1=f"{number}" * 40) for number in range(9)]
    assert [originals.ensure(file) for file in files[: FAILURES_IN_A_ROW - 1]] == ["unreachable"] * 4
    with pytest.raises(WikiUnreachable, match="cannot be reached"):
        originals.ensure(files[FAILURES_IN_A_ROW - 1])


def test_pictures_that_failed_before_never_end_a_run(originals, kid, naps, breaking_host):
    files = [replace(kid, url=f"{breaking_host}/{number}.png", sha1=f"{number}" * 40) for number in range(7)]
    originals.refused.update(
        {f"{file.sha1} {file.bytes} {file.url}": FetchRefusal("unreachable", 1, 0.0) for file in files}
    )
    assert [originals.ensure(file) for file in files] == ["unreachable"] * 7
    runs = [(refusal.runs, refusal.was_asked) for refusal in originals.refused.values()]
    assert runs == [(2, True)] * FAILURES_IN_A_ROW + [(2, False)] * 2
