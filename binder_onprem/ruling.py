"""What the administrator rules while the service runs, as frozen values with pure questions: bans, maintenance, and the audit's entries.

Nothing here touches a clock or a disk; `rules` keeps the ones in force, `store` the ones that must not be lost.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from binder_onprem.errors import InvalidSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from binder_onprem.model import Client

TEXT_LIMIT: Final = 1000
"""Characters of a notice or a reason."""
PATTERN_LIMIT: Final = 300
NAME_LIMIT: Final = 255
LANGUAGES: Final = ("en", "fr")
"""Of notices; English stands for a language that has none."""


class BanKind(StrEnum):
    """What a ban is about."""

    SPEC = "spec"
    """A link: ``provider/path`` with ``*`` for any characters."""
    NETWORK = "network"
    """Addresses of clients, as CIDR."""
    USER = "user"
    """An account."""


@dataclass(frozen=True, slots=True)
class Ban:
    """One ban that the administrator has made while the service runs.

    Attributes:
        id: 16 hex digits.
        kind: What it is about.
        value: Pattern, network or account's name, as `checked_value` gives it.
        reason: Told to those it concerns; may be empty.
        created: Unix seconds.
        until: Unix seconds when it ends; None: until it is removed.
        by: Who made it.
    """

    id: str
    kind: BanKind
    value: str
    reason: str
    created: float
    until: float | None = None
    by: str = ""

    def holds(self, now: float) -> bool:
        """Whether it has not run out."""
        return self.until is None or now < self.until

    def meets(self, link: str, client: Client) -> bool:
        """Whether it concerns this client's launch of ``provider/path``; percent-encoding is no way around it."""
        if self.kind is BanKind.USER:
            return client.user == self.value
        if self.kind is BanKind.NETWORK:
            return _inside(client.address, self.value)
        return any(matches(self.value, form) for form in {link, unquote(link)})


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text is as the pattern says, ``*`` being any characters and case not counting; linear in the text, whatever both are."""
    pattern, text = pattern.lower(), text.lower()
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *inner, last = rest
    if not text.startswith(first) or len(text) < len(first) + len(last) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in inner:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _inside(address: str, network: str) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found) in ipaddress.ip_network(network)


def checked_value(kind: BanKind, value: str) -> str:
    """A ban's value in its normal form. Raises `InvalidSpec` with the form that is expected."""
    value = value.strip()
    if kind is BanKind.NETWORK:
        try:
            return str(ipaddress.ip_network(value, strict=False))
        except ValueError:
            raise InvalidSpec("A banned network is written like 192.0.2.0/24, 192.0.2.7 or 2001:db8::/48.") from None
    if kind is BanKind.SPEC and not (re.fullmatch(r"[^\s\x00-\x1f/]+/[^\s\x00-\x1f]+", value) and len(value) <= PATTERN_LIMIT):
        raise InvalidSpec("A banned link is written like gh/owner/*, with * for any characters; 300 characters at the most.")
    if kind is BanKind.USER and not (value.isprintable() and 0 < len(value) <= NAME_LIMIT):
        raise InvalidSpec("A banned account is given by its name.")
    return value


class Mode(StrEnum):
    """How much a maintenance stops. Running sessions go on in each."""

    NOTICE = "notice"
    """Nothing; people read the words."""
    BUILDS = "builds"
    """No build begins; what is built already is launched."""
    LAUNCHES = "launches"
    """Nobody but an administrator launches anything, and no build begins."""


@dataclass(frozen=True, slots=True)
class Maintenance:
    """A maintenance, announced or in force.

    Attributes:
        mode: What it stops.
        words: By language, what people read; English is always there, perhaps empty.
        since: Unix seconds.
        until: Unix seconds when it ends by itself; None: when it is ended.
        by: Who ordered it.
    """

    mode: Mode
    words: Mapping[str, str] = field(default_factory=dict)
    since: float = 0.0
    until: float | None = None
    by: str = ""

    def holds(self, now: float) -> bool:
        """Whether it has not ended by itself."""
        return self.until is None or now < self.until

    def told(self, language: str) -> str:
        """The words in a language, else the English ones."""
        return self.words.get(language) or self.words.get("en", "")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the audit: who did what, when, from where.

    Attributes:
        at: Unix seconds.
        who: Account, or ``administrator`` where the site's token was used.
        address: Of the client; ``local`` for the service itself.
        action: ``build.cancel``, ``image.pin``, …
        subject: What it was done to.
        outcome: ``ordered``, or an error's code where it was not done after all.
        details: Further facts, JSON.
        number: Place in the audit, given by the database.
    """

    at: float
    who: str
    address: str
    action: str
    subject: str = ""
    outcome: str = "ordered"
    details: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0
