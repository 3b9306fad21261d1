"""Connections that go only where the guard allows, and answers that must keep coming.

urllib3 limits the time between two bytes. A server that sends a byte every few seconds stays below that limit for ever,
in a header as in a body, so each answer also has a least rate, and a deadline as a whole.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from functools import partial
from typing import Any, cast

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.retry import Retry

from sp_data.wiki.http.guard import Guard

LEAST_BYTES_PER_S = 256
"""A slower answer is given up. The slowest line that anybody scrapes a wiki over carries ten times as much."""
SHORTEST_WINDOW_S = 2.0
"""The rate is measured over twice the time-out, at least over so many seconds."""
LONGEST_ANSWER_S = 1800.0
"""The deadline of an answer as a whole, whatever its rate."""
MAX_HEADER_BYTES = 1 << 18


class TooSlow(Exception):
    """An answer comes more slowly than the least rate, or is longer than the deadline. Never leaves sp_data.wiki.

    No OSError: urllib3 would take it for a time-out, and try again.
    """


class _MeteredSocket(io.RawIOBase):
    """What a response is read from: the socket, within the least rate and the deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self._stream = cast("io.RawIOBase", sock.makefile("rb", buffering=0))
        timeout_s = sock.gettimeout()
        self._window_s = max(2 * (timeout_s or 0.0), SHORTEST_WINDOW_S)
        # Time that is spent in reading; what the reader does between two reads is not the host's fault.
        self._read_s = self._in_window_s = 0.0
        self._num_bytes = self._num_in_window = 0
        self.in_header = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        began = time.monotonic()
        num_bytes = self._stream.readinto(buffer)
        took_s = time.monotonic() - began
        self._read_s += took_s
        self._in_window_s += took_s
        self._num_bytes += num_bytes or 0
        self._num_in_window += num_bytes or 0
        if self.in_header and self._num_bytes > MAX_HEADER_BYTES:
            raise TooSlow(f"has headers of more than {MAX_HEADER_BYTES >> 10} KB")
        if self._read_s > LONGEST_ANSWER_S:
            raise TooSlow(f"was not done with its answer after {LONGEST_ANSWER_S / 60:.0f} minutes")
        if num_bytes and self._in_window_s > self._window_s:
            if self._num_in_window < LEAST_BYTES_PER_S * self._in_window_s:
                raise TooSlow(f"sends its answer too slowly ({self._num_in_window} bytes in {self._in_window_s:.0f} s)")
            self._in_window_s, self._num_in_window = 0.0, 0
        return num_bytes

    def close(self) -> None:
        self._stream.close()
        super().close()


class _MeteredResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self._metered = _MeteredSocket(sock)
        self.fp = io.BufferedReader(self._metered)

    def begin(self) -> None:
        super().begin()
        self._metered.in_header = False


class _Connection(HTTPConnection):
    response_class = _MeteredResponse


class _TlsConnection(HTTPSConnection):
    response_class = _MeteredResponse


class _GuardedMixin(HTTPConnection):
    """Connects to the addresses that the guard let pass; the name stays that of Host, SNI and certificate."""

    def __init__(self, *args: Any, guard: Guard, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._guard = guard

    def _new_conn(self) -> socket.socket:
        name = self._dns_host
        try:
            ips = self._guard.look_up(name, self.port or self.default_port)
        except (socket.gaierror, UnicodeError) as error:
            failure = error if isinstance(error, socket.gaierror) else socket.gaierror(socket.EAI_NONAME, str(error))
            raise NameResolutionError(self.host, self, failure) from error
        try:
            for ip in ips[:-1]:
                self._dns_host = ip
                try:
                    return super()._new_conn()
                except (NewConnectionError, ConnectTimeoutError):
                    continue
            self._dns_host = ips[-1]
            return super()._new_conn()
        finally:
            self._dns_host = name


class _GuardedConnection(_GuardedMixin, _Connection):
    pass


class _GuardedTlsConnection(_GuardedMixin, _TlsConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class Adapter(HTTPAdapter):
    """Sends requests over guarded connections; those to a proxy are only metered, since the proxy connects."""

    def __init__(self, guard: Guard, max_retries: Retry) -> None:
        self._guard = guard
        super().__init__(max_retries=max_retries)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            "http": partial(_guarded_pool, HTTPConnectionPool, _GuardedConnection, self._guard),
            "https": partial(_guarded_pool, HTTPSConnectionPool, _GuardedTlsConnection, self._guard),
        }

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager


def _guarded_pool(
    pool_class: type[HTTPConnectionPool],
    connection_class: type[_GuardedMixin],
    guard: Guard,
    *args: Any,
    **kwargs: Any,
) -> HTTPConnectionPool:
    pool = pool_class(*args, **kwargs)
    pool.ConnectionCls = partial(connection_class, guard=guard)  # type: ignore[assignment]
    return pool
