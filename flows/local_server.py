"""Prefect's temporary server, out of reach of Ctrl-C.

A terminal sends its interrupt to every process of the foreground group, so Prefect's temporary server would die with
the first Ctrl-C, and the run that wants to report its end would wait for it. A signal that is blocked when a process
starts stays blocked in it (POSIX), so the server is started with the interrupt blocked; it ends by SIGTERM with us.
"""

from __future__ import annotations

import signal
import threading

import requests
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

from sp_data.errors import StageError


def start_local_server() -> None:
    """Start the temporary server now, unless the settings name a server; the client finds it running.

    Raises StageError if it does not come up in time, or if the server that is named does not answer.
    """
    settings = get_current_settings()
    if settings.api.url is not None:
        _check(settings.api.url)
        return
    if not settings.server.ephemeral.enabled:
        return
    failed: list[RuntimeError] = []

    def start() -> None:
        # In a thread, whose own mask the new process inherits: the main thread stays interruptible meanwhile.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            SubprocessASGIServer().start(timeout=settings.server.ephemeral.startup_timeout_seconds)
        except RuntimeError as error:
            failed.append(error)

    thread = threading.Thread(target=start, name="start-local-server", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise StageError(
            "Prefect's temporary server did not start (is PREFECT_HOME writable?); run the same command again, "
            "or start one with `prefect server start` and name it in PREFECT_API_URL"
        ) from failed[0]


def _check(api_url: str) -> None:
    try:
        requests.get(f"{api_url.rstrip('/')}/health", timeout=10)
    except requests.RequestException as error:
        raise StageError(
            f"the Prefect server {api_url} does not answer; start it (`prefect server start`), or unset "
            "PREFECT_API_URL to run without one"
        ) from error
