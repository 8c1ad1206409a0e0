"""Machines that build, as the administrator steers them: who is there, and who gets no new builds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from binder_onprem.errors import NotFound
from binder_onprem.model import Role
from binder_onprem.web import clients
from binder_onprem.web.admin.desk import desk_of, ordered, who

if TYPE_CHECKING:
    from binder_onprem.web.admin.desk import Desk


async def builders(request: web.Request) -> web.Response:
    """``GET /api/builders``."""
    await clients.require(request, Role.ADMIN)
    return await _answer(desk_of(request))


async def close(request: web.Request) -> web.Response:
    """``POST /api/builders/NAME/close``: no new builds go there; what runs goes on, over restarts of this service, too."""
    desk, name = desk_of(request), request.match_info["name"]
    async with ordered(request, "builder.close", name) as client:
        await _known(desk, name)
        await desk.rules.close_builder(name, who(client))
    return await _answer(desk)


async def reopen(request: web.Request) -> web.Response:
    """``POST /api/builders/NAME/open``."""
    desk, name = desk_of(request), request.match_info["name"]
    async with ordered(request, "builder.open", name):
        await desk.rules.open_builder(name)
    return await _answer(desk)


async def _known(desk: Desk, name: str) -> None:
    if not desk.builders or name not in {row["name"] for row in await desk.builders()}:
        raise NotFound("There is no such machine among `builders` of the settings.")


async def _answer(desk: Desk) -> web.Response:
    return web.json_response({"builders": await desk.builders() if desk.builders else []})
