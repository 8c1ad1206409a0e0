"""The application: what it needs, and which route leads where. Built by the daemon; `runner` gives it limits and a server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote

from aiohttp import web

import binder_onprem
from binder_onprem import launch
from binder_onprem.web import (
    api,
    build,
    cookies,
    credentials,
    credentials_page,
    ending,
    facts,
    headers,
    health,
    hooks,
    locale,
    login,
    own,
    pages,
    pictures,
    policy,
    projects,
)
from binder_onprem.web.admin import routes as administration
from binder_onprem.web.admin.live import Live
from binder_onprem.web.admin.signin import SignIns
from binder_onprem.web.health import Health
from binder_onprem.web.keys import CATALOGUES, HEALTH, LIVE, PAGES, SEAL, SIGN_INS, SITE, STREAMS, TOKENS
from binder_onprem.web.stream import Patience, Streams
from binder_onprem.web.tokens import BuildTokens

if TYPE_CHECKING:
    from binder_onprem.config import Config
    from binder_onprem.ends import Ends
    from binder_onprem.events import Done, Progress, Ready
    from binder_onprem.interfaces import Accounts, Hub, Registry, Store
    from binder_onprem.launch import Line
    from binder_onprem.model import BuildRecord, ImageRef, LaunchRequest, ResolvedRepo
    from binder_onprem.popular import Popular
    from binder_onprem.queueing import Place
    from binder_onprem.web.admin.desk import Desk
    from binder_onprem.web.ending import Ending

HEADER_BYTES: Final = 16 * 1024
BODY_BYTES: Final = 64 * 1024
IDLE_SECONDS: Final = 10.0
"""A connection that has not sent a whole request by then is closed."""

Pass = Callable[[bool], Awaitable[Sequence[Mapping[str, Any]]]]
"""A pass that can be asked for; takes `dry_run`, tells what it did (or would do) as JSON objects."""


class Builds(Protocol):
    """What the API asks of the builds."""

    def replay(self, build_id: str, after: int = 0) -> AsyncIterator[Progress]:
        """The log's lines after number `after`, then live ones until the build ends."""
        ...

    def places(self) -> Sequence[tuple[BuildRecord, Place | None]]:
        """What has not ended, with its place in the queue."""
        ...

    async def start(self, image: ImageRef, repo: ResolvedRepo, *, client: str) -> BuildRecord:
        """Have it built without anybody watching."""
        ...

    async def cancel(self, build_id: str, by: str) -> BuildRecord:
        """Stop it."""
        ...

    async def prioritise(self, build_id: str) -> BuildRecord:
        """Move it to the front of the queue."""
        ...

    async def rebuild(self, image: ImageRef, repo: ResolvedRepo, *, client: str) -> BuildRecord:
        """Make its image anew."""
        ...


async def nothing(_dry_run: bool) -> Sequence[Mapping[str, Any]]:  # noqa: FBT001 - shape of a pass
    """A pass that has nothing to do."""
    return ()


@dataclass(frozen=True, slots=True)
class Site:
    """Everything the routes reach.

    Attributes:
        config: The configuration.
        line: What `launch` works with.
        builds, store, registry, hub: The parts the API reads.
        ends: Ends sessions.
        secret: The site's secret, for build tokens.
        launch: One launch as a stream; closed when its viewer leaves.
        accounts: Who has logged in; None where the site has no accounts.
        health: Checks by name, see `health.Health`.
        popular: Repositories that many launch, for the front page.
        reap, prune: Passes the administrator may ask for.
        post: The outbox, and the secrets of hooks; None where there are none.
        builder_info: BinderHub's ``builder_info``.
        vendor: Directory of the scripts of others as npm lays them out.
        patience: Times of streams; None for the usual ones.
        desk: The administrator's parts; None: nothing can be ruled here.
        ending: What sessions' holders are told of their ends; None: nothing.
    """

    config: Config
    line: Line
    builds: Builds
    store: Store
    registry: Registry
    hub: Hub
    ends: Ends
    secret: bytes = field(repr=False)
    launch: Callable[[LaunchRequest, Line], AsyncIterator[Progress | Ready | Done]] = launch.launch
    accounts: Accounts | None = None
    health: Mapping[str, Callable[[], Awaitable[dict[str, Any]]]] = field(default_factory=dict)
    popular: Callable[[], Sequence[Popular]] = tuple
    reap: Pass = nothing
    prune: Pass = nothing
    post: hooks.Post | None = None
    builder_info: Mapping[str, str] = field(default_factory=lambda: {"binder-onprem": binder_onprem.__version__})
    vendor: Path = Path(binder_onprem.__file__).parent.parent / "node_modules"
    patience: Patience | None = None
    desk: Desk | None = None
    ending: Ending | None = None

    @property
    def displays(self) -> list[dict[str, Any]]:
        """Each provider's `display_config`, in the order of the configuration."""
        return [provider.display_config for provider in self.line.providers.values()]


def application(site: Site) -> web.Application:
    """Routes, errors, headers."""
    app = web.Application(middlewares=[headers.logged, headers.errors], client_max_size=BODY_BYTES)
    app[SITE] = site
    app[STREAMS] = Streams(site.config.web.streams, site.config.web.streams_per_client)
    app[TOKENS] = BuildTokens(site.secret)
    app[SIGN_INS] = SignIns(site.secret)
    app[LIVE] = Live(site)
    app[SEAL] = cookies.Seal.of(site.config, site.secret)
    app[HEALTH] = Health(site.health)
    app[CATALOGUES] = locale.read()
    app[PAGES] = pages.load(app[CATALOGUES])
    app.on_response_prepare.append(headers.decorate)
    app.on_shutdown.append(_break_streams)
    _accounts(app.router, pattern(site.config.listen.base_url))
    _routes(app.router, site.config)
    return app


