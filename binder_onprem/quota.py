"""Ends sessions that have written more than they may. The storage cannot refuse the bytes, so they are counted.

`Quota.look` is the pass, run by `periodic` and by the CLI. It costs one system call while the disk's use hardly moves, and never takes more than a
part of the time: a look that took long is followed by a long rest.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from binder_onprem.ends import Ends, Reason
from binder_onprem.errors import BinderError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from binder_onprem.interfaces import Engine, EngineContainer, Hub, SessionFiles
    from binder_onprem.model import Session

logger = logging.getLogger(__name__)

SESSIONS: Final = {"io.binder-onprem.kind": "session"}
PART: Final = 20
"""A change of the disk's use by less than this part of the limit is none."""
LONGEST: Final = 300.0
"""Seconds after which everything is counted in any case: one may write while another deletes."""
REST: Final = 10
"""Times a look's duration that pass before the next."""


@dataclass(frozen=True, slots=True)
class Over:
    """One session that wrote too much. `stopped` is False in a dry run, when a launch is just starting it, or when stopping failed."""

    name: str
    bytes: int
    stopped: bool


class Quota:
    """The pass.

    Args:
        engine: Whose containers.
        files: What they have written.
        hub: Ends sessions.
        limit: Bytes a session may write.
        ends: Ends sessions; None: by the hub alone, nothing is kept or told.
        now: Monotonic seconds.
    """

    def __init__(  # noqa: PLR0913 - the last two are choices with defaults
        self,
        engine: Engine,
        files: SessionFiles,
        hub: Hub,
        limit: int,
        *,
        ends: Ends | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._files = files
        self._hub = hub
        self._limit = limit
        self._ends = ends or Ends(hub)
        self._now = now
        self._used: int | None = None
        self._looked = self._next = now()
        self._one = asyncio.Lock()
        self.sizes: Mapping[str, int] = {}
        """Launch → bytes written, as they were last counted."""

    async def look(self, *, held: Callable[[], frozenset[str]] = frozenset, dry_run: bool = False) -> tuple[Over, ...]:
        """End the sessions that are over the limit; who was, or in a dry run would be.

        Args:
            held: Tells the ids of launches that are starting their sessions just now.
            dry_run: Only say; counts in any case.

        Raises:
            EngineUnavailable: Podman does not answer.
            HubUnavailable: Whose the containers are that are over the limit cannot be had.
        """
        async with self._one:
            used, began = await self._files.used(), self._now()
            if not dry_run and self._quiet(used, began):
                return ()
            counted = [
                (found.labels.get("io.binder-onprem.launch", ""), await self._written(found)) for found in await self._engine.labelled(SESSIONS)
            ]
            self.sizes = dict(counted)
            over = [(launch, size) for launch, size in counted if size > self._limit]
            known = {session.launch_id: session for session in await self._hub.sessions()} if over else {}
            # A container without a session is reconcile's.
            ends = [(known[launch], size) for launch, size in over if launch in known]
            done = tuple([await self._end(session, size, held, dry_run=dry_run) for session, size in ends])
            if not dry_run:
                # Who could not be stopped is looked at again soon.
                self._used = used if all(one.stopped for one in done) else None
                self._looked, self._next = began, self._now() + REST * (self._now() - began)
            return done

    def _quiet(self, used: int, now: float) -> bool:
        if now < self._next:
            return True
        return self._used is not None and abs(used - self._used) < self._limit // PART and now - self._looked < LONGEST

    async def _written(self, found: EngineContainer) -> int:
        try:
            return await self._files.written(found.name)
        except NotFound:
            return 0  # it ended meanwhile

    async def _end(self, session: Session, size: int, held: Callable[[], frozenset[str]], *, dry_run: bool) -> Over:
        if dry_run or session.launch_id in held():
            return Over(session.name, size, stopped=False)
        try:
            await self._ends.end(session, Reason.DISK)
        except (BinderError, TimeoutError) as error:
            logger.warning("session not stopped", extra={"session": session.name, "reason": Reason.DISK.value, "error": str(error)[:200]})
            return Over(session.name, size, stopped=False)
        logger.info("session over the limit", extra={"session": session.name, "bytes": size, "limit": self._limit})
        return Over(session.name, size, stopped=True)
