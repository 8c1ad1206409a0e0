"""What somebody who has logged in has here: her sessions, to open and to stop, and tokens for her programs. Only her own, whatever name is asked for.

The page works without scripts; the API tells the same. An administrator's page shows everybody's sessions, and stops them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from binder_onprem.access import Owner
from binder_onprem.ends import Reason
from binder_onprem.errors import InvalidSpec, NotFound, Refused
from binder_onprem.model import Role, temporary
from binder_onprem.web import clients, pages
from binder_onprem.web.admin.desk import ordered
from binder_onprem.web.api import flag
from binder_onprem.web.keys import CLIENT, SEAL, SITE
from binder_onprem.web.login import NOBODY

if TYPE_CHECKING:
    from binder_onprem.interfaces import Accounts
    from binder_onprem.model import Client, Session
    from binder_onprem.web.cookies import Login

GONE: Final = "There is no session of this name (any more)."
PEOPLE: Final = "This is for people who have logged in."
NOTE: Final = 100
"""Characters of a token's note."""
DAYS: Final = 366
LINK: Final = 4096
"""Characters of a link that a form sends."""


async def page(request: web.Request) -> web.StreamResponse:
    """``/sessions``: her sessions and tokens; an administrator sees everybody's sessions."""
    client = await person(request)
    accounts, login = request.app[SITE].accounts, request.app[SEAL].login(request)
    tokens = await accounts.tokens(client.user or "", login.token) if accounts and login else ()
    admin = Role.ADMIN in client.roles
    rows = [await _row(request, session) for session in await _sessions(request, client, everybody=admin)]
    return pages.render(request, "sessions.html", rows=rows, everybody=admin, tokens=tokens, made=None, files=_files(request))


