"""How hosts are written: one canonical form, and everything that only some programs would read as a host refused.

Pure; used wherever a host name comes in from outside (`addresses`, `egress`, `providers`).
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

import idna

from binder_onprem.errors import ConfigError

Address = IPv4Address | IPv6Address

DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ssh": 22, "git": 9418}
LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
NAME_LIMIT: Final = 253


def canonical(host: str) -> str:
    """The one way to write a host: lower-case ASCII name without the dot at its end, or an address as `ipaddress` writes it.

    Args:
        host: A name, an IPv4 address, an IPv6 address with or without brackets.

    Raises:
        ValueError: Not a host; or a number written so that only some programs read it as an address (``0x7f.1``, ``127.1``, ``0177.0.0.1``).
    """
    if not host or len(host) > NAME_LIMIT:
        raise ValueError("length")
    if host.startswith("[") or ":" in host:
        return _v6(host)
    name = host if host.isascii() else idna.encode(host, uts46=True).decode("ascii")
    name = name.lower().removesuffix(".")
    labels = name.split(".")
    if re.fullmatch(r"\d+|0x[0-9a-f]*", labels[-1]):
        return str(IPv4Address(name))
    if not all(LABEL.fullmatch(label) for label in labels):
        raise ValueError("label")
    return name


def _v6(host: str) -> str:
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if "%" in bare:
        raise ValueError("zone")
    return str(IPv6Address(bare))


def literal(host: str) -> Address | None:
    """The address that a canonical host is, or None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def split_port(text: str) -> tuple[str, int | None]:
    """``host:port``, ``[v6]:port``, ``host`` or ``v6`` → host and port. Raises ValueError."""
    if text.count(":") > 1 and not text.startswith("["):
        return text, None
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        return text, None
    return host, port_number(port)


def port_number(text: str) -> int:
    """A TCP port in ASCII digits. Raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:  # noqa: PLR2004 - 16 bits
        raise ValueError("port")
    return int(text)


def host_and_port(url: str) -> tuple[str, int]:
    """Host and port of an http or https URL of the configuration. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        if parts.scheme in DEFAULT_PORTS and parts.hostname:
            return canonical(parts.hostname), parts.port or DEFAULT_PORTS[parts.scheme]
    except ValueError:
        pass
    raise ConfigError(f"{url!r} is not an http or https URL")
