"""``/api/waiting``: who waits for a free place, and the quotas that hold. For the administrator."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from aiohttp import web

from binder_onprem.model import Role
from binder_onprem.web import clients
from binder_onprem.web.keys import SITE

TEXT: Final = {"type": "string"}
SCHEMAS: Final[dict[str, Any]] = {
    "Waiting": {
        "type": "object",
        "properties": {
            "position": {"type": "integer", "description": "From 1"},
            "launch_id": TEXT,
            "url": {**TEXT, "description": "Of the repository"},
            "subject": {"type": ["string", "null"], "description": "`user:NAME`, or an address"},
            "since": {"type": "number", "description": "Unix seconds"},
            "waiting_for": {"enum": ["total", "repository", "user", "group"]},
            "present": {"type": "boolean", "description": "Whether somebody is connected; else the place is kept for a while"},
        },
        "required": ["position", "launch_id", "url", "subject", "since", "waiting_for", "present"],
    },
    "WaitingList": {
        "type": "object",
        "properties": {
            "waiting": {"type": "array", "items": {"$ref": "#/components/schemas/Waiting"}},
            "quotas": {"type": "object", "description": "The quotas that hold, as in the settings; 0: no limit, but no sessions at all for `total`"},
        },
        "required": ["waiting", "quotas"],
    },
}


async def waiting(request: web.Request) -> web.Response:
    """``GET /api/waiting``."""
    await clients.require(request, Role.ADMIN)
    site = request.app[SITE]
    quotas = {"total": site.config.session.total, "per_repo": site.config.session.per_repo} | site.config.quota.model_dump(mode="json")
    return web.json_response({"waiting": [asdict(row) for row in site.line.room.queue()], "quotas": quotas})
