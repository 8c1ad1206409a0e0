"""``/build/<provider>/<spec>``: BinderHub's event stream.

The order of checks is BinderHub's, with `build_only` refused before any network. Whatever goes wrong is a `failed` event under HTTP 200; only the
limit of open streams answers 429. With ``resume=true`` events carry ids: ``<key>.<stage>.<number>``, the terminal one ``<key>.9.0``, so a
reconnect needs nothing stored: the launch is repeated with its key and what the viewer has seen is skipped.
Messages are English; a page that asks with ``lang=`` gets what is said to people in its language, lines of the log as they are.
"""

from __future__ import annotations

import logging
import math
import re
import time
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from binder_onprem import choice, logs, metrics
from binder_onprem.errors import BinderError, InvalidSpec, QuotaExceeded, Refused, RepositoryFull
from binder_onprem.events import Done, Phase, Progress, Ready, encode, failed_wire, progress_wire
from binder_onprem.model import LaunchRequest, Role
from binder_onprem.web import accept, clients, maintenance, target
from binder_onprem.web.keys import CATALOGUES, SITE, STREAMS, TOKENS
from binder_onprem.web.stream import send
from binder_onprem.web.tokens import GRACE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from binder_onprem.web.site import Site

    Wording = Callable[[dict[str, Any]], dict[str, Any]]

logger = logging.getLogger(__name__)

EVENT_ID: Final = re.compile(r"([0-9a-f]{32})\.([1-9])\.(\d{1,9})")
TERMINAL: Final = 9
ORIGIN_LIMIT: Final = 300
HOST: Final = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,255})(:[0-9]{1,5})?")
SPOKEN: Final = frozenset({"waiting", "built", "launching", "failed"})
"""Phases whose messages are sentences; the others' are lines of the log."""
HEADERS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

BUILD_ONLY = "Building but not launching is not permitted when the API only mode was not enabled. The administrator enables it by web.api_only."
NO_ACCEPT = "Missing Accept header: text/event-stream"
BAD_TOKEN = "Invalid build token. Reload the page to get a fresh one."  # noqa: S105 - a message


@dataclass(frozen=True, slots=True)
class Seen:
    """The last event a viewer has, from its id."""

    key: str
    stage: int
    number: int

    @classmethod
    def read(cls, event_id: str | None) -> Seen | None:
        """None for anything that is not an id of ours: that viewer begins anew."""
        match = EVENT_ID.fullmatch(event_id or "")
        return cls(match[1], int(match[2]), int(match[3])) if match else None

    def covers(self, event: Progress) -> bool:
        """Whether the viewer has it; what is not numbered belongs to its moment and is news each time."""
        return event.number > 0 and (int(event.stage), event.number) <= (self.stage, self.number)


async def build(request: web.Request) -> web.StreamResponse:
    """The handler."""
    site = request.app[SITE]
    seen = Seen.read(request.headers.get("Last-Event-ID") or request.query.get("last_id")) if _flag(request, "resume") else None
    if seen and seen.stage == TERMINAL:
        return web.Response(status=204)
    address = clients.of_request(request, site.config)
    try:
        with request.app[STREAMS].entered(address):
            return await _stream(request, site, seen)
    except BinderError as error:
        retry = {"Retry-After": str(round(error.retry_after or 10))}
        return web.Response(status=error.status, body=encode(_told(request)(failed_wire(error))), headers=HEADERS | retry)


async def _stream(request: web.Request, site: Site, seen: Seen | None) -> web.StreamResponse:
    try:
        asked = await _admitted(request, site, seen)
    except BinderError as error:
        return web.Response(body=encode(_told(request)(failed_wire(error))), headers=HEADERS)
    with logs.of_launch(asked.launch_id):
        notice = "" if seen else maintenance.words(request, request.app[CATALOGUES].asked(request))
        events = _announced(notice, _wire(site, asked, seen, _told(request), ids=_flag(request, "resume")))
        return await send(request, web.StreamResponse(headers=HEADERS | await _rate(site, asked)), events, site.patience)


async def _rate(site: Site, asked: LaunchRequest) -> dict[str, str]:
    """What this client has left once the launch is counted; BinderHub's headers, which the launch itself decides after them."""
    left = await site.line.admission.allowed(asked.client, site.line.now(), asked.launch_id)
    if left is None:
        return {}
    told = {"x-ratelimit-limit": left.limit, "x-ratelimit-remaining": max(0, left.remaining), "x-ratelimit-reset": math.ceil(left.reset)}
    if left.remaining < 0:
        told["Retry-After"] = max(1, math.ceil(left.reset))
    return {name: str(value) for name, value in told.items()}


