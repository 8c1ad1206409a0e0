"""Opens connections for others: to a checked and pinned address, or through the site's own proxy.

Used by the gate (`egress`) for builds and by `providers.git` for ``git://``. Everything has a time limit. Never speaks the protocol of what it
connects to, and never puts the proxy's credentials anywhere but into the header for the proxy.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from binder_onprem.egress.addresses import REFUSED
from binder_onprem.egress.hostnames import DEFAULT_PORTS, canonical, literal, split_port
from binder_onprem.errors import AddressRefused, ConfigError, ProviderUnavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from binder_onprem.egress.addresses import AddressRules

CONNECT_TIMEOUT: Final = 15.0
"""Seconds until a host must have accepted, all of its addresses together."""
PER_ADDRESS: Final = 5.0
HEAD_LIMIT: Final = 16 * 1024
BUFFER: Final = 256 * 1024

UNREACHABLE: Final = "The host does not accept connections just now. Try again in a moment."
PROXY_REFUSED: Final = "The site's own proxy does not let connections to this host pass."

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class SiteProxy:
    """The proxy through which everything outside is reached.

    Attributes:
        host: Name or address.
        port: TCP port.
        tls: Whether it is spoken to by TLS.
        authorization: Value of ``Proxy-Authorization``, or "".
    """

    host: str
    port: int
    tls: bool
    authorization: str = field(default="", repr=False)

    @classmethod
    def read(cls, url: str) -> SiteProxy:
        """Read ``http://user:password@host:port``. Raises ConfigError, without the credentials."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port = canonical(parts.hostname or ""), parts.port
        except ValueError:
            raise ConfigError("network.proxy is not a URL like http://host:port") from None
        if parts.scheme not in ("http", "https"):
            raise ConfigError("network.proxy must begin with http:// or https://")
        account = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
        authorization = f"Basic {base64.b64encode(account.encode()).decode()}" if account else ""
        return cls(host, port or DEFAULT_PORTS[parts.scheme], parts.scheme == "https", authorization)


def bypasses(host: str, port: int, no_proxy: Iterable[str]) -> bool:
    """Whether a canonical host is reached without the proxy: entries are ``*``, host, domain, ``host:port`` or a CIDR, as curl and pip read them."""
    return any(_bypass(host, port, entry.strip().lower()) for entry in no_proxy)


def _bypass(host: str, port: int, entry: str) -> bool:
    address = literal(host)
    if address and "/" in entry:
        try:
            return address in ip_network(entry, strict=False)
        except (ValueError, TypeError):
            return False
    try:
        name, number = split_port(entry)
    except ValueError:
        return False
    bare = name.removeprefix("*").strip(".[]")
    if number not in (None, port):
        return False
    return name == "*" or (bare != "" and (host == bare or (address is None and host.endswith("." + bare))))


class Outbound:
    """Decides about a target and connects.

    Args:
        rules: The address rules.
        mirrors: Host and port pairs that pass by name, whatever their address.
        mirrors_only: Nothing but mirrors passes.
        proxy: URL of the site's proxy, or None.
        no_proxy: Hosts reached without it.
        tls: For a proxy that is spoken to by TLS.
    """

    def __init__(  # noqa: PLR0913 - a site's network has that many sides
        self,
        rules: AddressRules,
        mirrors: Collection[tuple[str, int]] = frozenset(),
        *,
        mirrors_only: bool = False,
        proxy: str | None = None,
        no_proxy: Iterable[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._rules = rules
        self._mirrors = frozenset((_mirror_name(host), port) for host, port in mirrors)
        self._mirrors_only = mirrors_only
        self.proxy = SiteProxy.read(proxy) if proxy else None
        self._no_proxy = tuple(no_proxy)
        self._tls = tls

    def proxied(self, host: str, port: int) -> bool:
        """Whether a target is reached through the site's proxy."""
        return self.proxy is not None and not bypasses(host, port, self._no_proxy)

    async def open(self, host: str, port: int, *, tunnel: bool = True) -> Streams:
        """Connect to a target.

        Args:
            host: As it came.
            port: TCP port.
            tunnel: Through the site's proxy: ask it for a tunnel; else the caller speaks HTTP to the proxy itself.

        Raises:
            AddressRefused: Against the rules.
            ProviderUnavailable: Allowed, but does not answer in time.
        """
        try:
            name = canonical(host)
        except ValueError:
            raise AddressRefused(REFUSED) from None
        mirror = (name, port) in self._mirrors
        if self._mirrors_only and not mirror:
            raise AddressRefused(REFUSED)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                if self.proxy is None or not self.proxied(name, port):
                    return await _first(await self._rules.lookup(name, port, trusted=mirror), port)
                if not mirror:
                    self._rules.check_name(name, port)
                streams = await self._to_proxy(self.proxy)
                return await _tunnel(streams, name, port, self.proxy.authorization) if tunnel else streams
        except TimeoutError:
            raise ProviderUnavailable(UNREACHABLE) from None

    async def _to_proxy(self, proxy: SiteProxy) -> Streams:
        context = (self._tls or ssl.create_default_context()) if proxy.tls else None
        return await _first(await self._rules.lookup(proxy.host, proxy.port, trusted=True), proxy.port, context, proxy.host)


def _mirror_name(host: str) -> str:
    try:
        return canonical(host)
    except ValueError:
        raise ConfigError(f"mirrors: {host!r} is not a host") from None


async def _first(addresses: Iterable[str], port: int, tls: ssl.SSLContext | None = None, name: str = "") -> Streams:
    """Connect to the first address that accepts. Raises ProviderUnavailable."""
    for address in addresses:
        try:
            async with asyncio.timeout(PER_ADDRESS):
                return await asyncio.open_connection(address, port, ssl=tls, server_hostname=name if tls else None, limit=BUFFER)
        except (OSError, TimeoutError):  # ssl's errors are OSErrors
            continue
    raise ProviderUnavailable(UNREACHABLE)


async def _tunnel(streams: Streams, host: str, port: int, authorization: str) -> Streams:
    """Ask the site's proxy for a tunnel."""
    reader, writer = streams
    try:
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        credentials = f"Proxy-Authorization: {authorization}\r\n" if authorization else ""
        writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credentials}\r\n".encode("ascii"))
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(head) > HEAD_LIMIT or len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].startswith(b"2"):  # noqa: PLR2004 - version, status
            raise ProviderUnavailable(PROXY_REFUSED)
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        writer.transport.abort()
        raise ProviderUnavailable(PROXY_REFUSED) from None
    except BaseException:  # cancelled, timed out or refused: nobody else knows of this connection
        writer.transport.abort()
        raise
    return streams
