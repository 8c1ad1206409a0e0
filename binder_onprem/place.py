"""One launch's place among the sessions, waited for or taken, and what is said to who waits. Changed by `room` alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from binder_onprem.events import Phase, Progress, Stage
from binder_onprem.quotas import Claim, Held, Kind, Shortage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WORDS: Final = {
    Kind.TOTAL: "a free place on this BinderHub",
    Kind.REPOSITORY: "a free place for this repository",
    Kind.USER: "one of your own sessions to end",
    Kind.GROUP: "a free place for your group",
}


class Kept(Protocol):
    """Where places outlive us."""

    async def places(self) -> Sequence[Held]:
        """All. Raises `StoreUnavailable`."""
        ...

    async def put(self, place: Held) -> None:
        """Keep it, or what changed of it. Raises `StoreUnavailable`."""
        ...

    async def drop(self, launch_ids: Iterable[str]) -> None:
        """Forget these. Raises `StoreUnavailable`."""
        ...


@dataclass(slots=True, eq=False)
class Place:
    """One launch's place; `Room` alone changes it.

    Attributes:
        held: What is kept of it.
        viewers: Connections that follow the launch now.
        until: Monotonic seconds until which it is kept without one.
        released: Number of the last look that had begun when its session was handed over; None before.
        patience: Monotonic seconds when waiting ends.
        lacks: What it waits for.
    """

    held: Held
    patience: float
    viewers: int = 0
    until: float = 0.0
    released: int | None = None
    lacks: Shortage | None = None
    bell: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def claim(self) -> Claim:
        """What it counts against."""
        return self.held.claim

    def waits(self) -> bool:
        """Whether it is not had yet."""
        return not self.held.granted


def why(place: Place) -> str:
    """What it lacks, as a sentence."""
    return place.lacks.message if place.lacks else "Too many users on this BinderHub! Try again soon."


def told(position: int, place: Place) -> Progress:
    """What who waits reads."""
    kind = place.lacks.kind if place.lacks else Kind.TOTAL
    data = {"position": position, "waiting_for": kind.value}
    return Progress(Phase.WAITING, f"Waiting for {WORDS[kind]}... (number {position} in the queue)\n", Stage.LAUNCH, 0, data)
