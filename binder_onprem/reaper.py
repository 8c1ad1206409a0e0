"""Ends sessions that nobody uses, that have lived too long, or that never came up, and clears up after those that ended by themselves.

`overdue` and `observe` decide, pure; `Reaper.reap` is the pass, run by `periodic` and by the CLI. Wall time is read once per session, when it is
first seen; from then on everything is measured on a monotonic clock, so a jump of the machine's clock ends nobody's work. Before an idle session
is stopped it is asked whether a kernel works or a page is connected. Never stops a session that a launch is starting.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from binder_onprem import metrics
from binder_onprem.ends import Ends, Reason
from binder_onprem.errors import BinderError, HubUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from binder_onprem import config
    from binder_onprem.drains import Drains
    from binder_onprem.interfaces import Activity, Hub
    from binder_onprem.model import Session

logger = logging.getLogger(__name__)

ASK_SECONDS: Final = 10.0
AT_ONCE: Final = 4
"""Sessions stopped at the same time."""
LIST_SECONDS: Final = 2.0
"""Between two looks for a session that no pass has seen yet, whoever asks."""
STARTS: Final = 3
"""A session that does not answer after so many times its start timeout will not answer any more."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is remembered of a session between passes, in seconds of the monotonic clock.

    Attributes:
        born: When it started, as far as can be told.
        active: When it was last known to be active.
        waiting: Since when it has not answered; None while it does.
        last_activity: What the hub said last (Unix seconds), only compared, never counted with.
        served: It has had a server that answered.
    """

    born: float
    active: float
    waiting: float | None
    last_activity: float | None
    served: bool = False


@dataclass(frozen=True, slots=True)
class Reaped:
    """One decision. `stopped` is False in a dry run, when the session turned out to be busy, or when stopping failed."""

    name: str
    reason: Reason
    stopped: bool


def observe(seen: Seen | None, session: Session, wall: float, now: float, began: float) -> Seen:
    """Bring what is remembered up to date.

    Args:
        seen: From the last pass; None for a session not seen before.
        session: As the hub shows it now.
        wall: Unix seconds; used for a session not seen before alone.
        now: Monotonic seconds.
        began: When we began to watch, monotonic seconds: what happened before is not held against a session's idleness, since only wall
            clocks tell of it. Its age is believed, up to the machine's own.
    """
    waiting = None if session.ready else (seen.waiting if seen and seen.waiting is not None else now)
    if seen is None:
        age = 0.0 if session.started is None else min(max(0.0, wall - session.started), max(0.0, now))
        last = session.last_activity or session.started
        idle = 0.0 if last is None else min(max(0.0, wall - last), now - began)
        return Seen(now - age, now - idle, waiting, session.last_activity, session.ready)
    # Any change is activity, whatever time it claims: the clock that wrote it may have been set.
    moved = session.last_activity != seen.last_activity
    return Seen(seen.born, now if moved else seen.active, waiting, session.last_activity, seen.served or session.ready)


def overdue(session: Session, seen: Seen, now: float, limits: config.Session) -> Reason | None:
    """Why the session has to end now, if it has to.

    Args:
        session: As the hub shows it.
        seen: From `observe`.
        now: Monotonic seconds.
        limits: Seconds of idleness, age and start, as far as the session has none of its own.
    """
    if not session.server:
        # One whose server we never saw may be about to get it: that is reconcile's, which waits.
        return Reason.GONE if seen.served else None
    if seen.waiting is not None:
        return Reason.START if now - seen.waiting > STARTS * limits.start_timeout else None
    if now - seen.born > (session.age or limits.age):
        return Reason.AGE
    return Reason.IDLE if now - seen.active > (session.idle or limits.idle) else None


def foreseen(session: Session, seen: Seen, now: float, limits: config.Session) -> tuple[Reason, float] | None:
    """Why and in how many seconds the session ends if nothing happens; None when that cannot be said, as while it starts."""
    if not session.server or seen.waiting is not None:
        return None
    age = (session.age or limits.age) - (now - seen.born)
    idle = (session.idle or limits.idle) - (now - seen.active)
    return (Reason.AGE, max(0.0, age)) if age <= idle else (Reason.IDLE, max(0.0, idle))


class Reaper:
    """The pass.

    Args:
        hub: Whose sessions.
        activity: Asked before an idle session is stopped.
        limits: Seconds.
        ends: Ends sessions; None: by the hub alone, nothing is kept or told.
        drains: Knows whose machine is maintained; None where there is only this one.
        wall: Unix seconds.
        now: Monotonic seconds.
    """

    def __init__(  # noqa: PLR0913 - the last four are choices with defaults
        self,
        hub: Hub,
        activity: Activity,
        limits: config.Session,
        *,
        ends: Ends | None = None,
        drains: Drains | None = None,
        wall: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub = hub
        self._activity = activity
        self._limits = limits
        self._ends = ends or Ends(hub)
        self._drains = drains
        self._wall = wall
        self._now = now
        self._began = now()
        self._seen: dict[str, Seen] = {}
        self._sessions: dict[str, Session] = {}
        self._listed = float("-inf")
        self._one = asyncio.Lock()

    async def reap(self, *, held: Callable[[], frozenset[str]] = frozenset, dry_run: bool = False) -> tuple[Reaped, ...]:
        """Stop what is overdue; what was, or in a dry run would be, done.

        Args:
            held: Tells the ids of launches that are starting their sessions just now.
            dry_run: Only say.

        Raises:
            HubUnavailable: Its sessions cannot be had.
        """
        async with self._one:  # two passes at once would stop a session and then its successor
            if self._drains:
                await self._drains.look()
            sessions = await self._shown()
            metrics.SESSIONS.set(sum(session.server for session in sessions))
            now, wall = self._now(), self._wall()
            self._seen = {session.name: observe(self._seen.get(session.name), session, wall, now, self._began) for session in sessions}
            self._sessions = {session.name: session for session in sessions}
            due = [
                (session, await self._called(session, reason))
                for session in sessions
                if (reason := overdue(session, self._seen[session.name], now, self._limits))
            ]
            if dry_run:
                return tuple(
                    [Reaped(session.name, reason, stopped=False) for session, reason in due if not await self._spared(session, reason, held)]
                )
            slots = asyncio.Semaphore(AT_ONCE)
            return tuple(await asyncio.gather(*(self._end(session, reason, held, slots) for session, reason in due)))

    async def _called(self, session: Session, reason: Reason) -> Reason:
        """The reason by its name: what a drain has ended looks as if it had ended by itself."""
        drained = reason is Reason.GONE and self._drains is not None and await self._drains.ended(session)
        return Reason.MAINTENANCE if drained else reason

    async def _shown(self) -> list[Session]:
        """What the hub shows, and what is left of a session that it showed in the last pass, when that has ended by itself."""
        sessions = list(await self._hub.sessions())
        shown = {session.name for session in sessions}
        left = [await self._hub.current(known) for name, known in self._sessions.items() if name not in shown]
        return [*sessions, *(one[0] for one in left if one)]

    async def find(self, name: str) -> Session | None:
        """A session as it was at the last pass, or now if that knew nothing of it. Raises `HubUnavailable`."""
        if name not in self._sessions and self._now() - self._listed > LIST_SECONDS:
            self._listed = self._now()
            self._sessions |= {session.name: session for session in await self._hub.sessions() if session.name not in self._sessions}
        return self._sessions.get(name)

    def foresee(self, session: Session) -> tuple[Reason, float] | None:
        """`foreseen` of a session as the hub shows it this moment, which is remembered."""
        now = self._now()
        self._seen[session.name] = observe(self._seen.get(session.name), session, self._wall(), now, self._began)
        return foreseen(session, self._seen[session.name], now, self._limits)

    def used(self, session: Session) -> None:
        """Its person has said, or a kernel shows, that it is in use."""
        if seen := self._seen.get(session.name):
            self._seen[session.name] = replace(seen, active=self._now())

    async def _end(self, session: Session, reason: Reason, held: Callable[[], frozenset[str]], slots: asyncio.Semaphore) -> Reaped:
        async with slots:
            try:
                stopped = await self._stop(session, reason, held)
            except (BinderError, TimeoutError) as error:
                # The next pass finds it again.
                logger.warning("session not stopped", extra={"session": session.name, "reason": reason.value, "error": str(error)[:200]})
                stopped = False
        return Reaped(session.name, reason, stopped)

    async def _stop(self, session: Session, reason: Reason, held: Callable[[], frozenset[str]]) -> bool:
        if await self._spared(session, reason, held):
            return False
        await self._ends.keep(session, reason)
        # That takes a while, in which its person may have come back.
        if overdue(session, self._seen[session.name], self._now(), self._limits) is None or await self._spared(session, reason, held):
            return False
        await self._ends.stop(session, reason)
        self._seen.pop(session.name, None)
        self._sessions.pop(session.name, None)
        return True

    async def _spared(self, session: Session, reason: Reason, held: Callable[[], frozenset[str]]) -> bool:
        """Whether it works, which is activity, or is being started."""
        if reason is Reason.IDLE:
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    busy = await self._activity.busy(session)
            except TimeoutError:
                raise HubUnavailable("The session's activity cannot be had; the next pass tries again.") from None
            if busy:
                self.used(session)
                return True
        # Asked last, with nothing awaited until the stop: a click that came while we asked the session must not get a server about to die.
        return session.launch_id in held()
