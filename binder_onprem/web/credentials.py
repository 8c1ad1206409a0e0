"""``/api/credentials``: what opens private repositories. People add and remove their own; the administrator everybody's, the groups' and the site's.

A secret goes in and never comes out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from aiohttp import web
from pydantic import Field

from binder_onprem.access import GONE, Access, Owner
from binder_onprem.config.frozen import Frozen
from binder_onprem.credential import LONGEST, origin_of, shown, subject
from binder_onprem.errors import InvalidSpec, NotFound, Refused
from binder_onprem.model import Role
from binder_onprem.web import clients
from binder_onprem.web.admin.desk import body, ordered, recorded
from binder_onprem.web.keys import SITE
from binder_onprem.web.schemas import BOOLEAN, NULLABLE_NUMBER, NULLABLE_TEXT, NUMBER, TEXT, answer, array, object_, operation, path

if TYPE_CHECKING:
    from binder_onprem.interfaces import StoredCredential
    from binder_onprem.model import Client

NOBODY: Final = "Log in first, or send a token as `Authorization: Bearer …`: credentials belong to somebody."
_NOT_YOURS: Final = "Only the administrator keeps credentials for others. Leave kind and owner out to add one of your own."
NO_STORE: Final = {"Cache-Control": "no-store"}
Name = Annotated[str, Field(max_length=200)]


class CredentialOrder(Frozen):
    """Body of ``POST /api/credentials``."""

    host: Annotated[str, Field(min_length=1, max_length=300)]
    secret: Annotated[str, Field(min_length=1, max_length=LONGEST, repr=False)]
    username: Name = ""
    kind: Literal["user", "group", "site"] | None = None
    owner: Name = ""


async def listed(request: web.Request) -> web.Response:
    """``GET /api/credentials``: one's own; the administrator sees all."""
    client, access = await keeper(request)
    if Role.ADMIN not in client.roles:
        return web.json_response({"credentials": await own(access, client)}, headers=NO_STORE)
    readable = await access.readable()
    rows = [fields(row) | {"readable": row.id in readable} for row in await access.listed()]
    return web.json_response({"credentials": [*_configured(request), *rows]}, headers=NO_STORE)


async def add(request: web.Request) -> web.Response:
    """``POST /api/credentials``."""
    client, _ = await keeper(request)
    order = await body(request, CredentialOrder)
    owner = _owner(order, client)
    row = await added(request, client, owner, order.host, order.username, order.secret)
    return web.json_response(fields(row) | {"readable": True}, status=201, headers=NO_STORE)


async def added(request: web.Request, client: Client, owner: Owner, host: str, username: str, secret: str) -> StoredCredential:  # noqa: PLR0913, PLR0917
    """Keep one, recorded without its secret. Raises as `Access.add`."""
    _, access = await keeper(request)
    async with recorded(request, client, "credential.add", f"{owner.kind} {owner.name}".strip(), host=origin_of(host)):
        return await access.add(owner, host, username, secret)


async def remove(request: web.Request) -> web.Response:
    """``DELETE /api/credentials/<id>``."""
    client, _ = await keeper(request)
    await removed(request, client, everybody=Role.ADMIN in client.roles)
    return web.Response(status=204)


async def removed(request: web.Request, client: Client, *, everybody: bool) -> None:
    """Remove the one that the path names. Raises `NotFound`, also for somebody else's."""
    _, access = await keeper(request)
    owner = None if everybody else Owner("user", subject(client) or "")
    found = next((row for row in await access.listed(owner) if row.id == request.match_info["id"]), None)
    if found is None:
        raise NotFound(GONE)
    async with recorded(request, client, "credential.remove", f"{found.kind} {found.owner}".strip(), host=found.origin):
        await access.remove(found.id, owner)


async def rotate(request: web.Request) -> web.Response:
    """``POST /api/credentials/rotate``: encrypt all with a new key."""
    async with ordered(request, "credential.rotate"):
        _, access = await keeper(request)
        return web.json_response({"rotated": await access.rotate()})


