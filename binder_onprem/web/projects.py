"""What somebody who has logged in keeps here: her projects, to open again, stop, download and delete; for the administrator everybody's.

The page works without scripts; the API tells the same. Opening a project is following a link, so nothing here starts anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from aiohttp import web

from binder_onprem.errors import InvalidSpec, NotFound
from binder_onprem.model import Role
from binder_onprem.projects import named
from binder_onprem.web import agreed, clients, ending, own, pages
from binder_onprem.web.admin.desk import ordered, recorded
from binder_onprem.web.build import origin
from binder_onprem.web.keys import CLIENT, SITE, TOKENS
from binder_onprem.web.schemas import BOOLEAN, NULLABLE_TEXT, NUMBER, TEXT, answer, array, object_, operation, path

if TYPE_CHECKING:
    from binder_onprem.model import Session
    from binder_onprem.project import Project
    from binder_onprem.projects import Projects

NONE: Final = "This site keeps no projects."
FULL: Final = 0.95
"""Part of its quota from which a project's person is told that it is nearly full."""
NO_STORE: Final = {"Cache-Control": "no-store"}


async def page(request: web.Request) -> web.StreamResponse:
    """``/projects``: her projects."""
    client = await own.person(request)
    found = await _projects(request).listed(client.owner)
    limits = request.app[SITE].config.projects
    return pages.render(request, "projects.html", rows=[_row(request, *pair) for pair in found], most=limits.most, enabled=limits.enabled)


async def stop_form(request: web.Request) -> web.StreamResponse:
    """``POST /projects/<name>/stop``, a form of the page."""
    project, _ = await _hers(request)
    await _projects(request).stop(project)
    return _back(request)


async def delete_form(request: web.Request) -> web.StreamResponse:
    """``POST /projects/<name>/delete``, a form of the page that has asked."""
    await _deleted(request)
    return _back(request)


async def allow_form(request: web.Request) -> web.StreamResponse:
    """``POST /projects/<name>/allow``, of the page that asks before a project is opened with what its person may not know."""
    project, _ = await _hers(request)
    form = await request.post()
    link, query = str(form.get("link", "")), str(form.get("query", ""))
    if not link or len(link) + len(query) > own.LINK or not (link + query).isprintable():
        raise InvalidSpec("This link cannot be followed.")
    token = request.app[TOKENS].issue(agreed.subject(link, project.name), origin(request), login=clients.login_name(request))
    more = f"{query}&{urlencode({agreed.PARAMETER: token})}"
    return pages.redirect(f"{request.app[SITE].config.listen.base_url}v2/{link}?{more}")


async def files(request: web.Request) -> web.StreamResponse:
    """``GET /projects/<name>/files`` and ``/api/user/projects/<name>/files``: its files as a gzipped tar."""
    project, _ = await _hers(request)
    parts = request.app[SITE].ending
    archives = parts.files if parts else None
    if archives is None:
        raise NotFound(NONE)
    headers = ending.PRIVATE | {"Content-Type": "application/gzip", "Content-Disposition": f'attachment; filename="{project.name}.tar.gz"'}
    async with _projects(request).reading(project) as place:
        return await ending.streamed(request, archives.folder(place, project.size), headers)


async def listed(request: web.Request) -> web.Response:
    """``GET /api/user/projects``."""
    client = await own.person(request)
    found = await _projects(request).listed(client.owner)
    return web.json_response({"projects": [_row(request, *pair) for pair in found]}, headers=NO_STORE)


async def stop(request: web.Request) -> web.Response:
    """``POST /api/user/projects/<name>/stop``: ends its session; none is fine."""
    project, _ = await _hers(request)
    await _projects(request).stop(project)
    return web.Response(status=204)


async def delete(request: web.Request) -> web.Response:
    """``DELETE /api/user/projects/<name>``: with its session and its files."""
    await _deleted(request)
    return web.Response(status=204)


async def everybodys(request: web.Request) -> web.Response:
    """``GET /api/projects``, for the administrator."""
    await clients.require(request, Role.ADMIN)
    return web.json_response({"projects": [_row(request, *pair) for pair in await _projects(request).listed()]}, headers=NO_STORE)


async def delete_anybodys(request: web.Request) -> web.Response:
    """``DELETE /api/projects/<id>``, for the administrator."""
    name = request.match_info["id"]
    async with ordered(request, "project.delete", name):
        project, _ = named([pair for pair in await _projects(request).listed() if pair[0].id == name], name)
        await _projects(request).delete(project)
    return web.Response(status=204)


