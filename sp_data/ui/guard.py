"""What stands between the network and the page: who may ask, how much may be sent, and what the browser may do.

    request -> host known? -> same origin? -> name and password? -> a path of the page? -> body within limits?
    answer  <- Content-Security-Policy: nothing is fetched from anywhere else, no other site shows the page in a frame

Gradio answers requests of any origin once it does not listen on localhost, reads a body for as long as it comes, and
has routes that this page has no use for: a proxy, an editor of its own code, an API for programs.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import secrets
import time
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sp_data.runtime.web_access import hostname, is_asked_from_itself
from sp_data.ui.uploads import make_room

MAX_BODY_BYTES = 51_000_000
"""A picture (inputs.MAX_BYTES) and the rest of its form."""
MAX_BODY_S = 120
WRONG_PASSWORD_S = 1.0
"""A guess costs as long."""
USED = re.compile(
    r"/(page\.css|page\.js|config|theme\.css|manifest\.json|favicon\.ico)?|/(assets|static|lake)/.+"
    r"|/gradio_api/(queue/join|queue/data|upload|upload_progress|run/predict|reset|cancel|heartbeat/\w+|file=/[^/\\].*)",
    re.DOTALL,
)
"""The paths of this page, its files and its events. A file is one of this machine, by its whole path: Gradio leads on
to any address that is given instead."""
UPLOAD = "/gradio_api/upload"
FULL = "Too many pictures lie here already: try again in ten minutes."
SCRIPT = re.compile(rb"<script(?=[\s>])")
POLICY = (
    "default-src 'none'",
    # Gradio makes functions of strings, the templates of its HTML.
    "script-src 'self' 'nonce-{nonce}' 'unsafe-eval'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "font-src 'self' data:",
    "connect-src 'self' data: blob:",
    "worker-src 'self' blob:",
    "manifest-src 'self'",
    "form-action 'self'",
    "base-uri 'self'",
    "frame-ancestors 'none'",
)
ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use the page."""

    hosts: frozenset[str] | None
    """Names under which a browser may ask for it; None: any. A page of another site whose name leads to this machine
    (DNS rebinding) asks under its own name."""
    user: str = ""
    password: str = field(default="", repr=False)
    """Without a password everyone may."""

    def knows(self, host: str) -> bool:
        return self.hosts is None or hostname(host) in self.hosts

    def admits(self, authorization: str) -> bool:
        if not self.password:
            return True
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return False
        return scheme.lower() == "basic" and secrets.compare_digest(given, f"{self.user}:{self.password}".encode())


class Guard:
    """ASGI middleware."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_body_s: float = MAX_BODY_S,
        uploads: Path | None = None,
    ) -> None:
        """`uploads`: the folder of the pictures that visitors give, which is not filled without end."""
        self._app, self._access, self._uploads = app, access, uploads
        self._num_arriving = 0
        """Uploads that are not all in the folder yet."""
        self._max_body_bytes, self._max_body_s = max_body_bytes, max_body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)
        send = _with_headers(send, nonce)
        headers = Headers(scope=scope)
        if refusal := await self._refusal(scope, headers):
            await refusal(scope, receive, send)
            return
        if scope["path"] == "/":
            # The nonce is written into it, so it must not come compressed.
            scope = {**scope, "headers": _without(scope["headers"], b"accept-encoding")}
            send = _with_nonce(send, nonce)
        if self._uploads is not None and scope["path"] == UPLOAD:
            # They may all be as long as one may be.
            more = (self._num_arriving + 1) * self._max_body_bytes
            if not await asyncio.to_thread(make_room, self._uploads, more):
                await PlainTextResponse(FULL, 507)(scope, receive, send)
                return
            self._num_arriving += 1
            try:
                await self._answer(scope, receive, send)
            finally:
                self._num_arriving -= 1
            return
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(receive, send, self._max_body_bytes, self._max_body_s)
        try:
            await self._app(scope, body.receive, body.send)
        except ClientDisconnect:
            if not body.refused:
                raise

    async def _refusal(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        host = headers.get("host", "")
        if not self._access.knows(host):
            return PlainTextResponse("This page is not known by that name: open the address that sp-data ui says.", 403)
        if not is_asked_from_itself(headers.get("origin"), host):
            return PlainTextResponse("Pages of other sites may not use this one.", 403)
        if not self._access.admits(headers.get("authorization", "")):
            if "authorization" in headers:
                await asyncio.sleep(WRONG_PASSWORD_S)
            challenge = {"www-authenticate": 'Basic realm="sp-data", charset="UTF-8"'}
            return PlainTextResponse("Name and password, please.", 401, challenge)
        if not USED.fullmatch(scope["path"]):
            return PlainTextResponse("There is no such page.", 404)
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._max_body_bytes:
            return PlainTextResponse(_too_large(self._max_body_bytes), 413)
        return None


class _Body:
    """A request's body, which ends with a refusal where it is too long or takes too long."""

    def __init__(self, receive: Receive, send: Send, max_bytes: int, max_s: float) -> None:
        self._receive, self._send = receive, send
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._deadline = time.monotonic() + max_s
        self._is_read = False
        self._is_answered = False
        self.refused = False

    async def receive(self) -> Message:
        if self.refused:
            return {"type": "http.disconnect"}
        if self._is_read:
            # Now it waits for the browser to go.
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._deadline - time.monotonic()))
        except TimeoutError:
            return await self._refuse("It took too long to arrive: try again over a faster line.", 408)
        self._num_bytes += len(message.get("body", b""))
        if self._num_bytes > self._max_bytes:
            return await self._refuse(_too_large(self._max_bytes), 413)
        self._is_read = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        self._is_answered = True
        if not self.refused:
            await self._send(message)

    async def _refuse(self, sentence: str, status: int) -> Message:
        self.refused = True
        if not self._is_answered:
            answer = PlainTextResponse(sentence, status, {"connection": "close"})
            await answer({"type": "http", "method": "POST", "headers": []}, self._receive, self._send)
        return {"type": "http.disconnect"}


def _too_large(max_bytes: int) -> str:
    return f"More than {max_bytes // 1_000_000 - 1} MB: make the picture smaller first."


def _with_headers(send: Send, nonce: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in ALWAYS.items():
                headers.setdefault(name, value)
            headers.setdefault("content-security-policy", "; ".join(POLICY).format(nonce=nonce))
            for name in [name for name in headers if name.startswith("access-control-")]:
                del headers[name]
        await send(message)

    return sending


def _with_nonce(send: Send, nonce: str) -> Send:
    """Writes the nonce into each script of the answer, if it is a page."""
    start: MutableMapping[str, Any] = {}
    parts: list[bytes] = []

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        parts.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        headers = MutableHeaders(scope=start)
        body = b"".join(parts)
        if headers.get("content-type", "").startswith("text/html"):
            body = SCRIPT.sub(b'<script nonce="' + nonce.encode() + b'"', body)
            # Another nonce each time.
            headers["cache-control"] = "no-store"
            headers["content-length"] = str(len(body))
        await send(start)
        await send({"type": "http.response.body", "body": body})

    return sending


def _without(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[tuple[bytes, bytes]]:
    return [(key, value) for key, value in headers if key.lower() != name]
