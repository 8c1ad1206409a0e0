"""The composition root: the only place that knows concrete classes, and the life of the process.

``binder-onprem serve`` calls `main`; the supervisor keeps that running. Order: open what has to be open, put store, containers and hub in agreement
once in the foreground, then serve. Everything that runs is in one task group: a crash of any part ends the process visibly and the supervisor
starts it anew. Builds and sessions survive that: builds are taken up again, sessions are nobody's children here.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
from aiohttp import web

from binder_onprem import lifetime, metrics, providers, store, whereabouts
from binder_onprem.access import Access
from binder_onprem.admission import Admission
from binder_onprem.building import disk, registry
from binder_onprem.building.builder import PodmanBuilder
from binder_onprem.building.collection import Collection
from binder_onprem.building.elsewhere import wire
from binder_onprem.building.elsewhere.dispatch import Dispatch
from binder_onprem.building.elsewhere.remote import Knowledge, RemoteBuilder
from binder_onprem.building.prepare import Sandbox
from binder_onprem.building.publication import Publication
from binder_onprem.building.supply.chain import Chain
from binder_onprem.building.supply.installed import Installed
from binder_onprem.building.supply.keys import Keys
from binder_onprem.builds import Builds
from binder_onprem.config import HERE
from binder_onprem.egress.addresses import AddressRules
from binder_onprem.egress.outbound import bypasses
from binder_onprem.ends import Reason
from binder_onprem.engine.containers import Containers
from binder_onprem.engine.images import Images
from binder_onprem.engine.projectvolumes import ProjectVolumes
from binder_onprem.errors import BinderError, HostUnfit, Unavailable
from binder_onprem.hook import Hook
from binder_onprem.host import baseimage, gates, recipe, sources
from binder_onprem.host import machine as host
from binder_onprem.host.firewall import Firewall
from binder_onprem.host.supervision import supervision
from binder_onprem.hub.rest import JupyterHub
from binder_onprem.journal import Journal
from binder_onprem.launch import Line, launch
from binder_onprem.office import Office
from binder_onprem.periodic import periodic
from binder_onprem.permission import Permission
from binder_onprem.popular import Popularity
from binder_onprem.projects import Projects
from binder_onprem.pruner import Pruner
from binder_onprem.reaper import STARTS, Reaper
from binder_onprem.reconcile import Reconcile
from binder_onprem.room import Room
from binder_onprem.sealing import Sealing
from binder_onprem.store.credentials import SqlCredentials
from binder_onprem.store.moving import take_over
from binder_onprem.store.projects import SqlProjects
from binder_onprem.store.rulings import SqlRulings
from binder_onprem.web import health, hooks
from binder_onprem.web import site as website
from binder_onprem.web.ending import Ending
from binder_onprem.webhooks import Webhooks
from binder_onprem.webhooks import secret as shared_secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from binder_onprem.config import Config
    from binder_onprem.ends import Ends
    from binder_onprem.host.sources import Sources
    from binder_onprem.interfaces import Builder

logger = logging.getLogger(__name__)

FIREWALL_SECONDS: Final = 300.0
"""Between two look-ups of the mirrors' addresses."""
POPULAR_SECONDS: Final = 600.0
"""Between two counts of what is launched; each repository that is shown is asked then whether it is still public."""
KEPT_SECONDS: Final = 60.0
"""Between two looks for kept files of ended sessions that are past their time."""
QUOTA_SECONDS: Final = 10.0
"""Between two looks at the disk's use; what sessions have written is counted only when it moved."""
PROJECT_SECONDS: Final = 15.0
"""Between two looks at projects: how much is in them, and whether they have to be mounted."""
FIRST_SECONDS: Final = 20.0
"""The first reconcile may take this long; a hub that is still starting is met by the next one."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """Everything that was built, ready to run."""

    config: Config
    line: Line
    builds: Builds
    reaper: Reaper
    reconcile: Reconcile
    pruner: Pruner
    popular: Popularity
    collection: Collection
    firewall: Firewall
    site: website.Site
    webhooks: Webhooks
    office: Office
    place: whereabouts.Place


def main(config: Config) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        BinderError: It cannot start; the message says what is missing.
    """
    lifetime.run(serve(config), config.log_level)


