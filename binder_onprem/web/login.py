"""Logging in and out, where the site has accounts: a page asked for by somebody unknown leads to JupyterHub's log-in and from there back to it.

The browser goes to the hub with a random state, comes back to ``oauth_callback`` with that and a code, which the daemon exchanges for a token of
hers; the cookie holds it. Whether it still holds, and what she may do, is asked of the hub (`clients.identify`).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from aiohttp import web

from binder_onprem.errors import NotFound, Refused, Unavailable
from binder_onprem.web import clients, pages
from binder_onprem.web.keys import CLIENT, SEAL, SITE

NOBODY: Final = "Nobody has to log in here."

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from binder_onprem.interfaces import Accounts

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def needed(handler: Handler) -> Handler:
    """A page for people who have logged in; others are asked to, where the site has accounts."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        if request.app[SITE].accounts is None:
            return await handler(request)
        client = await clients.identify(request)
        if client.user is None and not client.trusted:
            return depart(request)
        request[CLIENT] = client
        return await handler(request)

    return guarded


def known(handler: Handler) -> Handler:
    """A page for everybody that says who has logged in, if that can be told."""

    async def told(request: web.Request) -> web.StreamResponse:
        if request.app[SITE].accounts is not None:
            with contextlib.suppress(Unavailable, Refused):
                request[CLIENT] = await clients.identify(request)
        return await handler(request)

    return told


def depart(request: web.Request) -> web.Response:
    """To the log-in; the link comes back with its query."""
    response = web.Response(status=302, headers={"Cache-Control": "no-store"})
    state = request.app[SEAL].depart(response, request.raw_path)
    response.headers["Location"] = _accounts(request).login_url(state)
    return response


async def callback(request: web.Request) -> web.StreamResponse:
    """``GET /oauth_callback?code=&state=``: somebody comes back from the log-in."""
    accounts, seal, state = _accounts(request), request.app[SEAL], request.query.get("state", "")
    place = seal.arrive(request, state)
    if place is None:
        raise Refused("This log-in did not begin in this browser, or took too long. Open your link again.")
    if "error" in request.query or "code" not in request.query:
        raise Refused("The log-in was not finished. Open your link again.")
    token = await accounts.exchange(request.query["code"])
    response = pages.redirect(place)
    response.headers["Cache-Control"] = "no-store"
    seal.remember(response, token)
    seal.arrived(response, state)
    return response


async def leave(request: web.Request) -> web.StreamResponse:
    """``POST /logout``: forget the log-in here, then at the hub, which revokes its token."""
    accounts, seal = _accounts(request), request.app[SEAL]
    login = seal.login(request)
    if login is not None:
        await clients.proven(request, login)
        accounts.forget(login.token)
    response = web.Response(status=303, headers={"Location": accounts.logout_url, "Cache-Control": "no-store"})
    seal.forget(response)
    return response


def _accounts(request: web.Request) -> Accounts:
    accounts = request.app[SITE].accounts
    if accounts is None:
        raise NotFound(NOBODY)
    return accounts
