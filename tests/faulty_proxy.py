"""A proxy that breaks one in so many answers, in every way in turn; the others are the host's own.

    with FaultyProxy(every=10) as proxy:
        scrape(source, lake, proxy=proxy.url)

A real host gives such answers for seconds or days, but not when a test needs them.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

from PIL import Image

PAGE = b"<!doctype html><title>Just a moment...</title><p>Please try again in a minute."
WAYS = (
    "reset",
    "page",
    "cut",
    "500",
    "empty",
    "no HTTP",
    "redirect in a circle",
    "503",
    "cut without a length",
    "another type",
    "redirect to a dead host",
    "429",
)
DRIP = "drip"
"""One byte a second for ever: only for a client that has a deadline."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A connection that was reset on purpose is no error."""


class FaultyProxy:
    """`every`: which answers are broken; 0: none. `upstream`: who answers for every host; None: the host itself.

    `asked` counts the requests by their path, `broken` the faults by their way, `whole` the pictures that were sent
    whole by their path.
    """

    def __init__(self, every: int, ways: tuple[str, ...] = WAYS, upstream: str | None = None) -> None:
        self.every, self.ways, self.upstream = every, ways, upstream
        self.asked: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self.whole: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    proxy.answer(self)

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def num_asked(self) -> int:
        return self.asked.total()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = urlsplit(handler.path).path
        with self._lock:
            self.asked[path] += 1
            number = self.num_asked
            way = (
                self.ways[(number // self.every - 1) % len(self.ways)] if self.every and not number % self.every else ""
            )
            if way:
                self.broken[way] += 1
        if path.startswith("/circle/"):
            _send(handler, 302, b"", Location=handler.path)
        elif path == "/dead" or way == "reset":
            _reset(handler)
        elif way:
            self._break(handler, way)
        else:
            status, headers, body = self._ask(handler)
            if status == 200 and headers.get("Content-Type", "").startswith("image/"):
                with self._lock:
                    self.whole[path] += 1
            _send(handler, status, body, **headers)

    def _break(self, handler: BaseHTTPRequestHandler, way: str) -> None:
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(handler.path))
        match way:
            case "page":
                _send(handler, 200, PAGE, **{"Content-Type": "text/html"})
            case "empty":
                _send(handler, 200, b"", **{"Content-Type": "image/png"})
            case "500":
                _send(handler, 500, PAGE)
            case "503" | "429":
                _send(handler, int(way), PAGE, **{"Retry-After": "0"})
            case "no HTTP":
                handler.wfile.write(b"HTTP/1.1 abc\r\n\r\n")
                handler.close_connection = True
            case "redirect in a circle":
                _send(handler, 302, b"", Location=f"{origin}/circle/x.png")
            case "redirect to a dead host":
                _send(handler, 302, b"", Location=f"{origin}/dead")
            case "another type":
                out = io.BytesIO()
                Image.new("RGB", (4, 4)).save(out, "BMP")
                _send(handler, 200, out.getvalue(), **{"Content-Type": "image/png"})
            case "cut" | "cut without a length" | "drip":
                _, headers, body = self._ask(handler)
                if way == "cut without a length":
                    headers = {**headers, "Connection": "close"}
                else:
                    headers = {**headers, "Content-Length": str(len(body))}
                handler.send_response(200)
                for name, value in headers.items():
                    handler.send_header(name, value)
                handler.end_headers()
                handler.close_connection = True
                if way != "drip":
                    handler.wfile.write(body[: len(body) // 2])
                    return
                for number in range(len(body)):
                    handler.wfile.write(body[number : number + 1])
                    if self._closed.wait(1.0):
                        return

    def _ask(self, handler: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        """The host's own answer; its length is left to the caller."""
        parts = urlsplit(handler.path)
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc if self.upstream else parts.netloc)
        with contextlib.closing(connection):
            headers = {name: value for name, value in handler.headers.items() if name.lower() != "proxy-connection"}
            target = f"{parts.path}?{parts.query}" if parts.query else parts.path
            connection.request("GET", target, headers={**headers, "Connection": "close"})
            answer = connection.getresponse()
            body = answer.read()
            hop_by_hop = {"content-length", "transfer-encoding", "connection", "keep-alive", "server", "date"}
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in hop_by_hop}
            return answer.status, kept, body


def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def _reset(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    # The socket is reset when the last of the files on it is closed.
    handler.rfile.close()
    handler.wfile.close()
    handler.connection.close()


def no_naps(monkeypatch) -> None:
    """Let nothing sleep in this process: the waits between retries would be most of a test's time."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