def _routes(router: web.UrlDispatcher, config: Config) -> None:
    base, jupyter = pattern(config.listen.base_url), pattern(config.hub_base_url)
    get, post, delete = router.add_get, router.add_post, router.add_delete
    if not config.web.api_only:
        _pages(router, base)
    get(f"{base}build/{{provider}}/{{spec:[\\s\\S]+}}", build.build, allow_head=False)
    get(f"{base}_error/{{status:[45]\\d\\d}}", pages.proxy_error)
    get(f"{base}health", health.health)
    get(f"{base}versions", health.versions)
    get(f"{base}metrics", facts.metrics_text)
    get(f"{base}openapi.json", facts.description)
    get(f"{base}api/repoproviders", facts.repoproviders)
    get(f"{base}_config", facts.old_config)
    get(f"{base}api/builds", api.builds)
    get(f"{base}api/builds/{{id}}", api.build)
    delete(f"{base}api/builds/{{id}}", api.cancel)
    get(f"{base}api/builds/{{id}}/log", api.log, allow_head=False)
    get(f"{base}api/waiting", policy.waiting)
    post(f"{base}api/hooks/{{name}}", hooks.push)
    get(f"{base}api/outbox", hooks.outbox)
    post(f"{base}api/outbox/retry", hooks.revive)
    post(f"{base}api/sessions/reap", api.reap)
    post(f"{base}api/images/prune", api.prune)
    get(f"{base}api/session/{{name}}", ending.state, allow_head=False)
    post(f"{base}api/session/{{name}}/keep", ending.keep)
    get(f"{base}api/session/{{name}}/files", ending.files, allow_head=False)
    get(f"{base}api/credentials", credentials.listed)
    post(f"{base}api/credentials", credentials.add)
    post(f"{base}api/credentials/rotate", credentials.rotate)
    delete(f"{base}api/credentials/{{id}}", credentials.remove)
    administration.add(router, base)
    pictures.files(router, base)
    # Sessions themselves are the proxy's; what arrives here has none any more.
    router.add_route("*", f"{jupyter}{{tail:[\\s\\S]*}}", pages.ended)


def _pages(router: web.UrlDispatcher, base: str) -> None:
    """What is for people, which a build service has none of."""
    get, needed = router.add_get, login.needed
    get(f"{base}v2/{{provider}}/{{spec:[\\s\\S]+}}", needed(pages.launch))
    get(base, needed(pages.index))
    get(f"{base}launch", needed(pages.follow_form))
    get(f"{base}about", login.known(pages.about))
    get(f"{base}repo/{{user}}/{{repo}}", needed(pages.repo))
    get(f"{base}repo/{{user}}/{{repo}}/{{path:.*}}", needed(pages.repo))
    pictures.routes(router, base)


def _accounts(router: web.UrlDispatcher, base: str) -> None:
    """What there is where people log in; elsewhere it says that nobody does."""
    get, post, delete = router.add_get, router.add_post, router.add_delete
    get(f"{base}{cookies.CALLBACK}", login.callback, allow_head=False)
    post(f"{base}logout", login.leave)
    get(f"{base}sessions", login.needed(own.page))
    get(f"{base}sessions/{{name}}/open", login.needed(own.open_session), allow_head=False)
    get(f"{base}sessions/{{name}}/files", login.needed(own.session_files), allow_head=False)
    post(f"{base}sessions/{{name}}/stop", own.stop_session)
    post(f"{base}sessions/tokens", own.add_token)
    post(f"{base}sessions/tokens/{{id}}/revoke", own.remove_token)
    get(f"{base}credentials", login.needed(credentials_page.page))
    post(f"{base}credentials", credentials_page.add)
    post(f"{base}credentials/{{id}}/remove", credentials_page.remove)
    get(f"{base}projects", login.needed(projects.page))
    get(f"{base}projects/{{name}}/files", login.needed(projects.files), allow_head=False)
    post(f"{base}projects/{{name}}/stop", projects.stop_form)
    post(f"{base}projects/{{name}}/delete", projects.delete_form)
    post(f"{base}projects/{{name}}/allow", projects.allow_form)
    get(f"{base}api/user/projects", projects.listed)
    delete(f"{base}api/user/projects/{{name}}", projects.delete)
    post(f"{base}api/user/projects/{{name}}/stop", projects.stop)
    get(f"{base}api/user/projects/{{name}}/files", projects.files, allow_head=False)
    get(f"{base}api/projects", projects.everybodys)
    delete(f"{base}api/projects/{{id}}", projects.delete_anybodys)
    get(f"{base}api/user", own.whoami)
    get(f"{base}api/user/sessions", own.sessions)
    delete(f"{base}api/user/sessions/{{name}}", own.stop)
    delete(f"{base}api/users/{{name}}", own.forget)


def pattern(base: str) -> str:
    """A prefix as the router reads it: it compares decoded paths, but only with what is a pattern, so a segment with encoded characters is one."""
    segments = ((unquote(part), part) for part in base.split("/"))
    return "/".join(part if plain == part else f"{{_{number}:{re.escape(plain)}}}" for number, (plain, part) in enumerate(segments))


async def _break_streams(app: web.Application) -> None:
    app[STREAMS].close()
    await asyncio.sleep(0)


def runner(site: Site) -> web.AppRunner:
    """The application with limits on header lines, bodies and idle connections; setting it up and listening is the daemon's."""
    return web.AppRunner(
        application(site),
        access_log=None,
        logger=headers.server_log(),
        max_line_size=HEADER_BYTES,
        max_field_size=HEADER_BYTES,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=2.0,
        shutdown_timeout=2.0,
        handle_signals=False,
    )
