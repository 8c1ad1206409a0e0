"""The line from a click to a session; ARCHITECTURE.md has the picture. The web and the CLI print this one stream.

Repeating a launch with the same key gives the same events under the same (stage, number), the same commit, the same build, the same session;
that is how a stream that broke goes on. Events with number 0 (places in the queue, notices of trouble) belong to their moment and are not counted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from binder_onprem import choosing, opening
from binder_onprem.errors import RegistryUnavailable, StoreUnavailable, Unavailable, UnknownProvider
from binder_onprem.events import Done, Phase, Progress, Ready, Stage
from binder_onprem.leases import Leases
from binder_onprem.model import ImageRef, Role
from binder_onprem.permission import Permission
from binder_onprem.rules import Rules
from binder_onprem.trail import audited

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from binder_onprem.access import Access
    from binder_onprem.admission import Admission
    from binder_onprem.builds import Builds
    from binder_onprem.config import Config
    from binder_onprem.interfaces import Hub, LocalImages, Provider, Publication, Registry, Store, Supply
    from binder_onprem.journal import Journal
    from binder_onprem.model import LaunchRequest, RepoSpec, ResolvedRepo, Server
    from binder_onprem.projects import Entered, Projects
    from binder_onprem.quotas import Claim
    from binder_onprem.room import Room
    from binder_onprem.terms import Terms

logger = logging.getLogger(__name__)

REGISTRY_SECONDS: Final = 8.0
"""How long a registry that does not answer is asked again."""
REGISTRY_ANSWER_SECONDS: Final = 3.0
"""How long one answer may take: a registry that hangs is as good as one that is down."""
REGISTRY_PAUSE_SECONDS: Final = 1.0
MESSAGE_CHARACTERS: Final = 500
LOCAL_NOTICE: Final = "The image registry does not answer; the image is on this machine, so it is taken from here.\n"


@dataclass(frozen=True)
class Line:
    """What a launch needs; made once by the daemon.

    Attributes:
        recipe: Digest of what shapes every image (64 hex digits).
        room: Places for sessions.
        hook: Asks the site's own program before a start.
        journal: Where launches are told; None: nowhere.
        now: Unix seconds.
        monotonic: Seconds of a clock that does not jump.
        images: Images on this machine; None where sessions run elsewhere.
        leases: Shared with the prune.
        publication: Where images go for other hubs; None: they stay here.
        rules: What the administrator has ruled.
        supply: Says whether an image may be started; None: any of ours.
        permission: Roles, and how many sessions one person may have.
        access: Opens private repositories with what a client may use; None: there are public ones only.
        projects: Homes that last; None: there are none.
    """

    config: Config
    providers: Mapping[str, Provider]
    admission: Admission
    registry: Registry
    builds: Builds
    hub: Hub
    store: Store
    recipe: str
    room: Room
    hook: Callable[[LaunchRequest, ResolvedRepo, str, Terms], Awaitable[Terms]] | None = None
    journal: Journal | None = None
    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    images: LocalImages | None = None
    leases: Leases = field(default_factory=Leases)
    publication: Publication | None = None
    rules: Rules = field(default_factory=Rules)
    supply: Supply | None = None
    permission: Permission = field(default_factory=lambda: Permission(None))
    access: Access | None = None
    projects: Projects | None = None


async def launch(request: LaunchRequest, line: Line) -> AsyncGenerator[Progress | Ready | Done, None]:
    """Go from the click to the session, or only to the image.

    Yields:
        `Progress` as things happen, then one `Ready` (`Done`, where only the image is wanted).

    Raises:
        BinderError: What ARCHITECTURE.md's picture names at each step; nothing follows it.
    """
    async with audited(request, line) as trail:
        line.permission.launch(request)
        await line.admission.admitted(request, line.now())
        line.rules.admit(request)
        request = replace(request, choice=choosing.checked(request.choice, request.client, line.config.choice, line.config.projects))
        provider = _provider(request, line)
        spec = provider.parse(request.path)
        yield Progress(Phase.WAITING, _looking_up(spec), Stage.RESOLVE, 1)
        opened = await (line.access.resolve(provider, spec, request.client) if line.access else provider.resolve(spec))
        repo, since = await line.store.begin(request, opened, trail.began)
        repo = replace(repo, access=opened.access)  # what opens it now: the credential of the first time may be gone
        trail.resolved(repo)
        if repo.notice:
            yield Progress(Phase.WAITING, repo.notice + "\n", Stage.RESOLVE, 2)
        image = ImageRef.of(repo, line.config.image_prefix, line.recipe)
        if opening.waits(request, line.projects):
            yield opening.waiting(request)
        async with line.leases.hold(image.repository), opening.entered(request, repo, line.projects) as entered:
            if entered and entered.session:
                yield opening.running(entered)
                server = await opening.server(entered.session, request, line.hub, line.config)
                trail.imaged(entered.session.image or "")
                trail.ended("ready")
                yield _ready(request, repo, entered.session.image or "", server)
                return
            claim = line.admission.claim(request, repo, image)
            if not request.build_only:
                await _allowed_one_more(request, line)
                await line.room.check(claim)
            found = await _there(request, line, image, since)
            if found and found.local:
                yield Progress(Phase.WAITING, LOCAL_NOTICE, Stage.RESOLVE)
            if found is None:
                line.permission.build(request)
                who = request.client.user or request.client.address
                async with aclosing(line.builds.follow(image, repo, client=who, since=since)) as events:
                    async for event in events:
                        yield event
            reference = (found.reference or image.at(found.digest)) if found else image.at(await _built(line, image))
            trail.imaged(reference)
            await _trusted(line, reference)
            known = found is not None
            ending = (
                _handed_over(image, reference, line, known) if request.build_only else _placed(request, repo, reference, claim, line, known, entered)
            )
            async with aclosing(ending) as steps:
                async for step in steps:
                    if not isinstance(step, Progress):
                        trail.ended("ready")
                    yield step


@dataclass(frozen=True, slots=True)
class _Found:
    digest: str
    local: bool = False
    reference: str = ""
    """Of a prebuilt image, which has another name than the repository's."""


