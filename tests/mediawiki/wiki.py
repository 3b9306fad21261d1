"""Runs and changes a real MediaWiki in one folder: installs it, starts and stops its server, applies operations.

with MediaWiki(folder) as wiki:                 # http://127.0.0.1:PORT
    wiki.edit("Ada Birch", "'''Ada''' is a kid.")
    wiki.upload(Path("ada.png"), "Ada Birch.png")
    wiki.faults(fail_every=10)

folder/db images cache tmp cdn-cache    MediaWiki's own
folder/faults.json access.jsonl         read and written by php/router.php at every request
folder/state.json                       port and process
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sp_data.wiki.http.greeting import LANGUAGE

INSTALLATION = Path(os.environ.get("MW_INSTALL_PATH", "/usr/share/mediawiki"))
PHP = Path(__file__).resolve().parent / "php"
PACKAGES = "mediawiki php-cli php-sqlite3 php-mbstring php-xml php-intl php-gd php-curl"
AGENT = "fixture"
"""Requests of this agent stay out of the log."""
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".pdf", ".ogg", ".ogv"})
FILE_PAGE = "== Licensing ==\n{{Fairuse}}\n[[Category:Images]]"

Op = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Access:
    """One request as the server saw it; `kind` is api, image, robots, page, limited, failed, truncated, blocked."""

    at: float
    kind: str
    method: str
    uri: str
    status: int
    bytes: int
    agent: str
    accept: str


def why_not() -> str | None:
    """The reason why no MediaWiki can run here, None if one can."""
    if (INSTALLATION / "api.php").exists() and shutil.which("php"):
        return None
    return f"needs a real MediaWiki: apt-get install {PACKAGES}"


class MediaWiki:
    """A wiki in `root`, running while the context lasts. `port` 0 takes a free one.

    `language`: MediaWiki's code of the wiki's language, e.g. 'zh-hans'. `capital_links`: whether titles start with a
    capital, whatever their link starts with.
    """

    def __init__(
        self, root: Path, port: int = 0, workers: int = 4, *, language: str = "en", capital_links: bool = True
    ) -> None:
        self.root = root.resolve()
        self.language, self.capital_links = language, capital_links
        self.workers = workers
        self.port = port or self._state().get("port") or _free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def up(self) -> None:
        """Install if need be, start if need be, and wait until the API answers."""
        if self._is_running() and self._state()["port"] != self.port:
            self.down()
        self._install()
        if not self._is_running():
            self._start()
        self._wait()

    def down(self, *, purge: bool = False) -> None:
        """Stop the server; `purge` removes the wiki too."""
        if self._is_running():
            pid = self._state()["pid"]
            os.killpg(pid, signal.SIGTERM)  # a session of its own: the workers go with it
            for _ in range(100):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                if not self._is_running():
                    break
                time.sleep(0.05)
        if purge and self.root.exists():
            shutil.rmtree(self.root)

    # Changing the wiki

    def apply(self, ops: Iterable[Op]) -> None:
        """Apply operations in their order, in one PHP process. Raises RuntimeError naming those that failed."""
        lines = "".join(json.dumps(op) + "\n" for op in ops)
        self._php(PHP / "ops.php", stdin=lines)
        self._php(INSTALLATION / "maintenance/runJobs.php", "--quiet")

    def edit(self, title: str, text: str, **more: str) -> None:
        self.apply([{"op": "edit", "title": title, "text": text, **more}])

    def upload(self, source: Path, name: str | None = None, text: str = "", **more: str) -> None:
        """Upload a new file, or a new revision of one."""
        self.apply([{"op": "upload", "name": name or source.name, "src": str(source.resolve()), "text": text, **more}])

    def delete(self, title: str) -> None:
        """Delete a page, or `File:X` with its file."""
        self.apply([{"op": "delete", "title": title}])

    def undelete(self, title: str) -> None:
        self.apply([{"op": "undelete", "title": title}])

    def move(self, old: str, new: str, *, redirect: bool = True) -> None:
        self.apply([{"op": "move", "from": old, "to": new, "redirect": redirect}])

    # Its behaviour and its log

    def faults(self, **faults: Any) -> None:
        """Misbehave from now on (README.md lists the ways); no arguments: behave."""
        (self.root / "counter").unlink(missing_ok=True)
        (self.root / "faults.json").write_text(json.dumps(faults))

    def robots(self, text: str | None) -> None:
        """Serve another robots.txt; None: the usual one."""
        path = self.root / "robots.txt"
        path.unlink(missing_ok=True) if text is None else path.write_text(text)

    def log(self, since: float = 0.0) -> list[Access]:
        """The requests so far, oldest first; `since` in seconds since 1970."""
        path = self.root / "access.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        accesses = [Access(**json.loads(line)) for line in lines]
        return [access for access in accesses if access.at >= since and access.agent != AGENT]

    def clear_log(self) -> None:
        (self.root / "access.jsonl").unlink(missing_ok=True)

    def siteinfo(self) -> dict[str, Any]:
        """What the API tells of the wiki's language, without what differs from machine to machine."""
        parameters = urllib.parse.urlencode({"action": "query", "format": "json", "formatversion": 2, **LANGUAGE})
        request = urllib.request.Request(f"{self.url}/api.php?{parameters}", headers={"User-Agent": AGENT})
        with urllib.request.urlopen(request, timeout=30) as response:
            query = dict(json.load(response)["query"])
        general = {
            name: query["general"][name]
            for name in ("generator", "lang", "case", "variants")
            if name in query["general"]
        }
        spaces = {number: query["namespaces"][str(number)] for number in (-2, 6, 10, 14)}
        words = [word for word in query["magicwords"] if word["name"].startswith("img_") or "__" in word["aliases"][0]]
        names = {"pagename", "sitename", "fullpagename"}
        words += [word for word in query["magicwords"] if word["name"] in names]
        return {
            **{part: query[part] for part in ("namespacealiases", "extensiontags", "allmessages")},
            "general": general,
            "namespaces": spaces,
            "magicwords": words,
            "variables": sorted(names & set(query["variables"])),
        }

    # Installing and running

    def _state(self) -> dict[str, Any]:
        path = self.root / "state.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def _is_running(self) -> bool:
        """Whether the recorded process is this wiki's server: its id may belong to another process by now."""
        try:
            environment = Path(f"/proc/{self._state()['pid']}/environ").read_bytes()
        except (OSError, KeyError):
            return False
        return f"FX_ROOT={self.root}".encode() in environment.split(b"\0")

    def _environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "MW_CONFIG_FILE": str(PHP / "LocalSettings.php"),
            "MW_INSTALL_PATH": str(INSTALLATION),
            "FX_ROOT": str(self.root),
            "FX_PORT": str(self.port),
            "FX_LANGUAGE": self.language,
            "FX_CAPITAL_LINKS": str(int(self.capital_links)),
            "FX_SECRET": hashlib.sha256(str(self.root).encode()).hexdigest(),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            **more,
        }

    def _php(self, script: Path, *args: str, stdin: str = "", **environment: str) -> None:
        command = ["php", "-d", "error_reporting=8191", "-d", "memory_limit=1G", str(script), *args]
        process = subprocess.run(
            command, env=self._environment(**environment), cwd=self.root, input=stdin, capture_output=True, text=True
        )
        if process.returncode:
            raise RuntimeError(f"{script.name} failed:\n{process.stdout[-3000:]}{process.stderr[-3000:]}")

    def _install(self) -> None:
        if (self.root / "installed").exists():
            return
        for name in ("db", "images", "cache", "tmp", "cdn-cache", "generated"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        options = {
            "confpath": str(self.root / "generated"),
            "dbtype": "sqlite",
            "dbpath": str(self.root / "db"),
            "dbname": "wiki",
            "server": self.url,
            "scriptpath": "",
            "lang": "en",
            "pass": "fixture-password-1",
        }
        args = [item for name, value in options.items() for item in (f"--{name}", value)]
        generated = str(self.root / "generated/LocalSettings.php")
        self._php(INSTALLATION / "maintenance/install.php", *args, "Fixture wiki", "Admin", MW_CONFIG_FILE=generated)
        self.faults()
        (self.root / "installed").touch()

    def _start(self) -> None:
        options = {
            "error_reporting": "8191",
            "display_errors": "0",
            "memory_limit": "1G",
            "opcache.enable": "1",
            "opcache.memory_consumption": "192",
            "opcache.revalidate_freq": "60",
            "output_buffering": "0",
            "zend.assertions": "-1",
        }
        settings = [item for name, value in options.items() for item in ("-d", f"{name}={value}")]
        with (self.root / "php.log").open("ab") as log:
            server = subprocess.Popen(
                ["php", *settings, "-S", f"127.0.0.1:{self.port}", str(PHP / "router.php")],
                env=self._environment(PHP_CLI_SERVER_WORKERS=str(self.workers)),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self.root / "state.json").write_text(json.dumps({"port": self.port, "pid": server.pid}))

    def _wait(self) -> None:
        address = f"{self.url}/api.php?action=query&meta=siteinfo&format=json"
        request = urllib.request.Request(address, headers={"User-Agent": AGENT})
        for _ in range(200):
            with contextlib.suppress(OSError, ValueError):
                with urllib.request.urlopen(request, timeout=10) as response:
                    json.load(response)
                return
            time.sleep(0.1)
        raise RuntimeError(f"api.php did not answer within 20 s; see {self.root}/php.log")


def folder_ops(folder: Path) -> Iterator[Op]:
    """Uploads of every picture in a folder; `NAME.txt` beside a picture is its description page."""
    for path in sorted(folder.resolve().iterdir()):
        if path.suffix.lower() in PICTURES:
            page = path.with_name(path.name + ".txt")
            text = page.read_text("utf-8") if page.exists() else FILE_PAGE
            yield {"op": "upload", "name": path.name, "src": str(path), "text": text}


def file_ops(path: Path) -> Iterator[Op]:
    """Operations from JSON lines; a line without `op` is an edit."""
    for line in path.read_text("utf-8").splitlines():
        if line.strip():
            yield {"op": "edit", **json.loads(line)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
