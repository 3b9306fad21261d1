"""Who may ask a server of ours, by what a browser says of itself: the name it asked for, and the page it asks from.

A page of another site can make a browser ask servers of this machine: under its own name, if that is made to lead here
(DNS rebinding), or under ours, with its own origin.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def hostname(host: str) -> str:
    """'localhost' of 'localhost:7860', '::1' of '[::1]:7860'; empty for what is no host."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_asked_by_its_name(host: str, listens_on: str) -> bool:
    """Whether the Host of a request is a name of a server that listens on this address.

    One that listens beyond this machine is known by any number, and by the machine's own name: another name can be made
    to lead there, a number cannot.
    """
    name = hostname(host)
    if is_loopback(listens_on):
        return name in LOOPBACK_NAMES | {listens_on}
    own = socket.gethostname().lower()
    return _is_number(name) or name in LOOPBACK_NAMES | {listens_on.lower(), own, f"{own}.local"}


def is_asked_from_itself(origin: str | None, host: str) -> bool:
    """Whether a request is from no page, or from one of the server itself."""
    return origin is None or (bool(host) and origin in (f"http://{host}", f"https://{host}"))


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
