"""The web application on loopback over a line that plays a script; for the web's own tests."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aiohttp import web

from binder_onprem.admission import Admission
from binder_onprem.config import Config
from binder_onprem.ends import Ends
from binder_onprem.errors import BinderError, UnknownProvider
from binder_onprem.events import Phase, Progress, Ready, Stage
from binder_onprem.leases import Leases
from binder_onprem.model import BuildRecord, BuildState, ImageRef, LaunchRequest, RepoSpec, ResolvedRepo, Server, Session
from binder_onprem.providers import display
from binder_onprem.pruner import Pruner
from binder_onprem.rules import Rules
from binder_onprem.store import open_engine, opened
from binder_onprem.store.rulings import SqlRulings
from binder_onprem.web.admin.desk import Desk
from binder_onprem.web.site import Site, runner
from binder_onprem.web.stream import Patience

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SECRET = b"s" * 32
KINDS = ("git", "github", "gist", "gitlab", "zenodo", "figshare", "dataverse", "hydroshare", "ckan", "swhid", "mercurial")
DISPLAYS = {kind: getattr(display, kind) for kind in KINDS}
ADMIN = "planted-admin-token"
BUILD = "0123456789abcdef"
REPO = ResolvedRepo(RepoSpec("gh", "o/r/HEAD", "https://example.org/o/r", "HEAD", "o-r"), "c" * 40, f"o/r/{'c' * 40}", "https://example.org/o/r")
RECORD = BuildRecord(BUILD, ImageRef("127.0.0.1:1/binder/o-r", "t"), REPO, BuildState.RUNNING, 100.0, 101.0)
DIGEST = "sha256:" + "1" * 64
IMAGE = f"r/binder/x@{DIGEST}"
SESSION = Session("o-r-1", ready=True, started=5.0, last_activity=6.0)


def displays(config: Config) -> list[dict[str, Any]]:
    return [DISPLAYS[item.kind](item) for item in config.providers]


def lines(count: int, phase: Phase = Phase.BUILDING, first: int = 1) -> list[Progress]:
    return [Progress(phase, f"line {number}\n", Stage.BUILD, number, {"build": BUILD}) for number in range(first, first + count)]


def usual(url: str = "http://127.0.0.1:1/jupyter/user/o-r-1/") -> list[Any]:
    """What a launch with a build says."""
    return [
        Progress(Phase.WAITING, "Looking up https://example.org/o/r at HEAD...\n", Stage.RESOLVE, 1),
        Progress(Phase.FETCHING, "Cloning\n", Stage.BUILD, 1, {"build": BUILD}),
        *lines(3, first=2),
        Progress(Phase.BUILT, "Built image, launching...\n", Stage.LAUNCH, 1, {"imageName": "i@sha256:1"}),
        Progress(Phase.LAUNCHING, "Launching server...\n", Stage.LAUNCH, 2),
        ready(url),
    ]


def ready(url: str) -> Ready:
    return Ready(
        Server("o-r-1", url, "session-token"), "i@sha256:1", "https://example.org/o/r", "https://example.org/o/r", "http://h/", "v2/gh/o/r/HEAD", "p"
    )


@dataclass
class Play:
    """What every launch says: events are yielded, numbers are seconds to wait, errors raised, asyncio events waited for."""

    script: list[Any] = field(default_factory=usual)
    requests: list[LaunchRequest] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def launch(self, request: LaunchRequest, line: Any) -> AsyncIterator[Progress | Ready]:
        self.requests.append(request)
        if request.provider not in line.providers:
            raise UnknownProvider(f"No provider found for prefix {request.provider}.")
        try:
            for item in self.script:
                if isinstance(item, BinderError | RuntimeError):
                    raise item
                if isinstance(item, asyncio.Event):
                    await item.wait()
                elif isinstance(item, int | float):
                    await asyncio.sleep(item)
                else:
                    yield item
        finally:
            self.closed.set()


@dataclass
class Records:
    """Store, builds, hub and registry in one, with what the API asks of them."""

    record: BuildRecord | None = RECORD
    log: list[Progress] = field(default_factory=lambda: lines(3))
    live: asyncio.Event | None = None
    stopped: list[Session] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    placed: list[Any] = field(default_factory=list)
    session: Session | None = SESSION

    async def builds(self, *, open_only: bool = False, limit: int = 100) -> list[BuildRecord]:
        return [self.record][:limit] if self.record and not (open_only and self.record.state.terminal) else []

    async def build(self, build_id: str) -> BuildRecord | None:
        return self.record if self.record and self.record.id == build_id else None

    async def last_used(self) -> dict[str, float]:
        return {IMAGE: 7.0}

    def places(self) -> list[Any]:
        return self.placed

    async def prioritise(self, build_id: str) -> BuildRecord:
        assert self.record
        assert self.record.id == build_id
        self.record = replace(self.record, front=9.0)
        return self.record

    async def rebuild(self, image: ImageRef, repo: ResolvedRepo, *, client: str) -> BuildRecord:
        self.record = replace(RECORD, image=image, repo=repo, asker=client, fresh=True, state=BuildState.QUEUED, started=None)
        return self.record

    async def replay(self, build_id: str, after: int = 0) -> AsyncIterator[Progress]:
        assert build_id == BUILD
        for line in self.log[after:]:
            yield line
        if self.live:
            await self.live.wait()
            yield Progress(Phase.BUILDING, "last\n", Stage.BUILD, len(self.log) + 1)

    async def cancel(self, build_id: str, by: str) -> BuildRecord:
        assert (build_id, by) == (BUILD, "the administrator")
        self.record = replace(RECORD, state=BuildState.CANCELLED)
        return self.record

    async def sessions(self) -> list[Session]:
        return [self.session] if self.session else []

    async def stop(self, session: Session) -> None:
        self.stopped.append(session)

    async def images(self) -> list[Any]:
        return [] if self.deleted else [SimpleNamespace(reference=IMAGE, size=11, layers=(("a", 4), ("b", 7)))]

    async def delete(self, reference: str) -> None:
        self.deleted.append(reference)


@dataclass
class Stand:
    url: str
    port: int
    play: Play
    records: Records
    site: Site
    app: web.Application


def site(home: Path, play: Play, records: Records, config: dict[str, Any] | None = None, **more: Any) -> Site:
    (home / "secrets").mkdir(parents=True, exist_ok=True)
    (home / "secrets" / "admin-token").write_text(ADMIN + "\n")
    settings = Config.model_validate({"home": home} | (config or {}))
    providers = {item.prefix: SimpleNamespace(name=item.kind, display_config=DISPLAYS[item.kind](item)) for item in settings.providers}
    admission = Admission(settings.admission, settings.session, settings.quota)
    room = SimpleNamespace(queue=list)
    line: Any = SimpleNamespace(
        providers=providers, rules=Rules(), recipe="f" * 64, admission=admission, now=time.time, room=room, access=None, projects=None
    )
    parts: dict[str, Any] = {"builds": records, "store": records, "registry": records, "hub": records, "ends": Ends(records)}
    patience = Patience(keepalive=0.2, look=0.05, stall=1)
    return Site(settings, line, secret=SECRET, launch=play.launch, **({"patience": patience} | parts | more))


@asynccontextmanager
async def stand(
    home: Path, play: Play | None = None, records: Records | None = None, config: dict[str, Any] | None = None, port: int = 0, **more: Any
) -> AsyncIterator[Stand]:
    play, records = play or Play(), records or Records()
    made = site(home, play, records, config, **more)
    running = runner(made)
    await running.setup()
    try:
        listening = web.TCPSite(running, "127.0.0.1", port, reuse_address=True)
        await listening.start()
        bound = listening._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        yield Stand(f"http://127.0.0.1:{bound}{made.config.listen.base_url}", bound, play, records, made, running.app)
    finally:
        await running.cleanup()


@asynccontextmanager
async def ruled(home: Path, records: Records | None = None, play: Play | None = None, **more: Any) -> AsyncIterator[Stand]:
    """A stand with a desk over real tables."""
    records = records or Records()
    async with open_engine(f"sqlite+aiosqlite:///{home / 'rulings.sqlite'}") as engine, opened(SqlRulings, engine) as tables:
        rules = Rules(tables)
        await rules.read()
        parts: Any = records
        limits = Config.model_validate({"home": home}).images
        pruner = Pruner(parts, None, hub=parts, builds=parts, store=parts, leases=Leases(), limits=limits, pinned=lambda: rules.pins)
        desk = Desk(rules, tables, pruner.delete, **more.pop("desk", {}))
        async with stand(home, play, records, desk=desk, **more) as at:
            at.site.line.rules = rules  # type: ignore[misc]
            yield at
