"""Reads one bounded answer from a host of repositories, over connections that the address rules have checked.

Used by the providers, in the daemon. Redirects are followed by hand, each checked like the first address; the site's credentials go to the host
they are for and to no other. Never passes on what a host says in its own words.
"""

from __future__ import annotations

import socket
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from binder_onprem.egress.hostnames import literal
from binder_onprem.egress.outbound import SiteProxy, bypasses
from binder_onprem.errors import AddressRefused, ProviderUnavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterable, Mapping

    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

    from binder_onprem.egress.addresses import AddressRules

REDIRECTS: Final = 5
MOVED: Final = frozenset({301, 302, 303, 307, 308})
TOO_MANY_REQUESTS: Final = 429
SERVER_ERROR: Final = 500
LONGEST_WAIT: Final = 3600.0
CHUNK: Final = 65536


class CheckedResolver(AbstractResolver):
    """aiohttp's resolver, by the address rules.

    Args:
        rules: The address rules.
        proxy: The site's proxy, which is ours and may be anywhere.
    """

    def __init__(self, rules: AddressRules, proxy: SiteProxy | None) -> None:
        self._rules = rules
        self._proxy = (proxy.host, proxy.port) if proxy else None

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Checked addresses only. Raises AddressRefused, ProviderUnavailable."""
        addresses = await self._rules.lookup(host, port, trusted=(host, port) == self._proxy)
        families = {address: socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses}
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=socket.IPPROTO_TCP, flags=socket.AI_NUMERICHOST)
            for address, kind in families.items()
            if family in (socket.AF_UNSPEC, kind)
        ]

    async def close(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def checked_client(rules: AddressRules, tls: ssl.SSLContext, proxy: str | None, timeout: float) -> AsyncIterator[aiohttp.ClientSession]:  # noqa: ASYNC109
    """A session that connects to checked addresses only, whatever it is asked for.

    Args:
        rules: The address rules.
        tls: What the site trusts.
        proxy: The site's proxy.
        timeout: Seconds for one request at the most.
    """

    async def check(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        # aiohttp asks no resolver about literal addresses, nor about names that a proxy will look up
        host, port = request.url.raw_host or "", request.url.port or 0
        if request.proxy:
            rules.check_name(host, port)
        elif literal(host):
            await rules.lookup(host, port)
        return await handler(request)

    connector = aiohttp.TCPConnector(
        resolver=CheckedResolver(rules, SiteProxy.read(proxy) if proxy else None), ssl=tls, use_dns_cache=False, limit=512, limit_per_host=8
    )
    async with aiohttp.ClientSession(
        connector=connector,
        middlewares=(check,),
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=timeout),
        headers={"User-Agent": "git/2.45 (binder-onprem)", "Accept-Encoding": "identity"},
    ) as session:
        yield session


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host answered; never a redirect, a 429 or a 5xx."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Reader:
    """Reads answers.

    Args:
        session: A checked session.
        timeout: Seconds, for the messages; the session and the caller keep to it.
        limit: Bytes of an answer.
        proxy: The site's proxy.
        no_proxy: Hosts reached without it.
    """

    def __init__(self, session: aiohttp.ClientSession, timeout: float, limit: int, proxy: str | None = None, no_proxy: Iterable[str] = ()) -> None:
        self._session = session
        self._timeout = timeout
        self._limit = limit
        self._proxy = proxy
        self._no_proxy = tuple(no_proxy)

    async def get(self, url: str, headers: Mapping[str, str] | None = None, secret: Mapping[str, str] | None = None) -> Answer:
        """GET.

        Args:
            url: http or https, percent-encoded.
            headers: For every hop.
            secret: Headers for this URL's host only.

        Raises:
            AddressRefused: A hop is against the rules.
            ProviderUnavailable: No answer in time, not an answer, too long, 429, 5xx, redirects without end.
        """
        start = here = URL(url, encoded=True)
        try:
            for _ in range(REDIRECTS + 1):
                secrets = secret or {} if here.origin() == start.origin() else {}
                answer = await self._once(here, {**(headers or {}), **secrets})
                if answer.status not in MOVED:
                    return answer
                here = _next(here, answer.headers.get("Location", ""))
        except TimeoutError:
            raise ProviderUnavailable(f"The repository's host did not answer in {self._timeout:g} seconds. Try again later.") from None
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError):
            raise ProviderUnavailable("The certificate of the repository's host is not one that this site trusts.") from None
        except aiohttp.InvalidURL:
            raise AddressRefused("The repository's host redirects to an address that this site does not connect to.") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise ProviderUnavailable("The repository's host could not be reached, or broke the connection. Try again later.") from None
        raise ProviderUnavailable("The repository's host redirects without end.")

    async def _once(self, url: URL, headers: Mapping[str, str]) -> Answer:
        host, port = url.raw_host or "", url.port or 0
        proxy = self._proxy if self._proxy and not bypasses(host, port, self._no_proxy) else None
        async with self._session.get(url, headers=headers, allow_redirects=False, proxy=proxy) as response:
            if response.status == TOO_MANY_REQUESTS or response.status >= SERVER_ERROR:
                raise _unwilling(response.status, response.headers)
            body = bytearray()
            if response.status not in MOVED:
                async for chunk in response.content.iter_chunked(CHUNK):
                    body += chunk
                    if len(body) > self._limit:
                        raise ProviderUnavailable(f"The answer of the repository's host is longer than {self._limit // 1024**2} MiB (resolve.bytes).")
            return Answer(response.status, response.headers, bytes(body))


def _unwilling(status: int, headers: Mapping[str, str]) -> ProviderUnavailable:
    """The error for a host that is asked too often or has a fault."""
    now = time.time()
    wait = retry_after(headers.get("Retry-After"), now)
    if status != TOO_MANY_REQUESTS:
        return ProviderUnavailable(f"The repository's host has a fault of its own (HTTP {status}). Try again later.", retry_after=wait)
    wait = wait if wait is not None else _reset(headers.get("X-RateLimit-Reset") or headers.get("RateLimit-Reset") or "", now)
    if wait is None:
        return ProviderUnavailable("The repository's host is asked too often. Try again later.")
    minutes = max(1, -(-round(wait) // 60))
    return ProviderUnavailable(f"The repository's host is asked too often. Try again in {minutes} min.", retry_after=wait)


def _reset(value: str, now: float) -> float | None:
    """Seconds until a limit begins anew; hosts give these or Unix seconds."""
    if not value.strip().isdecimal():
        return None
    number = float(value.strip()[:12])
    return min(max(number - now if number > LONGEST_WAIT * 24 * 365 else number, 0.0), LONGEST_WAIT)


def _next(here: URL, location: str) -> URL:
    there = here.join(URL(location)) if location else here
    if there.scheme not in ("http", "https") or (here.scheme == "https" and there.scheme == "http") or there.user or there.password:
        raise AddressRefused("The repository's host redirects to an address that this site does not connect to.")
    return there


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds that a ``Retry-After`` asks for, within an hour; None if it does not.

    Args:
        value: The header, seconds or a date.
        now: Unix seconds.
    """
    if not value:
        return None
    try:
        seconds = float(value) if value.strip().isdigit() else parsedate_to_datetime(value).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT)
