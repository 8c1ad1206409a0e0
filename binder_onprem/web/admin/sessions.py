"""Sessions as the administrator sees and ends them: whose, of what, since when, what they use."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from binder_onprem.ends import Reason
from binder_onprem.errors import BinderError, InvalidSpec, NotFound, Unavailable
from binder_onprem.model import Role
from binder_onprem.web import clients
from binder_onprem.web.admin.desk import ordered
from binder_onprem.web.keys import SITE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from binder_onprem.interfaces import Used
    from binder_onprem.model import LaunchAudit, Session
    from binder_onprem.web.site import Site

logger = logging.getLogger(__name__)

AT_ONCE: Final = 8
"""Sessions that are being stopped at the same time."""
LINK_CHARACTERS: Final = 2048


async def sessions(request: web.Request) -> web.Response:
    """``GET /api/sessions``."""
    await clients.require(request, Role.ADMIN)
    return web.json_response({"sessions": await rows(request.app[SITE])})


async def rows(site: Site) -> list[dict[str, Any]]:
    """Every session as JSON, the newest first."""
    found = await site.hub.sessions()
    desk = site.desk
    launches = await desk.audit.launched([session.launch_id for session in found if session.launch_id]) if desk else {}
    written = desk.written() if desk else {}
    using = await _using(site)
    described = [
        _row(one, launches.get(one.launch_id or ""), using.get(one.launch_id or ""), written.get(one.launch_id or ""))
        | {"maintenance": await site.ending.drained(one) if site.ending else None}
        for one in found
    ]
    return sorted(described, key=lambda row: -(row["started"] or 0.0))


async def _using(site: Site) -> Mapping[str, Used]:
    try:
        return await site.desk.usage.now() if site.desk and site.desk.usage else {}
    except Unavailable:
        return {}  # the list is worth more than its figures


def _row(session: Session, launch: LaunchAudit | None, used: Used | None, written: int | None) -> dict[str, Any]:
    return asdict(session) | {
        "link": f"{launch.provider}/{launch.path}" if launch else None,
        "client": launch.client if launch else None,
        "commit": launch.commit if launch else None,
        "cpu": used.cpu if used else None,
        "memory": used.memory if used else None,
        "written": written,
    }


async def stop(request: web.Request) -> web.Response:
    """``DELETE /api/sessions/<name>``."""
    name = request.match_info["name"]
    async with ordered(request, "session.stop", name):
        site = request.app[SITE]
        found = next((session for session in await site.hub.sessions() if session.name == name), None)
        if found is None:
            raise NotFound("There is no session of this name (any more).")
        await site.ends.end(found, Reason.ADMINISTRATOR)
    return web.Response(status=204)


async def stop_of_repository(request: web.Request) -> web.Response:
    """``DELETE /api/sessions?repo=<provider/path>``: all sessions whose link begins so."""
    await clients.require(request, Role.ADMIN)
    repo = request.query.get("repo", "").strip().strip("/")
    if "/" not in repo or len(repo) > LINK_CHARACTERS:
        raise InvalidSpec("repo must be the beginning of links, like gh/owner/name.")
    async with ordered(request, "session.stop_all", repo):
        site = request.app[SITE]
        links = {row["name"]: row["link"] for row in await rows(site)}
        wanted = [session for session in await site.hub.sessions() if begins(links.get(session.name), repo)]
        some = asyncio.Semaphore(AT_ONCE)
        done = await asyncio.gather(*(_stopped(site, session, some) for session in wanted))
    ends = list(zip(wanted, done, strict=True))
    stopped, failed = [one.name for one, gone in ends if gone], [one.name for one, gone in ends if not gone]
    return web.json_response({"stopped": stopped, "failed": failed})


def begins(link: str | None, repo: str) -> bool:
    """Whether a link is of the repository: equal, or going on with a slash or an encoded one."""
    return link is not None and (link == repo or link.startswith((f"{repo}/", f"{repo}%2F", f"{repo}%2f")))


async def _stopped(site: Site, session: Session, some: asyncio.Semaphore) -> bool:
    async with some:
        try:
            await site.ends.end(session, Reason.ADMINISTRATOR)
        except BinderError as error:
            logger.warning("session not stopped", extra={"session": session.name, "error": error.code})
            return False
    return True
