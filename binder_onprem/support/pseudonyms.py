"""People's names in text that goes to strangers: the same name becomes the same pseudonym, and nothing leads back without the key.

Pure, and of the standard library alone, like `redaction`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Iterable

SHORTEST: Final = 3
"""Characters of a name: a shorter one is part of words."""
_PLACES: Final = (
    re.compile(r"/users?/([^/\s\"'?#&,;:)\\\]}>]+)"),
    re.compile(r"\(([^\s()@]{1,100})@[\d.a-f:]{2,45}\)"),
    re.compile(
        r"\b(?:user|username|user_name|login|person|owner|preferred_username|uid|logged in|logged out)\\?[\"']?[ \t]{0,4}[:=][ \t]{0,4}\\?[\"']?"
        r"([^\s\"',;}&\])\\]+)",
        re.IGNORECASE,
    ),
)
_MAIL: Final = re.compile(r"(?<![\w.+%@-])(?!git@)[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,6}[a-z]{2,24}\b", re.IGNORECASE)
_UNIT: Final = re.compile(r".*\.(?:service|slice|timer|socket|target|mount|scope)", re.IGNORECASE)
_NOBODY: Final = re.compile(
    r"person-[0-9a-f]{8}|.*\[re(?:moved|dacted)\].*|[\d.:-]*|none|null|true|false|api|hub|users?|admin|root|jovyan|server|system.*|"
    r"binder.*|push|pull|builder|proxy|daemon|registry|containers|jupyter.*|kubernetes.*|k3s.*|postgres.*|anonymous|unknown|.*-[0-9a-f]{16}",
    re.IGNORECASE,
)
"""What stands where names stand and is none; the last are sessions of nobody in particular, by repository and launch."""


def names_in(text: str) -> frozenset[str]:
    """What stands where people's names do: in paths of the hub, behind words such as `user`."""
    return frozenset(unquote(name) for place in _PLACES for name in place.findall(text))


def people(names: Iterable[str], programs: Iterable[str] = ()) -> tuple[str, ...]:
    """Those of the names that are people's, the longest first.

    Args:
        names: As `names_in` finds them, or the hub's users.
        programs: Accounts of the system, which are nobody's.
    """
    others = frozenset(programs)
    found = {name for name in names if len(name) >= SHORTEST and name not in others and not _NOBODY.fullmatch(name)}
    return tuple(sorted(found, key=lambda name: (-len(name), name)))


def pseudonym(name: str, key: bytes) -> str:
    """The same for the same name, however it is written."""
    return f"person-{hmac.new(key, unquote(name).casefold().encode(), hashlib.sha256).hexdigest()[:8]}"


def anonymous(text: str, names: tuple[str, ...], key: bytes) -> str:
    """The text with pseudonyms for these people, and for addresses of mail.

    Args:
        text: Any.
        names: By `people`.
        key: Of one report; 16 random bytes.
    """
    for name in names:
        for form in {name, quote(name), quote(name, safe="")}:
            if form in text:
                text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(form)}(?![A-Za-z0-9])", pseudonym(name, key), text)
    return _MAIL.sub(lambda found: found[0] if _UNIT.fullmatch(found[0]) else pseudonym(found[0], key), text)
