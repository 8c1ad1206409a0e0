"""Which hosts the site connects to on behalf of a link: public ones, and what the administrator has named.

Asked by everything that connects to a host somebody else chose: resolving (`providers`), the egress gate (`egress`). A name is looked up
here, once; whoever connects uses the addresses that come back and never the name again, so a second answer of the name server changes nothing.
A refusal has one sentence, whatever is behind it, so that nobody learns which ports are open inside. Never connects itself.
"""

from __future__ import annotations

import asyncio
import copy
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binder_onprem.config import SESSIONS_LOOPBACK
from binder_onprem.config.providers import PUBLIC_URLS, urls
from binder_onprem.egress.hostnames import Address, canonical, host_and_port, literal, split_port
from binder_onprem.errors import AddressRefused, ConfigError, ProviderUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from binder_onprem.config import Config

Network = IPv4Network | IPv6Network

REFUSED: Final = (
    "The host does not exist, or it is not one that this site connects to: only public hosts, on the ports of http, https, ssh and git. "
    "Use a public repository, or ask the administrator to add the host to network.allow."
)
UNKNOWN: Final = "The name of the host could not be looked up just now. Try again in a moment."

PUBLIC_PORTS: Final = frozenset({22, 80, 443, 9418})
"""Ports of public hosts that a link may use; others need an entry in ``network.allow``."""

NOT_PUBLIC: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # a cloud's machine service under a public address
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),  # Teredo, ORCHID, benchmarking; documentation; 6to4; documentation
    )
)
GLOBAL_V6: Final = IPv6Network("2000::/3")
"""Everything else in IPv6 is mapped, translated (NAT64), local, multicast or unassigned."""

LOOPBACKS: Final[tuple[Network, ...]] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
LOCAL_NAMES: Final = frozenset({"localhost", "localdomain", "local", "internal", "intranet", "lan", "home", "corp", "private", "arpa"})
"""Last labels that never name a public host."""

LOOKUP_THREADS: Final = 16


def public(address: Address) -> bool:
    """Whether an address belongs to the public Internet and leads nowhere else."""
    if any(address.version == network.version and address in network for network in NOT_PUBLIC):
        return False
    if isinstance(address, IPv6Address) and address not in GLOBAL_V6:
        return False
    return address.is_global and not address.is_multicast


def own_addresses() -> frozenset[Address]:
    """Every address of this machine besides loopback, as the kernel lists them now."""
    return frozenset({*_own_v4(), *_own_v6()})


def _own_v4() -> set[Address]:
    found: set[Address] = set()
    last = ""
    for line in _lines("/proc/net/fib_trie"):
        if "|--" in line:
            last = line.split()[-1]
        elif "/32 host LOCAL" in line:
            found.add(IPv4Address(last))
    return found


def _own_v6() -> set[Address]:
    return {IPv6Address(int(line.split()[0], 16)) for line in _lines("/proc/net/if_inet6")}


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return []


