"""Serves the made-up wiki on loopback, as Fandom would serve it.

    with DemoWikiServer(build_world(60)) as wiki:
        requests.get("http://paper-kids.localhost/api.php", params=..., proxies={"http": wiki.url})

    python -m sp_data.demo.wiki.server --port 8042          # for a browser: http://127.0.0.1:8042/wiki/Main_Page

The addresses that it states have no port (see titles.ORIGIN), so it takes requests as an HTTP proxy for that one host,
and plain requests as well. Beside api.php it serves pictures with Fandom's quirks (scaled copies, and WebP to clients
that accept it, unless `format=original` is given), robots.txt, and pages for people.
"""

import argparse
import gzip
import io
import json
import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from PIL import Image, UnidentifiedImageError

from sp_data.demo.wiki.api import answer
from sp_data.demo.wiki.site import ROBOTS, article
from sp_data.demo.wiki.titles import ORIGIN, InvalidTitle, article_path, hash_path, normalised
from sp_data.demo.wiki.world import File, World, build_world

logger = logging.getLogger(__name__)

Fault = Callable[[str], "tuple[int, dict[str, str], bytes] | None"]
TRANSCODED = ("image/png", "image/jpeg")
ENCODER = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/gif": "GIF"}


def no_fault(path: str) -> None:
    """No fault: every request gets its real answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer; it is counted under its `kind`."""

    kind: str
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class DemoWikiServer:
    """The wiki on 127.0.0.1 while the `with` block runs. `port` 0 takes a free one.

    `requests` counts the answers by kind: api, image, robots, page, fault, refused. `fault`, if set, gets each path
    (with its query) first; if it returns (status, headers, body), that is sent in place of the real answer.
    """

    def __init__(self, world: World, port: int = 0, origin: str = ORIGIN) -> None:
        self.world = world
        self.origin = origin
        self.requests: Counter[str] = Counter()
        self.fault: Fault = no_fault
        self._counting = threading.Lock()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.wiki = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="demo-wiki", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The server's own address: what a client gives as its proxy for `http`."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reply(self, target: str, form: str, headers: dict[str, str]) -> Reply:
        """Answers a request for `target` (a path or a whole address); `form` is the body of a POST."""
        parts = urlsplit(target)
        if parts.netloc and f"http://{parts.netloc}" not in (self.origin, self.url):
            reply = Reply("refused", 403, b"This proxy leads to one made-up wiki only.\n")
        elif (fault := self.fault(parts.path + (f"?{parts.query}" if parts.query else ""))) is not None:
            reply = Reply("fault", fault[0], fault[2], fault[1])
        else:
            parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
            if parts.path == "/api.php":
                reply = self._api(parameters | dict(parse_qsl(form, keep_blank_values=True)))
            elif parts.path.startswith("/images/"):
                wants_webp = "image/webp" in headers.get("accept", "") and parameters.get("format") != "original"
                reply = self._image(unquote(parts.path.removeprefix("/images/")), wants_webp)
            else:
                reply = self._page(parts.path, parameters)
        with self._counting:
            self.requests[reply.kind] += 1
        return reply

    def _api(self, parameters: dict[str, str]) -> Reply:
        body = answer(self.world, self.origin, parameters)
        headers = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "private, max-age=0"}
        if isinstance(error := body.get("error"), dict):
            headers["MediaWiki-API-Error"] = str(error["code"])
        return Reply("api", 200, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(), headers)

    def _image(self, path: str, wants_webp: bool) -> Reply:
        """`a/ab/Ada_Birch.png/revision/latest[/scale-to-width-down/185]`"""
        path, _, width = path.partition("/scale-to-width-down/")
        path = path.removesuffix("/revision/latest")
        file = self.world.files.get(path.rpartition("/")[2].replace("_", " "))
        file = file if file is not None and hash_path(file.name) == path else None
        if file is None or (width and not width.isdigit()):
            return Reply("image", 404, b"File not found\n", {"Content-Type": "text/plain"})
        mime = "image/webp" if wants_webp and file.mime in TRANSCODED else file.mime
        data, mime = _copy(file, mime, int(width or file.width))
        headers = {"Content-Type": mime, "ETag": f'"{file.sha1}-{mime.rpartition("/")[2]}-{width}"', "Vary": "Accept"}
        return Reply("image", 200, data, headers | {"Cache-Control": "public, max-age=31536000"})

    def _page(self, path: str, parameters: dict[str, str]) -> Reply:
        if path == "/robots.txt":
            return Reply("robots", 200, ROBOTS.encode(), {"Content-Type": "text/plain; charset=utf-8"})
        if path == "/":
            return Reply("page", 301, headers={"Location": article_path("Main Page")})
        if path == "/index.php" and "curid" in parameters:
            page = next((page for page in self.world.pages.values() if str(page.page_id) == parameters["curid"]), None)
        else:
            page = self.world.pages.get(_title(path))
        headers = {"Content-Type": "text/html; charset=utf-8"}
        if page is None:
            return Reply("page", 404, b"<!DOCTYPE html><title>404</title><p>There is no such page.", headers)
        return Reply("page", 200, article(self.world, page, self.origin).encode(), headers)