def _looking_up(spec: RepoSpec) -> str:
    url = spec.url[:MESSAGE_CHARACTERS]
    return f"Looking up {url} at {spec.ref[:MESSAGE_CHARACTERS]}...\n" if spec.ref else f"Looking up {url}...\n"


def _provider(request: LaunchRequest, line: Line) -> Provider:
    provider = line.providers.get(request.provider)
    if provider is None:
        raise UnknownProvider(f"No provider found for prefix {request.provider[:40]}. There are: {', '.join(sorted(line.providers))}.")
    return provider


async def _there(request: LaunchRequest, line: Line, image: ImageRef, since: float) -> _Found | None:
    """The image to start: a prebuilt one where the link asks for it, else the repository's if it is there."""
    if request.choice.image:
        reference = line.config.choice.images[request.choice.image].image
        return _Found(reference.rpartition("@")[2], reference=reference)
    builds = Role.BUILD in request.client.roles
    return None if builds and await line.builds.latest(image, since) else await _found(line, image)


async def _found(line: Line, image: ImageRef) -> _Found | None:
    """The image as the registry has it; None only when the registry said that there is none."""
    try:
        async with asyncio.timeout(REGISTRY_SECONDS):
            return await _asked(line, image)
    except TimeoutError:
        raise RegistryUnavailable("The image registry does not answer. Try again in a minute.", retry_after=60) from None


async def _asked(line: Line, image: ImageRef) -> _Found | None:
    pause, began = REGISTRY_PAUSE_SECONDS, line.monotonic()
    while True:
        try:
            async with asyncio.timeout(REGISTRY_ANSWER_SECONDS):
                digest = await line.registry.digest(image)
        except (RegistryUnavailable, TimeoutError):
            local = await _local(line, image)
            if local:
                return _Found(local, local=True)
            if line.monotonic() - began + pause >= REGISTRY_SECONDS:
                raise
        else:
            return _Found(digest) if digest else None
        await asyncio.sleep(pause)
        pause *= 2


