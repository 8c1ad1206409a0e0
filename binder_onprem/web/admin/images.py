"""Images as the administrator sees and keeps them. An image's id is its digest, ``sha256:…``."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from binder_onprem.errors import NotFound
from binder_onprem.model import Role
from binder_onprem.web import clients
from binder_onprem.web.admin.desk import desk_of, ordered
from binder_onprem.web.keys import SITE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from binder_onprem.interfaces import StoredImage
    from binder_onprem.model import BuildRecord, Session
    from binder_onprem.web.site import Site

DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


async def images(request: web.Request) -> web.Response:
    """``GET /api/images``: sizes in bytes, last use in Unix seconds."""
    await clients.require(request, Role.ADMIN)
    return web.json_response({"images": await rows(request.app[SITE])})


async def rows(site: Site) -> list[dict[str, Any]]:
    """Every image as JSON, the last used first."""
    stored, used, sessions = await site.registry.images(), await site.store.last_used(), await site.hub.sessions()
    made = await site.desk.audit.made([_digest(image.reference) for image in stored]) if site.desk else {}
    pins = site.desk.rules.pins if site.desk else frozenset()
    found = described(stored, used, sessions, made, pins)
    return sorted(found, key=lambda row: -(row["last_used"] or 0.0))


def described(
    stored: Sequence[StoredImage], used: Mapping[str, float], sessions: Sequence[Session], made: Mapping[str, BuildRecord], pins: frozenset[str]
) -> list[dict[str, Any]]:
    """Images as JSON: pure.

    Args:
        stored: With their layers; what several have is shared.
        used: Reference → Unix seconds of its last use.
        sessions: Who uses which now.
        made: Digest → build.
        pins: References.
    """
    owners = Counter(digest for image in stored for digest in {digest for digest, _ in image.layers})
    using = Counter(session.image for session in sessions if session.server)
    found = []
    for image in stored:
        build = made.get(_digest(image.reference))
        shared = sum(size for digest, size in dict(image.layers).items() if owners[digest] > 1)
        found.append(
            {
                "id": _digest(image.reference),
                "reference": image.reference,
                "size": image.size,
                "shared": shared,
                "own": max(0, image.size - shared),
                "last_used": used.get(image.reference),
                "sessions": using[image.reference],
                "pinned": image.reference in pins,
                "build": build.id if build else None,
                "repo_url": build.repo.url if build else None,
                "commit": build.repo.commit if build else None,
            }
        )
    return found


def _digest(reference: str) -> str:
    return reference.rpartition("@")[2]


async def pin(request: web.Request) -> web.Response:
    """``PUT /api/images/<id>/pin``: it stays whatever the budget."""
    async with ordered(request, "image.pin", request.match_info["id"]):
        reference = await _reference(request)
        await desk_of(request).rules.pin(reference)
    return web.json_response({"id": request.match_info["id"], "pinned": True})


async def unpin(request: web.Request) -> web.Response:
    """``DELETE /api/images/<id>/pin``."""
    async with ordered(request, "image.unpin", request.match_info["id"]):
        reference = await _reference(request)
        await desk_of(request).rules.unpin(reference)
    return web.json_response({"id": request.match_info["id"], "pinned": False})


async def delete(request: web.Request) -> web.Response:
    """``DELETE /api/images/<id>``: refused while it is pinned or in use."""
    async with ordered(request, "image.delete", request.match_info["id"]):
        size = await desk_of(request).delete(await _reference(request))
    return web.json_response({"id": request.match_info["id"], "size": size})


async def _reference(request: web.Request) -> str:
    wanted = request.match_info["id"]
    stored = await request.app[SITE].registry.images() if DIGEST.fullmatch(wanted) else ()
    found = next((image.reference for image in stored if _digest(image.reference) == wanted), None)
    if found is None:
        raise NotFound("There is no such image (any more).")
    return found
