"""Requests against a network that is not as it should be: each failure is named, time is bounded, and nothing private
is contacted on behalf of the public internet.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import logging
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pytest_httpserver import HTTPServer
from raw_server import RawServer, path_of, raw_server
from stages import scrape
from werkzeug import Request, Response

from sp_data.errors import SpDataError, WikiApiError, WikiBlocked, WikiError, WikiUnreachable
from sp_data.lake import Lake
from sp_data.recipe import Source
from sp_data.recipe.load import build
from sp_data.wiki.http.client import WikiClient
from sp_data.wiki.http.guard import AddressRefused
from sp_data.wiki.http.transport import Transport
from sp_data.wiki.originals import TOO_LARGE, TOO_SLOW, receive

from .test_hostile import HostileWiki, rows_of

SITEINFO = {"batchcomplete": True, "query": {"general": {"generator": "MediaWiki 1.43.0"}, "namespaces": {}}}
ELSEWHERE = {"select": "all", "requests_per_second": 50, "contact": "me@example.org", "acknowledge_terms": True}
NOTICE = "<br />\n<b>Deprecated</b>:  Function create_function() in <b>x.php</b> on line <b>7</b><br />\n"


def source(wiki: str, **fields: object) -> Source:
    return Source.model_validate({"wiki": wiki, "select": "all", "requests_per_second": 0, **fields})


def greet(wiki: str, **fields: object) -> WikiClient:
    """A client that has found the wiki's API."""
    with WikiClient(source(wiki, **fields)) as client:
        client.greet()
        return client


def transport_of(server: RawServer, **fields: object) -> Transport:
    """A transport to a wiki on this server, whose robots.txt it knows."""
    wiki = f"http://127.0.0.1:{server.port}"
    return Transport(source(wiki, **fields), robots={wiki: (time.time(), "")})


def original(transport: Transport, url: str) -> None:
    """Ask for a picture."""
    with transport.original(url):
        pass


def answer_of(body: str, kind: str = "application/json", status: int = 200) -> Response:
    return Response(body, status=status, content_type=kind)


@pytest.fixture
def server(httpserver: HTTPServer) -> HTTPServer:
    httpserver.expect_request("/robots.txt").respond_with_data("", status=404)
    return httpserver


# Where the API is, and what is there instead


@pytest.mark.parametrize(
    "body",
    [json.dumps(SITEINFO), NOTICE + json.dumps(SITEINFO), "\ufeff" + json.dumps(SITEINFO)],
    ids=["HTML type", "notice", "byte order mark"],
)
@pytest.mark.parametrize("kind", ["text/html", "application/json; charset=utf-8"])
def test_json_is_read_whatever_it_is_called_and_whatever_stands_before_it(server, body, kind):
    server.expect_request("/api.php").respond_with_response(answer_of(body, kind))
    assert greet(server.url_for("")).site.api == server.url_for("/api.php")


def test_a_page_instead_of_an_api_sends_us_to_the_other_path(server):
    server.expect_request("/api.php").respond_with_data("<title>Welcome</title>", content_type="text/html")
    server.expect_request("/w/api.php").respond_with_json(SITEINFO)
    assert greet(server.url_for("")).site.api == server.url_for("/w/api.php")


@pytest.mark.parametrize(
    ("pasted", "wiki"),
    [
        ("/wiki/Ada?x=1", ""),
        ("/wiki/Ada/Gallery", ""),
        ("/de/wiki/Ada#top", "/de"),
        ("/Ada", ""),
        ("/deep/down/here", "/elsewhere"),
    ],
)
def test_the_address_of_a_page_names_the_address_to_set(server, pasted, wiki):
    server.expect_request(f"{wiki}/api.php").respond_with_json(SITEINFO)
    link = (
        f'<link rel="EditURI" type="application/rsd+xml" href="//{server.host}:{server.port}{wiki}/api.php?action=rsd">'
    )
    if wiki == "/elsewhere":
        server.expect_request(pasted).respond_with_data(f"<head>{link}</head>", content_type="text/html")
    server.expect_request("").respond_with_data("no", status=404)
    with pytest.raises(WikiUnreachable, match=f"set it: --set source.wiki={server.url_for(wiki).rstrip('/')}$"):
        greet(server.url_for(pasted))


