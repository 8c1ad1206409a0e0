"""The daemon of a machine that builds for a Binder on another one: the composition root there, and the few routes that it has.

``binder-onprem serve`` calls `main` where the settings have `building_for`. It keeps no records: what it was told to build it has built, or has
forgotten when the connection is gone, and then nothing of it is left. The Binder takes builds up again by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import ssl
import time
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiohttp import WSMsgType, web

from binder_onprem import lifetime
from binder_onprem.building import disk, registry
from binder_onprem.building.builder import PodmanBuilder
from binder_onprem.building.elsewhere import wire
from binder_onprem.building.elsewhere.asking import Asking
from binder_onprem.building.prepare import Sandbox
from binder_onprem.building.supply.installed import Installed
from binder_onprem.doors import Doors
from binder_onprem.egress.addresses import AddressRules
from binder_onprem.engine.containers import Containers
from binder_onprem.engine.images import Images
from binder_onprem.errors import BinderError, HostUnfit, Unavailable
from binder_onprem.host import baseimage, gates, recipe, sources
from binder_onprem.host.firewall import Firewall
from binder_onprem.periodic import periodic
from binder_onprem.pruner import here_as_stored, repository, surplus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from binder_onprem.building.registry import DistributionRegistry
    from binder_onprem.config import BuildingFor, Config
    from binder_onprem.credential import Credential
    from binder_onprem.host.sources import Sources
    from binder_onprem.interfaces import BuildLog
    from binder_onprem.model import BuildRecord
    from binder_onprem.plan import Plan

logger = logging.getLogger(__name__)

ORDER_SECONDS: Final = 10.0
"""Between the opening of a websocket and its order."""
FIREWALL_SECONDS: Final = 300.0
SWEEP_SECONDS: Final = 5.0
"""Between two tries to remove what the last process left."""
BODY_BYTES: Final = 1024**2

_asking: ContextVar[Asking] = ContextVar("asking")
"""Whom the build that runs in this context can ask."""


@dataclass(slots=True)
class Standing:
    """What was made for one set of images.

    Attributes:
        builder: Builds on them.
        installed: Lists what is in an image.
    """

    builder: PodmanBuilder
    installed: Installed


@dataclass(slots=True)
class Yard:
    """Everything a build here needs, and the builds that run.

    Attributes:
        config: This machine's settings.
        given: Mirrors, proxy, certificates.
        containers, images: The engine's.
        kept: The registry.
        code: As `wire.Made.code`, of this machine.
        running: Build's id → its image's repository.
        used: Image → Unix seconds of its last use here.
    """

    config: Config
    given: Sources
    containers: Containers
    images: Images
    kept: DistributionRegistry
    code: str
    running: dict[str, str] = field(default_factory=dict)
    used: dict[str, float] = field(default_factory=dict)
    _standing: dict[wire.Made, Standing] = field(default_factory=dict)
    _doors: Doors = field(default_factory=Doors)
    _sweeping: asyncio.Lock = field(default_factory=asyncio.Lock)

    def state(self) -> wire.State:
        """What this machine says of itself."""
        return wire.State(wire.FORM, self.code, tuple(sorted(self.running)), self.config.build.concurrency)

    async def build(self, order: wire.Order, asking: Asking) -> str:
        """Carry an order out; one of the same build that is just being given up ends first. Raises as `interfaces.Builder`."""
        if order.made.code != self.code:
            raise Unavailable("The machine that builds has another release than this one. Its administrator runs `deploy site`.")
        build = order.build
        async with self._doors.of(build.id):
            # Not while a sweep is at work: it knows those alone that ran when it began.
            async with self._sweeping:
                self.running[build.id] = build.image.repository
            try:
                standing = await self._ready(order.made)
                token = _asking.set(asking)
                try:
                    digest = await standing.builder.build(build, asking, asking.pushing)
                finally:
                    _asking.reset(token)
                self.used[build.image.at(digest)] = time.time()
                return digest
            finally:
                del self.running[build.id]

    async def sweep(self, running: frozenset[str]) -> None:
        """Remove what builds left that do not run. Raises `EngineUnavailable`."""
        standing = next(iter(self._standing.values()), None) or self._stand(wire.Made("", "", "", self.code))
        async with self._sweeping:
            await standing.builder.sweep(running | frozenset(self.running))

    async def prune(self) -> None:
        """Keep this machine's images within the budget, and within what its disk has. Raises `EngineUnavailable`."""
        limits, protected = self.config.images, {name for made in self._standing for name in (made.base, made.sandbox)}
        here = [image for image in map(here_as_stored, await self.images.local()) if image]

        def in_use(reference: str) -> bool:
            return reference in protected or repository(reference) in self.running.values()

        short = disk.short(self.config.home)
        for reference, _ in surplus(here, self.used, in_use, budget=limits.budget, keep=limits.keep, now=time.time(), short=short):
            if not in_use(reference) and await self.images.remove(reference):
                self.used.pop(reference, None)
                logger.info("image removed", extra={"image": reference})

    async def _ready(self, made: wire.Made) -> Standing:
        """Have the images here that the Binder has made."""
        async with self._doors.of(made):
            for image in (made.base, made.sandbox):
                await self.images.fetch(image)
            if made not in self._standing:
                # Of another recipe no build begins any more; those that run have theirs.
                self._standing = {made: self._stand(made)}
            return self._standing[made]

    def _stand(self, made: wire.Made) -> Standing:
        sandbox = Sandbox(self.config, self.given, self.containers, made.sandbox, base=made.base, credentials=_credential)
        installed = Installed(self.config, self.containers, made.sandbox)
        here = baseimage.Made(made.base, "", made.sandbox, made.recipe)
        builder = PodmanBuilder(
            self.config, self.given, self.containers, self.images, self.kept, sandbox, here, used=_used, replaced=_replaced, papers=_Papers(installed)
        )
        return Standing(builder, installed)