async def open_session(request: web.Request) -> web.StreamResponse:
    """``/sessions/<name>/open``: on to the session, with its token."""
    session = await _found(request, await person(request), everybody=False)
    return web.Response(status=303, headers={"Location": await _url(request, session), "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})


async def session_files(request: web.Request) -> web.StreamResponse:
    """``/sessions/<name>/files``: on to the files that the session has changed, with its token."""
    site, session = request.app[SITE], await _found(request, await person(request), everybody=False)
    token = await site.hub.token(session)
    if token is None:
        raise NotFound(GONE)
    location = f"{site.config.listen.base_url}api/session/{session.name}/files?token={token}"
    return web.Response(status=303, headers={"Location": location, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})


async def stop_session(request: web.Request) -> web.StreamResponse:
    """``POST /sessions/<name>/stop``, a form of the page."""
    client = await person(request)
    session = await _found(request, client, everybody=Role.ADMIN in client.roles)
    await request.app[SITE].ends.end(session, Reason.OWN if session.owner == client.owner else Reason.ADMINISTRATOR)
    return _back(request)


async def add_token(request: web.Request) -> web.StreamResponse:
    """``POST /sessions/tokens``, a form of the page: makes a token and shows it once."""
    client, accounts, login = await _logged_in(request)
    form = await request.post()
    made = await accounts.add_token(client.user or "", login.token, *_asked(form, client))
    rows = [await _row(request, session) for session in await _sessions(request, client, everybody=False)]
    tokens = await accounts.tokens(client.user or "", login.token)
    return pages.render(request, "sessions.html", rows=rows, everybody=False, tokens=tokens, made=made, files=_files(request))


async def remove_token(request: web.Request) -> web.StreamResponse:
    """``POST /sessions/tokens/<id>/revoke``, a form of the page."""
    client, accounts, login = await _logged_in(request)
    await accounts.remove_token(client.user or "", login.token, request.match_info["id"])
    return _back(request)


async def whoami(request: web.Request) -> web.Response:
    """``GET /api/user``: who asks and what she may do."""
    client = await clients.identify(request)
    body = {"name": client.user, "groups": sorted(client.groups), "roles": sorted(client.roles)}
    return web.json_response(body, headers={"Cache-Control": "no-store"})


async def sessions(request: web.Request) -> web.Response:
    """``GET /api/user/sessions``: her sessions, with the address that opens each."""
    found = await _sessions(request, await person(request), everybody=False)
    rows = [await _row(request, session) | {"url": await _url(request, session) if session.ready else None} for session in found]
    return web.json_response({"sessions": rows}, headers={"Cache-Control": "no-store"})


async def stop(request: web.Request) -> web.Response:
    """``DELETE /api/user/sessions/<name>``."""
    await request.app[SITE].ends.wished(await _found(request, await person(request), everybody=False))
    return web.Response(status=204)


async def forget(request: web.Request) -> web.Response:
    """``DELETE /api/users/<name>``: an administrator ends somebody's sessions, log-ins and tokens; who has an account may log in again.

    ``?credentials=true``: her credentials for private repositories go, too; ``?projects=true``: her projects with their files. They go last: as long
    as her log-in holds she could add another.
    """
    hub, line, name = request.app[SITE].hub, request.app[SITE].line, request.match_info["name"]
    credentials, projects = flag(request, "credentials"), flag(request, "projects")
    async with ordered(request, "user.remove" if credentials or projects else "user.logout", name):
        if request.app[SITE].accounts is None:
            raise NotFound(NOBODY)
        for session in await hub.sessions():
            if session.owner == name:
                await request.app[SITE].ends.end(session, Reason.ADMINISTRATOR)
        if not temporary(name):
            await hub.forget(name)
        if credentials and line.access:
            await line.access.remove_all(Owner("user", name))
        if projects and line.projects:
            await line.projects.delete_all(name)
    return web.Response(status=204)


async def person(request: web.Request) -> Client:
    """Who asks, if it is a person. Raises `Refused`."""
    if request.app[SITE].accounts is None:
        raise NotFound(NOBODY)
    client = await clients.identify(request)
    if client.owner is None:
        raise Refused(PEOPLE if client.user or client.trusted else clients.UNKNOWN)
    request[CLIENT] = client
    return client


async def _logged_in(request: web.Request) -> tuple[Client, Accounts, Login]:
    """The same of somebody in a browser: a token does not make tokens."""
    client = await person(request)
    accounts, login = request.app[SITE].accounts, request.app[SEAL].login(request)
    if accounts is None or login is None:
        raise Refused(PEOPLE)
    return client, accounts, login


async def _sessions(request: web.Request, client: Client, *, everybody: bool) -> list[Session]:
    found = [session for session in await request.app[SITE].hub.sessions() if session.server and (everybody or session.owner == client.owner)]
    return sorted(found, key=lambda session: session.started or float("inf"), reverse=True)


async def _found(request: web.Request, client: Client, *, everybody: bool) -> Session:
    """The session that the path names, if it is hers. Raises `NotFound`: that somebody else has one of this name is not her business."""
    name = request.match_info["name"]
    found = next((session for session in await _sessions(request, client, everybody=everybody) if session.name == name), None)
    if found is None:
        raise NotFound(GONE)
    return found


def _files(request: web.Request) -> bool:
    """Whether the changed files of sessions can be had."""
    ending = request.app[SITE].ending
    return ending is not None and ending.files is not None


async def _row(request: web.Request, session: Session) -> dict[str, Any]:
    base, mine = request.app[SITE].config.listen.base_url, request[CLIENT].owner == session.owner
    ending = request.app[SITE].ending
    return {
        "name": session.name,
        "owner": session.owner,
        "mine": mine,
        "ready": session.ready,
        "started": session.started,
        "last_activity": session.last_activity,
        "maintenance": await ending.drained(session) if ending else None,
        "repo_url": session.repo_url,
        "project": session.project or None,
        "launch": base + session.request if session.request else None,
    }


async def _url(request: web.Request, session: Session) -> str:
    site = request.app[SITE]
    token = await site.hub.token(session)
    if token is None:
        raise NotFound(GONE)
    return clients.public_url(request, site.config) + session.url.removeprefix(site.config.listen.base_url) + f"?token={token}"


def _asked(form: Any, client: Client) -> tuple[str, int, frozenset[Role]]:
    """Note, seconds and roles of the token that a form asks for. Raises `InvalidSpec`."""
    note, days = str(form.get("note", "")).strip(), str(form.get("days", ""))
    if not (days.isascii() and days.isdigit() and 1 <= int(days[:5]) <= DAYS):
        raise InvalidSpec(f"A token holds for 1 to {DAYS} days.")
    if not note or len(note) > NOTE or not note.isprintable():
        raise InvalidSpec(f"Say what the token is for, in {NOTE} characters at the most.")
    return note, int(days) * 86400, client.roles - {Role.ADMIN}


def _back(request: web.Request) -> web.Response:
    return web.Response(status=303, headers={"Location": f"{request.app[SITE].config.listen.base_url}sessions"})
