"""What a run says of a PREFECT_API_URL that is not the API of a Prefect server."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator

import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_CLOUD_API_URL, temporary_settings
from raw_server import RawServer, path_of, raw_server

from flows.local_server import check_server
from sp_data.errors import StageError

PASSWORD = "me:secret"
PAGE = "<!doctype html>\n<title>Prefect</title>"


@pytest.fixture
def server() -> Iterator[RawServer]:
    """Answers as Prefect does: the API below /api, and a page at every other address."""

    def answer(connection: socket.socket, head: bytes) -> None:
        is_let_in = b"authorization: basic " + base64.b64encode(PASSWORD.encode()).lower() in head.lower()
        status, body = {
            "/api/health": ("200 OK", "true"),
            "/busy/health": ("503 Service Unavailable", ""),
            "/locked/health": ("200 OK", "true"),
            "/locked/admin/version": ("200 OK" if is_let_in else "401 Unauthorized", '"3.8.8"'),
        }.get(path_of(head), ("200 OK", PAGE))
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    with raw_server(answer) as server:
        yield server


def refusal(address: str) -> str:
    with temporary_settings({PREFECT_API_URL: address}), pytest.raises(StageError) as refused:
        check_server()
    return str(refused.value)


@pytest.mark.parametrize("path", ["/api", "/api/"])
def test_an_api_that_is_well_is_taken(server: RawServer, path: str) -> None:
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{server.port}{path}"}):
        assert check_server() == f"http://127.0.0.1:{server.port}{path}"


def test_the_address_of_the_pages_is_told_from_that_of_the_api(server: RawServer) -> None:
    address = f"http://127.0.0.1:{server.port}"
    said = refusal(address)
    assert f"{address}/health answers HTTP 200, '<!doctype html> <title>Prefect</title>'" in said
    assert f"did you mean {address}/api?" in said


def test_what_is_no_server_of_prefects_or_not_well_is_refused(server: RawServer) -> None:
    said = refusal(f"http://127.0.0.1:{server.port}/busy")
    assert "/busy/health answers HTTP 503, and nothing else; is another program there?" in said
    assert "did you mean" not in said


def test_a_server_that_asks_for_a_password_is_told_from_one_that_is_away(server: RawServer) -> None:
    address = f"http://127.0.0.1:{server.port}/locked"
    with temporary_settings({PREFECT_API_AUTH_STRING: PASSWORD, PREFECT_API_URL: address}):
        assert check_server() == address
    assert "asks for a password: set PREFECT_API_AUTH_STRING=user:password" in refusal(address)


def test_prefect_cloud_answers_those_alone_who_log_in(server: RawServer) -> None:
    address = f"http://127.0.0.1:{server.port}"
    with temporary_settings({PREFECT_API_URL: f"{address}/accounts/me", PREFECT_CLOUD_API_URL: address}):
        assert check_server() == f"{address}/accounts/me"


def test_advice_goes_by_where_the_address_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    nobody = "http://127.0.0.1:9/api"
    assert "or `prefect config unset PREFECT_API_URL` to run without one" in refusal(nobody)
    monkeypatch.setenv("PREFECT_API_URL", nobody)
    assert "or `unset PREFECT_API_URL` to run without one" in refusal(nobody)
