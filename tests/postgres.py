"""A real PostgreSQL (Debian's) on loopback, with data of its own, as a user who is not root.

With a password as in production: `dump()` is all that the database holds, as text.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType

USER = "postgres"


def programs() -> Path | None:
    """The folder of an installed server's programs."""
    return next((path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)


def why_not() -> str:
    """Why it cannot run here; empty if it can."""
    if programs() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    return "" if os.geteuid() == 0 else "PostgreSQL is started as another user, which takes root"


class Postgres:
    """Running within the context. `settings`: what a Prefect server needs to use it."""

    def __init__(self) -> None:
        self.password = secrets.token_hex(16)
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    def __enter__(self) -> Postgres:
        owner = pwd.getpwnam(USER)
        os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        password_file = self.folder / "password"
        password_file.touch(0o600)
        password_file.write_text(self.password)
        os.chown(password_file, owner.pw_uid, owner.pw_gid)
        data = self.folder / "data"
        self._call("initdb", "--pgdata", str(data), "--auth", "scram-sha-256", "--pwfile", str(password_file))
        password_file.unlink()
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder}"
        self._call("pg_ctl", "start", "--wait", "--pgdata", str(data), "--log", str(self.folder / "log"), "-o", options)
        self._call("createdb", *self._where(), "prefect")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call("pg_ctl", "stop", "--mode", "immediate", "--pgdata", str(self.folder / "data"))
        shutil.rmtree(self.folder)

    @property
    def settings(self) -> dict[str, str]:
        return {
            "PREFECT_SERVER_DATABASE_DRIVER": "postgresql+asyncpg",
            "PREFECT_SERVER_DATABASE_HOST": "127.0.0.1",
            "PREFECT_SERVER_DATABASE_PORT": str(self.port),
            "PREFECT_SERVER_DATABASE_NAME": "prefect",
            "PREFECT_SERVER_DATABASE_USER": USER,
            "PREFECT_SERVER_DATABASE_PASSWORD": self.password,
        }

    def dump(self) -> str:
        return self._call("pg_dump", *self._where(), "prefect")

    def _where(self) -> Sequence[str]:
        return ("--host", "127.0.0.1", "--port", str(self.port), "--username", USER)

    def _call(self, program: str, *arguments: str) -> str:
        folder = programs()
        assert folder is not None
        user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"]
        process = subprocess.run(
            [*user, str(folder / program), *arguments],
            cwd=self.folder,
            env={**os.environ, "PGPASSWORD": self.password},
            stdin=subprocess.DEVNULL,
            # Not a pipe: the server that pg_ctl starts would hold it open.
            stdout=subprocess.PIPE if program == "pg_dump" else subprocess.DEVNULL,
            text=True,
            timeout=120,
        )
        assert process.returncode == 0, f"{program}: exit {process.returncode}"
        return process.stdout or ""
