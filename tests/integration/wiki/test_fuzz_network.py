"""Whatever comes over the network is read, or refused in one sentence: answers of the API, robots.txt, HTTP itself, and
addresses, which never lead into this network.
"""

from __future__ import annotations

import http.server
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from fuzzing import few_and_many, fuzz, mutated, mutated_json
from hypothesis import strategies as st
from raw_server import raw_server
from stages import scrape

from sp_data.demo.wiki.server import DemoWikiServer
from sp_data.errors import RecipeError, SpDataError, WikiBlocked, WikiError
from sp_data.lake import Lake
from sp_data.recipe import Source
from sp_data.recipe.load import build
from sp_data.wiki.http.api import Api
from sp_data.wiki.http.guard import AddressRefused
from sp_data.wiki.http.politeness import Robots
from sp_data.wiki.http.transport import Transport
from sp_data.wiki.originals import receive

from .small_wiki import founded, source


@pytest.fixture(autouse=True)
def no_naps(monkeypatch) -> None:
    """Nothing sleeps in this thread: tries come at once after one another."""
    here, real = threading.get_ident(), time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: None if threading.get_ident() == here else real(seconds))


class Recorded:
    """A server that gives the recorded answers of a real wiki, one of them replaced."""

    def __init__(self, answers: dict[str, object], pictures: dict[str, bytes]) -> None:
        self.answers, self.pictures = answers, pictures
        self.replaced: tuple[str, object] = ("", None)
        recorded = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                body = recorded.body_of(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def body_of(self, address: str) -> bytes | None:
        parts = urlsplit(address)
        if parts.path != "/api.php":
            return self.pictures.get(parts.path)
        query = kind_of(parts.query)
        name, answer = self.replaced
        empty = {"batchcomplete": True, "curtimestamp": "2020-01-01T00:00:00Z", "query": {}}
        return json.dumps(answer if query == name else self.answers.get(query, empty)).encode()


def kind_of(query: str) -> str:
    """The query without what a mutated answer changes: where a listing goes on."""
    return "&".join(part for part in sorted(query.split("&")) if "continue" not in part and "maxlag" not in part)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Iterator[Recorded]:
    answers: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch, DemoWikiServer(founded()) as wiki:
        real = Api._get_json

        def get_json(self, api, params):
            answer, wait_s = real(self, api, params)
            request = requests.Request("GET", api, params=dict(params)).prepare()
            answers[kind_of(urlsplit(request.url).query)] = json.loads(json.dumps(answer))
            return answer, wait_s

        patch.setattr(Api, "_get_json", get_json)
        lake = Lake(str(tmp_path_factory.mktemp("recorded")), "kids")
        scrape(source("pages"), lake, proxy=wiki.url)
        addresses = {info["url"] for _, info in _imageinfos(answers)}
        get = requests.Session()
        get.trust_env = False
        pictures = {urlsplit(a).path: get.get(a, proxies={"http": wiki.url}, timeout=9).content for a in addresses}
    server = Recorded(answers, pictures)
    yield server
    server.server.shutdown()


def _imageinfos(answers: dict[str, object]) -> Iterator[tuple[str, dict]]:
    for query, answer in answers.items():
        for page in answer.get("query", {}).get("pages", ()):  # type: ignore[attr-defined]
            for info in page.get("imageinfo", ()):
                yield query, info


@few_and_many
def test_any_answer_of_the_api_makes_a_catalogue_or_a_sentence(recorded, tmp_path, num_inputs):
    kinds = st.sampled_from(sorted(recorded.answers))
    inputs = kinds.flatmap(lambda kind: st.tuples(st.just(kind), mutated_json([recorded.answers[kind]])))
    number = iter(range(10**9))

    def read(value: tuple[str, object]) -> None:
        recorded.replaced = value
        scrape(source("pages"), Lake(str(tmp_path / f"{next(number)}"), "kids"), proxy=recorded.url)

    # A whole scrape each.
    fuzz(inputs, read, num_inputs // 4, refusals=(SpDataError,))


ROBOTS = (
    b"User-agent: *\nDisallow: /wiki/Special:\nCrawl-delay: 1\n\nUser-agent: sp-data\nRequest-rate: 1/5\nAllow: /\n",
    b"\xef\xbb\xbfUSER-AGENT: sp-data\r\nDisallow: /*?action=\r\nSitemap: http://wiki.example/s.xml\r\n# no\r\n",
)


@few_and_many
def test_any_robots_txt_is_obeyed_or_ignored(num_inputs):
    tokens = [
        b"Disallow:",
        b"Disallow: /\n",
        b"//[",
        b"%zz",
        b"\n",
        b":",
        b"Crawl-delay: ",
        b"9" * 5000,
        b"1/",
        b"User-agent:",
        b"\x00",
    ]

    def read(text: bytes) -> None:
        delay_s = Robots(lambda _: text.decode("utf-8", "replace")).check("http://wiki.example/api.php?action=query")
        assert 0 <= delay_s <= 60

    fuzz(mutated(ROBOTS, tokens), read, num_inputs, refusals=(WikiBlocked,))


RESPONSES = (
    b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 5\r\nX-Robots-Tag: noai\r\n\r\nabcde",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /b.png\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 404 Not Found\r\n\r\nno",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 25\r\n\r\n"
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xffKLJNI\x05\x00\x19\xd7\xbb\x85\x05\x00\x00\x00",
)


@few_and_many
def test_whatever_a_server_sends_is_a_picture_or_a_sentence(tmp_path, monkeypatch, num_inputs):
    tokens = [b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"chunked", b"9" * 5000, b"-1", b"gzip, gzip", b"Location: "]
    tokens += [b"http://127.0.0.1:1\\@8.8.8.8/", b"http://[", b"\x00", b"\x1b[2J", b"Retry-After: ", b"Set-Cookie: a=b"]
    real, sent = socket.getaddrinfo, [b""]

    def only_here(host, *args, **kwargs):
        if host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "no network in a test")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", only_here)
    with raw_server(lambda connection, _: connection.sendall(sent[0])) as server:
        wiki = f"http://127.0.0.1:{server.port}"
        settings = {"wiki": wiki, "select": "all", "requests_per_second": 0, "timeout_s": 1}

        def read(answer: bytes) -> None:
            sent[0] = answer
            with (
                Transport(Source.model_validate(settings), robots={wiki: (time.time(), "")}) as transport,
                transport.original(f"{wiki}/a.png") as response,
            ):
                receive(response, Path(tmp_path / "body"), 10**6)

        fuzz(mutated(RESPONSES, tokens), read, num_inputs, refusals=(WikiError, AddressRefused))


@few_and_many
def test_no_address_leads_into_this_network(monkeypatch, num_inputs):
    """Each name has a private address, or a public one first and a private one then."""
    import urllib3.util.connection as connection

    numbers = iter(range(10**9))
    connected: list[str] = []
    real = socket.getaddrinfo

    def look_up(host, port, *args, **kwargs):
        try:
            return real(host, port, *args, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            ip = ("8.8.8.8", "127.0.0.1", "10.0.0.1", "::1")[next(numbers) % 4]
            return real(ip, port, *args, **kwargs)

    def create_connection(address, *args, **kwargs):
        connected.append(address[0])
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(connection, "create_connection", create_connection)
    settings = {"select": "all", "requests_per_second": 50, "contact": "me@example.org", "acknowledge_terms": True}
    hosts = [
        "127.0.0.1",
        "8.8.8.8",
        "localhost",
        "example.org",
        "0x7f.1",
        "2130706433",
        "[::1]",
        "[::ffff:7f00:1]",
        "017700000001",
    ]
    part = st.sampled_from(
        [*hosts, "http://", "https://", "//", "@", "\\", "/", "?", "#", ":80", ":", "%40", "。", "．"]
    )
    texts = st.lists(part | st.text(max_size=3), max_size=8).map("".join)

    def read(text: str) -> None:
        for transport in (elsewhere, listed):
            for ask in (transport.original, transport.listed):
                try:
                    with ask(text):
                        pass
                except (AddressRefused, WikiError) as error:
                    assert str(error).isprintable()
        assert all(ipaddress.ip_address(ip).is_global for ip in connected)
        build({"name": "kids", "source": {**settings, "wiki": text or "http://x"}}, "kids")

    def here(text: str) -> str:
        return f"http://{text}"

    with (
        Transport(Source.model_validate({**settings, "wiki": "http://wiki.example"})) as elsewhere,
        Transport(Source.model_validate({**settings, "addresses": "list.txt"})) as listed,
    ):
        fuzz(texts.map(here) | texts, read, num_inputs, refusals=(RecipeError,))
        # A public address is connected to, so the list above would have named a private one.
        read("http://8.8.8.8/a.png")
    assert "8.8.8.8" in connected
