"""HTTP to one wiki and its picture host: one session, one request at a time, one sentence for each failure.

The caller gets a response of any status that is the host's own answer; a guard's challenge, an unreachable host or a
body that breaks off is raised as an error.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from typing import Self
from urllib.parse import urlencode, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import LocationParseError, MaxRetryError, ReadTimeoutError

from sp_data.errors import WikiBlocked, WikiError, WikiUnreachable
from sp_data.recipe import Source
from sp_data.wiki.http.politeness import Pace, Robots, RobotsCache, is_private, user_agent
from sp_data.wiki.http.retries import PoliteRetry

MAX_REDIRECTS = 5
MAX_TEXT_BYTES = 256 << 20
"""Largest API answer or robots.txt, unpacked; a larger one is an attack or a fault."""
CHUNK_BYTES = 1 << 16
UNCHANGED_BYTES = {"Accept": "*/*", "Accept-Encoding": "identity"}
"""Headers of requests for a picture's own bytes. No gzip: its Content-Length would not be the picture's."""
RESUME_HINT = "what was fetched is kept, run the same command again"

BROKE_OFF = (
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
    requests.exceptions.ConnectionError,
)
"""What reading a body raises if it ends too early (requests makes a stall a ConnectionError)."""


class AddressRefused(Exception):
    """A picture's address leads to a place that is not allowed; the message says which. Never leaves sp_data.wiki."""


class BrokenOff(Exception):
    """A body ended too early, or is longer than MAX_TEXT_BYTES. Never leaves sp_data.wiki."""


class Transport:
    """`proxy`: an HTTP proxy that answers for the wiki's host (the demo wiki is reached this way). `robots`: robots.txt
    files that earlier runs read; updated in place."""

    def __init__(self, source: Source, proxy: str | None = None, robots: RobotsCache | None = None) -> None:
        self.num_requests = 0
        self._source = source
        self._proxies = {"http": proxy} if proxy else {}
        self._pace = Pace(source.requests_per_second)
        self._robots = Robots(self._read_robots, {} if robots is None else robots)
        self._session = requests.Session()
        # A wiki on this machine is never behind the proxy that the environment may name.
        self._session.trust_env = not source.is_loopback
        self._session.headers["User-Agent"] = user_agent(source.contact)
        adapter = HTTPAdapter(max_retries=PoliteRetry.of_a_guest(self._pace.mean_gap_s))
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    @property
    def seconds_a_request(self) -> float:
        """Seconds from one request to the next at the polite rate, on average."""
        return self._pace.mean_gap_s

    @contextlib.contextmanager
    def get(self, address: str, params: Mapping[str, str | int]) -> Iterator[requests.Response]:
        """An open response of status < 500. Raises WikiBlocked, WikiUnreachable."""
        try:
            with self._follow_redirects(f"{address}?{urlencode(params)}", address) as response:
                if response.status_code >= 500:
                    raise unreachable(address, f"answers HTTP {response.status_code} again and again")
                yield response
        except AddressRefused as error:
            raise unreachable(address, f"redirects to an address that is not allowed ({error})") from error

    def original(self, url: str) -> contextlib.AbstractContextManager[requests.Response]:
        """A picture's own bytes, not a smaller WebP made of them; an open response of any status.

        Raises AddressRefused, WikiBlocked, WikiUnreachable.
        """
        address = f"{url}{'&' if '?' in url else '?'}format=original"
        return self._follow_redirects(address, self._source.wiki, UNCHANGED_BYTES)

    def listed(self, url: str) -> contextlib.AbstractContextManager[requests.Response]:
        """The same for an address from a list."""
        return self._follow_redirects(url, url, UNCHANGED_BYTES)

    @contextlib.contextmanager
    def _follow_redirects(
        self, address: str, origin: str, headers: Mapping[str, str] | None = None, *, check_robots: bool = True
    ) -> Iterator[requests.Response]:
        """The response at the end of all redirects. `origin`: the address on whose behalf the request is made."""
        for _ in range(MAX_REDIRECTS + 1):
            _check_address(address, origin)
            if check_robots:
                self._robots.check(address)
            with self._send(address, headers) as response:
                if not response.is_redirect:
                    yield response
                    return
                address = _joined(address, response.headers["Location"])
        raise AddressRefused("too many redirects")

    def _read_robots(self, address: str) -> str:
        try:
            with self._follow_redirects(address, address, check_robots=False) as response:
                # RFC 9309: 4xx means that there are no rules; 5xx means that they are unknown, so keep out.
                if response.status_code >= 500:
                    raise unreachable(address, f"answers HTTP {response.status_code}")
                return body_of(response).decode("utf-8", "replace") if response.status_code == 200 else ""
        except AddressRefused:
            return ""

    @contextlib.contextmanager
    def _send(self, address: str, headers: Mapping[str, str] | None) -> Iterator[requests.Response]:
        self._pace.wait(urlsplit(address).netloc)
        self.num_requests += 1
        timeout_s = self._source.timeout_s
        try:
            response = self._session.get(
                address,
                headers=headers,
                stream=True,
                timeout=(timeout_s, timeout_s),
                proxies=self._proxies,
                allow_redirects=False,
            )
        except requests.exceptions.ConnectionError as error:
            if isinstance(error, requests.exceptions.Timeout) or _timed_out(error):
                raise unreachable(address, f"did not answer within {timeout_s:g} s") from error
            raise unreachable(address, "cannot be reached (is there a network, and is the name right?)") from error
        except (LocationParseError, ValueError) as error:
            # requests raises ValueErrors about addresses, those in redirects included.
            raise AddressRefused("not a web address") from error
        except requests.exceptions.RequestException as error:
            raise WikiError(f"{address} cannot be requested: {error}") from error
        with response:
            if response.headers.get("cf-mitigated"):
                raise blocked(address, f"answers HTTP {response.status_code} with a challenge")
            if response.status_code == 429:
                raise blocked(address, "keeps answering 'too many requests'")
            yield response