@pytest.mark.parametrize("pasted", ["/api.php", "/index.php?title=Ada", "/index.php/Ada", "/?x=1", "/#top"])
def test_the_address_of_a_script_is_the_wikis(pasted):
    assert source(f"http://localhost:8080{pasted}").wiki == "http://localhost:8080"
    assert source(f"http://localhost:8080/w{pasted}").wiki == "http://localhost:8080/w"


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        (answer_of("<h1>Gone</h1>", "text/html", 410), WikiUnreachable, r"does not exist any more \(HTTP 410\)"),
        (answer_of("<h1>Forbidden</h1>", "text/html", 403), WikiBlocked, r"use its API .*HTTP 403.*switched it off"),
        (answer_of("MediaWiki API is not enabled", "text/html"), WikiBlocked, "has switched its API off"),
        (answer_of("<h1>Log in</h1>", "text/html", 401), WikiBlocked, r"asks for a login \(HTTP 401\)"),
        (answer_of("<title>Welcome</title>", "text/html"), WikiBlocked, "web page instead of JSON; is source.wiki the"),
        (
            answer_of("<title>Just a moment...</title>", "text/html", 403),
            WikiBlocked,
            "is a challenge.*some hours",
        ),
        (
            answer_of('{"error": {"code": "readapidenied", "info": "You need\\n\\u001b[2Jread permission. More"}}'),
            WikiApiError,
            r"You need \[2Jread permission \(readapidenied\); it is a private wiki",
        ),
        (answer_of("no", "text/plain", 404), WikiUnreachable, "neither /api.php nor /w/api.php"),
    ],
    ids=["closed", "disabled", "not enabled", "login", "another site", "challenge", "private", "nothing"],
)
def test_what_is_there_instead_of_an_api_is_named(server, answer, error, sentence):
    server.expect_request("").respond_with_response(answer)
    with pytest.raises(error, match=sentence) as failure:
        greet(server.url_for(""))
    assert ("some hours" in str(failure.value)) == ("challenge" in sentence)


def test_fandoms_page_for_a_wiki_that_is_none(server):
    moved = {"Location": server.url_for("/Not_a_valid_community?from=x")}
    server.expect_request("/api.php").respond_with_data("", status=302, headers=moved)
    server.expect_request("/Not_a_valid_community").respond_with_data("<title>No</title>", content_type="text/html")
    with pytest.raises(WikiUnreachable, match="Fandom has no wiki of that name"):
        greet(server.url_for(""))


# Names, certificates, proxies


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> dict[str, Path]:
    """Self-signed ones, each with its key: 'good' for localhost, 'expired' too."""
    folder = tmp_path_factory.mktemp("certificates")
    now = datetime.datetime.now(datetime.UTC)
    days = {"good": (-1, 1), "expired": (-9, -8)}
    return {name: _certificate(folder / f"{name}.pem", now, *span) for name, span in days.items()}


def _certificate(path: Path, now: datetime.datetime, first_day: int, last_day: int) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=first_day))
        .not_valid_after(now + datetime.timedelta(days=last_day))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password)
    path.write_bytes(private + certificate.public_bytes(pem))
    return path


@pytest.mark.parametrize(
    ("name", "trusted", "host", "sentence"),
    [
        ("good", False, "localhost", "that this machine does not trust; .*REQUESTS_CA_BUNDLE"),
        ("expired", True, "localhost", "a certificate that has expired"),
        ("good", True, "127.0.0.1", "a certificate of another address"),
        ("good", True, "localhost", "neither /api.php nor /w/api.php"),
    ],
    ids=["not trusted", "expired", "another name", "trusted"],
)
def test_a_certificate_that_is_no_good_is_named_at_once(certificates, monkeypatch, name, trusted, host, sentence):
    if trusted:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates[name]))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificates[name])
    started = time.monotonic()
    nothing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    with (
        raw_server(lambda connection, _: connection.sendall(nothing), tls) as server,
        pytest.raises(WikiUnreachable, match=sentence),
    ):
        greet(f"https://{host}:{server.port}")
    assert time.monotonic() - started < 5


