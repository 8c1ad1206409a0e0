"""The JSON API on builds and their logs, and the passes that may be asked for. `openapi` describes it, `admin` has what goes beyond.

A build's record and log are read by whoever has its id, which the launch's own viewers get, those of a private repository's build only by people
who have launched it; lists, and whatever changes something, are for the administrator.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from binder_onprem.errors import BinderError, InvalidSpec, NotFound
from binder_onprem.model import BuildState, Role
from binder_onprem.web import clients
from binder_onprem.web.admin.desk import ordered
from binder_onprem.web.keys import SITE, STREAMS
from binder_onprem.web.stream import send

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from binder_onprem.events import Progress
    from binder_onprem.model import BuildRecord
    from binder_onprem.queueing import Place
    from binder_onprem.web.site import Pass, Site

BUILD_ID: Final = re.compile(r"[0-9a-f]{16}")
LIST_LIMIT: Final = 1000
TEXT_CHARACTERS: Final = 300
QUIET: Final = 0.5
"""Seconds without a line after which what is stored of an unfinished log counts as read."""
ESCAPES: Final = re.compile(r"\x1b\[[0-9;:]*m")


def build_fields(record: BuildRecord, now: float, place: Place | None = None) -> dict[str, Any]:
    """A build as JSON."""
    begun = record.started or record.created
    return {
        "id": record.id,
        "state": record.state.value,
        "repo_url": record.repo.url,
        "commit": record.repo.commit,
        "provider": record.repo.spec.provider,
        "spec": record.repo.path,
        "image": record.image.name,
        "digest": record.digest,
        "created": record.created,
        "started": record.started,
        "ended": record.ended,
        "seconds": round((record.ended or now) - begun, 1),
        "attempt": record.attempt,
        "error": record.error,
        "message": record.message,
        "position": place.position if place else None,
        "estimate": place.estimate if place else None,
        "fresh": record.fresh,
        "front": record.front,
    }


async def builds(request: web.Request) -> web.Response:
    """``GET /api/builds?limit=&open=&state=&text=&before=``."""
    site = await _for_admin(request)
    records, placed, now = await _found(request, site), places(site), time.time()
    return web.json_response({"builds": [build_fields(record, now, placed.get(record.id)) for record in records]})


async def _found(request: web.Request, site: Site) -> Sequence[BuildRecord]:
    limit, open_only = limit_of(request.query.get("limit", "50")), flag(request, "open")
    state, before = request.query.get("state") or None, request.query.get("before") or None
    if state is not None and state not in {one.value for one in BuildState}:
        raise InvalidSpec(f"state must be one of {', '.join(BuildState)}.")
    if before is not None and not BUILD_ID.fullmatch(before):
        raise InvalidSpec("before must be the id of a build.")
    if open_only or site.desk is None:
        return await site.store.builds(open_only=open_only, limit=limit)
    return await site.desk.audit.search(before=before, limit=limit, state=state, text=request.query.get("text", "")[:TEXT_CHARACTERS])


def places(site: Site) -> dict[str, Place | None]:
    """Open builds' places in the queue, by id; None for one that runs."""
    return {record.id: place for record, place in site.builds.places()}


def limit_of(text: str) -> int:
    """How many at the most. Raises `InvalidSpec`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= LIST_LIMIT):  # noqa: PLR2004 - digits of LIST_LIMIT
        raise InvalidSpec(f"limit must be a number from 1 to {LIST_LIMIT}.")
    return int(text)


async def build(request: web.Request) -> web.Response:
    """``GET /api/builds/<id>``."""
    record = await record_of(request)
    return web.json_response(build_fields(record, time.time(), places(request.app[SITE]).get(record.id)))


async def cancel(request: web.Request) -> web.Response:
    """``DELETE /api/builds/<id>``; a build that has ended stays as it is."""
    async with ordered(request, "build.cancel", request.match_info["id"]):
        record = await record_of(request)
        if not record.state.terminal:
            record = await request.app[SITE].builds.cancel(record.id, by="the administrator")
    return web.json_response(build_fields(record, time.time()))


async def log(request: web.Request) -> web.StreamResponse:
    """``GET /api/builds/<id>/log[?follow=1]``: plain text."""
    record, site, follow = await record_of(request), request.app[SITE], flag(request, "follow")
    headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    with request.app[STREAMS].entered(clients.of_request(request, site.config)):
        response = web.StreamResponse(headers=headers)
        return await send(request, response, _text(site, record.id, follow=follow or record.state.terminal), site.patience, comments=False)


async def _text(site: Site, build_id: str, *, follow: bool) -> AsyncGenerator[bytes]:
    try:
        async with aclosing(_lines(site, build_id, follow=follow)) as lines:
            async for line in lines:
                yield ESCAPES.sub("", line.message).encode(errors="replace")
    except BinderError as error:
        yield f"\n[{error.message}]\n".encode()


async def _lines(site: Site, build_id: str, *, follow: bool) -> AsyncGenerator[Progress]:
    replay = site.builds.replay(build_id).__aiter__()
    coming: asyncio.Future[Progress | None] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(anext(replay, None))
            # Only a reader that does not follow gives up on a line, and then nobody asks for the next one.
            done, _ = await asyncio.wait({coming}, timeout=None if follow else QUIET)
            if not done:
                coming.cancel()
                await asyncio.wait({coming})
                return
            line = coming.result()
            if line is None:
                return
            yield line
    finally:
        if coming is not None and not coming.done():
            # The reader has left in the middle of a line: a generator that runs cannot be closed.
            coming.cancel()
            await asyncio.wait({coming})
        close = getattr(replay, "aclose", None)
        if close is not None:
            await close()


async def reap(request: web.Request) -> web.Response:
    """``POST /api/sessions/reap?dry_run=``."""
    actions = await _passed(request, "session.reap", request.app[SITE].reap)
    return web.json_response({"dry_run": flag(request, "dry_run"), "actions": actions})


async def prune(request: web.Request) -> web.Response:
    """``POST /api/images/prune?dry_run=``."""
    gone = await _passed(request, "image.prune", request.app[SITE].prune)
    return web.json_response({"dry_run": flag(request, "dry_run"), "images": gone})


async def _passed(request: web.Request, action: str, work: Pass) -> list[dict[str, Any]]:
    await clients.require(request, Role.ADMIN)
    dry_run = flag(request, "dry_run")
    async with nullcontext() if dry_run else ordered(request, action):
        return [dict(one) for one in await work(dry_run)]


def flag(request: web.Request, name: str) -> bool:
    """A query parameter that is true or false; false when it is not given. Raises `InvalidSpec`."""
    text = request.query.get(name, "").lower()
    if text not in ("", "1", "0", "true", "false"):
        raise InvalidSpec(f"{name} must be true or false.")
    return text in ("1", "true")


async def _for_admin(request: web.Request) -> Site:
    await clients.require(request, Role.ADMIN)
    return request.app[SITE]


async def _shown(request: web.Request, record: BuildRecord) -> bool:
    """A private repository's build: to whoever asked for it, or has launched the same at its commit, and to administrators."""
    client = await clients.identify(request)
    who = client.user or client.address
    return Role.ADMIN in client.roles or record.asker == who or await request.app[SITE].store.looked_up(who, record.repo)


async def record_of(request: web.Request) -> BuildRecord:
    """The build that the path names. Raises `NotFound`."""
    build_id = request.match_info["id"]
    record = await request.app[SITE].store.build(build_id) if BUILD_ID.fullmatch(build_id) else None
    if record is None or (record.repo.private and not await _shown(request, record)):
        raise NotFound("There is no build of this id (any more).")
    return record
