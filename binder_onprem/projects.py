"""People's projects: found or made at a launch, mounted while a session has them, listed, deleted. One session has a project at a time.

`launch` enters a project before it builds and holds it until the hub shows the session, so that a second click finds that one. `look` is the pass,
run first in the foreground: it unmounts what nobody uses, finishes what a killed process has left, and never removes what is not marked as leaving.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.doors import Doors
from binder_onprem.errors import BinderError, Busy, InUse, NotFound
from binder_onprem.project import FULL, Project, admit, admit_new, free_slot
from binder_onprem.terms import Home

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from binder_onprem import config
    from binder_onprem.interfaces import Engine, Hub, ProjectStore, Volumes
    from binder_onprem.model import LaunchRequest, ResolvedRepo, Session

logger = logging.getLogger(__name__)

LABEL: Final = "io.binder-onprem.project"
NONE: Final = "There is no project of this name (any more)."
PAUSE: Final = 0.5
"""Seconds between two looks at a session that starts or stops."""


@dataclass(frozen=True, slots=True)
class Entered:
    """What a launch finds.

    Attributes:
        name: Of the project.
        project: None: there is none of this name yet.
        session: That has it; ready.
    """

    name: str
    project: Project | None
    session: Session | None


class Projects:
    """The projects of a site.

    Args:
        limits: How many, how large.
        store: What is known of them.
        volumes: Where their files are.
        hub: Whose sessions have them.
        engine: Whose containers do.
        patience: Seconds that a session which starts or stops may take.
        stop: Ends a session as its person wishes; None: by the hub alone.
        now: Unix seconds.
    """

    def __init__(  # noqa: PLR0913 - they meet here
        self,
        limits: config.Projects,
        store: ProjectStore,
        volumes: Volumes,
        hub: Hub,
        engine: Engine,
        *,
        patience: float = 150.0,
        stop: Callable[[Session], Awaitable[None]] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._limits = limits
        self._store = store
        self._volumes = volumes
        self._hub = hub
        self._engine = engine
        self._patience = patience
        self._stop = stop or hub.stop
        self._now = now
        self._doors = Doors()
        self._launching: Counter[tuple[str, str]] = Counter()
        self._readers: Counter[str] = Counter()
        self._making = asyncio.Lock()
        self._one = asyncio.Lock()

    def opening(self, owner: str, name: str) -> bool:
        """Whether a launch has it now."""
        return self._launching[owner, name] > 0

    async def find(self, owner: str, name: str) -> Project | None:
        """One of somebody's own. Raises `StoreUnavailable`."""
        return next((project for project in await self._store.projects(owner) if project.name == name), None)

    async def listed(self, owner: str | None = None) -> list[tuple[Project, Session | None]]:
        """Everybody's, or one person's, with the session that has each; bytes are of this moment. Raises `StoreUnavailable`, `HubUnavailable`."""
        found = await self._store.projects(owner)
        having = {session.project: session for session in await self._hub.sessions() if session.project and session.server} if found else {}
        return [(await self._measured(project), having.get(project.id)) for project in found]

    async def _measured(self, project: Project) -> Project:
        used = await self._volumes.used(project.id)
        return project if used is None else replace(project, bytes=used)

    @asynccontextmanager
    async def entered(self, owner: str, name: str, repo_url: str) -> AsyncIterator[Entered]:
        """Have it alone, as a launch does until its session is there.

        Raises:
            Refused: It is another repository's.
            Busy: Its session neither starts nor ends.
            StoreUnavailable, HubUnavailable: That cannot be told.
        """
        self._launching[owner, name] += 1
        try:
            async with self._alone(owner, name):
                found = await self.find(owner, name)
                admit(found, repo_url)
                yield Entered(name, found, await self._session(found) if found else None)
        finally:
            self._launching -= Counter({(owner, name): 1})  # which forgets what is zero

    def _alone(self, owner: str, name: str) -> asyncio.Lock:
        """Launch, deletion and the pass never have one project at the same time."""
        return self._doors.of((owner, name))

    async def _session(self, project: Project) -> Session | None:
        """The session that has it, once it is decided whether there is one."""
        try:
            async with asyncio.timeout(self._patience):
                while (found := await self._having(project)) and not found.ready:  # noqa: ASYNC110 - the hub has no event for it
                    await asyncio.sleep(PAUSE)
        except TimeoutError:
            raise Busy(f"The last session of your project {project.name} neither starts nor ends. Stop it, then try again.", retry_after=10) from None
        return found

    async def _having(self, project: Project) -> Session | None:
        return next((session for session in await self._hub.sessions() if session.project == project.id and session.server), None)

    async def ready(self, entered: Entered, request: LaunchRequest, repo: ResolvedRepo, image: str) -> Home:
        """Have the project made and mounted for a session of an image.

        Args:
            entered: What `entered` has given, and still holds.
            request: The launch.
            repo: What it has resolved to.
            image: ``…@sha256:…``.

        Raises:
            QuotaExceeded: There is no room for one more.
            LimitHit: The repository's files do not fit.
            InvalidSpec: The image has no home that could be kept.
            NotFound: The volume has been lost.
            HostUnfit, EngineUnavailable, StoreUnavailable: A part does not do what it should.
        """
        path = await self._volumes.home(image)
        project = entered.project or await self._added(entered.name, request, repo)
        # Its hub has forgotten it, or was killed while it stopped it: two sessions on one home would write over each other.
        for container in await self._engine.labelled({LABEL: project.id}):
            await self._engine.remove(container.name)
        if not project.made and not self._volumes.there(project.id):
            await self._make(project, image)
        await self._volumes.mount(project.id)
        known = {"made": True, "used": self._now(), "commit": repo.commit, "persistent": f"{repo.spec.provider}/{repo.path}", "image": image}
        await self._store.change(project.id, known | {"bytes": await self._volumes.used(project.id) or 0})
        return Home(project.id, project.slot, path, full=await self._volumes.free(project.id) < FULL)

    async def _added(self, name: str, request: LaunchRequest, repo: ResolvedRepo) -> Project:
        owner, size, now = request.client.owner or "", int(self._limits.quota), self._now()
        async with self._making:
            others = await self._store.projects()
            admit_new(owner, size, others, most=self._limits.most, total=int(self._limits.total))
            project = Project(
                id=secrets.token_hex(8),
                owner=owner,
                name=name,
                slot=free_slot({other.slot for other in others}),
                size=size,
                provider=request.provider,
                path=request.path,
                repo_url=repo.url,
                commit=repo.commit,
                persistent=f"{repo.spec.provider}/{repo.path}",
                image="",
                created=now,
                used=now,
            )
            await self._store.add(project)
        return project

    async def _make(self, project: Project, image: str) -> None:
        try:
            await self._volumes.make(project.id, project.slot, project.size, image)
        except BinderError:
            if not self._volumes.there(project.id):
                await self._store.drop(project.id)
            raise

    @asynccontextmanager
    async def reading(self, project: Project) -> AsyncIterator[Path]:
        """Its files on this host, for as long as the block lasts. Raises `NotFound`, `HostUnfit`."""
        if not project.made and not self._volumes.there(project.id):
            raise NotFound(f"Your project {project.name} has no files yet: its first launch was not finished. Open it once.")
        self._readers[project.id] += 1
        try:
            yield await self._volumes.mount(project.id)
        finally:
            self._readers -= Counter({project.id: 1})

    async def stop(self, project: Project) -> None:
        """End its session; none is fine. Raises `HubUnavailable`."""
        if session := await self._having(project):
            await self._stop(session)

    async def delete(self, project: Project) -> None:
        """End its session, then remove it with its files; what is begun is finished by the pass.

        Raises:
            InUse: A launch has it now, or something reads it.
            StoreUnavailable, HubUnavailable, EngineUnavailable: A part does not answer.
        """
        if self.opening(project.owner, project.name):
            raise InUse(f"The project {project.name} is being opened just now. Wait until it is open, stop it, then delete it.")
        async with self._alone(project.owner, project.name):
            await self._store.change(project.id, {"leaving": True})
            if not await self._removed(project):
                raise InUse(f"The project {project.name} is still in use by something on this machine; it is deleted as soon as that ends.")

    async def delete_all(self, owner: str) -> None:
        """Delete everything of somebody who is no more. Raises as `delete`, once all that can be deleted is."""
        kept: BinderError | None = None
        for project in await self._store.projects(owner):
            try:
                await self.delete(project)
            except BinderError as error:
                kept = error
        if kept:
            raise kept

    async def _removed(self, project: Project) -> bool:
        await self.stop(project)
        for container in await self._engine.labelled({LABEL: project.id}):
            await self._engine.remove(container.name)
        if self._readers[project.id] or not await self._volumes.remove(project.id):
            return False
        await self._store.drop(project.id)
        logger.info("project deleted", extra={"project": project.id})
        return True

    async def look(self) -> None:
        """Finish what is being deleted, unmount what nobody uses, remember how much is used, clear away what was being made.

        Raises:
            StoreUnavailable, HubUnavailable, EngineUnavailable: Then nothing is done.
        """
        async with self._one:
            projects = {project.id: project for project in await self._store.projects()}
            using = {session.project for session in await self._hub.sessions()}
            using |= {container.labels.get(LABEL, "") for container in await self._engine.labelled({f"{LABEL.rpartition('.')[0]}.kind": "session"})}
            await self._volumes.sweep()
            for project in projects.values():
                if project.leaving and not self.opening(project.owner, project.name):
                    await self._finished(project)
            for volume in await self._volumes.mounted():
                await self._put_down(volume, projects.get(volume), using)

    async def _finished(self, project: Project) -> None:
        try:
            async with self._alone(project.owner, project.name):
                await self._removed(project)
        except BinderError as error:  # one session that does not end keeps nobody else's project mounted
            logger.warning("project not deleted yet", extra={"project": project.id, "error": str(error)[:200]})

    async def _put_down(self, volume: str, project: Project | None, using: set[str]) -> None:
        if project is None:
            if volume not in using:
                await self._volumes.unmount(volume)  # of a database that was lost: its files stay
            return
        if self.opening(project.owner, project.name):
            return
        async with self._alone(project.owner, project.name):
            values: dict[str, Any] = {}
            if (used := await self._volumes.used(volume)) is not None and used != project.bytes:
                values["bytes"] = used
            if volume in using:
                values["used"] = self._now()
            elif not await self._taken(project) and not self._readers[volume]:  # the readers last: one may have come meanwhile
                await self._volumes.unmount(volume)
            if values:
                await self._store.change(volume, values)

    async def _taken(self, project: Project) -> bool:
        """Whether a session has it since the pass began."""
        return bool(await self._having(project) or await self._engine.labelled({LABEL: project.id}))


def named(projects: Sequence[tuple[Project, Session | None]], name: str) -> tuple[Project, Session | None]:
    """The one of this name, or id. Raises `NotFound`."""
    found = next((pair for pair in projects if name in (pair[0].name, pair[0].id)), None)
    if found is None:
        raise NotFound(NONE)
    return found