def _title(path: str) -> str:
    try:
        return normalised(unquote(path.removeprefix("/wiki/"))) if path.startswith("/wiki/") else ""
    except InvalidTitle:
        return ""


@lru_cache(maxsize=512)
def _copy(file: File, mime: str, width_px: int) -> tuple[bytes, str]:
    """The file's bytes as `mime`, at most `width_px` wide, and their type; the original if no copy can be made."""
    if (mime == file.mime and width_px >= file.width) or mime not in ENCODER:
        return file.data, file.mime
    try:
        opened = Image.open(io.BytesIO(file.data))
        opened.load()
    except (OSError, UnidentifiedImageError):
        return file.data, file.mime
    picture: Image.Image = opened
    if width_px < file.width:
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
        picture = picture.resize((width_px, max(1, round(picture.height * width_px / picture.width))))
    copy = io.BytesIO()
    picture.save(copy, ENCODER[mime], quality=85)
    return copy.getvalue(), mime


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # clients keep their connections open; leaving the `with` block must not wait for them
    wiki: DemoWikiServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up, as after Ctrl-C, is nothing to print a traceback of."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "PaperKids"
    # Head and body are sent in one packet; otherwise Nagle's algorithm costs 40 ms a request.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._answer("")

    def do_HEAD(self) -> None:
        self._answer("")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "0")
        self._answer(self.rfile.read(int(length) if length.isdigit() else 0).decode("utf-8", "replace"))

    def _answer(self, form: str) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.wiki.reply(self.path, form, headers)
        status, body, reply_headers = reply.status, reply.body, dict(reply.headers)
        if "ETag" in reply_headers and headers.get("if-none-match") == reply_headers["ETag"]:
            status, body = 304, b""
        if reply.kind in ("api", "page") and "gzip" in headers.get("accept-encoding", ""):
            body = gzip.compress(body, 5, mtime=0)
            reply_headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        self.send_response(status)
        # A fault may state a wrong length on purpose, to look like a broken connection.
        for name, value in ({"Content-Length": str(len(body))} | reply_headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if int(reply_headers.get("Content-Length", len(body))) != len(body):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        logger.debug(format, *args)


def main() -> None:
    """Serves the wiki until Ctrl-C; its addresses have its own port, so that a browser finds them."""
    parser = argparse.ArgumentParser(description="Serve the made-up wiki of paper kids.")
    parser.add_argument("--port", type=int, default=8042)
    parser.add_argument("--kids", type=int, default=200)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with DemoWikiServer(
        build_world(arguments.kids), arguments.port, origin=f"http://127.0.0.1:{arguments.port}"
    ) as wiki:
        logger.info("%s%s  (Ctrl-C stops it)", wiki.url, article_path("Main Page"))
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            logger.info("stopped")


if __name__ == "__main__":
    main()
