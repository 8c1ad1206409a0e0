"""What containers reach: rules of the kernel's packet filter, in tables of this site's own that are replaced as a whole.

`up` and the boot put them up (`ground`), the daemon calls `Firewall.put` every few minutes so that mirrors' addresses stay true, `down` removes
them. A verdict "refuse" in a table of its own is final whatever docker, ufw or podman's rules say and in whatever order they came. Sessions reach
what ``network.sessions`` says: never this machine (each of its addresses), private ranges or each other; builds by podman reach the gate only.
"""

from __future__ import annotations

import logging
import shlex
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binder_onprem.egress.addresses import NOT_PUBLIC
from binder_onprem.errors import HostUnfit
from binder_onprem.host.clients import host_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from binder_onprem.config import Config
    from binder_onprem.host.sources import Sources

logger = logging.getLogger(__name__)

RESOLV: Final = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
LOOKUP: Final = 10.0
"""Seconds that all look-ups together may take."""
REMEMBER: Final = 3600.0
"""Seconds an address of a mirror is let pass after the name server gave it last: the session may have heard it from another one."""
PRIVATE: Final = tuple(network for network in NOT_PUBLIC if isinstance(network, IPv4Network))


@dataclass(frozen=True, slots=True)
class Reach:
    """Addresses behind the names of the configuration, as they are now.

    Attributes:
        resolvers: Name servers that containers are told to ask.
        mirrors: Address and port of each package source.
        allowed: What the administrator allows beyond the public Internet, and the site's proxy.
    """

    resolvers: tuple[IPv4Address, ...] = ()
    mirrors: frozenset[tuple[IPv4Address, int]] = frozenset()
    allowed: tuple[IPv4Network, ...] = ()


@dataclass(slots=True)
class Firewall:
    """The rules of one site, with the mirrors' addresses of the last hour.

    Attributes:
        config: The site.
        sources: Whose hosts pass by name.
    """

    config: Config
    sources: Sources
    _seen: dict[tuple[IPv4Address, int], float] = field(default_factory=dict)

    def put(self, now: float | None = None) -> None:
        """Look the names up and put the rules up, in place of those that are there; no packet passes in between.

        Args:
            now: Monotonic seconds.

        Raises:
            HostUnfit: The kernel or ``nft`` refuses.
        """
        now = time.monotonic() if now is None else now
        found = reach(self.config, self.sources)
        self._seen |= dict.fromkeys(found.mirrors, now)
        self._seen = {mirror: seen for mirror, seen in self._seen.items() if now - seen < REMEMBER}
        known = Reach(found.resolvers, frozenset(self._seen), found.allowed)
        if not _nft(ruleset(self.config, known)) and not _nft(ruleset(self.config, known, by_bridge=False)):
            raise HostUnfit("The kernel refuses the firewall's rules: it needs nf_tables with the families inet and bridge (Linux 5.3 or newer).")
        _let_gate_in(self.config)


def bridges(config: Config) -> tuple[str, str]:
    """Names of the bridges: sessions', builds'."""
    return f"bsess{config.listen.port}", f"bbuild{config.listen.port}"


def table(config: Config) -> str:
    """Name of this site's tables."""
    return f"binder_{config.listen.port}"


def reach(config: Config, sources: Sources) -> Reach:
    """Look up what the configuration names; a name that cannot be looked up is left out and logged."""
    allow = [entry for entry in config.network.allow if config.network.sessions == "public"]
    networks = [network for entry in allow if (network := _network(entry))]
    names = {(host, port, "mirror") for host, port in sources.hosts}
    names |= {(entry, 0, "allow") for entry in allow if not _network(entry)}
    if sources.proxy and config.network.sessions == "public":
        names |= {(host, port, "mirror") for host, port in host_of(sources.proxy)}
    found = _lookup({host for host, _, _ in names})
    mirrors = {(address, port) for host, port, kind in names if kind == "mirror" for address in found.get(host, ())}
    networks += [IPv4Network(address) for host, _, kind in names if kind == "allow" for address in found.get(host, ())]
    # Loopback on the list is for the daemon; in a session it is the session itself.
    allowed = collapse_addresses(network for network in networks if not network.is_loopback)
    return Reach(resolvers(), frozenset(entry for entry in mirrors if not entry[0].is_loopback), tuple(allowed))