def _projects(request: web.Request) -> Projects:
    projects = request.app[SITE].line.projects
    if projects is None:
        raise NotFound(NONE)
    return projects


async def _hers(request: web.Request) -> tuple[Project, Session | None]:
    """The project that the path names, if it is hers. Raises `NotFound`: that somebody else has one of this name is not her business."""
    client, name = await own.person(request), request.match_info["name"]
    return named([pair for pair in await _projects(request).listed(client.owner) if pair[0].name == name], name)


async def _deleted(request: web.Request) -> None:
    project, _ = await _hers(request)
    async with recorded(request, request[CLIENT], "project.delete", project.id, name=project.name):
        await _projects(request).delete(project)


def _row(request: web.Request, project: Project, session: Session | None) -> dict[str, Any]:
    base, query = request.app[SITE].config.listen.base_url, urlencode({"project": project.name})
    return {
        "id": project.id,
        "name": project.name,
        "owner": project.owner,
        "repo_url": project.repo_url,
        "commit": project.commit,
        "image": project.image or None,
        "created": project.created,
        "last_used": project.used,
        "bytes": project.bytes,
        "size": project.size,
        "full": project.bytes >= FULL * project.size,
        "running": session is not None,
        "session": session.name if session else None,
        "leaving": project.leaving,
        "launch": f"{base}v2/{project.persistent}?{query}",
        "newest": f"{base}v2/{project.newest}?{query}",
    }


def _back(request: web.Request) -> web.Response:
    return web.Response(status=303, headers={"Location": f"{request.app[SITE].config.listen.base_url}projects"})


SCHEMAS: Final[dict[str, Any]] = {
    "Project": object_(
        {
            "id": {**TEXT, "pattern": "^[0-9a-f]{16}$"},
            "name": {**TEXT, "description": "As in ?project=NAME; its owner's own"},
            "owner": TEXT,
            "repo_url": {**TEXT, "description": "The repository that it belongs to"},
            "commit": {**TEXT, "description": "What it was last opened with"},
            "image": NULLABLE_TEXT,
            "created": NUMBER,
            "last_used": NUMBER,
            "bytes": {**NUMBER, "description": "In use; as last looked at, where no session has it"},
            "size": {**NUMBER, "description": "Bytes that it can hold"},
            "full": {**BOOLEAN, "description": "Nearly nothing more can be written"},
            "running": BOOLEAN,
            "session": {**NULLABLE_TEXT, "description": "Name of the session that has it"},
            "leaving": {**BOOLEAN, "description": "It is being deleted"},
            "launch": {**TEXT, "description": "Path that opens it with what it was last opened with"},
            "newest": {**TEXT, "description": "Path that opens it with what its branch has now"},
        }
    ),
    "Projects": object_({"projects": array("Project")}),
}
_GONE: Final = {"404": answer("No such project (any more), or nobody has to log in here", "Error")}
_WHO: Final = {**_GONE, "403": answer("Nobody has logged in, or the request is not from a page of ours", "Error")}
_BUSY: Final = {"409": answer("It is being opened, or something uses it", "Error")}
_NAME: Final = path("name", "The project's name")

PATHS: Final[dict[str, Any]] = {
    "/api/user/projects": {"get": operation("One's own projects", {"200": answer("Projects", "Projects"), **_WHO})},
    "/api/user/projects/{name}": {
        "delete": operation("Delete a project of one's own with its files", {"204": answer("It is gone"), **_WHO, **_BUSY}, _NAME)
    },
    "/api/user/projects/{name}/stop": {"post": operation("End the session that has it", {"204": answer("None has it"), **_WHO}, _NAME)},
    "/api/user/projects/{name}/files": {
        "get": operation("Its files, a gzipped tar", {"200": answer("The archive", "text", "application/gzip"), **_WHO}, _NAME)
    },
    "/api/projects": {"get": operation("Everybody's projects", {"200": answer("Projects", "Projects"), **_GONE}, admin=True)},
    "/api/projects/{id}": {
        "delete": operation(
            "Delete somebody's project with its files", {"204": answer("It is gone"), **_GONE, **_BUSY}, path("id", "Its id"), admin=True
        )
    },
}
