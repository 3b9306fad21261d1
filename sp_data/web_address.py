r"""Web addresses, read in one way: what is checked here is what `requests` and `urllib3` connect to.

    read_web_address("HTTP://Example.org:80/a b.png").url        'http://example.org/a%20b.png'
    read_web_address(r"http://127.0.0.1\@example.org/")           NotAWebAddress: it has a backslash

Two parsers that disagree about one address are a hole: the first one checks a harmless host, the second one connects to
another. So nothing that parsers disagree about is taken: backslashes, logins, control characters, hosts that are
numbers in any form but the usual one.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from dataclasses import dataclass
from urllib.parse import urlsplit

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_PORTS = {"http": 80, "https": 443}
PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".home.arpa")
"""Names below these are never public (RFC 6761, 6762 and 8375, and ICANN's reservation of .internal)."""
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?\.?")
_LOGIN = re.compile(r"(?<=//)[^/?#\s\\]*@")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_V6 = ipaddress.ip_network("2000::/3")
_CLOUDS_HOST = ipaddress.ip_address("168.63.129.16")
"""Azure's virtual machines reach the agent of their host there: a public address by its number alone."""
_PROTOCOLS_V4 = ipaddress.ip_network("192.0.0.0/24")
"""Not global (RFC 6890), which Python 3.11 knows of a part of it only; a cloud's metadata server is in it."""


class NotAWebAddress(ValueError):
    """The message says why: 'it has a login'. It never repeats the address, which may hold a password."""


@dataclass(frozen=True, slots=True)
class WebAddress:
    """An address that everything reads in the same way.

    `url`: as it is requested, without a fragment. `host`: lower-case ASCII, an IPv6 address without brackets.
    """

    url: str
    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> str:
        """'http://example.org' or 'http://example.org:8080'."""
        return f"{self.scheme}://{self.netloc}"

    @property
    def netloc(self) -> str:
        """'example.org', 'example.org:8080' or '[::1]:8080'."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def path(self) -> str:
        """'/wiki/Ada', at least '/'."""
        return urlsplit(self.url).path or "/"

    @property
    def ip(self) -> IpAddress | None:
        """The host if it is an IP address, else None."""
        return _ip_of(self.host)


def read_web_address(text: str) -> WebAddress:
    """The address that `text` is. Raises NotAWebAddress."""
    # Slow to import, and most commands read no address.
    from requests import PreparedRequest, RequestException

    text = text.strip(" ")
    for char in text:
        if char == "\\":
            raise NotAWebAddress("it has a backslash")
        if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp"):
            raise NotAWebAddress("it has a control character")
    scheme, colon, rest = text.partition("://")
    if not colon or scheme.lower() not in DEFAULT_PORTS:
        raise NotAWebAddress("it does not begin with http:// or https://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority or "%40" in authority:
        raise NotAWebAddress("it has a login")
    if not authority or " " in authority or "%" in authority:
        raise NotAWebAddress("its host is not a name")
    if re.search(r":0+$", authority):
        raise NotAWebAddress("its port is 0")
    prepared = PreparedRequest()
    try:
        prepared.prepare_url(text.partition("#")[0], None)
        url = str(prepared.url)
        parts = urlsplit(url)
        port = DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    except (RequestException, ValueError, LookupError) as error:
        raise NotAWebAddress("it cannot be read") from error
    address = WebAddress(url, parts.scheme, _checked_host(parts.hostname or ""), port)
    # The same address in one form: of two names of one host, each would have a pace and a robots.txt of its own.
    return WebAddress(
        f"{address.origin}{url[len(f'{parts.scheme}://{parts.netloc}') :]}", address.scheme, address.host, address.port
    )


def _checked_host(host: str) -> str:
    if (ip := _ip_of(host)) is not None:
        return str(ip)
    # '2130706433', '0x7f.1' and '0177.0.0.1' are 127.0.0.1 to some and names to others.
    last_label = host.rstrip(".").rpartition(".")[2]
    if last_label.isdecimal() or re.fullmatch(r"0x[0-9a-f]*", last_label):
        raise NotAWebAddress("its host is a number")
    if not _HOST.fullmatch(host) or ".." in host:
        raise NotAWebAddress("its host is not a name")
    return host


def _ip_of(host: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(host.rstrip("."))
    except ValueError:
        return None


def names_private_host(host: str) -> bool:
    """Whether a host is private by its name alone, without asking for its address: this machine, or a private network.

    'localhost', 'wiki.internal', 'wiki' (a name without a dot), '10.0.0.7' and '127.1' are.
    """
    host = host.lower().rstrip(".")
    if (ip := _ip_of(host) or _ip_in_another_form(host)) is not None:
        return is_private_ip(ip)
    return "." not in host or host.endswith(PRIVATE_SUFFIXES)


def _ip_in_another_form(host: str) -> IpAddress | None:
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError, ValueError):
        return None


def is_private_ip(ip: IpAddress) -> bool:
    """Whether an address is not one of the public internet: loopback, private, link-local, reserved, multicast, or an
    IPv6 address that leads to such an IPv4 address."""
    inner = [ip] if isinstance(ip, ipaddress.IPv4Address) else _embedded(ip)
    if not inner:
        return not ip.is_global or ip not in _GLOBAL_V6
    return any(not one.is_global or one.is_multicast or one in _PROTOCOLS_V4 or one == _CLOUDS_HOST for one in inner)


def is_link_local(ip: IpAddress) -> bool:
    """Whether an address is link-local, such as 169.254.169.254, where clouds keep the credentials of a machine."""
    return any(one.is_link_local for one in (ip, *(_embedded(ip) if isinstance(ip, ipaddress.IPv6Address) else ())))


def _embedded(ip: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address leads to: mapped, NAT64, 6to4 and Teredo."""
    if ip.ipv4_mapped is not None:
        return [ip.ipv4_mapped]
    if ip in _NAT64:
        return [ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)]
    if ip.sixtofour is not None:
        return [ip.sixtofour]
    return list(ip.teredo or ())


def without_login(text: str) -> str:
    """The text with '***' in place of a login in an address: 'http://me:secret@x/' -> 'http://***@x/'."""
    return _LOGIN.sub("***@", text)