def resolvers() -> tuple[IPv4Address, ...]:
    """Name servers that podman writes into containers: the host's without loopback; those behind systemd-resolved where that is all there is."""
    for file in RESOLV:
        words = [line.split() for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
        servers = [entry[1] for entry in words if len(entry) > 1 and entry[0] == "nameserver" and ":" not in entry[1]]
        found = tuple(address for address in map(IPv4Address, servers) if not address.is_loopback)
        if found:
            return found
    return ()


def ruleset(config: Config, reach: Reach, *, by_bridge: bool = True) -> str:
    """The rules as ``nft -f`` reads them; pure.

    Args:
        config: The site.
        reach: Addresses behind its names.
        by_bridge: Tell frames between neighbours by their bridge's name, which not every kernel can; else by their addresses, which containers
            without capabilities cannot forge (IPv6 is off in them: `engine_files`).
    """
    name, (sessions, builds) = table(config), bridges(config)
    ours = f'{{ "{sessions}", "{builds}" }}'
    by_name = (f'meta ibrname "{bridge}" drop' for bridge in (sessions, builds))
    by_address = (f"{kind} {range_} drop" for kind in ("ip saddr", "arp saddr ip") for range_ in (config.session_network, config.build_network))
    neighbours = "\n    ".join(by_name if by_bridge else by_address)
    mirrors = [f"{address} . {port}" for address, port in sorted(reach.mirrors)]
    last = {"public": "ip daddr @private jump refuse\n    accept", "mirrors": "jump refuse", "none": ""}[config.network.sessions]
    ways = f"""ip daddr @resolvers meta l4proto {{ tcp, udp }} th dport 53 accept
    ip daddr . tcp dport @mirrors accept
    ip daddr @allowed accept
    {last}"""
    return f"""table inet {name} {{}}
delete table inet {name}
table inet {name} {{
  {_set("private", "ipv4_addr", collapse_addresses(PRIVATE), interval=True)}
  {_set("allowed", "ipv4_addr", reach.allowed, interval=True)}
  {_set("resolvers", "ipv4_addr", reach.resolvers)}
  {_set("mirrors", "ipv4_addr . inet_service", mirrors)}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }}
  chain session {{
    ct state established,related accept
    oifname {ours} jump refuse
    meta nfproto ipv6 jump refuse
    {"jump refuse" if config.network.sessions == "none" else ways}
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname "{sessions}" jump session
    iifname "{builds}" ct state new jump refuse
    oifname {ours} ct state established,related accept
    oifname {ours} drop
  }}
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname {ours} ct state established,related accept
    iifname "{sessions}" ip daddr @resolvers meta l4proto {{ tcp, udp }} th dport 53 accept
    iifname "{builds}" ip daddr {config.gate_address} tcp dport {config.gate_port} accept
    iifname {ours} jump refuse
  }}
}}
table bridge {name} {{}}
delete table bridge {name}
table bridge {name} {{
  chain forward {{
    type filter hook forward priority -10; policy accept;
    {neighbours}
  }}
}}
"""


def standing(config: Config) -> bool:
    """Whether the rules are there."""
    return all(_run("nft", "list", "table", family, table(config)) for family in ("inet", "bridge"))


def remove(config: Config) -> None:
    """Take the rules away; absent is fine."""
    for family in ("inet", "bridge"):
        _run("nft", "delete", "table", family, table(config))
    for rule in _gate_rules(config):
        _run("iptables", "-w", "-D", *rule)


def _let_gate_in(config: Config) -> None:
    """Ours can only refuse more than others: where the host refuses by default (ufw), builds need one rule among the host's own."""
    if not _run("iptables", "-w", "-C", *_gate_rule(config)):
        _run("iptables", "-w", "-I", *_gate_rule(config))


def _gate_rules(config: Config) -> list[list[str]]:
    """The rules that are there, also one put up for a pool that the settings no longer name."""
    try:
        listed = subprocess.run(("iptables", "-w", "-S", "INPUT"), capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [shlex.split(line)[1:] for line in listed.splitlines() if f'--comment "{_comment(config)}"' in line]


def _comment(config: Config) -> str:
    return f"binder-onprem {config.listen.port}"


def _gate_rule(config: Config) -> tuple[str, ...]:
    to_gate = ("-d", config.gate_address, "-p", "tcp", "--dport", str(config.gate_port))
    return ("INPUT", "-i", bridges(config)[1], *to_gate, "-m", "comment", "--comment", _comment(config), "-j", "ACCEPT")


def _set(name: str, kind: str, elements: Iterable[object], *, interval: bool = False) -> str:
    listed = ", ".join(map(str, elements))
    flags = " flags interval;" if interval else ""
    return f"set {name} {{ type {kind};{flags}" + (f" elements = {{ {listed} }}" if listed else "") + " }"


def _network(entry: str) -> IPv4Network | None:
    try:
        return IPv4Network(entry, strict=False)
    except ValueError:
        return None


def _lookup(hosts: set[str]) -> dict[str, list[IPv4Address]]:
    pool = ThreadPoolExecutor(max_workers=8)
    pending = {pool.submit(socket.getaddrinfo, host, None, socket.AF_INET, socket.SOCK_STREAM): host for host in hosts if ":" not in host}
    done, late = wait(pending, LOOKUP)
    pool.shutdown(wait=False, cancel_futures=True)
    for future in late | {future for future in done if future.exception()}:
        logger.warning("name not looked up", extra={"host": pending[future]})
    return {pending[future]: [IPv4Address(entry[4][0]) for entry in future.result()] for future in done if not future.exception()}


def _nft(rules: str) -> bool:
    try:
        done = subprocess.run(("nft", "-f", "-"), input=rules, text=True, capture_output=True, timeout=60, check=False)
    except FileNotFoundError:
        raise HostUnfit("The command nft is missing. Install the package nftables.") from None
    if done.returncode:
        logger.info("rules refused", extra={"said": done.stderr[:500]})
    return done.returncode == 0


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
