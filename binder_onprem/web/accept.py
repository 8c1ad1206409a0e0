"""What a client accepts: pure reading of ``Accept`` and ``Accept-Language``.

Malformed parts are skipped, as HTTP asks of a server that can answer anyway; nothing here raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

EVENTS: Final = "text/event-stream"
PARTS: Final = 64
"""Parts of a header that are looked at."""


def ranges(header: str) -> tuple[tuple[str, float], ...]:
    """The header's parts in its order: lower-cased media range (or language) and quality.

    Args:
        header: As in ``text/html;level=1;q=0.5, */*;q=0.1``; several header lines are joined by a comma first.
    """
    return tuple(part for text in header.split(",")[:PARTS] if (part := _part(text)) is not None)


def _part(text: str) -> tuple[str, float] | None:
    name, *parameters = (item.strip().lower() for item in text.split(";"))
    if not name:
        return None
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            return name, _quality(value.strip())
    return name, 1.0


def _quality(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0


def events_named(header: str | None) -> bool:
    """Whether ``text/event-stream`` itself is asked for; ``*/*`` does not count, as in BinderHub."""
    return any(name == EVENTS and quality > 0 for name, quality in ranges(header or ""))


def html_preferred(header: str | None) -> bool:
    """Whether a person's browser asks: HTML is named, and not liked less than JSON."""
    named = dict(ranges(header or ""))
    html = named.get("text/html", 0.0)
    return html > 0 and html >= named.get("application/json", 0.0)


def language(header: str | None, known: Iterable[str], default: str) -> str:
    """The known language (``fr``) that the client likes best; ``fr-CA`` counts as ``fr``."""
    known = frozenset(known)
    liked = sorted(ranges(header or ""), key=lambda part: -part[1])
    return next((tag for name, quality in liked if quality > 0 and (tag := name.partition("-")[0]) in known), default)
