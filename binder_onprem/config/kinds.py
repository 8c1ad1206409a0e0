"""What the text of a setting may be: types that refuse what no part could use, in words that say what is meant.

Used by the sections. What can only be judged on the machine (files, ports, rights) is judged by `up` and `check`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, ByteSize, Field

if TYPE_CHECKING:
    from urllib.parse import SplitResult

_HOST: Final = re.compile(r"(\*\.)?[^\s/@?#:*\[\]]+|\[[0-9A-Fa-f:.]+\]")
_DATABASES: Final = ("sqlite+aiosqlite:///", "postgresql+asyncpg://")
MIB: Final = 1024**2


def _address(value: str) -> str:
    """An address that a server listens on."""
    if value == "localhost":
        return value
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(f"{value!r} is no address of a machine; give one such as 127.0.0.1, 0.0.0.0 or ::") from None


def _split(value: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        if parts.scheme in schemes and parts.hostname and parts.port != 0 and not re.search(r"\s", value):
            return parts
    except ValueError:
        pass
    # Without the value: a URL may hold an account.
    raise ValueError(f"is no URL such as {example}")


def _url(value: str) -> str:
    _split(value, ("http", "https"), "https://host.example/path")
    return value


def _plain_url(value: str) -> str:
    parts = _split(value, ("http", "https"), "https://binder.example/")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("must be a URL without account, ? and #")
    return value


def _https_origin(value: str) -> str:
    parts = _split(value, ("https",), "https://builder.uni.example:8592")
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("must be https://host:port and nothing behind it")
    return value.rstrip("/")


def _without_slash(value: str) -> str:
    return value.rstrip("/")


def _proxy(value: str) -> str:
    if _split(value, ("http", "https"), "http://proxy.example:3128").path.strip("/"):
        raise ValueError("is no URL such as http://proxy.example:3128")
    return value


def _origin(value: str) -> str:
    parts = _split(value, ("http", "https"), "https://pages.example") if value != "*" else None
    if parts and (parts.path or parts.query or parts.fragment):
        raise ValueError("is no origin such as https://pages.example; an origin has no path and no / at its end")
    return value


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value.strip(), strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is no address and no network such as 192.0.2.0/24") from None
    return value.strip()


def _reachable(value: str) -> str:
    """An entry of ``network.allow``; `egress.addresses` reads it."""
    text = value.strip()
    try:
        if "/" in text:
            # Host bits are taken for a slip of the pen: 10.0.0.5/8 would open sixteen million addresses.
            ipaddress.ip_network(text)
            return text
        if text.count(":") > 1 and not text.startswith("["):
            ipaddress.ip_address(text)
            return text
        host, _, port = text.rpartition(":") if re.search(r":\d*$", text) else (text, "", "0")
        if _HOST.fullmatch(host) and 0 <= int(port) <= 65535:  # noqa: PLR2004 - the last port
            return text
    except ValueError:
        pass
    raise ValueError(f"{value!r} is none of: a network such as 10.0.0.0/8, an address, host, host:port, *.domain")


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from None
    return value


def _database(value: str) -> str:
    if not value.startswith(_DATABASES):
        raise ValueError(f"must begin with {' or '.join(_DATABASES)}")
    return value


def _word(value: str) -> str:
    """Becomes a word of a command line."""
    if not re.fullmatch(r"[^\s,;'\"\\$`-][^\s,'\"\\$`]*", value):
        raise ValueError(f"{value!r} is no name")
    return value


def _suite(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9.-]*", value):
        raise ValueError(f"{value!r} is no release such as bookworm or noble")
    return value


def _requirement(value: str) -> str:
    """A line of requirements.txt that is no option."""
    if not re.fullmatch(r"[A-Za-z0-9][^\r\n\x00]*", value):
        raise ValueError(f"{value!r} is no requirement such as numpy>=2")
    return value


Address = Annotated[str, AfterValidator(_address)]
HttpsOrigin = Annotated[str, AfterValidator(_https_origin)]
Url = Annotated[str, AfterValidator(_url)]
PlainUrl = Annotated[str, AfterValidator(_plain_url)]
HostUrl = Annotated[PlainUrl, AfterValidator(_without_slash)]
"""Of a host that we put paths behind."""
ProxyUrl = Annotated[str, AfterValidator(_proxy)]
Origin = Annotated[str, AfterValidator(_origin)]
NetworkText = Annotated[str, AfterValidator(_network)]
Reachable = Annotated[str, AfterValidator(_reachable)]
Pattern = Annotated[str, AfterValidator(_pattern)]
DatabaseUrl = Annotated[str, AfterValidator(_database)]
Word = Annotated[str, AfterValidator(_word)]
Suite = Annotated[str, AfterValidator(_suite)]
Requirement = Annotated[str, AfterValidator(_requirement)]
ProviderPrefix = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Memory = Annotated[ByteSize, Field(ge=64 * MIB)]
"""Less, and nothing of what we start there starts."""
