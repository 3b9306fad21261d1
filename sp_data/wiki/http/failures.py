"""What a request failed of -> one error, whose sentence names the cause and the cure."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import NewConnectionError, ReadTimeoutError

from sp_data.errors import WikiBlocked, WikiUnreachable
from sp_data.web_address import NotAWebAddress, read_web_address
from sp_data.wiki.http.retries import NO_SUCH_NAME, causes

RESUME_HINT = "what was fetched is kept, run the same command again"
_CERTIFICATE_FAULTS = {
    9: "a certificate that is not valid yet; is this machine's clock right?",
    10: "a certificate that has expired; its owners have to renew it (and is this machine's clock right?)",
    62: "a certificate of another name; is the address right?",
    64: "a certificate of another address; is the address right?",
}
"""OpenSSL's number of a fault -> the fault. All others are about who signed the certificate."""
_NOT_TRUSTED = "a certificate that this machine does not trust; if you trust who signed it, name their certificates in "
_CA_VARIABLE = "the environment variable REQUESTS_CA_BUNDLE"
_CHALLENGE = re.compile(
    rb"just a moment\.\.\.|just a moment</|attention required! \| cloudflare|cf-challenge|challenge-platform|"
    rb"checking your browser|ddos-guard|_incapsula_resource|anubis_challenge|making sure you&#39;re not a bot|"
    rb"making sure you're not a bot|captcha-delivery|awswafcaptcha|verify you are human",
    re.IGNORECASE,
)


def blocked(address: str, behaviour: str) -> WikiBlocked:
    """The host does not want this visitor now."""
    return WikiBlocked(
        f"{_place(address)} {behaviour}: it refuses this scraper for now. What was fetched is kept; run the "
        "same command again in some hours, with a real source.contact and a lower source.requests_per_second"
    )


def unreachable(address: str, behaviour: str) -> WikiUnreachable:
    return WikiUnreachable(f"{_place(address)} {behaviour}; {RESUME_HINT}")


def is_challenge(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a web page asks the visitor to prove to be a person."""
    return bool(headers.get("cf-mitigated") or _CHALLENGE.search(body[: 1 << 16]))


def connection_failure(error: Exception, address: str, timeout_s: float, proxy: str | None) -> WikiUnreachable:
    """What a failed connection failed of. `proxy`: the proxy that the request went through."""
    reasons = causes(error)
    if proxy is not None and any(isinstance(reason, requests.exceptions.ProxyError) for reason in reasons):
        return unreachable(address, _proxy_failure(reasons, proxy))
    for reason in reasons:
        if isinstance(reason, ssl.SSLCertVerificationError):
            fault = _CERTIFICATE_FAULTS.get(reason.verify_code, _NOT_TRUSTED + _CA_VARIABLE)
            return unreachable(address, f"has {fault}")
        if isinstance(reason, ssl.SSLError):
            return unreachable(address, _tls_failure(reason))
        if isinstance(reason, socket.gaierror):
            if reason.errno in NO_SUCH_NAME:
                return unreachable(address, "cannot be reached: its name does not exist (DNS); is the address right?")
            return unreachable(address, "cannot be reached: its name cannot be looked up (DNS); is there a network?")
        if isinstance(reason, http.client.BadStatusLine) and str(reason).startswith(("\x15\x03", "\x16\x03")):
            return unreachable(address, "speaks TLS at this port; does its address begin with https:// instead?")
        if isinstance(reason, ConnectionRefusedError):
            return unreachable(address, "cannot be reached: nothing listens at this port; is the address right?")
    if isinstance(error, requests.exceptions.Timeout) or any(isinstance(one, ReadTimeoutError) for one in reasons):
        return unreachable(address, f"did not answer within {timeout_s:g} s")
    if any(isinstance(reason, ConnectionResetError | BrokenPipeError) for reason in reasons):
        return unreachable(address, "cannot be reached: it closes the connection without an answer")
    if any(isinstance(reason, http.client.HTTPException) for reason in reasons):
        return unreachable(address, "answers, but not as a web server does")
    if any(isinstance(reason, NewConnectionError) for reason in reasons):
        return unreachable(address, "cannot be reached (is there a network, and is the address right?)")
    hint = " (does its address begin with https:// instead?)" if address.lower().startswith("http://") else ""
    return unreachable(address, f"broke the connection off before it answered{hint}")


def _proxy_failure(reasons: list[BaseException], proxy: str) -> str:
    name = _place(proxy if "://" in proxy else f"http://{proxy}")
    cure = "see HTTP_PROXY, HTTPS_PROXY and NO_PROXY in the environment"
    for reason in reasons:
        if tunnel := re.search(r"Tunnel connection failed: (\d{3})", str(reason)):
            what = "asks for a login" if tunnel[1] == "407" else "refuses to connect"
            return f"is asked for through the proxy {name}, which {what} (HTTP {tunnel[1]}): {cure}"
    return f"is asked for through the proxy {name}, which cannot be reached: {cure}"


def _tls_failure(error: ssl.SSLError) -> str:
    if "WRONG_VERSION_NUMBER" in str(error):
        return "speaks no TLS at this port; does its address begin with http:// instead?"
    return f"cannot agree with this machine on TLS ({error.reason or 'the connection broke off'})"


def _place(address: str) -> str:
    """The host of an address, without a login."""
    try:
        return read_web_address(address).netloc
    except NotAWebAddress:
        host = urlsplit(address.replace("\\", "/")).netloc.rpartition("@")[2] if "[" not in address else ""
        return host or "the address"