async def _used(reference: str) -> None:
    await _asking.get().used(reference)


async def _replaced(old: str, new: str) -> None:
    await _asking.get().replaced(old, new)


async def _credential(_credential_id: str) -> Credential | None:
    return await _asking.get().credential()


@dataclass(frozen=True, slots=True)
class _Papers:
    """Satisfies `builder.Papers`: listed here, signed where the keys are."""

    installed: Installed

    async def attest(self, build: BuildRecord, plan: Plan, digest: str, log: BuildLog) -> None:  # noqa: ARG002 - the other side writes the log
        await _asking.get().attest(self.installed, build, plan, digest)


def main(config: Config) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        BinderError: It cannot start; the message says what is missing.
    """
    lifetime.run(serve(config), config.log_level)


async def serve(config: Config) -> None:
    """Open, clear away what the last process left, take orders; never returns but by cancellation or a crash."""
    if config.building_for is None:
        raise HostUnfit("building_for is not set: this machine builds for nobody.")
    async with AsyncExitStack() as stack:
        yard = await opened(config, stack)
        await _swept(yard)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(periodic("prune", config.passes.prune, yard.prune), name="prune")
            firewall = Firewall(config, yard.given)
            tasks.create_task(periodic("firewall", FIREWALL_SECONDS, lambda: asyncio.to_thread(firewall.put)), name="firewall")
            await _listen(yard, config.building_for, stack)
            logger.info("building for others", extra={"port": config.building_for.port})


async def opened(config: Config, stack: AsyncExitStack) -> Yard:
    """Make the yard and open the gates; `stack` closes what is open. Raises `BinderError`."""
    given = sources.read(config)
    kept = await stack.enter_async_context(registry.connected(config))
    await gates.open_gates(config, given, AddressRules.of(config), stack)
    return Yard(config, given, Containers(config.podman_socket), Images(config), kept, wire.code(recipe.shape(config)))


async def _swept(yard: Yard) -> None:
    """Remove what the last process left; podman may only just be starting."""
    while True:
        try:
            await yard.sweep(frozenset())
        except BinderError as error:
            logger.warning("before builds", extra={"error": error.message})
            await asyncio.sleep(SWEEP_SECONDS)
        else:
            return


async def _listen(yard: Yard, building: BuildingFor, stack: AsyncExitStack) -> None:
    runner = web.AppRunner(
        application(yard, _token(building.token_file)), access_log=None, handle_signals=False, shutdown_timeout=2.0, keepalive_timeout=30.0
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, building.address, building.port, ssl_context=_certificate(building)).start()
    yard.config.builder_socket.unlink(missing_ok=True)
    # What `up` and `check` look at; it asks for the token as well.
    await web.UnixSite(runner, str(yard.config.builder_socket)).start()


def _certificate(building: BuildingFor) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(building.certificate_file, building.key_file)
    except (OSError, ssl.SSLError) as error:
        raise HostUnfit(f"building_for: {building.certificate_file} and {building.key_file} are no certificate with its key.") from error
    return context


def _token(file: Path) -> str:
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not token:
        raise HostUnfit(f"building_for.token_file: {file} has no token in it.")
    return token


def application(yard: Yard, token: str) -> web.Application:
    """The routes: ``GET /`` (`wire.State`), ``POST /sweep``, ``GET /build`` (a websocket)."""

    @web.middleware
    async def known(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), f"Bearer {token}".encode()):
            return web.json_response({"message": "The token is not this machine's."}, status=401)
        try:
            return await handler(request)
        except BinderError as error:
            return web.json_response({"message": error.message}, status=error.status)

    async def state(_request: web.Request) -> web.Response:
        return web.Response(text=wire.state(yard.state()), content_type="application/json")

    async def sweep(request: web.Request) -> web.Response:
        said = wire.message(await request.text())
        names = said.get("running")
        if not isinstance(names, list):
            return web.json_response({"message": "running is missing."}, status=400)
        await yard.sweep(frozenset(map(str, names)))
        return web.json_response({})

    async def build(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=wire.HEARTBEAT, max_msg_size=wire.BYTES)
        await socket.prepare(request)
        await _ordered(yard, socket)
        await socket.close()
        return socket

    made = web.Application(middlewares=[known], client_max_size=BODY_BYTES)
    made.router.add_get("/", state)
    made.router.add_post("/sweep", sweep)
    made.router.add_get("/build", build)
    return made


async def _ordered(yard: Yard, socket: web.WebSocketResponse) -> None:
    """Carry out the one order of a websocket; when that closes first, the build is given up."""
    try:
        order = wire.read_order(await socket.receive_str(timeout=ORDER_SECONDS))
    except (BinderError, TypeError, TimeoutError):
        return
    asking = Asking(socket, listed=order.listed)
    work = asyncio.create_task(yard.build(order, asking), name=f"build-{order.build.id}")
    hearing = asyncio.create_task(_heard(socket, asking))
    try:
        await asyncio.wait((work, hearing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        # The build last: what it says while it ends is still taken.
        for task in (work, hearing):
            task.cancel()
        await asyncio.wait((work, hearing))
    if not work.cancelled():
        with contextlib.suppress(ConnectionError):
            await socket.send_json(_outcome(order.build, work))


async def _heard(socket: web.WebSocketResponse, asking: Asking) -> None:
    async for received in socket:
        if received.type is WSMsgType.TEXT:
            with contextlib.suppress(BinderError):
                asking.heard(wire.message(received.data))


def _outcome(build: BuildRecord, work: asyncio.Task[str]) -> dict[str, Any]:
    error = work.exception()
    if error is None:
        return {"done": work.result()}
    if not isinstance(error, BinderError):
        logger.error("build", exc_info=error, extra={"build": build.id})
    return {"failed": wire.failure(error if isinstance(error, Exception) else RuntimeError())}
