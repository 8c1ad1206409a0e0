"""``GET /api/host``: this machine and the passes' last results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from binder_onprem.errors import NotFound
from binder_onprem.model import Role
from binder_onprem.web import clients
from binder_onprem.web.admin.desk import desk_of

if TYPE_CHECKING:
    from binder_onprem.web.admin.desk import Desk


async def machine(request: web.Request) -> web.Response:
    """The handler."""
    await clients.require(request, Role.ADMIN)
    found = await fields(desk_of(request))
    if found is None:
        raise NotFound("This site tells nothing of its machines.")
    return web.json_response(found)


async def fields(desk: Desk) -> dict[str, Any] | None:
    """The machine as JSON; None where there is nothing to tell."""
    return {**await desk.host(), "passes": dict(desk.passes)} if desk.host else None
