"""One running build per image, however many watch it; queued, logged, recorded, taken up again after a crash.

`launch` and the web call `follow`, `replay` and `cancel`; the daemon calls `resume` once before it serves and keeps `run` in its task group.
A state is in the store before anybody is told. Viewers come and go without touching the build. What a viewer sees comes from the log's file
alone (see `eventlog`), so everybody sees the same lines under the same numbers. How one build is carried out is `running`'s.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from binder_onprem import metrics, queueing
from binder_onprem.attempt import PUT_BACK_SECONDS, Attempt, Live
from binder_onprem.errors import BinderError, BuildFailed, BuildInterrupted, NotFound, QuotaExceeded, Unavailable
from binder_onprem.eventlog import Logs
from binder_onprem.events import Phase
from binder_onprem.model import BuildRecord, BuildState
from binder_onprem.outcome import cancelled, failure
from binder_onprem.telling import TERMINAL, tell

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence

    from binder_onprem.config import Config
    from binder_onprem.events import Progress
    from binder_onprem.interfaces import Builder, Registry, Store
    from binder_onprem.model import ImageRef, ResolvedRepo
    from binder_onprem.queueing import Place

logger = logging.getLogger(__name__)
T = TypeVar("T")

DURATIONS: Final = 20
"""Recent builds that the estimate is taken from."""
ATTEMPTS: Final = 2
RETRY_SECONDS: Final = 5.0
REGISTRY_SECONDS: Final = 5.0
"""How long the registry may take to say whether an interrupted build's image is there."""


async def nobody(_record: BuildRecord) -> None:
    """Nobody wants to know."""


