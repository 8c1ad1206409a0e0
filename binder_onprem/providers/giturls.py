"""URLs of repositories in links: one way to write each, and no way to say anything else with one. Pure; raises nothing but `InvalidSpec`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlsplit

from binder_onprem.egress.hostnames import DEFAULT_PORTS, canonical
from binder_onprem.errors import InvalidSpec
from binder_onprem.providers.links import segments, shown

if TYPE_CHECKING:
    from collections.abc import Collection

SCP_LIKE: Final = re.compile(r"(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?P<path>[^/].*)")
USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
UNSAFE_IN_PATH: Final = re.compile(r"[?#\[\]<>\"'`{}|^;&$]")
UNSAFE_OVER_SSH: Final = re.compile(r"['!\\]")
"""A shell on the other side reads the path."""
SSH_USER: Final = "git"
"""Who asks, where an ssh:// URL does not say."""


def address(text: str, protocols: Collection[str]) -> tuple[str, list[str]]:
    """One way to write the URL, and the parts of its path.

    Args:
        text: The URL, decoded, or git's ``user@host:path``.
        protocols: Those that are allowed.
    """
    if "://" not in text and (match := SCP_LIKE.fullmatch(text)):
        text = f"ssh://{match['user']}@{match['host']}/{match['path']}"
    scheme, mark, _ = text.partition("://")
    if not mark or scheme.lower() not in protocols:
        allowed = ", ".join(f"{protocol}://" for protocol in protocols)
        raise InvalidSpec(f'"{shown(text)}" is not the URL of a repository: it must begin with one of {allowed}.')
    try:
        parts = urlsplit(text)
        host, port = canonical(parts.hostname or ""), parts.port
    except ValueError:
        raise InvalidSpec(f'"{shown(text)}" does not name a host the usual way (a name, or an address in its usual form).') from None
    path = parts.path.strip("/")
    if parts.scheme == "ssh" and UNSAFE_OVER_SSH.search(unquote(path)):
        raise InvalidSpec(f'"{shown(text)}" is not the URL of a repository.')
    if not path or UNSAFE_IN_PATH.search(text.partition("://")[2].removeprefix(parts.netloc)) or port == 0:
        raise InvalidSpec(f'"{shown(text)}" is not the URL of a repository.')
    user = _user(parts.scheme, parts.username, parts.password)
    netloc = user + (f"[{host}]" if ":" in host else host) + (f":{port}" if port and port != DEFAULT_PORTS[parts.scheme] else "")
    return f"{parts.scheme}://{netloc}/{quote(path, safe='/%~:@!*()+,=')}", segments(path)


def _user(scheme: str, user: str | None, password: str | None) -> str:
    if user is None:
        return f"{SSH_USER}@" if scheme == "ssh" else ""
    if scheme != "ssh" or password is not None:
        raise InvalidSpec(
            "User names and passwords do not belong in a link: everyone who sees it could use them. This site reads public repositories."
        )
    if not USER.fullmatch(user):
        raise InvalidSpec("The user name in the ssh:// URL is not one.")
    return f"{user}@"
