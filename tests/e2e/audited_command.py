"""sp-data, with a list of the addresses that it asked: `python audited_command.py LIST ARGUMENT…`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

LOOPBACK = ("127.", "::1", "localhost")


def watch(path: Path) -> None:
    """Append every address beyond this machine that the process looks up, connects to or sends to."""

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo":
            host = arguments[0]
        elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
            host = arguments[1][0]
        else:
            return
        if host and not str(host).startswith(LOOPBACK):
            with path.open("a") as stream:
                stream.write(f"{event} {host}\n")

    sys.addaudithook(heard)


if __name__ == "__main__":
    watch(Path(sys.argv.pop(1)))
    from sp_data.cli import main

    sys.argv[0] = "sp-data"
    main()
