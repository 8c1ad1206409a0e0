"""Whether somebody has agreed that a link opens her project with a version of its repository that she has not chosen herself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binder_onprem.project import asks_first
from binder_onprem.web import clients
from binder_onprem.web.build import origin
from binder_onprem.web.keys import SITE, TOKENS

if TYPE_CHECKING:
    from aiohttp import web

    from binder_onprem.model import Client
    from binder_onprem.project import Project

PARAMETER: Final = "allowed"
"""Of a link that was agreed to."""


def subject(link: str, name: str) -> str:
    """What somebody agrees to: this link, as it stands in a path, with this project."""
    return f"{link}?project={name}"


async def unsure(request: web.Request, client: Client, link: str, name: str) -> Project | None:
    """The project that a link would open with what its person has not chosen; None when nothing has to be asked.

    Whoever has forked a repository can make links to commits of their own below its name: what such a commit runs would read the project.

    Args:
        request: Of the launch's page.
        client: Who asks.
        link: ``provider/spec``, raw.
        name: Of the project that the link asks for.
    """
    projects = request.app[SITE].line.projects
    project = await projects.find(client.owner, name) if projects and client.owner and name else None
    if project is None or not asks_first(project, link):
        return None
    given = request.query.get(PARAMETER, "")
    return None if given and request.app[TOKENS].valid(given, subject(link, name), origin(request), 0, clients.login_name(request)) else project