def test_tls_where_there_is_none_and_the_other_way_round_are_named(server, naps):
    with pytest.raises(WikiUnreachable, match="speaks no TLS at this port; does its address begin with http://"):
        greet(f"https://localhost:{server.port}")
    alert = b"\x15\x03\x01\x00\x02\x02\x16"
    with (
        raw_server(lambda connection, _: connection.sendall(alert)) as other,
        pytest.raises(WikiUnreachable, match="speaks TLS at this port; does its address begin with https://"),
    ):
        greet(f"http://127.0.0.1:{other.port}")


def test_a_port_without_a_server_and_a_name_without_a_host_are_named(naps):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    with pytest.raises(WikiUnreachable, match="cannot be reached: nothing listens at this port"):
        greet(f"http://127.0.0.1:{free}")
    naps.clear()
    with pytest.raises(WikiUnreachable, match=r"its name (does not exist|cannot be looked up) \(DNS\)"):
        greet("http://no-such-wiki.invalid", **ELSEWHERE)


@pytest.mark.parametrize(
    ("wiki", "answer", "sentence"),
    [
        ("http://wiki.example", b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", "a proxy that asks for a login"),
        ("https://wiki.example", b"HTTP/1.1 407 No\r\n\r\n", "the proxy 127.0.0.1:.*, which asks for a login"),
        ("https://wiki.example", b"HTTP/1.1 403 No\r\n\r\n", "the proxy 127.0.0.1:.*, which refuses to connect"),
    ],
)
def test_a_proxy_that_refuses_is_named_without_its_password(monkeypatch, naps, wiki, answer, sentence):
    with raw_server(lambda connection, _: connection.sendall(answer)) as proxy:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://me:hunter2@127.0.0.1:{proxy.port}")
        with pytest.raises(WikiError, match=sentence) as failure:
            greet(wiki, **ELSEWHERE)
    assert "hunter2" not in str(failure.value)


@pytest.mark.parametrize("proxy", ["socks5://me:hunter2@127.0.0.1:9", "http://me:hunter2@:x", "ftp://me:hunter2@x"])
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(monkeypatch, naps, proxy):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, proxy)
    with pytest.raises(WikiError, match=r"through (a proxy whose address cannot be used|the proxy)") as failure:
        greet("http://wiki.example", **ELSEWHERE)
    assert "hunter2" not in str(failure.value)


# Time


def drip(head: bytes, piece: bytes):
    """An answer that never stands still and never ends."""

    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)
            time.sleep(0.05)

    return answer


@pytest.mark.parametrize(
    ("head", "piece", "sentence"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x", ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", ""),
        (b"HTTP/1.1 200 OK\r\n", b"y", "too slowly"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, "headers of more than"),
    ],
    ids=["body", "chunks", "header", "go on, go on"],
)
def test_an_answer_that_drips_is_given_up(tmp_path, monkeypatch, head, piece, sentence):
    monkeypatch.setattr("sp_data.wiki.http.connections.SHORTEST_WINDOW_S", 0.3)
    started = time.monotonic()
    with raw_server(drip(head, piece)) as server, transport_of(server, timeout_s=0.4) as transport:
        url = f"http://127.0.0.1:{server.port}/a.png"
        if sentence:
            with pytest.raises(WikiUnreachable, match=sentence):
                original(transport, url)
        else:
            with transport.original(url) as response:
                assert receive(response, tmp_path / "body", 10**7).status == TOO_SLOW
    assert time.monotonic() - started < 5


def test_a_robots_txt_that_drips_is_given_up_and_a_huge_one_is_read_as_far_as_it_must(monkeypatch):
    monkeypatch.setattr("sp_data.wiki.http.connections.SHORTEST_WINDOW_S", 0.3)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
    slowly = pytest.raises(WikiUnreachable, match=r"a robots\.txt that sends its answer too slowly")
    with raw_server(drip(head, b"#")) as server, slowly:
        greet(f"http://127.0.0.1:{server.port}", timeout_s=0.4)
    refused = pytest.raises(WikiBlocked, match="does not allow sp-data")
    with raw_server(drip(head, b"User-agent: *\nDisallow: /api.php\n" * 10000)) as server, refused:
        greet(f"http://127.0.0.1:{server.port}")


