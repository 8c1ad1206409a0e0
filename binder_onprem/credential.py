"""What opens private repositories: values, and the pure choice of who may use which of them where.

A credential is for one scheme, host and port. It travels as the header ``Authorization`` to exactly there, or as a file lent to one clone, and in
no other way. Its id is random or made of what is not secret: it tells nothing and may be stored and compared.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from binder_onprem.errors import InvalidSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from binder_onprem.model import Client

PORTS: Final = {"https": 443, "http": 80}
USERNAME: Final = "oauth2"
"""Sent where none is given: the hosts that take tokens as passwords look at the token alone, GitLab's documentation names this one."""
LONGEST: Final = 4096
"""Characters of a secret."""
_HOST: Final = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9_])?|\[[0-9a-f:.]{2,45}\]")
_BAD_HOST: Final = "Name the host as in git.uni.example or git.uni.example:8443; http:// in front only for a host in a network of your own."


@dataclass(frozen=True, slots=True)
class Credential:
    """One.

    Attributes:
        id: What is recorded and compared.
        origin: ``scheme://host:port`` that it is for.
        username: Goes with the secret.
        secret: Token or password.
        users, groups: Who may use it; neither: everybody who may launch.
        stored: Kept by the service; else the configuration's.
    """

    id: str
    origin: str
    username: str
    secret: str = field(repr=False)
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    stored: bool = False

    @property
    def everybody(self) -> bool:
        """Whether everybody who may launch may use it."""
        return not self.users and not self.groups

    @property
    def authorization(self) -> str:
        """Value of the header, as git's own servers ask for it."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.secret}".encode()).decode("ascii")


def origin_of(text: str) -> str:
    """``scheme://host:port`` of a URL, or of a host alone, which then is one of https.

    Raises:
        InvalidSpec: It is neither, or has a path, an account or another scheme.
    """
    if not text.isprintable():
        raise InvalidSpec(_BAD_HOST)
    try:
        parts = urlsplit(text.strip().lower() if "://" in text else f"https://{text.strip().lower()}")
        port = parts.port or PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise InvalidSpec(_BAD_HOST) from None
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    if not _HOST.fullmatch(host) or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise InvalidSpec(_BAD_HOST)
    return f"{parts.scheme}://{host}:{port}"


def origin_of_repository(url: str) -> str | None:
    """The origin whose credentials open a clone URL; None where there are none: ssh, git, what is not a URL."""
    scheme, _, rest = url.partition("://")
    try:
        return origin_of(f"{scheme}://{rest.partition('/')[0]}") if scheme in PORTS else None
    except InvalidSpec:
        return None


def shown(origin: str) -> str:
    """An origin as people write it."""
    return origin.removeprefix("https://").removesuffix(":443") if origin.startswith("https://") else origin


def in_the_clear(origin: str) -> bool:
    """Whether what is sent there can be read on the way, for all that is known: http to anything but an address that is not public."""
    parts = urlsplit(origin)
    if parts.scheme == "https":
        return False
    try:
        address: IPv4Address | IPv6Address = ip_address(parts.hostname or "")
    except ValueError:
        return True
    return not (address.is_private or address.is_loopback)


def subject(client: Client) -> str | None:
    """Whose stored credentials a client has; a program is never taken for a person of the same name."""
    if client.user is None or not client.service or client.user.startswith("service:"):
        return client.user
    return f"service:{client.user}"


def may_use(credential: Credential, client: Client) -> bool:
    """Whether this client may use it."""
    return credential.everybody or subject(client) in credential.users or bool(client.groups & credential.groups)


def owned(credential: Credential, client: Client) -> bool:
    """Whether it is the client's own, who keeps it here: nobody else can renew it."""
    return credential.stored and subject(client) in credential.users


def credentials_for(origin: str, client: Client, every: Iterable[Credential]) -> tuple[Credential, ...]:
    """Those that this client may use there: the client's own first, then the groups', then everybody's."""
    name = subject(client)
    mine = [one for one in every if one.origin == origin and may_use(one, client) and not in_the_clear(origin)]
    return tuple(sorted(mine, key=lambda one: 0 if name in one.users else 1 if one.groups & client.groups else 2))


def checked_secret(text: str) -> str:
    """A secret fit for a header and for git, whose lines it must not break. Raises InvalidSpec, without it."""
    secret = text.strip()
    if not secret or len(secret) > LONGEST or not secret.isprintable():
        raise InvalidSpec(f"The token must be one line of 1 to {LONGEST} characters.")
    return secret


def checked_username(text: str) -> str:
    """The same for a name; `USERNAME` for none. Raises InvalidSpec."""
    name = text.strip()
    if len(name) > 200 or not name.isprintable() or ":" in name:  # noqa: PLR2004 - longer than any
        raise InvalidSpec("The user name must be one line of at most 200 characters without a colon.")
    return name or USERNAME
