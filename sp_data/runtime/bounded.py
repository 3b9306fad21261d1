"""Calls that end whatever they are given: a function of untrusted text runs in a child that the kernel can stop.

A parser in C may take hours for some kilobytes of text, and neither Ctrl-C nor a timer reaches it there. So the child
is given a time of its processor by the kernel (SIGPROF ends it), and an amount of memory; the parent waits, and
Ctrl-C ends its wait. One child serves many calls: a call costs some 0.1 ms, and a start 0.2 s.

    worker = BoundedWorker("sp_data.wiki.parse.worker", cpu_s=10)       # in the parent
    worker.call(("wikitext", "'''Ada''' is a kid."))                    # bytes, or raises GivenUp
    serve(answer)                                                       # in that module

A request is pickled, because the child trusts its parent. The answer is bytes, which the parent reads as data.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from sp_data.runtime.subprocesses import die_with_parent

MEMORY_BYTES = 3 << 30
WALL_FACTOR = 12
"""A child on a busy machine may need this many times its processor's time."""
PATIENCE_S = 60.0
SHORT_S = 1.0
"""After calls that were given up took PATIENCE_S in all, each of the next ones gets this much of the processor."""
_LENGTH_BYTES = 8
_READY = b"ready"
_STARTS = 2
"""How often a call is made whose child dies of anything but its time."""


class GivenUp(Exception):
    """The call took too long, too much memory, or raised; the message says which, in one line."""


class DoesNotStart(Exception):
    """The child could not be started, which is no text's fault; the message says why, in one line."""


class BoundedWorker:
    """Calls of one module's function in a child, one at a time; `call` may be used by several threads."""

    def __init__(self, module: str, cpu_s: float) -> None:
        self._module, self._cpu_s = module, cpu_s
        self._lost_s = 0.0
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        # A fork shares the child's pipes: the new process starts a child of its own.
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.close)

    def call(self, request: object) -> bytes:
        """The function's answer. Raises GivenUp, DoesNotStart."""
        body = pickle.dumps(request)
        with self._lock:
            for _ in range(_STARTS):
                limit_s = self._cpu_s if self._lost_s < PATIENCE_S else min(SHORT_S, self._cpu_s)
                try:
                    answer = self._exchange(body, limit_s)
                except BaseException:
                    # Ctrl-C: the next call must not get this one's answer.
                    self._end()
                    raise
                if answer is not None:
                    if answer[:1] == b"!":
                        raise GivenUp(answer[1:].decode("utf-8", "replace"))
                    return answer[1:]
                status = self._end()
                if status == -signal.SIGPROF:
                    self._lost_s += limit_s
                    raise GivenUp(f"it takes more than {limit_s:g} s to read")
        raise GivenUp(f"its reader ended with status {status}")

    def close(self) -> None:
        """End the child."""
        self._end()

    def _exchange(self, body: bytes, limit_s: float) -> bytes | None:
        """The child's answer, None if the child died."""
        child = self._running()
        assert child.stdin is not None and child.stdout is not None
        deadline = time.monotonic() + limit_s * WALL_FACTOR
        try:
            child.stdin.write(_frame(pickle.dumps(limit_s)) + _frame(body))
            child.stdin.flush()
        except BrokenPipeError:
            return None
        received = bytearray()
        length = None
        while length is None or len(received) < _LENGTH_BYTES + length:
            readable, _, _ = select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                self._lost_s += limit_s
                raise GivenUp(f"it takes more than {limit_s * WALL_FACTOR:g} s to read")
            piece = os.read(child.stdout.fileno(), 1 << 20)
            if not piece:
                return None
            received += piece
            if length is None and len(received) >= _LENGTH_BYTES:
                length = int.from_bytes(received[:_LENGTH_BYTES], "big")
        return bytes(received[_LENGTH_BYTES:])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            # The kernel ends it with the thread that started it.
            self._end()
        if self._child is None:
            self._child = self._started()
        return self._child

    def _started(self) -> subprocess.Popen[bytes]:
        """A child that is ready. Raises DoesNotStart."""
        child = subprocess.Popen(
            [sys.executable, "-m", self._module, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Workers of other frameworks, such as Ray's, may have added folders to their own path.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
        assert child.stdout is not None and child.stderr is not None
        with child.stderr:
            if child.stdout.read(len(_READY)) != _READY:
                lines = child.stderr.read().decode("utf-8", "replace").split("\n")
                child.kill()
                child.wait()
                cause = next((line for line in reversed(lines) if line.strip()), f"status {child.returncode}")
                raise DoesNotStart(f"python -m {self._module} does not start: {cause.strip()}")
        return child

    def _end(self) -> int:
        """End the child; returns its status."""
        child, self._child = self._child, None
        if child is None:
            return 0
        # It may have ended by itself: then this is the status it had.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.05)
        child.kill()
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        return child.wait()

    def _forget(self) -> None:
        self._child = None
        self._lock = threading.Lock()


def serve(answer: Callable[[object], bytes]) -> None:
    """The child's loop: answer requests from standard input until the parent closes it or dies."""
    die_with_parent(int(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(_READY)
    answers.flush()
    # What a foreign library prints must not stand between the answers.
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 as long as the process lasts
    os.dup2(sys.stderr.fileno(), 2)
    while (limit := _read(requests)) is not None and (body := _read(requests)) is not None:
        signal.setitimer(signal.ITIMER_PROF, pickle.loads(limit))
        try:
            reply = b"=" + answer(pickle.loads(body))
        except Exception as error:  # noqa: BLE001 whatever a foreign parser raises is a fact about this text
            sentence = " ".join(f"{type(error).__name__}: {error}".split())
            reply = b"!" + "".join(char for char in sentence if char.isprintable())[:300].encode("utf-8", "replace")
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(_frame(reply))
        answers.flush()


def _frame(body: bytes) -> bytes:
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def _read(stream: BinaryIO) -> bytes | None:
    header = stream.read(_LENGTH_BYTES)
    return stream.read(int.from_bytes(header, "big")) if len(header) == _LENGTH_BYTES else None
