"""In which order builds run and how long that takes: pure, called by `builds`.

First come, first served, except that whoever has builds running, or before them in the queue, lets others go in between: one client that
asks for fifty builds does not make the next one wait for all of them. What the administrator moved to the front goes first of all, the last moved
before the others. The order depends on the stored records alone, so it survives a restart.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from binder_onprem.model import BuildRecord


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the queue: `position` counts from 1, `estimate` is in seconds, None when nothing is known yet; `paused`: nothing begins now."""

    position: int
    estimate: float | None
    paused: bool = False


def asker(build: BuildRecord) -> str:
    """Whose turn a build takes: the client's, or where that is not known the repository's."""
    return build.asker or build.repo.url


def order(queued: Sequence[BuildRecord], running: Iterable[BuildRecord]) -> list[BuildRecord]:
    """The queue as it will be served: what was moved to the front, then always the oldest build of those askers who have had the fewest turns.

    Args:
        queued: Oldest first.
        running: Count as turns taken.
    """
    turns = Counter(asker(build) for build in running)
    ranked = []
    for age, build in enumerate(queued):
        turns[asker(build)] += 1
        ranked.append((-(build.front or 0.0), turns[asker(build)], age, build))
    return [build for *_, build in sorted(ranked, key=lambda entry: entry[:3])]


def startable(ordered: Sequence[BuildRecord], running: Iterable[BuildRecord], each: int) -> list[BuildRecord]:
    """Those of the queue that may start now, in its order.

    Args:
        ordered: From `order`.
        running: What runs.
        each: Builds of one asker that run at once; 0: no limit.
    """
    if not each:
        return list(ordered)
    turns = Counter(asker(build) for build in running)
    found = []
    for build in ordered:
        turns[asker(build)] += 1
        if turns[asker(build)] <= each:
            found.append(build)
    return found


def places(ordered: Sequence[BuildRecord], concurrency: int, durations: Sequence[float], *, paused: bool = False) -> dict[str, Place]:
    """Build id → place.

    Args:
        ordered: From `order`.
        concurrency: Builds at once.
        durations: Seconds that recent builds took.
        paused: No build may begin now, and nobody knows until when.
    """
    one = median(durations) if durations and not paused else None
    places = enumerate(ordered, start=1)
    return {build.id: Place(position, None if one is None else one * -(-position // concurrency), paused) for position, build in places}


def spoken(seconds: float) -> str:
    """A duration for people: ``40 s``, ``12 min``, ``2 h``."""
    if seconds < 90:  # noqa: PLR2004 - below a minute and a half seconds say more
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{round(minutes / 60)} h"  # noqa: PLR2004 - the same for hours


def waiting(place: Place) -> str:
    """What somebody in the queue reads."""
    if place.paused:
        return f"Builds are paused by the administrator; yours begins when they go on... (number {place.position} in the queue)\n"
    if place.position == 1 and place.estimate is None:
        return "Waiting for build to start...\n"
    estimate = "" if place.estimate is None else f", about {spoken(place.estimate)}"
    return f"Waiting for build to start... (number {place.position} in the queue{estimate})\n"