async def serve(config: Config) -> None:
    """Open, reconcile, serve; never returns but by cancellation or a crash."""
    async with AsyncExitStack() as stack:
        rooms = await assemble(config, stack)
        await _first(rooms)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(rooms.builds.run(), name="builds")
            tasks.create_task(rooms.webhooks.run(), name="webhooks")
            for name, seconds, work in _passes(rooms):
                tasks.create_task(periodic(name, seconds, work, done=rooms.office.passed), name=name)
            await _listen(rooms, stack)
            logger.info("serving", extra={"url": config.public_url})


async def _database(config: Config, stack: AsyncExitStack) -> AsyncEngine:
    engine = await stack.enter_async_context(store.open_engine(config.database_url))
    if moved := await take_over(config.record_file, engine):
        logger.warning("what SQLite had is in the database of the settings now", extra={"rows": moved})
    return engine


async def assemble(config: Config, stack: AsyncExitStack) -> Rooms:
    """Build every room; `stack` closes what is open.

    Raises:
        BinderError: A secret, an image, the database, the gate's address is missing.
    """
    secret = _secret(config)
    given = sources.read(config)
    made = baseimage.made(config)
    rules = AddressRules.of(config)
    upstream = await stack.enter_async_context(providers.checked_session(config, rules, given))
    local = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
    engine = await _database(config, stack)
    records = await stack.enter_async_context(store.opened(store.SqlStore, engine))
    remembered = await stack.enter_async_context(store.opened(store.SqlPolicy, engine))
    office = Office(config, await stack.enter_async_context(store.opened(SqlRulings, engine)))
    await office.rules.read()
    kept = await stack.enter_async_context(registry.connected(config))
    await gates.open_gates(config, given, rules, stack)
    containers, images = Containers(config.podman_socket), Images(config)

    async def used(reference: str) -> None:
        await records.touch(reference, time.time())

    supply = Chain(config, kept, Installed(config, containers, made.sandbox), _ready(Keys(config)), made)
    sealing = _ready(Sealing(config))
    table = await stack.enter_async_context(store.opened(SqlCredentials, engine))
    known, nobody = providers.table(config, given, rules, upstream), providers.anonymous(config, given, rules, upstream)
    access = Access(config, table, sealing, nobody.look, time.time)
    sandbox = Sandbox(config, given, containers, made.sandbox, credentials=access.credential)
    here = PodmanBuilder(config, given, containers, images, kept, sandbox, made, used=used, replaced=office.rules.replaced, papers=supply)
    fleet = _fleet(config, here, local, made, Knowledge(used, office.rules.replaced, access.credential), supply, office)
    metrics.GITHUB_REMAINING.set_function(lambda: _github(known.values()))
    admission = Admission(config.admission, config.session, config.quota, remembered)
    names = {prefix: provider.name for prefix, provider in known.items()}
    letters = await stack.enter_async_context(store.opened(store.SqlOutbox, engine))
    webhooks = Webhooks(config.events.webhooks, letters, upstream, lambda host, port: _proxy(given, host, port))
    journal = Journal(config.events, names, letters, time.time, webhooks.stir)
    stack.push_async_callback(journal.close)
    records.telling = journal.listening
    builds = Builds(config, records, fleet or here, kept, names=names, paused=lambda: office.rules.paused, told=journal.built)
    office.rules.changed = builds.look
    hub = JupyterHub(config, local, _read(config, "hub-token"), secret)
    room = Room(admission.limits, config.quota, hub, remembered)
    place = await whereabouts.opened(config, containers, hub, journal.culled, stack)
    asked = Hook.of(config)
    publication = Publication(config, given) if config.publish.registry else None
    line = Line(
        config,
        known,
        admission,
        kept,
        builds,
        hub,
        records,
        made.recipe,
        room,
        asked.ask if asked else None,
        journal,
        images=None if config.cluster else images,
        publication=publication,
        rules=office.rules,
        supply=supply,
        permission=Permission(config.accounts),
        access=access,
        projects=await _projects(config, engine, hub, containers, images, place.ends, stack),
    )
    reaper = Reaper(hub, hub, config.session, ends=place.ends, drains=place.drains)
    reconcile = Reconcile(hub, place.engine, hub, builder=fleet or here, running=lambda: builds.running, limits=config.session, ends=place.ends)
    protected = (
        made.base,
        *(name.partition("@")[0] for name in (made.base, made.shared) if name),
        *(listed.image for listed in config.choice.images.values()),
    )
    collection = Collection(config, lambda: _restart_registry(config), lambda: bool(builds.running))
    pruner = Pruner(
        kept,
        images,
        hub=hub,
        builds=builds,
        store=records,
        leases=line.leases,
        limits=config.images,
        protected=protected,
        short=lambda: disk.short(config.home),
        collect=None if config.remote else collection.collect,
        pinned=lambda: office.rules.pins,
    )
    popular = Popularity(records, known, providers.public(nobody), config.web.popular, time.time)
    pings = {"Builders": fleet.ping} if fleet else {}
    site = website.Site(
        config=config,
        line=line,
        launch=launch,
        builds=builds,
        store=records,
        registry=kept,
        hub=hub,
        ends=place.ends,
        accounts=hub.accounts,
        secret=secret,
        health=_health(config, kept, hub, {**pings, "Container engine": containers.ping, place.name: place.engine.ping}, builds),
        popular=lambda: popular.shown,
        reap=_reap(reaper, place, reconcile, room),
        prune=_prune(pruner),
        post=_post(config, letters, webhooks),
        builder_info={"build_image": f"binder-onprem:{made.recipe[:12]}"},
        vendor=Path(sys.prefix) / "node" / "node_modules",
        desk=office.desk(pruner, place.quota, place.usage, journal, fleet.rows if fleet else None),
        ending=Ending(reaper, hub, place.archive, hub.current, place.drains),
    )
    return Rooms(config, line, builds, reaper, reconcile, pruner, popular, collection, Firewall(config, given), site, webhooks, office, place)


