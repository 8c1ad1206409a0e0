"""What an engine that could not clear up has left of containers' networks: forwarding rules and network namespaces.

Podman forgets a container's network even when taking it away failed, as it does when its helper is killed or the machine has no memory for it; then
no command of podman's finds these any more. A rule that stays leads a port to an address that the next container may have. Called by
`ground.take_away`, when no container of the site is left: whatever lies in the site's own range then is of none.
"""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binder_onprem.config import Config

NAMESPACES: Final = Path("/run/netns")
TIMEOUT: Final = 60
TABLES: Final = (("ip", "nat"), ("ip", "filter"), ("inet", "netavark"))
"""Where podman's helper has its rules: by iptables, or by nftables."""
_CHAIN: Final = re.compile(r"\s*chain (\S+) \{")
_HANDLE: Final = re.compile(r" # handle (\d+)$")
_ADDRESS: Final = re.compile(r"\d+\.\d+\.\d+\.\d+")
_FORWARDED: Final = re.compile(r"ip daddr (\S+) (?:tcp|udp) dport \d+")
_JUMP: Final = re.compile(r"\bdport (\d+) .*\bjump ((?:NETAVARK-DN-|nv_)\S+)")
_PORT: Final = re.compile(r"\bdport (\d+)")


class Rule(NamedTuple):
    """One line of what nft lists."""

    chain: str
    text: str
    handle: str


def clear(config: Config) -> None:
    """Remove what lies in the site's range; nothing there, and no nft, are fine."""
    pool = IPv4Network(config.network.pool)
    for family, table in TABLES:
        for rule in stale(tuple(rules(_output("nft", "--handle", "list", "table", family, table))), pool):
            _output("nft", "delete", "rule", family, table, rule.chain, "handle", rule.handle)
    for namespace in sorted(NAMESPACES.glob("netns-*")):
        if any(address in pool for address in _addresses(namespace)):
            forget(namespace)


def forget(namespace: Path) -> None:
    """Remove a network namespace's name, by which it is held; absent is fine."""
    _output("umount", "--lazy", str(namespace))
    with suppress(OSError):
        namespace.unlink()


def rules(listed: str) -> Iterator[Rule]:
    """The rules of podman's helper in what nft lists; pure."""
    chain = ""
    for line in listed.splitlines():
        if found := _CHAIN.match(line):
            chain = found[1]
        elif (handle := _HANDLE.search(line)) and (chain.startswith(("NETAVARK", "nv_")) or re.search(r"\bjump (NETAVARK|nv_)", line)):
            yield Rule(chain, line[: handle.start()].strip(), handle[1])


def stale(there: tuple[Rule, ...], pool: IPv4Network) -> tuple[Rule, ...]:
    """Those that lead to or from the range, and the way to them; pure. Sites share a chain, because their networks have one name."""
    ours = {rule for rule in there if any(IPv4Address(address) in pool for address in _ADDRESS.findall(rule.text))}
    forwarded = {(rule.chain, found[0]) for rule in ours if (found := _FORWARDED.search(rule.text))}
    ours |= {rule for rule in there if (found := _FORWARDED.search(rule.text)) and (rule.chain, found[0]) in forwarded}
    kept = {(rule.chain, found[1]) for rule in set(there) - ours if (found := _PORT.search(rule.text))}
    gone = {(rule.chain, found[1]) for rule in ours if (found := _PORT.search(rule.text))} - kept
    ways = {rule for rule in there if (found := _JUMP.search(rule.text)) and (found[2], found[1]) in gone}
    return tuple(rule for rule in there if rule in ours | ways)


def _addresses(namespace: Path) -> list[IPv4Address]:
    return addresses(_output("nsenter", f"--net={namespace}", "ip", "-4", "-json", "address", "show", "scope", "global"))


def addresses(listed: str) -> list[IPv4Address]:
    """Those in what ``ip -json address`` prints, which has empty entries for what was not asked for; pure. Nonsense has none."""
    try:
        links = json.loads(listed)
    except ValueError:
        return []
    entries = [entry for link in links for entry in link.get("addr_info", ())]
    return [IPv4Address(entry["local"]) for entry in entries if "local" in entry]


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False, stdin=subprocess.DEVNULL).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