class Builds:
    """All builds of the site.

    Args:
        config: Limits of builds, and where logs lie.
        store: Records.
        builder: Makes the images.
        registry: Asked after a crash whether the image is there already; None: not asked.
        now: Unix seconds.
        names: Prefix of a provider → its name, for the metrics.
        paused: Whether no build may begin now; what runs goes on. `look` is to be called when that changes.
        told: Called when a build was queued (once more, too), has started or has ended: of each build in that order.
    """

    def __init__(  # noqa: PLR0913 - the last three are choices with defaults
        self,
        config: Config,
        store: Store,
        builder: Builder,
        registry: Registry | None = None,
        *,
        now: Callable[[], float] = time.time,
        names: Mapping[str, str] | None = None,
        paused: Callable[[], bool] = lambda: False,
        told: Callable[[BuildRecord], Awaitable[None]] = nobody,
    ) -> None:
        self._paused = paused
        self._each = config.quota.builds_per_user
        self._build = config.build
        self._store = store
        self._builder = builder
        self._registry = registry
        self._now = now
        self._logs = Logs(config.logs / "builds", line_limit=config.build.line, total_limit=config.build.log, now=now)
        self._attempt = Attempt(config.build_of, store, builder, now, names or {}, told)
        self._live: dict[str, Live] = {}
        self._places: dict[str, Place] = {}
        self._durations: deque[float] = deque(maxlen=DURATIONS)
        self._resumed = False
        self._work = asyncio.Event()
        self._joining = asyncio.Lock()
        self._kept: set[asyncio.Task[Any]] = set()

    # What viewers call.

    async def follow(self, image: ImageRef, repo: ResolvedRepo, *, client: str = "", since: float | None = None) -> AsyncGenerator[Progress, None]:
        """Join the image's build, or start one, and tell all of it from the first line.

        Args:
            image: What to build.
            repo: From what.
            client: Whose turn it takes in the queue.
            since: When the caller's launch began (Unix seconds): a build that ended after it is told, not repeated.

        Yields:
            The log as stage BUILD, numbered by its lines, and, with number 0, places in the queue. ``data["build"]`` is the build's id.

        Raises:
            BuildFailed: As the build ended; also its kinds.
            QuotaExceeded: Too many builds wait.
            StoreUnavailable: No record could be made.
        """
        live = await self._watched(image, since) or await self._join(image, repo, client)
        async for event in tell(live, 0, self._logs, self._placed):
            if event.phase not in TERMINAL:
                yield event
        if live.record.state is not BuildState.BUILT:
            raise failure(live.record)

    async def start(self, image: ImageRef, repo: ResolvedRepo, *, client: str) -> BuildRecord:
        """Have it built without anybody watching; the build of the image that is open already, if there is one. Raises as `follow`."""
        return (await self._join(image, repo, client)).record

    async def latest(self, image: ImageRef, since: float) -> BuildRecord | None:
        """The image's build that is open, or has ended after `since` (Unix seconds); what a repeated launch has to go on watching."""
        record = await self._store.latest(image)
        return record if record and (not record.state.terminal or (record.ended or 0.0) >= since) else None

    async def replay(self, build_id: str, after: int = 0) -> AsyncGenerator[Progress, None]:
        """A build's log from line `after` + 1, live until its end; the last event says how it ended. Raises `NotFound`."""
        live = self._live.get(build_id) or await self._ended(build_id)
        async for event in tell(live, after, self._logs, self._placed):
            yield event

    async def cancel(self, build_id: str, by: str) -> BuildRecord:
        """Stop a build; one that has ended already is returned as it is.

        Args:
            build_id: Which.
            by: Who says so, for the message.

        Raises:
            NotFound: No such build.
        """
        live = self._live.get(build_id)
        if live is None:
            return (await self._ended(build_id)).record
        if live.cancelled_by is None:
            live.cancelled_by = by
        if live.task is not None:
            if live.begun and not live.ending:
                live.task.cancel()
            await live.gone.wait()
        else:
            # Queued: nothing runs. A slot that becomes free meanwhile sees `cancelled_by` and lets it be.
            await self._end(live, cancelled(live.cancelled_by))
        return live.record

    async def prioritise(self, build_id: str) -> BuildRecord:
        """Move a queued build to the front; it stays there over restarts. One that runs or has ended is returned as it is.

        Raises:
            NotFound: No such build.
            StoreUnavailable: It could not be recorded, and nothing changed.
        """
        live = self._live.get(build_id)
        if live is None:
            return (await self._ended(build_id)).record
        now = self._now()
        if await self._store.prioritise(build_id, now):
            # Whatever was recorded of it meanwhile, it was queued when it was moved.
            live.record = replace(live.record, front=now)
            self.look()
        return live.record

    async def rebuild(self, image: ImageRef, repo: ResolvedRepo, *, client: str) -> BuildRecord:
        """Queue a build that makes the image anew though it is there; an open build of the same image is returned instead. Raises as `follow`."""
        return (await self._join(image, repo, client, fresh=True)).record

    def places(self) -> Sequence[tuple[BuildRecord, Place | None]]:
        """Every open build; with its place while it is queued."""
        return [(live.record, self._places.get(build_id)) for build_id, live in self._live.items()]

    @property
    def running(self) -> frozenset[str]:
        """Ids of the builds that run now: what they own must not be swept."""
        return frozenset(build_id for build_id, live in self._live.items() if live.task is not None)

    # What the daemon calls.

    async def resume(self) -> None:
        """Take up what the last process left open: each build once more, then it counts as failed.

        May be repeated, and is by `run` when it was broken off. Raises `StoreUnavailable`.
        """
        self._durations.clear()
        for record in await self._store.builds(limit=DURATIONS):
            if record.state is BuildState.BUILT and record.started and record.ended:
                self._durations.append(record.ended - record.started)
        for record in await self._store.untold():
            await self._attempt.told(record)
        for record in await self._store.builds(open_only=True):
            live = await self._adopt(record)
            if live.task is None and live.record.state is not BuildState.QUEUED:
                await self._resume(live)
        self._resumed = True
        self.look()

    async def _resume(self, live: Live) -> None:
        record = live.record
        # What a fresh build finds in the registry is most likely what it was to replace.
        digest = None if record.fresh else await self._confirmed(record.image)
        if digest is not None:
            await self._end(live, digest)
        elif record.attempt >= ATTEMPTS:
            await self._end(live, BuildInterrupted("The build was interrupted twice by restarts of this service. Launch again to start it anew."))
        else:
            after = replace(record, state=BuildState.QUEUED, attempt=record.attempt + 1, started=None)
            if await self._store.move(record, after):
                live.record = after
                await self._attempt.told(after)
            self._attempt.say(live, Phase.BUILDING, "The service was restarted; the build begins again.\n")

    async def _confirmed(self, image: ImageRef) -> str | None:
        try:
            async with asyncio.timeout(REGISTRY_SECONDS):
                return await self._registry.digest(image) if self._registry else None
        except (Unavailable, TimeoutError):
            return None  # then it is built again, which does no harm

    async def run(self) -> None:
        """Start builds as slots become free, until cancelled; builds that run then are put back into the queue."""
        await self._prepare()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._work.clear()
                for live in self._next():
                    live.task = tasks.create_task(self._run(live), name=f"build-{live.record.id}")
                self._rank()
                await self._work.wait()

    async def _prepare(self) -> None:
        """What has to be so before the first build; tried until it is."""
        while True:
            try:
                if not self._resumed:
                    await self.resume()
                await self._builder.sweep(self.running)
            except BinderError as error:
                logger.warning("before builds", extra={"error": error.message})
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    def _next(self) -> list[Live]:
        free = 0 if self._paused() else self._build.concurrency - len(self.running)
        waiting = [build for build in self._queue() if self._live[build.id].cancelled_by is None]
        startable = queueing.startable(waiting, [self._live[build_id].record for build_id in self.running], self._each)
        return [self._live[build.id] for build in startable[: max(0, free)]]

    def _queue(self) -> list[BuildRecord]:
        waiting = [live.record for live in self._live.values() if live.task is None and live.record.state is BuildState.QUEUED]
        return queueing.order(waiting, [self._live[build_id].record for build_id in self.running])

    async def _run(self, live: Live) -> None:
        live.begun = True
        try:
            outcome = await self._attempt.run(live) if live.cancelled_by is None else cancelled(live.cancelled_by)
            await self._end(live, outcome)
        except asyncio.CancelledError:
            if live.ending:
                raise  # its end is being recorded, by a task of its own
            if live.cancelled_by is None:
                await asyncio.shield(self._attempt.put_back(live))
                raise
            # Cancelled while it ran. The task lives on for the records; the group must not take it for its own end.
            await self._end(live, cancelled(live.cancelled_by))
        finally:
            self.look()

    # The inside.

    async def _watched(self, image: ImageRef, since: float | None) -> Live | None:
        record = None if since is None else await self.latest(image, since)
        if record is None or not record.state.terminal:
            return None
        return self._live.get(record.id) or Live(record, self._logs)

    async def _join(self, image: ImageRef, repo: ResolvedRepo, client: str, *, fresh: bool = False) -> Live:
        # A viewer that leaves in the middle must not leave a record behind that nobody here knows of.
        return await asyncio.shield(self._keep(self._join_or_start(image, repo, client, fresh=fresh)))

    def _keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        return task

    def _known(self, image: ImageRef) -> Live | None:
        return next((live for live in self._live.values() if live.record.image == image and not live.record.state.terminal), None)

    async def _join_or_start(self, image: ImageRef, repo: ResolvedRepo, client: str, *, fresh: bool) -> Live:
        # Who comes after a build was told to stop does not share its end.
        while (known := self._known(image)) and known.cancelled_by is not None:
            await known.gone.wait()
        # The lock: between the store's answer "that build is open" and our adopting it, it could end and be forgotten here.
        async with self._joining:
            if known := self._known(image):
                return known
            if len(self._places) >= self._build.queue:
                raise QuotaExceeded("Too many builds are waiting already. Try again soon.", retry_after=60)
            record = BuildRecord(secrets.token_hex(8), image, repo, BuildState.QUEUED, self._now(), asker=client, fresh=fresh)
            stored = await self._store.add(record)
            live = await self._adopt(stored, announced=stored.id != record.id)
            self.look()
        if live.record.id == record.id:
            # It can be seen and cancelled already; only its start waits for a slow teller.
            await self._attempt.told(record)
            live.announced.set()
        return live

    async def _adopt(self, record: BuildRecord, *, announced: bool = True) -> Live:
        live = self._live.get(record.id)
        if live is None:
            live = Live(record, self._logs)
            if announced:
                live.announced.set()
            await live.open()
            self._live[record.id] = live
        return live

    async def _ended(self, build_id: str) -> Live:
        record = await self._store.build(build_id)
        if record is None:
            raise NotFound("There is no such build (any more).")
        return self._live.get(build_id) or Live(record, self._logs)

    async def _end(self, live: Live, outcome: str | BuildFailed) -> None:
        """Record how it ended, then tell; survives cancelling, because from here on there is an end."""
        live.ending = True
        task = self._keep(self._finish(live, outcome))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            # The process ends, or the one who cancelled a queued build has left. Either way the end goes on being recorded by itself.
            await asyncio.wait({task}, timeout=PUT_BACK_SECONDS)
            raise

    async def _finish(self, live: Live, outcome: str | BuildFailed) -> None:
        async with self._joining:
            if not live.record.state.terminal:
                await self._attempt.record(live, outcome)
                if live.record.state is BuildState.BUILT and live.record.started and live.record.ended:
                    self._durations.append(live.record.ended - live.record.started)
            self._live.pop(live.record.id, None)
        await live.close()
        self.look()

    def look(self) -> None:
        """Somebody came or went, or builds may begin again: places may be others now, and there may be work."""
        self._rank()
        self._work.set()

    def _rank(self) -> None:
        before, paused = self._places, self._paused()
        self._places = queueing.places(self._queue(), self._build.concurrency, self._durations, paused=paused)
        metrics.BUILDS_QUEUED.set(len(self._places))
        metrics.BUILDS_RUNNING.set(len(self.running))
        for build_id, place in self._places.items():
            if before.get(build_id) != place and build_id in self._live:
                self._live[build_id].log.ring()

    def _placed(self, build_id: str) -> Place | None:
        return self._places.get(build_id)

    async def expire(self, now: float) -> int:
        """Forget builds, logs and launches older than ``build.keep_logs``; how many builds. Raises `StoreUnavailable`."""
        ids = await self._store.expire(now - self._build.keep_logs)
        await self._logs.remove(ids)
        return len(ids)