def _joined(address: str, location: str) -> str:
    try:
        return urljoin(address, location)
    except ValueError as error:
        raise AddressRefused("a redirect to no web address") from error


def _check_address(address: str, origin: str) -> None:
    try:
        parts, origin_parts = urlsplit(address), urlsplit(origin)
        _ = parts.port  # raises if the number is out of range
    except ValueError as error:
        raise AddressRefused("not a web address") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AddressRefused("not a web address")
    # Otherwise a wiki could make us fetch what only this machine may see, such as a cloud's credentials. A wiki on a
    # private network may redirect within private networks.
    if is_private(parts.hostname) and not (origin_parts.hostname and is_private(origin_parts.hostname)):
        raise AddressRefused("private address")


def body_of(response: requests.Response) -> bytes:
    """All of a text answer, unpacked. Raises BrokenOff."""
    text = io.BytesIO()
    try:
        for chunk in response.iter_content(CHUNK_BYTES):
            text.write(chunk)
            if text.tell() > MAX_TEXT_BYTES:
                raise BrokenOff(f"more than {MAX_TEXT_BYTES >> 20} MB")
    except BROKE_OFF as error:
        raise BrokenOff("ended too early") from error
    return text.getvalue()


def blocked(address: str, behaviour: str) -> WikiBlocked:
    return WikiBlocked(
        f"{urlsplit(address).netloc} {behaviour}: it refuses this scraper for now. What was fetched is kept; run the "
        "same command again in some hours, with a real source.contact and a lower source.requests_per_second"
    )


def unreachable(address: str, behaviour: str) -> WikiUnreachable:
    return WikiUnreachable(f"{urlsplit(address).netloc} {behaviour}; {RESUME_HINT}")


def _timed_out(error: requests.exceptions.ConnectionError) -> bool:
    reason = error.args[0] if error.args else None
    return isinstance(reason, MaxRetryError) and isinstance(reason.reason, ReadTimeoutError)
