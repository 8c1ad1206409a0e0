"""Which administrator's route leads where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binder_onprem.web.admin import audit, builders, builds, docs, images, live, machine, page, papers, rulings, sessions

if TYPE_CHECKING:
    from aiohttp import web


def add(router: web.UrlDispatcher, base: str) -> None:
    """Add them below the base URL."""
    get, post, put, delete = router.add_get, router.add_post, router.add_put, router.add_delete
    post(f"{base}api/builds/{{id}}/rebuild", builds.rebuild)
    post(f"{base}api/builds/{{id}}/prioritise", builds.prioritise)
    get(f"{base}api/queue", builds.queue)
    post(f"{base}api/queue/pause", builds.pause)
    post(f"{base}api/queue/resume", builds.resume)
    get(f"{base}api/builders", builders.builders)
    post(f"{base}api/builders/{{name}}/close", builders.close)
    post(f"{base}api/builders/{{name}}/open", builders.reopen)
    get(f"{base}api/sessions", sessions.sessions)
    delete(f"{base}api/sessions", sessions.stop_of_repository)
    delete(f"{base}api/sessions/{{name}}", sessions.stop)
    get(f"{base}api/images", images.images)
    delete(f"{base}api/images/{{id}}", images.delete)
    get(f"{base}api/images/{{id}}", papers.show)
    get(f"{base}api/images/{{id}}/sbom", papers.sbom)
    post(f"{base}api/images/{{id}}/sign", papers.sign)
    put(f"{base}api/images/{{id}}/pin", images.pin)
    delete(f"{base}api/images/{{id}}/pin", images.unpin)
    get(f"{base}api/bans", rulings.bans)
    post(f"{base}api/bans", rulings.ban)
    delete(f"{base}api/bans/{{id}}", rulings.unban)
    get(f"{base}api/quotas", rulings.quotas)
    get(f"{base}api/maintenance", rulings.maintenance)
    put(f"{base}api/maintenance", rulings.maintain)
    delete(f"{base}api/maintenance", rulings.end_maintenance)
    get(f"{base}api/audit", audit.audit)
    get(f"{base}api/audit/export", audit.export, allow_head=False)
    get(f"{base}api/host", machine.machine)
    get(f"{base}api/events", live.events, allow_head=False)
    get(f"{base}api/docs", docs.docs)
    get(f"{base}admin", page.admin)
    post(f"{base}admin/sign-in", page.sign_in)
    post(f"{base}admin/sign-out", page.sign_out)
