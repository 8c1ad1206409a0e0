"""The page on which people keep tokens for private repositories: their own, masked, also without scripts; `credentials` is the same as an API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from binder_onprem.access import Owner
from binder_onprem.credential import subject
from binder_onprem.errors import NotFound, Refused
from binder_onprem.web import clients, credentials, pages
from binder_onprem.web.keys import CLIENT, SITE
from binder_onprem.web.login import NOBODY

if TYPE_CHECKING:
    from binder_onprem.access import Access
    from binder_onprem.model import Client


async def page(request: web.Request) -> web.StreamResponse:
    """``GET /credentials``."""
    client, access = await _person(request)
    return pages.render(request, "credentials.html", rows=await credentials.own(access, client))


async def add(request: web.Request) -> web.StreamResponse:
    """``POST /credentials``, the page's form."""
    client, _ = await _person(request)
    form = await request.post()
    host, username, secret = (str(form.get(name, "")) for name in ("host", "username", "secret"))
    await credentials.added(request, client, Owner("user", subject(client) or ""), host, username, secret)
    return _back(request)


async def remove(request: web.Request) -> web.StreamResponse:
    """``POST /credentials/<id>/remove``, a form of the page."""
    client, _ = await _person(request)
    await credentials.removed(request, client, everybody=False)
    return _back(request)


async def _person(request: web.Request) -> tuple[Client, Access]:
    if request.app[SITE].accounts is None:
        raise NotFound(NOBODY)
    client, access = await credentials.keeper(request)
    if client.owner is None:
        raise Refused(clients.UNKNOWN)
    request[CLIENT] = client
    return client, access


def _back(request: web.Request) -> web.Response:
    return web.Response(status=303, headers={"Location": f"{request.app[SITE].config.listen.base_url}credentials"})
