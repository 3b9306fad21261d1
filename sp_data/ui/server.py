"""Start the page: where it listens, who may use it, and what it leaves behind (nothing but pictures in the lake)."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sp_data.errors import StageError, UsageError
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.runtime.web_access import LOOPBACK_NAMES, is_loopback

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger(__name__)

PORT, NUM_PORTS = 7860, 100
GRACE_S = 1
"""What is under way when the page is ended has so long to end; browsers keep a connection open for ever."""
SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_MCP_SERVER": "False",
}
"""Read by Gradio when it is imported."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    host: str = "127.0.0.1"
    port: int | None = None
    """None: 7860, or the next that is free."""
    share: bool = False
    auth: str = field(default="", repr=False)
    """USER:PASSWORD"""
    device: str = "auto"

    def __post_init__(self) -> None:
        """Raises UsageError for a page that others could use without a password."""
        if self.auth and not all(self.auth.partition(":")):
            raise UsageError("--auth: expected USER:PASSWORD, neither of them empty")
        reason = "--share" if self.share else "" if is_loopback(self.host) else f"--host {self.host}"
        if reason and not self.auth:
            raise UsageError(f"{reason} lets others use the page: give --auth USER:PASSWORD with it")

    @property
    def user(self) -> str:
        return self.auth.partition(":")[0]

    @property
    def password(self) -> str:
        return self.auth.partition(":")[2]


def serve(recipe: Recipe, lake: Lake, options: ServerOptions, tell: Callable[[str], None]) -> None:
    """Serve until it is interrupted; `tell` is given the addresses. Raises UsageError, StageError."""
    listener = listen(options.host, options.port)
    port = int(listener.getsockname()[1])
    try:
        with _environment() as folder:
            try:
                import gradio  # noqa: F401
            except ImportError as error:
                raise StageError("the page needs gradio: pip install 'sp-data[ui]'") from error
            # After its settings are set.
            import uvicorn

            # Of Gradio's against Starlette: nobody here can do anything about it.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="gradio")
            warnings.filterwarnings("ignore", message=".*HTTP_4.*is deprecated")

            from sp_data.ui.app import application
            from sp_data.ui.guard import Access
            from sp_data.ui.state import PageState

            state = PageState(recipe, lake, folder, options.device)
            access = Access(_hosts(options), options.user, options.password)
            config = uvicorn.Config(
                application(state, access),
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                timeout_graceful_shutdown=GRACE_S,
            )
            if options.port is None and port != PORT:
                tell(f"port {PORT} is taken; this is the next free one")
            tell(f"{lake.dataset}: http://{_shown(options.host)}:{port} (Ctrl-C ends it)")
            if options.share:
                tell(f"{lake.dataset}: {_share(options.host, port)}, for everybody who has the password")
            try:
                _run(config, listener)
            except KeyboardInterrupt:
                pass
            finally:
                state.close()
    finally:
        listener.close()


def _run(config: uvicorn.Config, listener: socket.socket) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # That open pages are cut off is no error, and needs no traceback.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            await super().shutdown(sockets)

    Server(config).run(sockets=[listener])


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens: at this port, or at the first free one from 7860 on. Raises UsageError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f"--host {host}: no address of this machine ({error.strerror})") from error
    for number in range(PORT, PORT + NUM_PORTS) if port is None else (port,):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address[0], number))
            listener.listen(128)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise UsageError(f"--host {host} --port {number}: {error.strerror}") from error
            continue
        return listener
    if port is not None:
        raise UsageError(f"--port {port} is taken; leave it out and the next free one is used")
    raise UsageError(f"ports {PORT} to {PORT + NUM_PORTS - 1} are taken; give --port")


def _hosts(options: ServerOptions) -> frozenset[str] | None:
    """The names under which browsers may ask for the page. Whoever lets others in has set a password, and may have
    given the machine any name."""
    if options.share or not is_loopback(options.host):
        return None
    return LOOPBACK_NAMES | {options.host}


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def _environment() -> Iterator[Path]:
    """Gradio's settings, and a folder for uploads that is removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="sp-data-ui-"))
    before = dict(os.environ)
    os.environ.update({**SETTINGS, "GRADIO_TEMP_DIR": str(folder)})
    for name in ("GRADIO_ALLOWED_PATHS", "GRADIO_SHARE", "GRADIO_ROOT_PATH", "GRADIO_WATCH_DIRS"):
        os.environ.pop(name, None)
    try:
        yield folder
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


def _share(host: str, port: int) -> str:
    """Open Gradio's tunnel; returns its address."""
    from gradio.networking import setup_tunnel

    try:
        return str(setup_tunnel(host, port, secrets.token_urlsafe(32), None, None))
    except Exception as error:  # Whatever Gradio's tunnel raises, it is not open.
        raise StageError(
            f"--share: Gradio's tunnel could not be opened ({error}); try again without --share"
        ) from error