def test_a_slow_but_steady_answer_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("sp_data.wiki.http.connections.SHORTEST_WINDOW_S", 0.1)

    def steady(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n")
        for _ in range(20):
            connection.sendall(b"x" * 1000)
            time.sleep(0.03)

    with (
        raw_server(steady) as server,
        Transport(source(f"http://127.0.0.1:{server.port}", timeout_s=0.05)) as transport,
    ):
        transport._robots.cache[f"http://127.0.0.1:{server.port}"] = (time.time(), "")
        with transport.original(f"http://127.0.0.1:{server.port}/a.png") as response:
            assert len(response.content) == 20000


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"pages": [{"pageid": 1, "title": "File:A.png"}]}, "lists (nothing new|the same pages)"),
        ({}, "lists nothing new any more"),
    ],
)
def test_a_listing_that_brings_nothing_new_ends(server, monkeypatch, query, sentence):
    monkeypatch.setattr("sp_data.wiki.http.listing.MAX_EMPTY", 50)
    answers = 0

    def answer(request: Request) -> Response:
        nonlocal answers
        answers += 1
        body = {**SITEINFO, "continue": {"gaicontinue": str(answers)}}
        if not request.args.get("meta"):
            pages = [{**page, "counter": answers} for page in query.get("pages", ())]
            body["query"] = {"pages": pages} if pages else {}
        return answer_of(json.dumps(body))

    server.expect_request("/api.php").respond_with_handler(answer)
    with WikiClient(source(server.url_for(""))) as client, pytest.raises(WikiApiError, match=sentence):
        list(client.pages({"generator": "allimages"}))
    assert answers < 60


# Private addresses


@pytest.fixture
def names(monkeypatch) -> dict[str, list[str]]:
    """Name -> the addresses that it has, one look-up after the other; the last one stays."""
    known: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def look_up(host, *args, **kwargs):
        if host in known:
            addresses = known[host]
            host = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.fixture
def connected(monkeypatch) -> list[str]:
    """Each address that a connection is opened to; public ones refuse."""
    import urllib3.util.connection as connection

    real, asked = connection.create_connection, []

    def create_connection(address, *args, **kwargs):
        asked.append(address[0])
        if ipaddress.ip_address(address[0]).is_global:
            raise ConnectionRefusedError(111, "Connection refused")
        return real(address, *args, **kwargs)

    monkeypatch.setattr(connection, "create_connection", create_connection)
    return asked


def test_a_name_that_changes_is_never_followed_into_this_network(server, names, connected, naps):
    names["cdn.example"] = ["8.8.8.8", "127.0.0.1"]
    with Transport(source("http://wiki.example", **ELSEWHERE)) as transport, pytest.raises(AddressRefused):
        original(transport, f"http://cdn.example:{server.port}/a.png")
    assert connected == ["8.8.8.8"]
    assert server.log == []


