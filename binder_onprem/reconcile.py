"""Makes hub, containers and proxy agree: sessions without servers, containers without sessions, routes without servers go.

Run in the foreground before the daemon serves, then by `periodic`, and by the CLI. The hub is the owner; nothing is made here, only removed.

The race: while a session starts, its entry, container and route come into being one after the other, so each of them alone looks like a
leftover for a moment; and the three lists are not taken at the same moment. Therefore (a) the lists are taken in the reverse order of making,
routes, containers, then sessions: whatever was in an earlier list has its owner in a later one, unless that is gone; (b) a leftover must be seen
in two passes and for `GRACE` start timeouts in between before it goes; (c) what a launch is starting is never touched.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from binder_onprem.ends import Ends, Reason
from binder_onprem.errors import BinderError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from binder_onprem import config
    from binder_onprem.interfaces import Builder, Engine, EngineContainer, Hub, Routes
    from binder_onprem.model import Session

logger = logging.getLogger(__name__)

LABEL: Final = "io.binder-onprem."
GRACE: Final = 1.5
"""Start timeouts between first sight of a leftover and its removal."""
ACT_SECONDS: Final = 150.0
"""For one removal. The end of a session takes two minutes at the most: one to keep its files, one to stop it."""


class Kind(StrEnum):
    """What may be left over."""

    SESSION = "session without server"
    CONTAINER = "container without session"
    ROUTE = "route without server"


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something without an owner. `name` is a session's, a container's, or a route's path; `launch_id` where known."""

    kind: Kind
    name: str
    launch_id: str | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """One decision. `removed` is False in a dry run or when it failed."""

    leftover: Leftover
    removed: bool


def leftovers(sessions: Iterable[Session], containers: Iterable[EngineContainer], routes: Mapping[str, str]) -> frozenset[Leftover]:
    """What has no owner in these three lists.

    Args:
        sessions: All of them, with or without server.
        containers: Sessions' containers.
        routes: Path → session's name.
    """
    known = tuple(sessions)
    launches = {session.launch_id for session in known if session.server and session.launch_id}
    names = {session.name for session in known if session.server}
    found = {Leftover(Kind.SESSION, session.name, session.launch_id) for session in known if not session.server}
    for container in containers:
        launch = container.labels.get(f"{LABEL}launch")
        if launch not in launches:
            found.add(Leftover(Kind.CONTAINER, container.name, launch))
    found |= {Leftover(Kind.ROUTE, path) for path, name in routes.items() if name not in names}
    return frozenset(found)


def ripe(since: Mapping[Leftover, float], found: frozenset[Leftover], now: float, grace: float) -> tuple[dict[Leftover, float], tuple[Leftover, ...]]:
    """Remember what was found, and say what has been found long enough.

    Args:
        since: From the last pass: leftover → when it was first seen, without a pass in between that did not see it.
        found: In this pass.
        now: Monotonic seconds.
        grace: Seconds.
    """
    known = {leftover: since.get(leftover, now) for leftover in found}
    old = (leftover for leftover, first in known.items() if leftover in since and now - first >= grace)
    # A session before its container: what it has changed is still to be kept.
    return known, tuple(sorted(old, key=lambda leftover: (leftover.kind is not Kind.SESSION, leftover.kind, leftover.name)))


class Reconcile:
    """The pass.

    Args:
        hub, engine, routes: The three that have to agree; `routes` None where the hub alone looks after them.
        builder: Sweeps what builds left behind.
        running: Tells the ids of builds that run now.
        limits: For the start timeout.
        ends: Ends sessions; None: by the hub alone, nothing is kept or told.
        now: Monotonic seconds.
    """

    def __init__(  # noqa: PLR0913 - the pass is where they meet
        self,
        hub: Hub,
        engine: Engine,
        routes: Routes | None,
        *,
        builder: Builder,
        running: Callable[[], frozenset[str]],
        limits: config.Session,
        ends: Ends | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub = hub
        self._engine = engine
        self._routes = routes
        self._builder = builder
        self._running = running
        self._ends = ends or Ends(hub)
        self._grace = GRACE * limits.start_timeout
        self._now = now
        self._since: dict[Leftover, float] = {}
        self._one = asyncio.Lock()

    async def reconcile(self, *, held: Callable[[], frozenset[str]] = frozenset, dry_run: bool = False) -> tuple[Removal, ...]:
        """Remove what has been without an owner long enough; what was, or in a dry run would be, done.

        Args:
            held: Tells the ids of launches that are starting their sessions just now.
            dry_run: Only say; what was seen does not count as a sighting.

        Raises:
            HubUnavailable, EngineUnavailable: One of the lists cannot be had; then nothing is removed.
        """
        async with self._one:
            routes = await self._routes.routes() if self._routes else {}
            containers = await self._engine.labelled({f"{LABEL}kind": "session"})
            sessions = await self._hub.remains()
            found = leftovers(sessions, containers, routes)
            since, old = ripe(self._since, found, self._now(), self._grace)
            if dry_run:
                return tuple(Removal(leftover, removed=False) for leftover in old)
            self._since = since
            by_name = {session.name: session for session in sessions}
            done = [await self._end(leftover, by_name, held) for leftover in old]
            # Asked when the sweep begins: a build that started while we worked is among them.
            await self._builder.sweep(self._running())
            return tuple(done)

    async def _end(self, leftover: Leftover, sessions: Mapping[str, Session], held: Callable[[], frozenset[str]]) -> Removal:
        if leftover.launch_id is not None and leftover.launch_id in held():
            return Removal(leftover, removed=False)
        try:
            async with asyncio.timeout(ACT_SECONDS):
                await self._remove(leftover, sessions)
        except (BinderError, TimeoutError) as error:
            logger.warning("leftover not removed", extra={"kind": leftover.kind.value, "leftover": leftover.name, "error": str(error)[:200]})
            return Removal(leftover, removed=False)
        self._since.pop(leftover, None)
        logger.info("leftover removed", extra={"kind": leftover.kind.value, "leftover": leftover.name})
        return Removal(leftover, removed=True)

    def _remove(self, leftover: Leftover, sessions: Mapping[str, Session]) -> Awaitable[None]:
        match leftover.kind:
            case Kind.SESSION:
                return self._ends.end(sessions[leftover.name], Reason.LEFT)
            case Kind.CONTAINER:
                return self._engine.remove(leftover.name)
            case Kind.ROUTE:
                if self._routes is None:
                    raise ValueError("no routes are looked after here")
                return self._routes.drop(leftover.name)
