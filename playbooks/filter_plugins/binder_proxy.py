"""The site's HTTP proxy: whether its URL can be used by every client, and what is reached without it."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ansible.errors import AnsibleFilterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOPBACK = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1")
CLUSTER = (".svc", ".cluster.local")
NAME = re.compile(r"\.?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*(:[0-9]{1,5})?")
URL = re.compile(r"[A-Za-z0-9:/?@!&()*+,;=.~_%\[\]-]+")
"""What a shell, systemd, apt and YAML all read as it stands between quotes."""
SMALL = 16
"""Addresses up to which a network is spelled out, for those who read no CIDR."""


def binder_proxy_fault(url: str) -> str:
    """Why a proxy's URL cannot be used, without the URL, which may hold an account; "" if it can or there is none."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is no URL such as http://proxy.uni.example:3128"
    if parts.scheme not in ("http", "https") or not host or parts.path.strip("/") or parts.query or parts.fragment:
        return "is no URL such as http://proxy.uni.example:3128"
    if not port:
        return "does not say its port, and programs differ about which one is meant then"
    if not URL.fullmatch(url):
        return "has characters that stand for something else in some program; write them as %XX, as URLs have them"
    return ""


def binder_no_proxy(own: list[str], more: list[str] | str | None = None) -> list[str]:
    """What is reached without a proxy, in the forms that clients understand; in the order given, nothing twice.

    Go and uv read networks, curl before 7.86, npm and apt do not: small ones are spelled out as well. Some know an IPv6 address with brackets, some
    without. Nobody but Go knows ``*.domain``; ``.domain`` they all know. Joined by commas it has no spaces.

    Args:
        own: The site's own names, addresses and networks; empty ones are left out.
        more: Those of site_proxy_no.

    Raises:
        AnsibleFilterError: An entry is neither name nor address nor network.
    """
    return list(dict.fromkeys(form for entry in (*LOOPBACK, *_entries(own), *CLUSTER, *_entries(more or [])) for form in _forms(entry)))


def _entries(given: list[str] | str) -> Iterator[str]:
    for text in [given] if isinstance(given, str) else given:
        yield from (entry.lower() for entry in re.split(r"[,\s]+", str(text)) if entry)


def _forms(entry: str) -> Iterator[str]:
    bare = entry[1:-1] if entry.startswith("[") and entry.endswith("]") else entry
    try:
        network = ipaddress.ip_network(bare)
    except ValueError:
        yield _name(entry)
        return
    if "/" in bare and network.num_addresses > 1:
        yield str(network)
    if network.num_addresses <= SMALL:
        for address in network:
            yield str(address)
            if network.version == 6:  # noqa: PLR2004 - IPv6
                yield f"[{address}]"


def _name(entry: str) -> str:
    name = entry.removeprefix("*") if entry.startswith("*.") else entry
    if not NAME.fullmatch(name) or re.fullmatch(r"[0-9.]+", name):
        raise AnsibleFilterError(
            f"{entry!r} is none of: a name, .domain, an address, a network such as 192.0.2.0/24. Correct it in site_proxy_no or in the inventory."
        )
    return name


def binder_apt_direct(direct: list[str]) -> list[str]:
    """Those of them that apt can be told: names in full and IPv4 addresses."""
    return [entry for entry in direct if not entry.startswith(".") and not set(entry) & set("/:[")]


class FilterModule:
    """What templates may use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"binder_proxy_fault": binder_proxy_fault, "binder_no_proxy": binder_no_proxy, "binder_apt_direct": binder_apt_direct}
