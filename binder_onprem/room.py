"""Room for one more session: taking a place, or waiting for one in a queue that everybody in it sees.

`launch` asks `check` before a build is spent and holds a `place` until the hub shows the session. A place belongs to its launch, not to a
connection: who comes back within the grace finds it, in the queue or taken; nobody behind is let past meanwhile. What counts is what the hub
shows, and beside it the places whose sessions it does not show yet, so that a hundred clicks at once do not all see room.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from binder_onprem import metrics
from binder_onprem.errors import BinderError, QuotaExceeded, RepositoryFull, StoreUnavailable
from binder_onprem.place import Place, told, why
from binder_onprem.quotas import Claim, Held, Kind, Limits, Shortage, Turns, Waiting, shortage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from binder_onprem.config import Quota
    from binder_onprem.events import Progress
    from binder_onprem.interfaces import Hub
    from binder_onprem.model import Session
    from binder_onprem.place import Kept

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
"""Between two looks at the sessions while somebody waits."""
LONGEST_LOOK: Final = 30.0
RETRY: Final = 60


class Room:
    """All places of the site.

    Args:
        limits: How many of whom.
        rules: Waiting or refusing, how many wait, how long.
        hub: Whose sessions count.
        kept: Where places outlive us; None: in memory alone.
        now: Unix seconds.
        monotonic: Seconds of a clock that does not jump.
    """

    def __init__(  # noqa: PLR0913 - the last three are choices with defaults
        self,
        limits: Limits,
        rules: Quota,
        hub: Hub,
        kept: Kept | None = None,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._rules = rules
        self._hub = hub
        # One write for each launch is spent only where somebody counts on it.
        self._kept = kept if rules.when_full == "wait" or limits.personal else None
        self._now = now
        self._clock = monotonic
        self._places: dict[str, Place] = {}
        self._turns = Turns()
        self._looks = 0
        self._looked = 0
        self._loading = asyncio.Lock()
        self._loaded = self._kept is None
        self._pump: asyncio.Task[None] | None = None
        self._stir = asyncio.Event()
        self._gone: set[str] = set()

    @property
    def starting(self) -> frozenset[str]:
        """Launches whose sessions are being started: nobody may stop those."""
        return frozenset(launch_id for launch_id, place in self._places.items() if place.held.granted and place.viewers)

    def queue(self) -> list[Waiting]:
        """Those who wait, first one first."""
        lacking = [(place, place.lacks.kind.value if place.lacks else Kind.TOTAL.value) for place in self._queue()]
        return [
            Waiting(number, place.claim.launch_id, place.claim.url, place.claim.subject, place.held.since, kind, place.viewers > 0)
            for number, (place, kind) in enumerate(lacking, start=1)
        ]

    async def check(self, claim: Claim) -> None:
        """Before a build is spent: raises `QuotaExceeded` when the launch would be refused after it, `HubUnavailable`."""
        await self._load()
        if self._limits.total and (claim.launch_id in self._places or self._waits):
            self._bounded(claim)
            return
        self._looks += 1
        number = self._looks
        others = self._others(await self._hub.sessions(), number)
        others.pop(claim.launch_id, None)
        if lacks := shortage(claim, others.values(), self._limits):
            raise _refusal(lacks, lacks.message)

    @property
    def _waits(self) -> bool:
        return self._rules.when_full == "wait"

    def _bounded(self, claim: Claim) -> None:
        if claim.launch_id not in self._places and len(self._queue()) >= self._rules.waiting:
            raise self._full()

    def _full(self) -> QuotaExceeded:
        return QuotaExceeded(
            f"There is no free place, and {self._rules.waiting} launches wait for one already. Try again in a few minutes.", retry_after=RETRY
        )

    @asynccontextmanager
    async def place(self, claim: Claim) -> AsyncIterator[AsyncGenerator[Progress, None]]:
        """Take a place, from before it is asked whether there is room until the hub shows the session.

        Args:
            claim: Of the launch.

        Yields:
            What to tell until the place is had, to be read to its end before the session is started; it raises `QuotaExceeded` when there is no
            room, or none in time.
        """
        await self._load()
        place = self._joined(claim)
        place.viewers += 1
        handed_over = True
        try:
            async with aclosing(self._until_had(place)) as words:
                yield words
        except (asyncio.CancelledError, GeneratorExit):
            handed_over = False  # the viewer's connection broke: it may come back for its place
            raise
        finally:
            place.viewers -= 1
            self._left(place, handed_over=handed_over)

    def _joined(self, claim: Claim) -> Place:
        place = self._places.get(claim.launch_id)
        if place is None:
            tag = self._turns.tag(claim.subject or claim.launch_id)
            place = self._places[claim.launch_id] = Place(Held(claim, tag, self._now()), self._clock() + self._rules.patience)
        elif not place.viewers and place.held.granted and (place.released is not None or self._clock() >= place.until):
            # Its session was handed over long ago: if that is still there it has room, else it needs room anew.
            place.held, place.released = replace(place.held, granted=False), None
            place.patience = self._clock() + self._rules.patience
        return place

    def _left(self, place: Place, *, handed_over: bool) -> None:
        if place.viewers:
            return
        if not place.held.granted and (handed_over or not self._waits):
            self._forget(place)
        elif handed_over:
            place.released = self._looks
        else:
            place.until = self._clock() + self._rules.grace
        self._pumping()

    def _forget(self, place: Place) -> None:
        if self._places.get(place.claim.launch_id) is place:
            del self._places[place.claim.launch_id]
            self._gone.add(place.claim.launch_id)
            place.bell.set()

    async def _until_had(self, place: Place) -> AsyncGenerator[Progress, None]:
        await self._look()
        if not place.held.granted:
            if not (self._waits and self._limits.total):
                raise _refusal(place.lacks, why(place))
            if len(self._queue()) > self._rules.waiting:
                raise self._full()
            await self._write(place)
            async with aclosing(self._wait(place)) as words:
                async for event in words:
                    yield event
        await self._write(place)

    async def _wait(self, place: Place) -> AsyncGenerator[Progress, None]:
        self._pumping()
        said: tuple[int, Shortage | None] | None = None
        while place.waits():
            place.bell.clear()
            position = next((number for number, other in enumerate(self._queue(), start=1) if other is place), 0)
            if not position:
                raise QuotaExceeded("Your place in the queue was given up. Launch again.", retry_after=1)
            if (position, place.lacks) != said:
                said = (position, place.lacks)
                yield told(position, place)
            try:
                async with asyncio.timeout(max(0.0, place.patience - self._clock())):
                    await place.bell.wait()
            except TimeoutError:
                if not place.waits():
                    return
                minutes = math.ceil(self._rules.patience / 60)
                raise _refusal(place.lacks, f"No place became free in {minutes} min. {why(place)}") from None

    # Looking at what there is, and handing out what is free.

    def _queue(self) -> list[Place]:
        return sorted((place for place in self._places.values() if not place.held.granted), key=lambda place: (place.held.tag, place.held.since))

    async def _look(self) -> None:
        self._looks += 1
        number = self._looks
        sessions = await self._hub.sessions()
        # An older look that ends late would see less than is there: what it lacks has been forgotten since.
        if number > self._looked:
            self._looked = number
            self._clear(sessions, number)
            self._grant(self._others(sessions, number), {session.launch_id for session in sessions if session.server})
            await self._drop()

    def _others(self, sessions: Sequence[Session], number: int) -> dict[str, Claim]:
        """Everything that takes room, by launch: what the hub shows, and places whose sessions this look need not show yet."""
        taken = {key: self._claim_of(session) for session in sessions if session.server and (key := session.launch_id or session.name)}
        for launch_id, place in self._places.items():
            if place.held.granted and self._counts(place, number):
                taken.setdefault(launch_id, place.claim)
        return taken

    def _claim_of(self, session: Session) -> Claim:
        known = self._places.get(session.launch_id or "")
        return (
            known.claim
            if known
            else Claim(
                session.launch_id or session.name,
                (session.image or "").partition("@")[0],
                subject=f"user:{session.owner}" if session.owner else None,
            )
        )

    def _counts(self, place: Place, number: int) -> bool:
        if place.viewers or self._clock() < place.until:
            return True
        return place.released is not None and place.released >= number

    def _clear(self, sessions: Sequence[Session], number: int) -> None:
        """Give up places that nobody holds any more: no viewer, and no session."""
        there = {session.launch_id for session in sessions}
        for launch_id, place in list(self._places.items()):
            if place.held.granted and launch_id in there and not place.viewers:
                place.released, place.until = number, 0.0  # from here on the hub's word counts
            elif not self._counts(place, number):
                self._forget(place)

    def _grant(self, taken: dict[str, Claim], there: set[str | None]) -> None:
        queue = self._queue()
        for place in queue:
            launch_id = place.claim.launch_id
            others = {key: claim for key, claim in taken.items() if key != launch_id}
            before, place.lacks = place.lacks, None if launch_id in there else shortage(place.claim, others.values(), self._limits)
            if place.lacks is None:
                # Who is away for a moment keeps the place that is free now: it is neither started nor given to another.
                taken[launch_id] = place.claim
                if place.viewers:
                    place.held = replace(place.held, granted=True)
                    self._turns.served(len(queue))
                    place.bell.set()
            elif place.lacks != before:
                place.bell.set()
        self._ring()

    def _ring(self) -> None:
        metrics.WAITING.set(len(queue := self._queue()))
        for place in queue:
            place.bell.set()

    def _pumping(self) -> None:
        """Somebody looks again and again while anybody waits or a place may have to be given up."""
        self._stir.set()
        if self._wanted and (self._pump is None or self._pump.done()):
            self._pump = asyncio.create_task(self._pumped(), name="room")

    @property
    def _wanted(self) -> bool:
        waits = (not place.held.granted or (place.released is None and not place.viewers) for place in self._places.values())
        return bool(self._kept and self._gone) or any(waits)

    async def _pumped(self) -> None:
        pause = LOOK_SECONDS
        while self._wanted:
            try:
                await self._look()
                pause = LOOK_SECONDS
            except BinderError as error:
                logger.warning("room not seen", extra={"error": error.message})
                pause = min(2 * pause, LONGEST_LOOK)
            self._stir.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._stir.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(LOOK_SECONDS / 10)  # what changes together is looked at once

    # What outlives us.

    async def _load(self) -> None:
        if self._kept is None:
            return
        async with self._loading if not self._loaded else nullcontext():
            if self._loaded:
                return
            found = await self._kept.places()
            for held in found:
                # They come back with their last event id, or they do not: until then nobody behind goes first.
                patience = held.since + self._rules.patience - self._now() + self._clock()
                self._places[held.claim.launch_id] = Place(held, patience, until=self._clock() + self._rules.grace)
            self._turns.taken_up((held.claim.subject or held.claim.launch_id, held.tag) for held in found if not held.granted)
            self._loaded = True
        self._pumping()

    async def _write(self, place: Place) -> None:
        if self._kept:
            await self._kept.put(place.held)

    async def _drop(self) -> None:
        gone, self._gone = self._gone - self._places.keys(), set()
        if not self._kept or not gone:
            return
        try:
            await self._kept.drop(gone)
        except StoreUnavailable:
            logger.warning("places not forgotten", extra={"places": len(gone)})  # the next start finds them without owners


def _refusal(lacks: Shortage | None, words: str) -> QuotaExceeded:
    """Of the kind that says whose quota it is: a program tries again elsewhere when the site is full, and not when the repository is."""
    return (RepositoryFull if lacks and lacks.kind is Kind.REPOSITORY else QuotaExceeded)(words, retry_after=RETRY)
