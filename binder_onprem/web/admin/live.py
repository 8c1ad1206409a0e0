"""``GET /api/events``: what changes, as one stream for the administrator's page.

One look for all viewers every `EVERY` seconds, and none while nobody looks; a viewer gets the sections that are new to it. A sign-in that has run
out ends its stream.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from binder_onprem.errors import BinderError, RateLimited
from binder_onprem.model import Role
from binder_onprem.web import api, clients
from binder_onprem.web.admin import builds, machine, sessions
from binder_onprem.web.keys import LIVE, SITE, STREAMS
from binder_onprem.web.stream import send

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from binder_onprem.web.site import Site

logger = logging.getLogger(__name__)

EVERY: Final = 2.0
HOST_EVERY: Final = 10.0
LOOK_SECONDS: Final = 30.0
"""A part that takes longer is left out of this look."""
VIEWERS: Final = 20
BUILDS: Final = 50
HEADERS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Live:
    """The looks.

    Args:
        site: What is looked at.
        clock: Monotonic seconds.
    """

    def __init__(self, site: Site, clock: Callable[[], float] = time.monotonic) -> None:
        self._site = site
        self._clock = clock
        self._lock = asyncio.Lock()
        self._at = self._host_at = float("-inf")
        self._sections: dict[str, str] = {}
        self.viewers = 0

    async def sections(self) -> dict[str, str]:
        """Name → JSON; at most `EVERY` seconds old."""
        async with self._lock:
            if self._clock() - self._at >= EVERY:
                looks: dict[str, Awaitable[Any]] = {"queue": self._queue(), "builds": self._builds(), "sessions": sessions.rows(self._site)}
                if self._site.desk:
                    looks["audit"] = self._audit()
                    if self._clock() - self._host_at >= HOST_EVERY:
                        self._host_at = self._clock()
                        looks["host"] = machine.fields(self._site.desk)
                found = await asyncio.gather(*(self._look(name, look) for name, look in looks.items()))
                self._sections |= {name: json.dumps(value, separators=(",", ":")) for name, value in zip(looks, found, strict=True)}
                self._at = self._clock()
            return dict(self._sections)

    async def _look(self, name: str, look: Awaitable[Any]) -> Any:
        """What is found, or why nothing is."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await look
        except BinderError as error:
            return {"error": error.message}
        except TimeoutError:
            logger.warning("look took too long", extra={"section": name})
            return {"error": "This part does not answer."}

    async def _queue(self) -> dict[str, Any]:
        return builds.queue_fields(self._site)

    async def _builds(self) -> list[dict[str, Any]]:
        placed = api.places(self._site)
        rows = [api.build_fields(record, 0.0, placed.get(record.id)) for record in await self._site.store.builds(limit=BUILDS)]
        # What grows with the clock is for the page to count.
        return [row | {"seconds": None} if row["ended"] is None else row for row in rows]

    async def _audit(self) -> dict[str, Any]:
        found = await self._site.desk.audit.entries(limit=1) if self._site.desk else ()
        return {"number": found[0].number if found else 0}


async def events(request: web.Request) -> web.StreamResponse:
    """The handler."""
    await clients.require(request, Role.ADMIN)
    live, site = request.app[LIVE], request.app[SITE]
    if live.viewers >= VIEWERS:
        raise RateLimited("Too many administrators' pages are open. Close some, then try again.", retry_after=10)
    with request.app[STREAMS].entered(clients.of_request(request, site.config)):
        live.viewers += 1
        try:
            return await send(request, web.StreamResponse(headers=HEADERS), _changes(request, live), site.patience)
        finally:
            live.viewers -= 1


async def _changes(request: web.Request, live: Live) -> AsyncGenerator[bytes]:
    told: dict[str, str] = {}
    while True:
        try:
            if Role.ADMIN not in (await clients.identify(request)).roles:
                return
        except BinderError:
            pass  # whose accounts do not answer now was an administrator a moment ago
        for name, text in (await live.sections()).items():
            if told.get(name) != text:
                told[name] = text
                yield f"event: {name}\ndata: {text}\n\n".encode()
        await asyncio.sleep(EVERY)
