"""Stand-ins for the parts at the seams, which can be told where to fail; the same values everywhere."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from binder_onprem.admission import Admission
from binder_onprem.builds import Builds, nobody
from binder_onprem.config import Config
from binder_onprem.errors import StoreUnavailable
from binder_onprem.events import Phase
from binder_onprem.journal import Journal
from binder_onprem.launch import Line
from binder_onprem.model import (
    TRANSITIONS,
    BuildRecord,
    BuildState,
    Client,
    ImageRef,
    LaunchAudit,
    LaunchRequest,
    RepoSpec,
    ResolvedRepo,
    Server,
    Session,
)
from binder_onprem.room import Room
from binder_onprem.terms import Terms
from tests.unit.virtual import now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

RECIPE = "f" * 64
SITE = Terms()
DIGEST = "sha256:" + "d" * 64


def repo(name: str = "owner/repo", commit: str = "a" * 40) -> ResolvedRepo:
    spec = RepoSpec("gh", f"{name}/HEAD", f"https://git.test/{name}", "HEAD", name.replace("/", "-"))
    return ResolvedRepo(spec, commit, f"{name}/{commit}", f"https://git.test/{name}/tree/{commit}")


def image(of: ResolvedRepo | None = None) -> ImageRef:
    return ImageRef.of(of or repo(), "127.0.0.1:8589/binder", RECIPE)


def record(build_id: str = "0" * 16, state: BuildState = BuildState.QUEUED, of: ResolvedRepo | None = None, **fields: Any) -> BuildRecord:
    of = of or repo()
    return BuildRecord(**({"id": build_id, "image": image(of), "repo": of, "state": state, "created": 1.0} | fields))


def request(path: str = "owner/repo/HEAD", key: str = "k" * 32, address: str = "192.0.2.1") -> LaunchRequest:
    return LaunchRequest("gh", path, Client(address), key, "http://binder.test/")


class Memory:
    """A store without a disk; `down` makes it fail."""

    def __init__(self) -> None:
        self.records: dict[str, BuildRecord] = {}
        self.used: dict[str, float] = {}
        self.pins: dict[str, tuple[ResolvedRepo, float]] = {}
        self.audits: dict[str, LaunchAudit] = {}
        self.down = False

    async def _here(self) -> None:
        await asyncio.sleep(0)
        if self.down:
            raise StoreUnavailable("The database does not answer.")

    async def add(self, build: BuildRecord) -> BuildRecord:
        await self._here()
        found = [other for other in self.records.values() if other.image == build.image and not other.state.terminal]
        return found[0] if found else self.records.setdefault(build.id, build)

    async def move(self, before: BuildRecord, after: BuildRecord) -> bool:
        await self._here()
        if after.id != before.id or after.state not in TRANSITIONS[before.state]:
            raise ValueError(after.state)
        stored = self.records[before.id]
        if (stored.state, stored.attempt) != (before.state, before.attempt):
            return False
        self.records[after.id] = after
        await asyncio.sleep(0)
        return True

    async def untold(self) -> list[BuildRecord]:
        await self._here()
        return []

    async def prioritise(self, build_id: str, now: float) -> bool:
        await self._here()
        build = self.records.get(build_id)
        if build is None or build.state is not BuildState.QUEUED:
            return False
        self.records[build_id] = replace(build, front=now)
        return True

    async def build(self, build_id: str) -> BuildRecord | None:
        await self._here()
        return self.records.get(build_id)

    async def builds(self, *, open_only: bool = False, limit: int = 100) -> list[BuildRecord]:
        await self._here()
        if open_only:
            return [build for build in self.records.values() if not build.state.terminal]
        return list(reversed(self.records.values()))[:limit]

    async def latest(self, image: ImageRef) -> BuildRecord | None:
        await self._here()
        return next((build for build in reversed(self.records.values()) if build.image == image), None)

    async def built(self, image: ImageRef) -> str | None:
        await self._here()
        return next((build.digest for build in reversed(self.records.values()) if build.image == image and build.digest), None)

    async def touch(self, image: str, now: float) -> None:
        await self._here()
        self.used[image] = now

    async def last_used(self) -> dict[str, float]:
        await self._here()
        return dict(self.used)

    async def begin(self, request: LaunchRequest, repo: ResolvedRepo, now: float) -> tuple[ResolvedRepo, float]:
        await self._here()
        return self.pins.setdefault(request.launch_id, (repo, now))

    async def audit(self, launch: LaunchAudit) -> None:
        await self._here()
        self.audits[launch.launch_id] = launch

    async def launches(self, limit: int = 100) -> Sequence[LaunchAudit]:
        await self._here()
        return list(self.audits.values())[-limit:]

    async def expire(self, before: float) -> Sequence[str]:
        await self._here()
        old = [build.id for build in self.records.values() if build.ended is not None and build.ended < before]
        for build_id in old:
            del self.records[build_id]
        return old


class Works:
    """A builder that writes `lines` lines, one each `pace` seconds, and raises what `fails` has for the attempt."""

    def __init__(self, registry: Images) -> None:
        self.registry = registry
        self.lines = 5
        self.pace = 1.0
        self.fails: list[BaseException | None] = []
        self.started: list[str] = []
        self.running: set[str] = set()
        self.most = 0
        self.swept: list[frozenset[str]] = []

    async def build(self, build: BuildRecord, log: Any, pushing: Callable[[], Awaitable[None]]) -> str:
        assert build.id not in self.running, "twice at once"
        self.started.append(build.id)
        assert build.state in (BuildState.RUNNING, BuildState.PUSHING)
        self.running.add(build.id)
        self.most = max(self.most, len(self.running))
        try:
            for number in range(self.lines):
                await log.write(Phase.BUILDING, f"line {number}\n")
                await asyncio.sleep(self.pace)
            if self.fails and (error := self.fails.pop(0)):
                raise error
            await pushing()
            await asyncio.sleep(self.pace)
            self.registry.digests[build.image] = DIGEST
            return DIGEST
        finally:
            self.running.discard(build.id)

    async def sweep(self, running: frozenset[str]) -> None:
        self.swept.append(running)


class Images:
    """A registry; `errors` are raised one after the other, first."""

    def __init__(self) -> None:
        self.digests: dict[ImageRef, str] = {}
        self.errors: list[BaseException] = []
        self.always: BaseException | None = None
        self.deleted: list[str] = []
        self.stored: list[Any] = []

    async def digest(self, image: ImageRef) -> str | None:
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        if self.always:
            raise self.always
        return self.digests.get(image)

    async def images(self) -> list[Any]:
        await asyncio.sleep(0)
        return [one for one in self.stored if one.reference not in self.deleted]

    async def delete(self, reference: str) -> None:
        await asyncio.sleep(0)
        self.deleted.append(reference)


class Here:
    """Images on this machine."""

    def __init__(self) -> None:
        self.stored: list[Any] = []

    async def exists(self, reference: str) -> bool:
        await asyncio.sleep(0)
        return any(reference in one.references for one in self.stored)

    async def local(self) -> list[Any]:
        await asyncio.sleep(0)
        return list(self.stored)

    async def remove(self, reference: str) -> bool:
        await asyncio.sleep(0)
        self.stored = [one for one in self.stored if reference not in one.references]
        return True


class Jupyter:
    """A hub: `fails` is raised by the next start."""

    def __init__(self) -> None:
        self.users: dict[str, Session] = {}
        self.fails: list[BaseException] = []
        self.stopped: list[str] = []
        self.busy_users: set[str] = set()
        self.seconds = 1.0
        self.stop_error: BaseException | None = None
        self.terms: dict[str, Terms] = {}

    async def start(
        self,
        launch: LaunchRequest,
        repo: ResolvedRepo,  # noqa: ARG002
        image: str,
        log: Callable[[str], Awaitable[None]],
        terms: Terms = SITE,
    ) -> Server:
        user = f"u-{launch.launch_id}"
        self.terms[user] = terms
        fresh = Session(user, ready=False, started=None, last_activity=None, image=image, launch_id=launch.launch_id, owner=launch.client.owner)
        self.users.setdefault(user, replace(fresh, url=f"/jupyter/user/{user}/", project=terms.project.id if terms.project else ""))
        await log("Server requested\n")
        await asyncio.sleep(self.seconds)
        if self.fails:
            raise self.fails.pop(0)
        self.users[user] = replace(self.users[user], ready=True, started=now())
        await log("Server ready")
        return Server(user, f"http://binder.test/jupyter/user/{user}/", "token")

    async def sessions(self) -> list[Session]:
        await asyncio.sleep(0)
        return [session for session in self.users.values() if session.server]

    async def remains(self) -> list[Session]:
        await asyncio.sleep(0)
        return list(self.users.values())

    async def current(self, session: Session) -> tuple[Session, str] | None:
        await asyncio.sleep(0)
        return (self.users[session.name], "token") if session.name in self.users else None

    async def token(self, session: Session) -> str | None:
        await asyncio.sleep(0)
        return "token" if session.name in self.users else None

    async def stop(self, session: Session) -> None:
        await asyncio.sleep(0)
        if self.stop_error:
            raise self.stop_error
        self.users.pop(session.name, None)
        self.stopped.append(session.name)

    async def busy(self, session: Session) -> bool:
        await asyncio.sleep(0)
        return session.name in self.busy_users


class Git:
    """A provider."""

    prefix = "gh"
    name = "GitHub"

    def __init__(self) -> None:
        self.commits: dict[str, str] = defaultdict(lambda: "a" * 40)
        self.fails: list[BaseException] = []
        self.asked = 0

    def parse(self, path: str) -> RepoSpec:
        owner, name, ref = path.split("/", 2)
        return replace(repo(f"{owner}/{name}").spec, path=path, ref=ref)

    async def resolve(self, spec: RepoSpec) -> ResolvedRepo:
        await asyncio.sleep(0)
        self.asked += 1
        if self.fails:
            raise self.fails.pop(0)
        name = spec.path.rpartition("/")[0]
        return repo(name, self.commits[name])


class House:
    """Everything together, below a directory; `Builds` can be killed and started anew over the same store and files."""

    def __init__(self, home: Path, **sections: Any) -> None:
        self.config = Config.model_validate({"home": home, **sections})
        self.store = Memory()
        self.registry = Images()
        self.builder = Works(self.registry)
        self.hub = Jupyter()
        self.git = Git()
        self.local = Here()
        self.task: asyncio.Task[None] | None = None
        self.paused = False
        self.outbox: Any = None
        self.journal: Journal | None = None
        self.projects: Any = None
        self.builds = self._builds()
        self.admission = Admission(self.config.admission, self.config.session, self.config.quota)
        self.room = self._room()

    def listen(self) -> None:
        """Have events written."""
        self.journal = Journal(self.config.events, {"gh": "GitHub"}, self.outbox, now)
        self.builds = self._builds()

    def _room(self) -> Room:
        return Room(self.admission.limits, self.config.quota, self.hub, now=now, monotonic=now)

    def _builds(self) -> Builds:
        return Builds(
            self.config,
            self.store,
            self.builder,
            self.registry,
            now=now,
            names={"gh": "GitHub"},
            told=self.journal.built if self.journal else nobody,
            paused=lambda: self.paused,
        )

    @property
    def line(self) -> Line:
        return Line(
            self.config,
            {"gh": self.git},
            self.admission,
            self.registry,
            self.builds,
            self.hub,
            self.store,
            RECIPE,
            self.room,
            journal=self.journal,
            now=now,
            monotonic=now,
            images=self.local,
            projects=self.projects,
        )

    async def up(self) -> None:
        await self.builds.resume()
        self.task = asyncio.create_task(self.builds.run())

    async def down(self) -> None:
        """SIGTERM."""
        if self.task:
            self.task.cancel()
            await asyncio.wait({self.task})
            self.task = None

    async def killed(self) -> None:
        """SIGKILL: nothing of what is running may write any more."""
        alive = self.store
        self.store = Memory()
        self.store.records, self.store.pins, self.store.used = dict(alive.records), dict(alive.pins), dict(alive.used)
        logs = {path: path.read_bytes() for path in (self.config.logs / "builds").glob("*.jsonl")}
        await self.down()
        for path, data in logs.items():
            path.write_bytes(data)
        self.builds = self._builds()
