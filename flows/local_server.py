"""The Prefect server of a run: the one that the settings name, or a temporary one that is protected from Ctrl-C.

A terminal sends its interrupt to every process of the foreground group, so Prefect's temporary server would die with
the first Ctrl-C, and the run would wait for it in vain to report its end. A signal that is blocked when a process
starts stays blocked in it (POSIX), so the server is started with the interrupt blocked. It ends by SIGTERM when this
process ends, and by itself where this process was killed.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

import requests
from prefect.settings import get_current_settings

from sp_data.errors import StageError


def start_local_server() -> None:
    """Start the temporary server now, unless the settings name a server; the client then finds it running.

    Raises StageError if it does not start in time, or if the named server does not answer.
    """
    with starting_local_server():
        pass


@contextlib.contextmanager
def starting_local_server() -> Iterator[None]:
    """`start_local_server`, while the context's own work goes on; its end waits for the server.

    A server takes some ten seconds to start, which are as well used for imports. Raises StageError.
    """
    settings = get_current_settings()
    if settings.api.url is not None:
        _check(settings.api.url)
        yield
        return
    if not settings.server.ephemeral.enabled:
        yield
        return
    _check_standard_library()
    # Prefect's server is seconds of imports, which a run that has one, or a deployment, does not need.
    from flows.temporary_server import TemporaryServer

    errors: list[RuntimeError] = []

    def start() -> None:
        # In a thread of its own, whose signal mask the new process inherits: the main thread stays interruptible.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            TemporaryServer().start(timeout=settings.server.ephemeral.startup_timeout_seconds)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=start, name="start-local-server", daemon=True)
    thread.start()
    yield
    thread.join()
    if errors:
        raise StageError(
            "Prefect's temporary server did not start (is PREFECT_HOME writable?); run the same command again, "
            "or start one with `prefect server start` and name it in PREFECT_API_URL"
        ) from errors[0]


def _check_standard_library() -> None:
    """Refuse to start a server that would import a backport in place of Python's own `dataclasses`.

    img2dataset asks for that backport, and Prefect puts site-packages before the standard library on the server's path,
    so the server would die on import, which shows only as a time-out of two minutes.
    """
    try:
        backport = distribution("dataclasses")
    except PackageNotFoundError:
        return
    raise StageError(
        f"the package `dataclasses` {backport.version}, a backport for Python 3.6, hides Python's own from Prefect's "
        f"server; remove it with `{sys.executable} -m pip uninstall --yes dataclasses`, then run the same command again"
    )


def check_server() -> str:
    """The address of the API of the server that the settings name. Raises StageError if none is named or it is away."""
    url = get_current_settings().api.url
    if url is None:
        raise StageError(
            "no Prefect server is named: start one with `prefect server start`, and tell it here with "
            "`prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api`"
        )
    _check(url)
    return url


def _check(api_url: str) -> None:
    try:
        requests.get(f"{api_url.rstrip('/')}/health", timeout=10)
    except requests.RequestException as error:
        raise StageError(
            f"the Prefect server {api_url} does not answer; start it (`prefect server start`), or unset "
            "PREFECT_API_URL to run without one"
        ) from error
