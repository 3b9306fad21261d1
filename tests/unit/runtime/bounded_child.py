"""`python -m bounded_child`: a child whose answers go wrong in the ways that foreign parsers do."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Any

from sp_data.runtime.bounded import serve


def answer(request: Any) -> bytes:
    match request:
        case "spin":
            # In C: no signal handler of Python's is run meanwhile.
            re.match(r"(a+)+$", "a" * 40 + "b")
        case "sleep":
            time.sleep(60)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "recurse":
            return answer(request)
        case "memory":
            return b"x" * (64 << 30)
        case "raise":
            raise ValueError("two\nlines\x1b[2J")
        case "print":
            os.write(1, b"")
            print("not an answer")  # noqa: T201 as foreign libraries do
    return str(request).encode()


if __name__ == "__main__":
    serve(answer)