def _told(request: web.Request) -> Wording:
    """Puts the message of an event into the language that the request asks for, where the event speaks to people."""
    catalogues = request.app[CATALOGUES]
    language = catalogues.asked(request)

    def told(wire: dict[str, Any]) -> dict[str, Any]:
        if words := maintenance.instead(request, language, wire.get("code", "")):
            return wire | {"message": f"{words}\n"}
        return wire | {"message": catalogues.told(language, wire["message"])} if wire["phase"] in SPOKEN else wire

    return told


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() == "true"


async def _admitted(request: web.Request, site: Site, seen: Seen | None) -> LaunchRequest:
    """The checks before the line. Raises the error that the `failed` event tells."""
    token, build_only = request.query.get("build_token"), _flag(request, "build_only")
    lenient = build_only or token is not None or "Authorization" in request.headers or not site.config.web.strict_accept
    if not lenient and not accept.events_named(",".join(request.headers.getall("Accept", []))):
        raise InvalidSpec(NO_ACCEPT)
    link = target.of_request(request, site.config.listen.base_url)
    if token is not None and not request.app[TOKENS].valid(token, link.audience, origin(request), GRACE if seen else 0, clients.login_name(request)):
        raise Refused(BAD_TOKEN)
    if build_only and not site.config.web.api_only:
        raise InvalidSpec(BUILD_ONLY)
    client = await clients.require(request, Role.BUILD if build_only else Role.LAUNCH)
    host = clients.public_url(request, site.config)
    if token is not None:
        client = replace(client, trusted=True)
    chosen, page = choice.parse(request.query.items()), asking(request)
    asked = LaunchRequest(link.provider, link.spec, client, host=host, build_only=build_only, choice=chosen, origin=page)
    return replace(asked, key=seen.key) if seen else asked


def origin(request: web.Request) -> str:
    """``host:port`` of the page that asks: of `Origin`, else of where this client sees us."""
    ours = clients.public_url(request, request.app[SITE].config)
    return (request.headers.get("Origin", "").partition("://")[2] or ours.partition("://")[2].partition("/")[0])[:ORIGIN_LIMIT]


def asking(request: web.Request) -> str:
    """The same for the records: nothing but what a host and port may be made of, or nothing. No name or password of a hostile header."""
    found = origin(request).partition("/")[0].rpartition("@")[2].lower()
    return found if HOST.fullmatch(found) else ""


async def _wire(site: Site, asked: LaunchRequest, seen: Seen | None, told: Wording, *, ids: bool) -> AsyncGenerator[bytes]:
    """The launch as bytes; never raises, ends with exactly one terminal event."""
    final = f"{asked.key}.{TERMINAL}.0" if ids else None
    started = time.monotonic()
    error: BinderError | None = BinderError("The launch ended without a result. Try again.")
    with metrics.LAUNCHES_RUNNING.track_inprogress():
        try:
            async with aclosing(_items(site, asked)) as items:
                async for item in items:
                    if isinstance(item, Ready | Done):
                        error = None
                        _count(site, asked, None, time.monotonic() - started)
                        yield encode(item.wire(), final)
                        return
                    if not (seen and seen.covers(item)):
                        yield encode(told(progress_wire(item)), f"{asked.key}.{item.stage}.{item.number}" if ids and item.number else None)
        except BinderError as caught:
            error = caught
        except Exception:
            logger.exception("launch broke")
            error = BinderError("Something went wrong on our side. Try again; if it stays, tell the administrator.")
    if error is not None:
        _count(site, asked, error, time.monotonic() - started)
        yield encode(told(failed_wire(error)), final)


async def _announced(notice: str, events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """A notice to everybody, if there is one, then the events."""
    async with aclosing(events):
        if notice:
            yield encode(progress_wire(Progress(Phase.WAITING, f"{notice}\n")))
        async for event in events:
            yield event


async def _items(site: Site, asked: LaunchRequest) -> AsyncGenerator[Progress | Ready | Done]:
    items: AsyncIterator[Progress | Ready | Done] = site.launch(asked, site.line)
    try:
        async for item in items:
            yield item
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


def _status(error: BinderError | None) -> str:
    """As BinderHub's metric calls it."""
    match error:
        case None:
            return "success"
        case RepositoryFull():
            return "repo_quota"
        case QuotaExceeded():
            return "pod_quota"
        case _:
            return "failure"


def _count(site: Site, asked: LaunchRequest, error: BinderError | None, seconds: float) -> None:
    provider = site.line.providers.get(asked.provider)
    kind = provider.name if provider else "unknown"
    status = _status(error)
    metrics.LAUNCH_COUNT.labels(status=status, provider=kind).inc()
    metrics.LAUNCH_TIME.labels(status="failure" if error else "success", retries="-1" if error else "0").observe(seconds)