async def keeper(request: web.Request) -> tuple[Client, Access]:
    """Who asks, if it is somebody, and the site's credentials. Raises `Refused`."""
    client, access = await clients.identify(request), request.app[SITE].line.access
    if access is None:
        raise NotFound("This site has no such thing.")
    if client.user is None and Role.ADMIN not in client.roles:
        raise Refused(NOBODY)
    return client, access


async def own(access: Access, client: Client) -> list[dict[str, Any]]:
    """A client's own as JSON."""
    name = subject(client)
    return [fields(row) for row in await access.listed(Owner("user", name))] if name else []


def _owner(order: CredentialOrder, client: Client) -> Owner:
    mine = subject(client)
    if order.kind is None and not order.owner:
        return Owner("user", mine) if mine else Owner("site")
    if Role.ADMIN not in client.roles:
        raise Refused(_NOT_YOURS)
    if (order.kind == "site") == bool(order.owner) or order.kind is None or not order.owner.isprintable():
        raise InvalidSpec("kind is user or group with an owner, or site without one.")
    return Owner(order.kind, order.owner)


def fields(row: StoredCredential) -> dict[str, Any]:
    """A stored credential as JSON, without its secret."""
    shared = {"id": row.id, "kind": row.kind, "owner": row.owner, "host": shown(row.origin), "username": row.username}
    return {**shared, "created": row.created, "used": row.used, "source": "stored", "readable": True}


def _configured(request: web.Request) -> list[dict[str, Any]]:
    found = []
    for part in request.app[SITE].config.credentials:
        owners = [*(("user", name) for name in part.users), *(("group", name) for name in part.groups)] or [("site", "")]
        shared = {"id": None, "host": shown(part.host), "username": part.username, "created": None, "used": None, "source": "configuration"}
        found += [{**shared, "kind": kind, "owner": name, "readable": part.secret_file.is_file()} for kind, name in owners]
    return found


SCHEMAS: Final[dict[str, Any]] = {
    "Credential": object_(
        {
            "id": {**NULLABLE_TEXT, "description": "null for one of the configuration"},
            "kind": {"enum": ["user", "group", "site"], "description": "Whose; the site's are everybody's who may launch"},
            "owner": TEXT,
            "host": {**TEXT, "description": "host, host:port, or http://address:port"},
            "username": TEXT,
            "created": {**NULLABLE_NUMBER, "description": "Unix seconds"},
            "used": NULLABLE_NUMBER,
            "source": {"enum": ["stored", "configuration"]},
            "readable": {**BOOLEAN, "description": "false: its key or its file is missing"},
        }
    ),
    "Credentials": object_({"credentials": array("Credential")}),
    "Rotated": object_({"rotated": NUMBER}),
    "CredentialOrder": {
        "type": "object",
        "properties": {
            "host": TEXT,
            "secret": {**TEXT, "writeOnly": True, "description": "A token; never shown again"},
            "username": TEXT,
            "kind": {"enum": ["user", "group", "site"], "description": "For others than oneself; for the administrator"},
            "owner": TEXT,
        },
        "required": ["host", "secret"],
    },
}
_WHO: Final = {"403": answer("Nobody has logged in, or only the administrator may", "Error")}
_ID: Final = path("id", "16 hexadecimal digits")

PATHS: Final[dict[str, Any]] = {
    "/api/credentials": {
        "get": operation("What opens private repositories: one's own, for the administrator all", {"200": answer("Them", "Credentials"), **_WHO}),
        "post": operation("Add one, or replace the one for the same host", {"201": answer("It", "Credential"), **_WHO}, body="CredentialOrder"),
    },
    "/api/credentials/{id}": {
        "delete": operation("Remove one", {"204": answer("It is gone"), "404": answer("No such credential (any more)", "Error"), **_WHO}, _ID)
    },
    "/api/credentials/rotate": {"post": operation("Encrypt all with a new key", {"200": answer("How many", "Rotated")}, admin=True)},
}
