"""Which machine builds: the one that has built a repository before, while it has a place and answers; else the next.

`chosen` decides, pure; `Dispatch` gives the builds out and is what the rest takes for the builder (`interfaces.Builder`).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from binder_onprem import metrics
from binder_onprem.errors import BinderError, EngineUnavailable
from binder_onprem.events import Phase
from binder_onprem.model import fingerprint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from binder_onprem.building.elsewhere.remote import RemoteBuilder
    from binder_onprem.interfaces import Builder, BuildLog
    from binder_onprem.model import BuildRecord

logger = logging.getLogger(__name__)

AWAY_SECONDS: Final = 30.0
"""A builder that did not answer is not asked for so long, unless no other one is there."""
NONE_LEFT: Final = "No machine that builds takes this build now: each is away, or kept from new builds. Trying again may help."


@dataclass(frozen=True, slots=True)
class Seen:
    """A machine as the choice needs it.

    Attributes:
        name: Its name.
        running: Builds that it carries out for us.
        places: Builds that it takes at once.
        away: It did not answer a short while ago.
    """

    name: str
    running: int
    places: int
    away: bool = False


def chosen(repository: str, machines: Sequence[Seen], without: Collection[str] = ()) -> str | None:
    """The machine for a repository's build.

    Each repository has its own order of machines, by rendezvous: what its last build has left there, layers above all, is used again; and when a
    machine comes or goes, only what was, or will be, its own moves.

    Args:
        repository: The image's, without tag.
        machines: All that may be asked.
        without: Names of those that were asked for this build already, or are kept from new builds.
    """
    able = [machine for machine in machines if machine.name not in without]
    if not able:
        return None
    first = min(able, key=lambda machine: (machine.away, machine.running >= machine.places, fingerprint(machine.name, repository)))
    if first.running < first.places or first.away:
        return first.name
    # None has a place: the one that has to wait the least.
    return min(able, key=lambda machine: (machine.away, machine.running / machine.places, fingerprint(machine.name, repository))).name


class Away(EngineUnavailable):
    """A builder cannot be reached, or was lost; what it was doing is begun anew elsewhere."""


class Dispatch:
    """Gives builds to machines.

    Args:
        here: Builds on this machine; None: no build does.
        others: By name.
        closed: Names of machines that are to get no new builds.
        now: Monotonic seconds.
    """

    def __init__(
        self,
        here: tuple[str, Builder] | None,
        others: Mapping[str, RemoteBuilder],
        closed: Callable[[], frozenset[str]],
        *,
        places: int = 2,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._builders: dict[str, Builder] = {**dict([here] if here else []), **others}
        self._others = others
        self._closed = closed
        self._places = places
        self._now = now
        self._running = dict.fromkeys(self._builders, 0)
        self._away: dict[str, float] = {}

    async def build(self, build: BuildRecord, log: BuildLog, pushing: Callable[[], Awaitable[None]]) -> str:
        """See `interfaces.Builder`."""
        asked: set[str] = set()
        failed = EngineUnavailable(NONE_LEFT)
        while name := chosen(build.image.repository, self._seen(), asked | self._closed()):
            asked.add(name)
            self._count(name, 1)
            try:
                await log.write(Phase.BUILDING, f"This is built on {name}.")
                digest = await self._builders[name].build(build, log, pushing)
            except EngineUnavailable as error:
                # Away, its podman is, or its disk is full: another machine may do.
                failed = EngineUnavailable(NONE_LEFT) if isinstance(error, Away) else error
                self._lost(name)
                await log.write(Phase.BUILDING, error.message)
            else:
                self._back(name)
                return digest
            finally:
                self._count(name, -1)
        raise failed

    async def sweep(self, running: frozenset[str]) -> None:
        """See `interfaces.Builder`; a machine that does not answer sweeps when it comes back, and by itself when it starts."""
        for name, builder in self._builders.items():
            try:
                await builder.sweep(running)
            except EngineUnavailable:
                if name not in self._others:
                    raise
                self._lost(name)
            else:
                self._back(name)

    async def rows(self) -> list[dict[str, Any]]:
        """Every machine as JSON: ``name``, ``url``, ``state`` (ok, away, closed), ``message``, ``running``, ``places``."""
        return [await self._row(name) for name in self._builders]

    async def ping(self) -> None:
        """Whether any machine builds. Raises `EngineUnavailable`."""
        rows = await self.rows()
        if not any(row["state"] == "ok" for row in rows):
            raise EngineUnavailable(NONE_LEFT)

    async def _row(self, name: str) -> dict[str, Any]:
        closed, other = name in self._closed(), self._others.get(name)
        row = {"name": name, "url": other.url if other else "", "message": "", "running": self._running[name], "places": self._places}
        if other:
            try:
                row["places"] = (await other.state()).places
            except BinderError as error:
                self._lost(name)
                return {**row, "state": "away", "message": error.message}
            self._back(name)
        return {**row, "state": "closed" if closed else "ok"}

    def _seen(self) -> list[Seen]:
        now = self._now()
        return [
            Seen(name, self._running[name], self._others[name].places if name in self._others else self._places, self._away.get(name, 0.0) > now)
            for name in self._builders
        ]

    def _count(self, name: str, change: int) -> None:
        self._running[name] += change
        metrics.BUILDER_BUILDS.labels(name).set(self._running[name])

    def _lost(self, name: str) -> None:
        logger.warning("builder away", extra={"builder": name})
        self._away[name] = self._now() + AWAY_SECONDS
        metrics.BUILDER_UP.labels(name).set(0)

    def _back(self, name: str) -> None:
        self._away.pop(name, None)
        metrics.BUILDER_UP.labels(name).set(1)
