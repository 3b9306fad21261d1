"""Which hosts are connected to: never one of this machine or of a private network on behalf of the public internet.

Otherwise a wiki, or a stranger's list, could make us fetch what only this machine may see, such as a cloud's
credentials. A name is looked up once a connection, and the address that was checked is the one that is connected to.

Private addresses are allowed where the recipe names them: if source.wiki is itself private by its name (localhost,
10.0.0.7, wiki.internal), or if source.allow_private_addresses says so. Link-local addresses need the latter.

Behind a proxy it is the proxy that connects, so only names and what this machine knows of them can be checked.
"""

from __future__ import annotations

import ipaddress
import socket

from sp_data.recipe import Source
from sp_data.web_address import IpAddress, WebAddress, is_link_local, is_private_ip, names_private_host

PRIVATE = "private address"


class AddressRefused(Exception):
    """A picture's address leads to a place that is not allowed; the message says which. Never leaves sp_data.wiki."""


class Guard:
    """Says of each host whether it may be connected to."""

    def __init__(self, *, allows_private: bool, allows_link_local: bool) -> None:
        self._allows_private, self._allows_link_local = allows_private, allows_link_local
        self._names_behind_proxy: dict[str, bool] = {}

    @classmethod
    def of_source(cls, source: Source) -> Guard:
        """The guard of a recipe's source."""
        host = source.wiki_host
        ip = _ip_of(host)
        says_so = source.allow_private_addresses
        return cls(
            allows_private=says_so or bool(host and names_private_host(host)),
            allows_link_local=says_so or (ip is not None and is_link_local(ip)),
        )

    def check_name(self, address: WebAddress) -> None:
        """Raises AddressRefused if the host is private by its name alone."""
        ip = address.ip
        allowed = self._allows(ip) if ip is not None else self._allows_private or not names_private_host(address.host)
        if not allowed:
            raise AddressRefused(PRIVATE)

    def check_behind_proxy(self, address: WebAddress) -> None:
        """Raises AddressRefused if this machine knows the host as a private one; the proxy will look it up itself."""
        if self._allows_private and self._allows_link_local:
            return
        host = address.host
        if host not in self._names_behind_proxy:
            try:
                ips = _looked_up(host, address.port)
            except (OSError, UnicodeError):
                ips = []
            self._names_behind_proxy[host] = all(map(self._allows, ips))
        if not self._names_behind_proxy[host]:
            raise AddressRefused(PRIVATE)

    def look_up(self, host: str, port: int) -> list[str]:
        """The addresses of a host that may be connected to. Raises OSError, UnicodeError, AddressRefused."""
        allowed = [str(ip) for ip in _looked_up(host, port) if self._allows(ip)]
        if not allowed:
            raise AddressRefused(PRIVATE)
        return allowed

    def _allows(self, ip: IpAddress) -> bool:
        if not is_private_ip(ip):
            return True
        return self._allows_link_local if is_link_local(ip) else self._allows_private


def _looked_up(host: str, port: int) -> list[IpAddress]:
    """The addresses of a host, each once, in the resolver's order."""
    if host.endswith(".localhost"):
        # By definition (RFC 6761). No resolver is asked, which would be told of the demo's wiki.
        return [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(str(item[4][0])) for item in found))


def _ip_of(host: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
