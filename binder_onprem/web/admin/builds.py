"""Builds as the administrator steers them: anew, to the front, and whether any may begin."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from binder_onprem.model import ImageRef, Role
from binder_onprem.web import api, clients
from binder_onprem.web.admin import rulings
from binder_onprem.web.admin.desk import desk_of, ordered, who
from binder_onprem.web.keys import SITE

if TYPE_CHECKING:
    from binder_onprem.web.site import Site


async def rebuild(request: web.Request) -> web.Response:
    """``POST /api/builds/<id>/rebuild``: a new build of the same repository and commit, though its image is there; sessions stay."""
    async with ordered(request, "build.rebuild", request.match_info["id"]) as client:
        record, site = await api.record_of(request), request.app[SITE]
        image = ImageRef.of(record.repo, site.config.image_prefix, site.line.recipe)
        made = await site.builds.rebuild(image, record.repo, client=who(client))
    return web.json_response(api.build_fields(made, time.time(), api.places(site).get(made.id)))


async def prioritise(request: web.Request) -> web.Response:
    """``POST /api/builds/<id>/prioritise``: to the front of the queue; one that runs or has ended stays as it is."""
    async with ordered(request, "build.prioritise", request.match_info["id"]):
        record, site = await api.record_of(request), request.app[SITE]
        moved = await site.builds.prioritise(record.id)
    return web.json_response(api.build_fields(moved, time.time(), api.places(site).get(moved.id)))


async def queue(request: web.Request) -> web.Response:
    """``GET /api/queue``."""
    await clients.require(request, Role.ADMIN)
    return web.json_response(queue_fields(request.app[SITE]))


async def pause(request: web.Request) -> web.Response:
    """``POST /api/queue/pause``: no build begins; what runs goes on."""
    async with ordered(request, "queue.pause") as client:
        await desk_of(request).rules.pause(who(client))
    return web.json_response(queue_fields(request.app[SITE]))


async def resume(request: web.Request) -> web.Response:
    """``POST /api/queue/resume``."""
    async with ordered(request, "queue.resume"):
        await desk_of(request).rules.resume()
    return web.json_response(queue_fields(request.app[SITE]))


def queue_fields(site: Site) -> dict[str, Any]:
    """The queue as JSON."""
    placed = site.builds.places()
    waiting = sorted(((place.position, record.id) for record, place in placed if place), key=lambda one: one[0])
    rules = site.desk.rules if site.desk else None
    paused = rules.queue if rules else None
    return {
        "paused": bool(rules and rules.paused),
        "paused_by": str(paused["by"]) if paused else None,
        "paused_since": float(paused["since"]) if paused else None,
        "running": [record.id for record, place in placed if place is None],
        "waiting": [build_id for _, build_id in waiting],
        "maintenance": rulings.maintenance_fields(rules.maintenance) if rules and rules.maintenance else None,
    }
