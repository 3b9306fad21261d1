"""A server on loopback that speaks the Hugging Face hub's protocol, and can cut a download in the middle.

HEAD /<repo>/resolve/main/<path>   X-Repo-Commit, ETag; of large files X-Linked-Etag (sha256), X-Linked-Size, and a
                                   redirect to /cdn/...
GET  /cdn/...                      the bytes, or a Range of them
GET  /<anything else it was given> the bytes
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files: dict[str, bytes] = {}
        """`<repo>/<path>` -> content; large if it is a .pth."""
        self.plain: dict[str, bytes] = {}
        """Other addresses -> content."""
        self.sums: dict[str, str] = {}
        """`<repo>/<path>` -> the sha256 that is told instead of the true one."""
        self.cut_after: dict[str, int] = {}
        """`<repo>/<path>` -> bytes after which its next download ends; once."""
        self.ranges: list[tuple[str, str | None]] = []
        """`<repo>/<path>` and the Range header of each request for its bytes, in order."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        name = self._resolved()
        if name is None:
            self.send_error(404)
            return
        content = self.server.files[name]
        is_large = name.endswith(".pth")
        self.send_response(302 if is_large else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self.send_header("ETag", f'"{blob}"')
        if is_large:
            sha256 = self.server.sums.get(name) or hashlib.sha256(content).hexdigest()
            self.send_header("X-Linked-Etag", f'"{sha256}"')
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("Location", f"{self.server.url}/cdn/{name}")
        self.send_header("Content-Length", "0" if is_large else str(len(content)))
        self.end_headers()

    def do_GET(self) -> None:
        if self.path in self.server.plain:
            self._send(self.server.plain[self.path], None)
        elif self.path.startswith("/cdn/") and (name := self.path.removeprefix("/cdn/")) in self.server.files:
            self.server.ranges.append((name, self.headers.get("Range")))
            self._send(self.server.files[name], name)
        elif (name := self._resolved()) is not None:
            self._send(self.server.files[name], None)
        else:
            self.send_error(404)

    def _resolved(self) -> str | None:
        repo, _, path = self.path.lstrip("/").partition("/resolve/")
        name = f"{repo}/{path.partition('/')[2]}"
        return name if name in self.server.files else None

    def _send(self, content: bytes, name: str | None) -> None:
        first = 0
        if wanted := self.headers.get("Range"):
            first = int(wanted.removeprefix("bytes=").partition("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        cut = self.server.cut_after.pop(name, None) if name else None
        self.wfile.write(content[first:cut])
        self.close_connection = True


@contextmanager
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
