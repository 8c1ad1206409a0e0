"""What the holder of a session's token is told of its end, and gets of its files: while it runs, and for a while after its end.

The extension in the base image asks, and the page of an ended session. The token is the session's own, as its server takes it: in the header
``Authorization: token …``, or as ``?token=…`` in a link that a browser follows.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiohttp import web

from binder_onprem.ends import Reason
from binder_onprem.errors import BinderError, NotFound, Refused
from binder_onprem.web import clients
from binder_onprem.web.keys import SITE, STREAMS

if TYPE_CHECKING:
    from asyncio import StreamReader
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from binder_onprem.drains import Drains
    from binder_onprem.interfaces import Activity, ChangedFiles
    from binder_onprem.model import Session

GONE: Final = "There is no session of this name (any more), or the token is not its own."
NOT_KEPT: Final = "This session has ended, and its files are not kept (any more)."
OUT_OF_REACH: Final = "The files of sessions cannot be had from outside here. Download them in the session itself."
CHUNK: Final = 64 * 1024
TOKEN_LENGTH: Final = 200
PRIVATE: Final = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


class Reaper(Protocol):
    """Who knows when sessions end."""

    async def find(self, name: str) -> Session | None:
        """A session, as it was at the last pass or is now."""
        ...

    def foresee(self, session: Session) -> tuple[Reason, float] | None:
        """Why and in how many seconds it ends if nothing happens."""
        ...

    def used(self, session: Session) -> None:
        """It is in use this moment."""
        ...


@dataclass(frozen=True, slots=True)
class Ending:
    """The parts that these answers come from."""

    reaper: Reaper
    activity: Activity
    files: ChangedFiles | None
    """None where the files of sessions are out of reach."""
    current: Callable[[Session], Awaitable[tuple[Session, str] | None]]
    drains: Drains | None = None
    """Who knows whose machine is maintained; None where there is only this one."""

    async def drained(self, session: Session) -> float | None:
        """When the session ends at the latest because its machine is maintained, Unix seconds; None: it is not."""
        return await self.drains.until(session) if self.drains else None


async def state(request: web.Request) -> web.Response:
    """``GET /api/session/<name>``: when and why it ends if nothing happens; of one that has ended, whether files are kept."""
    site, name = request.app[SITE], request.match_info["name"]
    parts = _parts(request)
    session = await _own(request, parts)
    if session is None or not session.server:
        kept = parts.files.kept(name, _token(request)) if parts.files else None
        # One that has just ended by itself: the next pass keeps its files, where the site does; a project keeps its own.
        coming = session is not None and not session.project and parts.files is not None and site.config.ending.keep > 0
        if kept is None and not coming:
            raise NotFound(GONE)
        about = {"bytes": kept[0].stat().st_size, "until": kept[1]} if kept else None
        ended = {"name": name, "ended": True, "reason": None, "seconds": None, "maintenance": None, "warn": site.config.ending.warn}
        return _json(ended | {"files": kept is not None, "kept": about})
    reason, seconds = await _foreseen(parts, session, site.config.ending.warn)
    told = {"reason": reason, "seconds": seconds, "maintenance": await parts.drained(session), "warn": site.config.ending.warn}
    return _json({"name": name, "ended": False, **told, "files": parts.files is not None, "kept": None})


async def keep(request: web.Request) -> web.Response:
    """``POST /api/session/<name>/keep``: its person goes on working; the same as any other activity."""
    parts = _parts(request)
    session = await _own(request, parts)
    if session is None or not session.server:
        raise NotFound(GONE)
    parts.reaper.used(session)
    return await state(request)


async def files(request: web.Request) -> web.StreamResponse:
    """``GET /api/session/<name>/files``: its changed files as a gzipped tar."""
    parts, name = _parts(request), request.match_info["name"]
    headers = PRIVATE | {"Content-Type": "application/gzip", "Content-Disposition": f'attachment; filename="{name}.tar.gz"'}
    session = await _own(request, parts)
    if session is None or not session.server:
        kept = parts.files.kept(name, _token(request)) if parts.files else None
        if kept is None:
            raise NotFound(NOT_KEPT)
        return web.FileResponse(kept[0], headers=headers)
    if parts.files is None:
        raise NotFound(OUT_OF_REACH)
    return await streamed(request, parts.files.changed(f"binder-{session.launch_id}"), headers)


async def streamed(request: web.Request, source: AbstractAsyncContextManager[StreamReader], headers: dict[str, str]) -> web.StreamResponse:
    """Send an archive while it is being made. Raises what `source` raises before its first byte."""
    with request.app[STREAMS].entered(clients.of_request(request, request.app[SITE].config)):
        return await _sent(request, source, headers)


async def _sent(request: web.Request, source: AbstractAsyncContextManager[StreamReader], headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    try:
        async with source as archive:
            while chunk := await archive.read(CHUNK):
                if not response.prepared:
                    await response.prepare(request)
                await response.write(chunk)
    except (BinderError, TimeoutError, ConnectionError):
        if not response.prepared:
            raise
        # What was sent is not whole: the browser must see a download that broke off, not one that ended.
        if request.transport:
            request.transport.abort()
        return response
    await response.write_eof()
    return response


async def _foreseen(parts: Ending, session: Session, warn: float) -> tuple[Reason | None, float | None]:
    found = parts.reaper.foresee(session)
    if found is None:
        return None, None
    reason, seconds = found
    # A kernel that works, or an open notebook, keeps a session; nobody is to be frightened.
    if reason.value == "idle" and seconds <= warn and await parts.activity.busy(session):
        parts.reaper.used(session)
        reason, seconds = parts.reaper.foresee(session) or found
    left = await parts.drains.left(session) if parts.drains else None
    if left is not None and left < seconds:
        reason, seconds = Reason.MAINTENANCE, left
    return reason, round(seconds, 1)


def _parts(request: web.Request) -> Ending:
    parts = request.app[SITE].ending
    if parts is None:
        raise NotFound(GONE)
    return parts


async def _own(request: web.Request, parts: Ending) -> Session | None:
    """The session as it is now, if the token is its own, with or without server; None: no trace of it. Raises `Refused`, `HubUnavailable`."""
    known = await parts.reaper.find(request.match_info["name"])
    now = await parts.current(known) if known else None
    if now is None:
        return None
    session, token = now
    if not hmac.compare_digest(_token(request).encode(errors="replace"), token.encode()):
        raise Refused(GONE)
    return session


def _token(request: web.Request) -> str:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    header = given.strip() if kind.lower() in ("bearer", "token") else ""
    return (header or request.query.get("token", ""))[:TOKEN_LENGTH]


def _json(body: dict[str, Any]) -> web.Response:
    return web.json_response(body, headers=PRIVATE)
