"""One build being carried out: time limit, patience with parts of ours that do not answer, the record of its end.

Called by `builds` alone, which decides when. Says what it does in the build's log.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from binder_onprem import metrics
from binder_onprem.errors import BinderError, BuildCancelled, BuildFailed, BuildTimeout, DiskFull, StoreUnavailable, Unavailable
from binder_onprem.events import Phase
from binder_onprem.model import BuildState
from binder_onprem.outcome import verdict
from binder_onprem.queueing import spoken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from binder_onprem.config import Build
    from binder_onprem.eventlog import EventLog, Logs
    from binder_onprem.interfaces import Builder, Store
    from binder_onprem.model import BuildRecord

logger = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 30.0
TRIES: Final = 8
"""After these, some two and a half minutes, what does not answer is not just being restarted: people are told."""
PUT_BACK_SECONDS: Final = 3.0
_STATUS: Final = {BuildState.BUILT: "success", BuildState.CANCELLED: "cancelled"}


@dataclass(slots=True, eq=False)
class Live:
    """A build as this process knows it.

    Attributes:
        record: What the store has, or had a moment ago.
        logs: Where its log is had from.
        task: While it runs.
        begun: The task has taken its first step; before that, cancelling it would leave nobody to record the end.
        cancelled_by: Somebody wants it stopped.
        ending: Its outcome is known and being recorded; too late for cancelling.
        announced: That it was queued has been told. Whoever starts it waits for that: killed in between, the next process would know that it
            runs and not that nobody has heard of it yet.
        gone: It is over and recorded.
    """

    record: BuildRecord
    logs: Logs
    task: asyncio.Task[None] | None = None
    begun: bool = False
    cancelled_by: str | None = None
    ending: bool = False
    announced: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    _held: AsyncExitStack = field(default_factory=AsyncExitStack)
    _log: EventLog | None = None

    async def open(self) -> None:
        """Hold its log for writing."""
        self._log = await self._held.enter_async_context(self.logs.hold(self.record.id))

    @property
    def log(self) -> EventLog:
        """Its log, while it is open."""
        if self._log is None:
            raise ValueError("the log is not open")
        return self._log

    @property
    def closed(self) -> bool:
        """Whether nothing more will be written."""
        return self._log is None

    async def close(self) -> None:
        """Nothing more will be written: wake the readers, let go of the log."""
        log, self._log = self._log, None
        self.gone.set()
        if log:
            log.ring()
        await self._held.aclose()


class Attempt:
    """Carries builds out.

    Args:
        limits: ``provider/path`` → the limits of its builds.
        store: Records.
        builder: Makes the image.
        now: Unix seconds.
        names: Prefix of a provider → its name, for the metrics.
        told: Called when a build was queued (once more, too), has started or has ended.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a build needs
        self,
        limits: Callable[[str], Build],
        store: Store,
        builder: Builder,
        now: Callable[[], float],
        names: Mapping[str, str],
        told: Callable[[BuildRecord], Awaitable[None]],
    ) -> None:
        self.told = told
        self._limits = limits
        self._store = store
        self._builder = builder
        self._now = now
        self._names = names

    async def run(self, live: Live) -> str | BuildFailed:
        """Carry it out: the digest, or why there is none. Cancelled, it leaves the record as it is."""
        seconds = self._limits(live.record.repo.link).timeout
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await self._patiently(live, lambda: self._build(live))
        except TimeoutError as error:
            if limit.expired():
                return BuildTimeout(f"The build took longer than {spoken(seconds)}, which is the limit here, and was stopped.")
            return self._fault(live, error)
        except BuildFailed as error:
            return error
        except Exception as error:  # noqa: BLE001 - a fault of ours in one build must not end the others
            return self._fault(live, error)

    def _fault(self, live: Live, error: Exception) -> BuildFailed:
        logger.error("build", exc_info=error, extra={"build": live.record.id})
        words = error.message if isinstance(error, BinderError) else "Something went wrong here, not in the repository. Tell the administrator."
        return BuildFailed(words)

    async def _build(self, live: Live) -> str:
        if live.record.state is BuildState.QUEUED:
            await live.announced.wait()
            await self._move(live, replace(live.record, state=BuildState.RUNNING, started=self._now()))
        return await self._builder.build(live.record, live.log, lambda: self._pushing(live))

    async def _pushing(self, live: Live) -> None:
        if live.record.state is BuildState.RUNNING:
            await self._move(live, replace(live.record, state=BuildState.PUSHING))

    async def _move(self, live: Live, after: BuildRecord) -> None:
        if not await self._store.move(live.record, after):
            # Nobody but this process moves builds. If it did happen, what is stored is the truth.
            stored = await self._store.build(live.record.id)
            if stored is None or stored.state.terminal:
                raise BuildCancelled("The build was ended by somebody else.")
            after = stored
        live.record = after
        live.log.ring()
        await self.told(after)

    async def _patiently(self, live: Live, work: Callable[[], Awaitable[str]]) -> str:
        """Repeat while a part of ours does not answer. Raises `Unavailable` when it has not for `TRIES` times, and at once where the disk is full."""
        pause = PAUSE_SECONDS
        for left in reversed(range(TRIES)):
            try:
                return await work()
            except Unavailable as error:
                if not left or isinstance(error, DiskFull):
                    raise
                logger.warning("build waits", extra={"build": live.record.id, "error": error.code})
                self.say(live, Phase.BUILDING, f"{error.message} Trying again in {pause:.0f} s.\n")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        raise AssertionError("the last try returns or raises")

    def say(self, live: Live, phase: Phase, message: str) -> None:
        """Write an essential line; a log that cannot be written must not keep a build from ending."""
        try:
            live.log.add(phase, message, essential=True)
        except StoreUnavailable:
            logger.exception("log", extra={"build": live.record.id})

    async def record(self, live: Live, outcome: str | BuildFailed) -> None:
        """Store the end, as often as it takes, then write the log's last line."""
        pause = PAUSE_SECONDS
        while not live.record.state.terminal:
            try:
                await self._record(live, outcome)
            except StoreUnavailable:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        self.say(live, *verdict(live.record))
        self._count(live.record)
        await self.told(live.record)
        logger.info("build ended", extra={"build": live.record.id, "state": live.record.state.value, "error": live.record.error})

    def _count(self, record: BuildRecord) -> None:
        status = _STATUS.get(record.state, "failure")
        metrics.BUILD_COUNT.labels(status, self._names.get(record.repo.spec.provider, "unknown")).inc()
        if record.started and record.ended:
            metrics.BUILD_TIME.labels(status).observe(record.ended - record.started)

    async def _record(self, live: Live, outcome: str | BuildFailed) -> None:
        if isinstance(outcome, BuildFailed):
            state = BuildState.CANCELLED if isinstance(outcome, BuildCancelled) else BuildState.FAILED
            after = replace(live.record, state=state, ended=self._now(), error=outcome.code, message=outcome.message)
        else:
            await self._pushing(live)
            # Before the record: an image that nobody has used yet would be the first to be pruned.
            await self._store.touch(live.record.image.at(outcome), self._now())
            after = replace(live.record, state=BuildState.BUILT, ended=self._now(), digest=outcome)
        if await self._store.move(live.record, after):
            live.record = after
        else:
            live.record = await self._store.build(live.record.id) or after

    async def put_back(self, live: Live) -> None:
        """The process ends in order: the build is queued again and this was no attempt. Bounded; what fails here is repaired by `Builds.resume`."""
        self.say(live, Phase.BUILDING, "The service restarts; the build will begin again.\n")
        after = replace(live.record, state=BuildState.QUEUED, started=None)
        if live.record.state is not BuildState.QUEUED:
            try:
                async with asyncio.timeout(PUT_BACK_SECONDS):
                    if await self._store.move(live.record, after):
                        await self.told(after)
            except (StoreUnavailable, TimeoutError):
                logger.warning("build not put back", extra={"build": live.record.id})
