"""``/admin``: the sign-in, and the page that the live stream fills.

Two kinds of people see it: who has signed in with the site's token, and, where people have accounts, an account with the role; each has the key of
its own cookie in the page. The token works beside accounts, for the day on which nobody can log in.
"""

from __future__ import annotations

import hmac
import time
from typing import Any, Final

from aiohttp import web

from binder_onprem.errors import BinderError, RateLimited, Refused
from binder_onprem.model import Role
from binder_onprem.ruling import Entry
from binder_onprem.web import clients, login, pages
from binder_onprem.web.admin.desk import ADMINISTRATOR, desk_of
from binder_onprem.web.admin.signin import set_cookie
from binder_onprem.web.keys import CLIENT, SEAL, SIGN_INS, SITE

OWN_WINDOW: Final = {"Cross-Origin-Opener-Policy": "noopener-allow-popups", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"}
"""What runs in a session has the same origin: it must get no handle on this page, by a frame or by having opened it."""
ELSEWHERE: Final = "This page is opened by its address or a link, not from within another page."
WRONG: Final = "This is not the admin token of this site. It lies in secrets/admin-token below the site's home."
UNFIT: Final = "Your account may not administer this site. Whoever runs it names administrators in auth.roles.admin."
TOKEN_CHARACTERS: Final = 512
ACCOUNT: Final = "account"
"""In the query: who is unknown wants to log in."""


async def admin(request: web.Request) -> web.Response:
    """``GET /admin``."""
    if request.headers.get("Sec-Fetch-Dest", "document") != "document":
        raise Refused(ELSEWHERE)
    signed = clients.signed_in(request)
    if signed is None:
        return await _by_account(request)
    response = _page(request, "admin.html", 200, admin=_settings(request, signed.xsrf), sign_out=True)
    # Whoever works on the page goes on being signed in.
    token = clients.admin_token(request.app[SITE].config)
    set_cookie(request, response, request.app[SITE].config.listen.base_url, request.app[SIGN_INS].issue(token, signed))
    return response


async def _by_account(request: web.Request) -> web.Response:
    """The page of somebody who has logged in and has the role; the sign-in for everybody else, who may log in from there."""
    if request.app[SITE].accounts is None:
        return _page(request, "signin.html", 200, message="")
    try:
        client = await clients.identify(request)
    except BinderError as error:
        return _refused(request, error)
    known = request.app[SEAL].login(request)
    if client.user is None or known is None:
        return login.depart(request) if ACCOUNT in request.query else _page(request, "signin.html", 200, message="")
    request[CLIENT] = client
    if Role.ADMIN not in client.roles:
        return _page(request, "signin.html", 403, message=UNFIT)
    return _page(request, "admin.html", 200, admin=_settings(request, request.app[SEAL].proof(known)), sign_out=False)


def _settings(request: web.Request, xsrf: str) -> dict[str, Any]:
    return {"base": request.app[SITE].config.listen.base_url, "xsrf": xsrf}


async def sign_in(request: web.Request) -> web.Response:
    """``POST /admin/sign-in`` with the field ``token``."""
    site, tries, address = request.app[SITE], request.app[SIGN_INS], clients.of_request(request, request.app[SITE].config)
    try:
        tries.tried(address)
        _same_site(request)
        given = str((await request.post()).get("token", "")).strip()
        token = clients.admin_token(site.config)
        if len(given) > TOKEN_CHARACTERS or not clients.admin_token_is(given, site.config):
            tries.wrong(address)
            raise Refused(WRONG)
    except BinderError as error:
        return _refused(request, error)
    await _record(request, address, "sign-in")
    response = web.Response(status=303, headers={"Location": f"{site.config.listen.base_url}admin", "Cache-Control": "no-store"})
    set_cookie(request, response, site.config.listen.base_url, tries.issue(token))
    return response


async def sign_out(request: web.Request) -> web.Response:
    """``POST /admin/sign-out`` with the page's key as ``xsrf``; without a sign-in nothing happens."""
    site, signed = request.app[SITE], clients.signed_in(request)
    _same_site(request)
    if signed:
        given = str((await request.post()).get("xsrf", ""))
        if not hmac.compare_digest(given.encode(errors="replace"), signed.xsrf.encode()):
            raise Refused(ELSEWHERE)
        request.app[SIGN_INS].revoke(signed)
        await _record(request, clients.of_request(request, site.config), "sign-out")
    response = web.Response(status=303, headers={"Location": f"{site.config.listen.base_url}admin", "Cache-Control": "no-store"})
    set_cookie(request, response, site.config.listen.base_url, "")
    return response


def _same_site(request: web.Request) -> None:
    """Raises `Refused` for a form that another site's page sends."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise Refused(ELSEWHERE)


def _refused(request: web.Request, error: BinderError) -> web.Response:
    retry = round(error.retry_after or 0) if isinstance(error, RateLimited) else 0
    response = _page(request, "signin.html", error.status, message=error.message)
    if retry:
        response.headers["Retry-After"] = str(retry)
    return response


def _page(request: web.Request, template: str, status: int, **context: Any) -> web.Response:
    if "message" in context:
        context |= {"message": pages.told(request, context["message"]), "accounts": request.app[SITE].accounts is not None}
    response = pages.render(request, template, status=status, **context)
    response.headers.update(OWN_WINDOW)
    response.headers["Content-Security-Policy"] = response.headers["Content-Security-Policy"].replace(
        "frame-ancestors 'self'", "frame-ancestors 'none'"
    )
    return response


async def _record(request: web.Request, address: str, action: str) -> None:
    await desk_of(request).audit.record(Entry(time.time(), ADMINISTRATOR, address, action))