@pytest.mark.parametrize("ip", ["127.0.0.1", "10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "169.254.169.254"])
def test_names_of_private_addresses_are_refused_before_anything_is_asked(names, connected, ip):
    names["cdn.example"] = names["wiki.example"] = [ip]
    with Transport(source("http://elsewhere.example", **ELSEWHERE)) as transport, pytest.raises(AddressRefused):
        original(transport, "http://cdn.example/a.png")
    with pytest.raises(WikiUnreachable, match=r"private address; .*source\.allow_private_addresses=true"):
        greet("http://wiki.example", **ELSEWHERE)
    assert connected == []


def test_of_two_addresses_the_public_one_is_taken(names, connected, naps):
    names["wiki.example"] = ["8.8.8.8"]
    with pytest.raises(WikiUnreachable, match="nothing listens"):
        greet("http://wiki.example", **ELSEWHERE)
    assert set(connected) == {"8.8.8.8"}


def test_a_recipe_may_say_that_its_wiki_is_on_a_private_network(server, names, connected):
    server.expect_request("/api.php").respond_with_json(SITEINFO)
    names["wiki.example"] = ["127.0.0.1"]
    client = greet(f"http://wiki.example:{server.port}", **ELSEWHERE, allow_private_addresses=True)
    assert client.site.api == f"http://wiki.example:{server.port}/api.php"
    # The name stays in the request, for servers with many wikis.
    assert {request.host for request, _ in server.log} == {f"wiki.example:{server.port}"}


def test_a_wiki_on_this_machine_does_not_lead_to_a_clouds_credentials(server, connected):
    with Transport(source(server.url_for(""))) as transport, pytest.raises(AddressRefused, match="private"):
        original(transport, "http://169.254.169.254/latest/meta-data")
    assert connected == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:{port}\\@8.8.8.8/../secret", "private address"),
        ("http://2130706433:{port}/secret", "private address"),
        ("http://0x7f000001:{port}/secret", "private address"),
        ("http://0177.0.0.1:{port}/secret", "private address"),
        ("http://127.0.0.1.:{port}/secret", "private address"),
        ("http://[::ffff:127.0.0.1]:{port}/secret", "private address"),
        ("http://localhost:{port}/secret", "private address"),
        ("http://8.8.8.8\\@127.0.0.1:{port}/secret", "not a web address"),
        ("http://8.8.8.8@127.0.0.1:{port}/secret", "a login in the address"),
        ("http://127.0.0.1:{port} @8.8.8.8/secret", "a login in the address"),
        ("http://1２7.0.0.1:{port}/secret", "not a web address"),
    ],
)
@pytest.mark.parametrize("by_redirect", [False, True], ids=["direct", "redirect"])
def test_no_spelling_of_an_address_leads_into_this_network(server, lake, url, reason, by_redirect):
    """The wiki is reached through a proxy, which would also forward what leads elsewhere."""
    url = url.format(port=server.port)
    HostileWiki(server, {"Bad.png": {"url": "http://cdn.example/a.png" if by_redirect else url}})
    server.expect_request("/a.png").respond_with_data("", status=302, headers={"Location": url})
    fields = {"wiki": "http://wiki.example", **ELSEWHERE}
    result = scrape(Source.model_validate(fields), lake, proxy=server.url_for("/"))
    status = rows_of(lake, result)["Bad.png"].status
    assert status.startswith("address-refused") if by_redirect else status == f"address-refused ({reason})"
    assert not [request for request, _ in server.log if "secret" in request.path]


# Politeness and secrets


@pytest.mark.parametrize(
    ("text", "gap_s"),
    [
        ("Crawl-delay: 2", 2),
        ("crawl-delay: 1.5 # slowly", 2),
        ("Request-rate: 1/2", 2),
        ("Crawl-delay: 86400", 60),
        (f"Crawl-delay: {'9' * 5000}", 0),
        ("Crawl-delay: soon", 0),
        ("Request-rate: 1/0", 0),
    ],
)
def test_a_crawl_delay_is_obeyed_up_to_a_minute_and_said(server, caplog, text, gap_s):
    server.clear()
    server.expect_request("/robots.txt").respond_with_data(f"\ufeffUser-agent: *\n{text}\n")
    server.expect_request("/api.php").respond_with_json(SITEINFO)
    slept: list[float] = []
    with caplog.at_level(logging.INFO), WikiClient(source(server.url_for(""))) as client:
        client.transport._pace.sleep = slept.append
        for _ in range(3):
            client.greet()
    # Nothing slept, so each request is due after all those before it.
    assert [round(seconds) for seconds in slept] == ([gap_s, 2 * gap_s, 3 * gap_s] if gap_s else [])
    said = f"robots.txt of {server.host}:{server.port} asks for {gap_s} s between two requests"
    assert (said in caplog.text) is bool(gap_s)


