"""A real S3 server on loopback (moto's), with helpers for tests.

s3    (session) an empty server; its address and credentials are in the environment
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import fsspec
import pytest
from aiobotocore.endpoint import AioEndpoint

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True, slots=True)
class ObjectStore:
    endpoint: str

    def bucket(self, name: str) -> str:
        """A new bucket's URL."""
        self.fs.call_s3("create_bucket", Bucket=name)
        return f"s3://{name}"

    @property
    def fs(self) -> Any:
        return fsspec.filesystem("s3", use_listings_cache=False)

    def num_requests(self, work: Callable[[], object]) -> int:
        """How many requests this process sends during `work`."""
        requests: list[str] = []
        send = AioEndpoint._send

        async def counted(endpoint: AioEndpoint, request: Any) -> Any:
            requests.append(f"{request.method} {request.url}")
            return await send(endpoint, request)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AioEndpoint, "_send", counted)
            work()
        return len(requests)


@pytest.fixture(scope="session")
def s3() -> Iterator[ObjectStore]:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A separate process: threads of this one that wait for the server must not block each other.
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    store = ObjectStore(f"http://127.0.0.1:{port}")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": store.endpoint}.items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        try:
            _wait_for(port, server)
            yield store
        finally:
            server.kill()
            server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"moto's server did not come up on port {port} (exit {server.poll()}, pid {os.getpid()})")
