"""Prefect's temporary server as a process: `python -m tasks.server_process PARENT PORT`.

It serves the run that started it and nobody else: it listens on 127.0.0.1, ends when the process PARENT has ended,
however that ended, and refuses what a page in the user's browser sends.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sp_data.runtime.subprocesses import watch_parent

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"


class RunOnly:
    """ASGI middleware: refuses browsers. Prefect's client sends no Origin, and asks for the address as it is.

    A page of another site cannot be told from the user's own by its requests alone: some need no leave to be sent
    (CORS), and one whose name leads to this machine (DNS rebinding) needs none for any.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app, self._host = app, f"{HOST}:{port}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = dict(scope["headers"])
            if b"origin" in headers or headers.get(b"host") != self._host:
                await _refuse(scope["type"], send)
                return
        await self._app(scope, receive, send)


async def _refuse(kind: str, send: Send) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = b"This is the server of one run of sp-data; no page may use it.\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main(parent: int, port: int) -> None:
    watch_parent(parent)
    import uvicorn

    def app() -> Any:
        from prefect.server.api.server import create_app

        return RunOnly(create_app(), port)

    uvicorn.run(app, factory=True, host=HOST, port=port, log_level="error", lifespan="on", server_header=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
