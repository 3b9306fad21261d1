"""The Prefect server of a run: the one that the settings name, or a temporary one that is protected from Ctrl-C.

A terminal sends its interrupt to every process of the foreground group, so Prefect's temporary server would die with
the first Ctrl-C, and the run would wait for it in vain to report its end. A signal that is blocked when a process
starts stays blocked in it (POSIX), so the server is started with the interrupt blocked. It ends by SIGTERM when this
process ends, and by itself where this process was killed.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

import requests
from prefect.settings import get_current_settings

from sp_data.errors import StageError
from sp_data.foreign_text import one_line


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


@contextlib.contextmanager
def tagged(dataset: str) -> Iterator[None]:
    """Runs that start in this context have their dataset's tags from the start, as those of a deployment do.

    Prefect's heartbeats tell the tags that a run had at its start, and by them the rule for runs without a heartbeat
    (deployments/wanted.py) knows a run of ours.
    """
    # Like the temporary server, they import what a check of the server alone does not need.
    from prefect import tags

    from tasks.limits import tags_of

    with tags(*tags_of(dataset)):
        yield


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
    """Raises StageError if no Prefect server's API is at this address, or if it asks for a password that is not set."""
    address = api_url.rstrip("/")
    is_cloud = address.startswith(get_current_settings().cloud.api_url)
    try:
        response = _ask(f"{address}/health")
        # Prefect tells its health to everybody.
        is_locked = (
            _is_healthy(response) and _ask(f"{address}/admin/version").status_code == requests.codes.unauthorized
        )
    except requests.RequestException as error:
        raise StageError(
            f"the Prefect server {api_url} does not answer; start it (`prefect server start`), or {_how_to_unset()} to "
            "run without one"
        ) from error
    if is_locked and not is_cloud:
        raise StageError(
            f"the Prefect server {api_url} asks for a password: set PREFECT_API_AUTH_STRING=user:password as the "
            "server's PREFECT_SERVER_API_AUTH_STRING says"
        )
    # Prefect Cloud answers those alone who log in, which its client does.
    if _is_healthy(response) or is_cloud:
        return
    answer = repr(one_line(response.text)[:100]) if response.text else "and nothing else"
    advice = f"did you mean {address}/api?" if _is_api(f"{address}/api") else "is another program there?"
    raise StageError(
        f"PREFECT_API_URL is {api_url}, which is no Prefect server's API: {address}/health answers HTTP "
        f"{response.status_code}, {answer}; {advice} Else {_how_to_unset()} to run without a server"
    )


def _ask(address: str) -> requests.Response:
    """Ask with the headers of Prefect's client."""
    settings = get_current_settings()
    headers = dict(settings.client.custom_headers)
    if settings.api.auth_string:
        password = settings.api.auth_string.get_secret_value().encode()
        headers["Authorization"] = f"Basic {base64.b64encode(password).decode()}"
    return requests.get(address, headers=headers, timeout=10)


def _is_healthy(response: requests.Response) -> bool:
    # A status alone does not tell: Prefect's pages answer every address.
    return response.status_code == requests.codes.ok and response.text.strip() == "true"


def _is_api(address: str) -> bool:
    try:
        return _is_healthy(_ask(f"{address}/health"))
    except requests.RequestException:
        return False


def _how_to_unset() -> str:
    """What takes the server's address out of the settings, by where it is from: the environment or a profile."""
    name = "PREFECT_API_URL"
    return f"`unset {name}`" if name in os.environ else f"`prefect config unset {name}`"