K = TypeVar("K", Keys, Sealing)


def _ready(keys: K) -> K:
    keys.ready()
    return keys


def _fleet(  # noqa: PLR0913, PLR0917 - what it is made of
    config: Config, here: Builder, session: aiohttp.ClientSession, made: baseimage.Made, knowledge: Knowledge, papers: Chain, office: Office
) -> Dispatch | None:
    """All machines that build; None where this one is all."""
    if not config.builders:
        return None
    if not made.shared:
        raise HostUnfit("The builders' image is not in the registry yet. Run `binder-onprem up`.")
    theirs = wire.Made(made.base, made.shared, made.recipe, wire.code(recipe.shape(config)))
    others = {settings.name: RemoteBuilder(settings, session, theirs, knowledge, papers) for settings in config.builders}
    return Dispatch((HERE, here) if config.build.here else None, others, lambda: office.rules.closed, places=config.build.concurrency)


def _github(known: Iterable[providers.Cached]) -> float:
    """The smallest number of requests that any GitHub still answers; NaN before any was asked."""
    left = (getattr(cached.provider, "rate_remaining", None) for cached in known)
    return min((float(number) for number in left if number is not None), default=float("nan"))


def _proxy(given: Sources, host: str, port: int) -> str | None:
    return given.proxy if given.proxy and not bypasses(host, port, given.no_proxy) else None


def _post(config: Config, letters: store.SqlOutbox, webhooks: Webhooks) -> hooks.Post:
    keys = {name: shared_secret(hook.secret_file, f"hooks.{name}.secret_file") for name, hook in config.hooks.items()}
    return hooks.Post(letters, keys, webhooks.stir)


def _read(config: Config, name: str) -> str:
    try:
        return (config.secrets / name).read_text(encoding="ascii").strip()
    except OSError:
        raise HostUnfit(f"The secret {name} is missing below {config.home}. Run `binder-onprem up`.") from None


def _secret(config: Config) -> bytes:
    try:
        return bytes.fromhex(_read(config, "site-secret"))
    except ValueError:
        raise HostUnfit("The secret site-secret is not 64 hex digits. Remove the file and run `binder-onprem up`.") from None


def _restart_registry(config: Config) -> None:
    keeper = supervision(config, host.look(config.home))
    keeper.stop("registry")
    keeper.start("registry")


async def _projects(  # noqa: PLR0913, PLR0917 - what it is made of
    config: Config, engine: AsyncEngine, hub: JupyterHub, containers: Containers, images: Images, ends: Ends, stack: AsyncExitStack
) -> Projects:
    table = await stack.enter_async_context(store.opened(SqlProjects, engine))
    volumes = ProjectVolumes(config.project_volumes, containers, images)
    seconds = STARTS * config.session.start_timeout
    return Projects(config.projects, table, volumes, hub, containers, patience=seconds, stop=ends.wished)