async def _local(line: Line, image: ImageRef) -> str | None:
    """The digest that was last built, if that image is on this machine."""
    digest = await line.store.built(image)
    try:
        return digest if digest and line.images and await line.images.exists(image.at(digest)) else None
    except Unavailable:
        return None


async def _trusted(line: Line, reference: str) -> None:
    # One of another registry is listed by digest by the administrator, who answers for it.
    if line.supply and reference.startswith(f"{line.config.registry_host}/"):
        await line.supply.verify(reference)


async def _built(line: Line, image: ImageRef) -> str:
    digest = await line.store.built(image)
    if digest is None:  # its record expired between the build's end and here: days
        raise StoreUnavailable("The build's record is gone. Launch again.")
    return digest


def _built_event(reference: str, found: bool) -> Progress:  # noqa: FBT001
    message = "Found built image, launching...\n" if found else "Built image, launching...\n"
    return Progress(Phase.BUILT, message, Stage.LAUNCH, 1, {"imageName": reference})


async def _handed_over(image: ImageRef, reference: str, line: Line, found: bool) -> AsyncGenerator[Progress | Ready | Done, None]:  # noqa: FBT001
    """The image where others can have it. No `built` before: clients take the first name they are told."""
    await line.store.touch(reference, line.now())
    if line.publication:
        yield Progress(Phase.BUILDING, f"Copying the image to {line.publication.place} ...\n", Stage.LAUNCH, 1)
        reference = await line.publication.publish(image, reference.partition("@")[2])
    yield Done(reference, found)


async def _placed(  # noqa: PLR0913, PLR0917 - what is known by now
    request: LaunchRequest,
    repo: ResolvedRepo,
    reference: str,
    claim: Claim,
    line: Line,
    found: bool,  # noqa: FBT001
    entered: Entered | None,
) -> AsyncGenerator[Progress | Ready | Done, None]:
    """A place, waited for where the site has launches wait, and the session in it."""
    terms = line.admission.terms(request)
    if line.hook:
        terms = await line.hook(request, repo, reference, terms)
    with line.permission.place(request):
        async with line.room.place(claim) as waiting:
            async for event in waiting:
                yield event
            await _allowed_one_more(request, line)
            yield _built_event(reference, found)
            await line.store.touch(reference, line.now())
            if entered and line.projects:
                yield opening.told(entered, repo)
                home = await line.projects.ready(entered, request, repo, reference)
                if home.full:
                    yield opening.full(entered)
                terms = replace(terms, project=home)
            async with aclosing(_started(request, repo, reference, terms, line)) as steps:
                async for step in steps:
                    yield step


async def _allowed_one_more(request: LaunchRequest, line: Line) -> None:
    """Raises `SessionRunning` for a person who has as many sessions as she may."""
    if request.client.owner is not None:
        line.permission.own(request, await line.hub.sessions())


async def _started(request: LaunchRequest, repo: ResolvedRepo, reference: str, terms: Terms, line: Line) -> AsyncGenerator[Progress | Ready, None]:
    """What the hub says while it starts the server, then `Ready`."""
    said: asyncio.Queue[str | None] = asyncio.Queue()
    number = 2
    yield Progress(Phase.LAUNCHING, "Launching server...\n", Stage.LAUNCH, number)
    task = asyncio.create_task(line.hub.start(request, repo, reference, said.put, terms))
    task.add_done_callback(lambda _: said.put_nowait(None))
    try:
        while (message := await said.get()) is not None:
            number += 1
            yield Progress(Phase.LAUNCHING, message.rstrip("\n")[:MESSAGE_CHARACTERS] + "\n", Stage.LAUNCH, number)
        yield _ready(request, repo, reference, await task)
    finally:
        task.cancel()
        await asyncio.wait({task})


def _ready(request: LaunchRequest, repo: ResolvedRepo, reference: str, server: Server) -> Ready:
    return Ready(
        server,
        reference,
        repo_url=repo.url,
        ref_url=repo.ref_url,
        host=request.host,
        request=f"v2/{request.provider}/{request.path}",
        persistent_request=f"v2/{request.provider}/{repo.path}",
        client_ip=request.client.address,
    )
