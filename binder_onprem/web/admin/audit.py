"""The audit as routes: what administrators did, and launches; a page at a time, or all of it as JSON lines."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from binder_onprem.errors import BinderError, InvalidSpec
from binder_onprem.model import Role
from binder_onprem.web import api, clients
from binder_onprem.web.admin.desk import desk_of, moment
from binder_onprem.web.keys import SITE, STREAMS
from binder_onprem.web.stream import send

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from binder_onprem.model import LaunchAudit
    from binder_onprem.ruling import Entry
    from binder_onprem.web.admin.desk import Desk

PAGE: Final = 500
KINDS: Final = ("actions", "launches")
WHO_CHARACTERS: Final = 300


def entry_fields(entry: Entry) -> dict[str, Any]:
    """A line as JSON."""
    return asdict(entry) | {"kind": "action"}


def launch_fields(number: int, launch: LaunchAudit) -> dict[str, Any]:
    """A launch in the form of the other lines."""
    details = {"commit": launch.commit, "image": launch.image, "launch": launch.launch_id}
    seconds = {"resolve": launch.resolve, "build": launch.build, "start": launch.start}
    return {
        "kind": "launch",
        "at": launch.began,
        "who": launch.client,
        "address": launch.client,
        "action": "launch",
        "subject": f"{launch.provider}/{launch.path}",
        "outcome": launch.outcome,
        "details": details | {"seconds": seconds},
        "number": number,
    }


async def audit(request: web.Request) -> web.Response:
    """``GET /api/audit?kind=&action=&who=&since=&before=&limit=``."""
    await clients.require(request, Role.ADMIN)
    limit = api.limit_of(request.query.get("limit", "100"))
    rows = await _page(desk_of(request), _filters(request), _before(request), limit)
    return web.json_response({"entries": rows, "before": rows[-1]["number"] if len(rows) == limit else None})


async def export(request: web.Request) -> web.StreamResponse:
    """``GET /api/audit/export``: JSON lines, newest first; the same filters."""
    await clients.require(request, Role.ADMIN)
    desk, filters, site = desk_of(request), _filters(request), request.app[SITE]
    name = 'attachment; filename="audit.jsonl"'
    headers = {"Content-Type": "application/x-ndjson", "Content-Disposition": name, "Cache-Control": "no-store"}
    with request.app[STREAMS].entered(clients.of_request(request, site.config)):
        return await send(request, web.StreamResponse(headers=headers), _lines(desk, filters), site.patience, comments=False)


async def _lines(desk: Desk, filters: dict[str, Any]) -> AsyncGenerator[bytes]:
    before: int | None = None
    try:
        while rows := await _page(desk, filters, before, PAGE):
            before = rows[-1]["number"]
            yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(errors="replace")
    except BinderError as error:
        # Said where the reader looks: a file that just ends would count as whole.
        yield (json.dumps({"error": error.code, "message": error.message}) + "\n").encode()


async def _page(desk: Desk, filters: dict[str, Any], before: int | None, limit: int) -> list[dict[str, Any]]:
    asked = {"before": before, "limit": limit, "who": filters["who"], "since": filters["since"]}
    if filters["kind"] == "launches":
        return [launch_fields(number, launch) for number, launch in await desk.audit.launches(**asked)]
    return [entry_fields(entry) for entry in await desk.audit.entries(**asked, action=filters["action"])]


def _filters(request: web.Request) -> dict[str, Any]:
    kind = request.query.get("kind", KINDS[0])
    if kind not in KINDS:
        raise InvalidSpec("kind must be actions or launches.")
    cut = {name: request.query.get(name, "")[:WHO_CHARACTERS] for name in ("action", "who")}
    return {"kind": kind, "since": moment(request, "since"), **cut}


def _before(request: web.Request) -> int | None:
    text = request.query.get("before", "")
    if text and not (text.isascii() and text.isdigit() and len(text) <= 18):  # noqa: PLR2004 - what a database's number has
        raise InvalidSpec("before must be the number of an entry.")
    return int(text) if text else None