async def _first(rooms: Rooms) -> None:
    """Agreement before anything is served; what does not answer yet is met by the periodic passes."""
    try:
        async with asyncio.timeout(FIRST_SECONDS):
            await rooms.collection.heal()
            await rooms.builds.resume()
            await rooms.reconcile.reconcile()
            await _projects_looked_after(rooms)
    except (Unavailable, TimeoutError) as error:
        logger.warning("first reconcile put off", extra={"reason": str(error)[:200]})


async def _projects_looked_after(rooms: Rooms) -> None:
    if rooms.line.projects:
        await rooms.line.projects.look()


def _passes(rooms: Rooms) -> tuple[tuple[str, float, Callable[[], Awaitable[object]]], ...]:
    def starting() -> frozenset[str]:
        return rooms.line.room.starting

    async def prune() -> None:
        await rooms.collection.heal()
        await rooms.pruner.prune()

    seconds, quota, archive = rooms.config.passes, rooms.place.quota, rooms.place.archive
    return (
        ("reap", seconds.reap, lambda: rooms.reaper.reap(held=starting)),
        *([("disk", min(seconds.reap, QUOTA_SECONDS), lambda: quota.look(held=starting))] if quota else []),
        ("reconcile", seconds.reconcile, lambda: rooms.reconcile.reconcile(held=starting)),
        ("prune", seconds.prune, prune),
        ("projects", min(seconds.reconcile, PROJECT_SECONDS), lambda: _projects_looked_after(rooms)),
        *([("kept", KEPT_SECONDS, archive.expire)] if archive else []),
        ("popular", POPULAR_SECONDS, rooms.popular.look),
        ("firewall", FIREWALL_SECONDS, lambda: asyncio.to_thread(rooms.firewall.put)),
        ("expire", seconds.prune, lambda: rooms.builds.expire(rooms.line.now())),
        *rooms.office.passes(),
    )


def _health(
    config: Config, kept: registry.DistributionRegistry, hub: JupyterHub, engines: Mapping[str, Callable[[], Awaitable[None]]], builds: Builds
) -> Mapping[str, Callable[[], Awaitable[dict[str, Any]]]]:
    def check(ping: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[dict[str, Any]]]:
        async def checked() -> dict[str, Any]:
            try:
                await ping()
            except BinderError:
                return {"ok": False}
            return {"ok": True}

        return checked

    async def quota() -> dict[str, Any]:
        try:
            sessions = sum(session.server for session in await hub.sessions())
        except BinderError:
            return {"ok": False, "_ignore_failure": True}
        return health.capacity(sessions, len(builds.running), config.session.total)

    pings = {"Docker registry": kept.ping, "JupyterHub API": hub.ping, **engines}
    return {name: check(ping) for name, ping in pings.items()} | {"Pod quota": quota}


def _reap(reaper: Reaper, place: whereabouts.Place, reconcile: Reconcile, room: Room) -> website.Pass:
    async def reap(dry_run: bool) -> Sequence[Mapping[str, Any]]:  # noqa: FBT001 - shape of a pass
        ended = await reaper.reap(held=lambda: room.starting, dry_run=dry_run)
        over = await place.quota.look(held=lambda: room.starting, dry_run=dry_run) if place.quota else ()
        removed = await reconcile.reconcile(held=lambda: room.starting, dry_run=dry_run)
        return [
            *({"kind": "session", "name": one.name, "reason": one.reason.value, "done": one.stopped} for one in ended),
            *({"kind": "session", "name": one.name, "reason": Reason.DISK.value, "done": one.stopped} for one in over),
            *({"kind": one.leftover.kind.value, "name": one.leftover.name, "reason": "without owner", "done": one.removed} for one in removed),
        ]

    return reap


def _prune(pruner: Pruner) -> website.Pass:
    async def prune(dry_run: bool) -> Sequence[Mapping[str, Any]]:  # noqa: FBT001 - shape of a pass
        gone = await pruner.prune(dry_run=dry_run)
        return [{"reference": one.reference, "size": one.bytes, "place": one.place, "done": one.removed} for one in gone]

    return prune


async def _listen(rooms: Rooms, stack: AsyncExitStack) -> None:
    runner = website.runner(rooms.site)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", rooms.config.daemon_port).start()