def query(host: str, port: int) -> list[str]:
    """Ask the machine's resolver; blocks. Raises OSError."""
    return [str(answer[4][0]) for answer in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of ``network.allow``.

    Attributes:
        network: Addresses it names, or None.
        name: Host name it names, ``.domain`` for everything below a domain, or "".
        port: The one port, or None for all.
    """

    network: Network | None
    name: str
    port: int | None

    @classmethod
    def read(cls, text: str) -> Entry:
        """Read ``CIDR``, ``address``, ``host``, ``*.domain``, each but the first also with ``:port``.

        Raises:
            ConfigError: None of these.
        """
        try:
            if "/" in text:
                return cls(ip_network(text.strip()), "", None)
            host, port = split_port(text.strip())
            if host.startswith("*."):
                return cls(None, "." + canonical(host[2:]), port)
            name = canonical(host)
        except ValueError:
            raise ConfigError(f"network.allow: {text!r} is not a CIDR, an address, host, host:port or *.domain") from None
        address = literal(name)
        return cls(ip_network(address), "", port) if address else cls(None, name, port)

    def names(self, host: str, port: int) -> bool:
        """Whether a canonical host name is meant."""
        hit = host.endswith(self.name) if self.name.startswith(".") else host == self.name
        return bool(self.name) and hit and self.port in (None, port)

    def covers(self, address: Address, port: int | None) -> bool:
        """Whether an address is meant."""
        network = self.network
        return network is not None and network.version == address.version and address in network and (port is None or self.port in (None, port))

    def within(self, networks: Iterable[Network]) -> bool:
        """Whether it names addresses of these networks and no others."""
        mine = self.network
        return mine is not None and any(
            (isinstance(mine, IPv4Network) and isinstance(other, IPv4Network) and mine.subnet_of(other))
            or (isinstance(mine, IPv6Network) and isinstance(other, IPv6Network) and mine.subnet_of(other))
            for other in networks
        )


class AddressRules:
    """The rules of one site.

    Args:
        allow: ``network.allow``.
        pool: CIDR of the containers' networks; never reachable unless a part of it is named.
        forbidden_ports: Ports of this machine's own addresses that stay closed whatever is allowed: our own parts.
        query: Looks a name up, blocking; the machine's resolver unless a test brings its own.
        own: Tells this machine's addresses.
        timeout: Seconds for one look-up.
    """

    def __init__(  # noqa: PLR0913 - the last three have one value outside tests
        self,
        allow: Iterable[str],
        pool: str,
        forbidden_ports: Collection[int] = (),
        *,
        query: Callable[[str, int], list[str]] = query,
        own: Callable[[], Collection[Address]] = own_addresses,
        timeout: float = 5,
    ) -> None:
        self._entries = tuple(Entry.read(text) for text in allow)
        self._pool = ip_network(pool)
        self._forbidden = forbidden_ports
        self._query = query
        self._own = own
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="lookup")

    @classmethod
    def of(cls, config: Config) -> AddressRules:
        """The rules that a configuration asks for; hosts of providers that it names are allowed by that."""
        parts = (config.proxy_api_port, config.hub_port, config.daemon_port, config.registry_port, config.gate_port)
        return cls((*config.network.allow, *_configured_hosts(config)), config.network.pool, frozenset({config.listen.port, *parts}))

    def apart(self) -> AddressRules:
        """The same rules with threads of their own for look-ups: builds that ask for slow names must not delay people."""
        other = copy.copy(self)
        other._threads = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="lookup")  # noqa: SLF001 - of the same class
        return other

    def allowed(self, address: str, port: int | None = None) -> bool:
        """Whether an address may be connected to.

        Args:
            address: As text; what is not an address is not allowed.
            port: TCP port; None leaves the ports out of it.
        """
        found = literal(address)
        return found is not None and self._allowed(found, port, named=False)

    def _allowed(self, address: Address, port: int | None, *, named: bool) -> bool:
        loopback = any(address.version == network.version and address in network for network in LOOPBACKS)
        pool = address.version == self._pool.version and address in self._pool
        own = loopback or address in self._own()
        if _never(address) or ((own or pool) and port is not None and port in self._forbidden):
            return False
        covering = [entry for entry in self._entries if entry.covers(address, port)]
        if named:
            return True
        if pool:
            return any(entry.within((self._pool,)) for entry in covering)
        if loopback:
            return any(entry.within(LOOPBACKS) for entry in covering)
        if own:
            return any(entry.within((ip_network(address),)) for entry in covering)
        return bool(covering) or (public(address) and (port is None or port in PUBLIC_PORTS))

    async def lookup(self, host: str, port: int, *, trusted: bool = False) -> list[str]:
        """Every address of a host that may be connected to, in the resolver's order.

        Args:
            host: Name or address as it came.
            port: TCP port.
            trusted: The administrator's own (a mirror, the site's proxy): any address but our own parts.

        Raises:
            AddressRefused: No such host, or nothing of it is allowed; always in the same words.
            ProviderUnavailable: The name server does not answer in time.
        """
        name = self._canonical(host)
        address = literal(name)
        named = trusted or any(entry.names(name, port) for entry in self._entries)
        answers = [name] if address else await self._answers(name, port)
        checked = [answer for answer in dict.fromkeys(answers) if (found := literal(answer)) and self._allowed(found, port, named=named)]
        if not checked:
            raise AddressRefused(REFUSED)
        return checked

    def check_name(self, host: str, port: int) -> None:
        """Refuse what can be refused without looking a name up; for hosts that the site's own proxy looks up.

        Raises:
            AddressRefused: An address that is not allowed, a name that is local by its form, a port that no rule opens.
        """
        name = self._canonical(host)
        if any(entry.names(name, port) for entry in self._entries):
            return
        address = literal(name)
        local = "." not in name or name.rpartition(".")[2] in LOCAL_NAMES
        if not (self._allowed(address, port, named=False) if address else not local and port in PUBLIC_PORTS):
            raise AddressRefused(REFUSED)

    def _canonical(self, host: str) -> str:
        try:
            return canonical(host)
        except ValueError:  # idna's and ipaddress's errors are ValueErrors, too
            raise AddressRefused(REFUSED) from None

    async def _answers(self, name: str, port: int) -> list[str]:
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._query, name, port)
        except TimeoutError:
            raise ProviderUnavailable(UNKNOWN) from None
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise ProviderUnavailable(UNKNOWN) from None
            raise AddressRefused(REFUSED) from None
        except (OSError, UnicodeError):
            raise AddressRefused(REFUSED) from None


def _never(address: Address) -> bool:
    """What nobody's entry opens: sessions' published ports, no or many hosts, IPv4 in the clothes of IPv6."""
    mapped = isinstance(address, IPv6Address) and address.ipv4_mapped is not None
    return mapped or address.is_unspecified or address.is_multicast or (isinstance(address, IPv4Address) and address in SESSIONS_LOOPBACK)


def _configured_hosts(config: Config) -> list[str]:
    """``host:port`` of everything of the site's own that its providers name."""
    named = frozenset[str]().union(*(urls(provider) for provider in config.providers)) - PUBLIC_URLS
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in map(host_and_port, sorted(named))]
