"""Who may ask for the page, how much may be sent to it, and what it tells the browser."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from sp_data.ui import guard
from sp_data.ui.guard import Access, Guard

LOCAL = Access(frozenset({"localhost", "127.0.0.1", "::1"}))
SHARED = Access(None, "kid", "paper:cut")


def _page(access: Access = LOCAL, **limits: Any) -> TestClient:
    async def index(_: Request) -> Response:
        return HTMLResponse("<script>one</script><script src='two.js'></script>")

    async def upload(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    async def report(_: Request) -> Response:
        return HTMLResponse("<script>x</script>", headers={"content-security-policy": "sandbox"})

    routes = [
        Route("/", index),
        Route("/gradio_api/upload", upload, methods=["POST"]),
        Route("/lake/reports/a.html", report),
        Route("/gradio_api/info", index),
    ]
    return TestClient(Guard(Starlette(routes=routes), access, **limits), base_url="http://127.0.0.1:7860")


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1", "[::1]:7860"])
def test_this_machine_is_known_by_its_own_names(host: str) -> None:
    assert _page().get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:7860", "[", ""])
def test_another_name_for_this_machine_is_refused(host: str) -> None:
    assert _page().get("/", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:9999", "null"])
def test_a_page_of_another_site_may_not_ask(origin: str) -> None:
    for access in (LOCAL, Access(None)):
        assert _page(access).post("/gradio_api/upload", headers={"origin": origin}).status_code == 403
    own = {"origin": "http://127.0.0.1:7860"}
    assert _page().post("/gradio_api/upload", headers=own).status_code == 200


def test_name_and_password_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "WRONG_PASSWORD_S", 0)
    page = _page(SHARED)
    answer = page.get("/")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic")
    assert page.get("/", auth=("kid", "paper:cut")).status_code == 200
    for wrong in (("kid", "paper"), ("", "paper:cut"), ("kid", "")):
        assert page.get("/", auth=wrong).status_code == 401
    token = base64.b64encode(b"kid:paper:cut").decode()
    for header in (f"Bearer {token}", "Basic", "Basic \xff", "Basic !!"):
        assert page.get("/", headers={"authorization": header.encode("latin-1")}).status_code == 401


def test_what_the_page_does_not_use_is_not_there() -> None:
    paths = (
        "/gradio_api/info",
        "/gradio_api/proxy=http://evil.example/",
        "/gradio_api/call/x",
        "/gradio_api/file=http://evil.example/",
        "/gradio_api/file=https://evil.example/a.png",
        "/gradio_api/file=//evil.example/a.png",
        "/gradio_api/file=/%5Cevil.example/a.png",
        "/gradio_api/file=%68ttp://evil.example/",
        "/gradio_api/file=ftp://evil.example/",
        "/gradio_api/file=",
        "/docs",
        "/login",
        "/x",
    )
    for path in paths:
        assert _page().get(path).status_code == 404


def test_a_body_that_says_it_is_too_long_is_refused_unread() -> None:
    page = _page(max_body_bytes=2_000_000)
    answer = page.post("/gradio_api/upload", content=b"x" * 2_000_001)
    assert (answer.status_code, answer.text) == (413, "More than 1 MB: make the picture smaller first.")
    assert page.post("/gradio_api/upload", content=b"x" * 1_000_000).text == "1000000"


Send = Callable[[dict[str, Any]], Any]


def _raw(app: Guard, receive: Callable[[], Any]) -> list[dict[str, Any]]:
    """What the guard answers to a body that comes in parts."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/gradio_api/upload",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return sent


async def _reader(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse(str(len(await Request(scope, receive).body())))(scope, receive, send)


def test_a_body_without_a_length_is_counted() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * 600_000, "more_body": True}

    sent = _raw(Guard(_reader, LOCAL, max_body_bytes=2_000_000), receive)
    assert sent[0]["status"] == 413
    assert len(sent) == 2


def test_a_body_that_comes_too_slowly_is_refused() -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.04)
        return {"type": "http.request", "body": b"x", "more_body": True}

    sent = _raw(Guard(_reader, LOCAL, max_body_s=0.1), receive)
    assert sent[0]["status"] == 408


def test_waiting_for_the_browser_to_go_takes_as_long_as_it_takes() -> None:
    messages = [{"type": "http.request", "body": b"x", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.sleep(0.2)
        return {"type": "http.disconnect"}

    async def streams(_: Any, receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    assert _raw(Guard(streams, LOCAL, max_body_s=0.1), receive)[0]["status"] == 200


def test_only_the_page_s_own_scripts_run_and_nothing_comes_from_elsewhere() -> None:
    first, second = _page().get("/"), _page().get("/")
    policy = dict(part.split(" ", 1) for part in first.headers["content-security-policy"].split("; "))
    nonces = re.findall(r'<script nonce="([^"]+)"', first.text)
    assert len(nonces) == 2 and len(set(nonces)) == 1
    assert policy["script-src"] == f"'self' 'nonce-{nonces[0]}' 'unsafe-eval'"
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self' data: blob:"
    assert policy["frame-ancestors"] == "'none'"
    assert nonces[0] not in second.text
    assert first.headers["x-content-type-options"] == "nosniff"


def test_a_file_s_own_policy_stays() -> None:
    answer = _page().get("/lake/reports/a.html")
    assert answer.headers["content-security-policy"] == "sandbox"
    assert "nonce" not in answer.text
