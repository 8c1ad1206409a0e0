"""One event on its way to one receiver, and when it is tried again: pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_SECONDS: Final = 5.0
LONGEST_SECONDS: Final = 3600.0
TRIES: Final = 15
"""Some eight hours; after them it is put aside for the administrator."""


@dataclass(frozen=True, slots=True)
class Letter:
    """An event for a receiver.

    Attributes:
        number: Its own; receivers see it as the event's id.
        receiver: Name in ``events.webhooks``.
        body: The JSON line.
        created: Unix seconds.
        tries: How often it was tried in vain.
        due: Unix seconds when it is tried next.
        error: Why the last try failed.
        dead: Put aside: tried no more unless somebody says so.
    """

    number: int
    receiver: str
    body: str
    created: float
    tries: int = 0
    due: float = 0.0
    error: str | None = None
    dead: bool = False


def pause(tries: int) -> float | None:
    """Seconds until the next try after so many in vain; None when there is none."""
    return None if tries >= TRIES else min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** (tries - 1))