def test_a_login_in_the_wikis_address_is_refused_and_not_shown():
    with pytest.raises(SpDataError, match=r"source\.wiki: expected an address without a login") as refusal:
        build({"name": "kids", "source": {"wiki": "http://bot:hunter2@wiki.example"}}, "kids")
    assert "hunter2" not in str(refusal.value)
    with pytest.raises(ValueError, match="without a login") as error:
        source("http://bot:hunter2@wiki.example")
    assert "hunter2" not in str(error.value)


def test_no_login_of_netrc_is_sent(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine wiki.example login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.expect_request("/api.php").respond_with_json(SITEINFO)
    monkeypatch.setenv("http_proxy", server.url_for("/"))
    greet("http://wiki.example", **ELSEWHERE)
    assert [request for request, _ in server.log if request.path == "/api.php"]
    assert not [request for request, _ in server.log if "Authorization" in request.headers]


# Odd answers


@pytest.mark.parametrize(
    ("info", "status"),
    [
        ({"user": {"a": 1}}, "ok"),
        ({"timestamp": 5}, "ok"),
        ({"width": 2**70}, "ok"),
        ({"url": 5}, "hidden"),
        ({"mime": ["image/png"]}, "mime-not-wanted ()"),
        ({"url": "http://me:hunter2@127.0.0.1/a.png"}, "address-refused (a login in the address)"),
    ],
)
def test_an_odd_answer_about_one_file_is_a_row(httpserver, lake, info, status):
    HostileWiki(httpserver, {"Bad.png": info, "Good.png": {}})
    rows = rows_of(lake, scrape(source(httpserver.url_for("")), lake))
    assert (rows["Bad.png"].status, rows["Good.png"].status) == (status, "ok")
    assert "hunter2" not in rows["Bad.png"].url


def test_a_content_length_of_thousands_of_digits_is_too_large(lake, naps):
    def answer(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")

    with (
        raw_server(answer) as server,
        transport_of(server) as transport,
        transport.original(f"http://127.0.0.1:{server.port}/a.png") as response,
        lake.scratch("body") as folder,
    ):
        assert receive(response, folder / "body", 10**7).status == TOO_LARGE


@pytest.mark.parametrize(
    "body",
    [
        b'{"query":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"query": {"pages": [{"pageid": 1e999, "title": "A"}]}}',
        b'{"query": {"pages": [{"pageid": 1180591620717411303424, "title": "A"}]}}',
        b'{"query": {"pages": {"1": {"title": "A"}}}}',
        b'{"query": {"pages": ["A"]}}',
        b'{"query": {"pages": [{"pageid": 1, "title": {}}]}}',
        b'{"query": "no"}',
        b'{"error": "\\u001b[2J"}',
        b'{"continue": ["x"]}',
        b'{"continue": {"x": {}}}',
    ],
)
def test_an_answer_of_wrong_types_is_one_sentence(server, body):
    def answer(request: Request) -> Response:
        return answer_of(json.dumps(SITEINFO) if request.args.get("meta") else body.decode())

    server.expect_request("/api.php").respond_with_handler(answer)
    odd = pytest.raises(WikiApiError, match="gave an answer that is not MediaWiki's")
    with WikiClient(source(server.url_for(""))) as client, odd as error:
        list(client.pages({"generator": "allimages"}))
    assert str(error.value).isprintable()


def test_ctrl_c_ends_a_request_that_hangs():
    """The wait for an answer can be interrupted at any time."""
    here = threading.get_ident()
    with raw_server(lambda connection, _: time.sleep(20)) as server:
        threading.Timer(0.5, lambda: signal.pthread_kill(here, signal.SIGINT)).start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            greet(f"http://127.0.0.1:{server.port}")
        assert time.monotonic() - started < 5
    assert path_of(server.heads[0]) == "/robots.txt"


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch) -> Iterator[None]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    yield


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "kids")


@pytest.fixture
def naps(monkeypatch) -> list[float]:
    """The seconds of each sleep in this thread; nothing sleeps there."""
    slept: list[float] = []
    here, real = threading.get_ident(), time.sleep
    monkeypatch.setattr(
        time, "sleep", lambda seconds: slept.append(seconds) if threading.get_ident() == here else real(seconds)
    )
    return slept
