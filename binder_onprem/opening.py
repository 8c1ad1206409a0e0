"""A launch that has a project for its home: entered before anything is built, and what is said of it. `launch` uses it; `projects` does the work."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from binder_onprem.errors import InvalidSpec, NotFound
from binder_onprem.events import Phase, Progress, Stage
from binder_onprem.model import Server

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from binder_onprem.config import Config
    from binder_onprem.interfaces import Hub
    from binder_onprem.model import LaunchRequest, ResolvedRepo, Session
    from binder_onprem.projects import Entered, Projects


def waits(request: LaunchRequest, projects: Projects | None) -> bool:
    """Whether another launch has the project now."""
    return bool(projects and request.choice.project and projects.opening(request.client.owner or "", request.choice.project))


def entered(request: LaunchRequest, repo: ResolvedRepo, projects: Projects | None) -> AbstractAsyncContextManager[Entered | None]:
    """The project that the link asks for, had alone for as long as the block lasts; None for a session that leaves nothing."""
    name = request.choice.project
    if not name or request.build_only:
        return nullcontext()
    if projects is None:
        raise InvalidSpec("This site keeps no projects.")
    return projects.entered(request.client.owner or "", name, repo.url)


def waiting(request: LaunchRequest) -> Progress:
    """Said to who comes second."""
    return Progress(Phase.WAITING, f"Your project {request.choice.project} is being opened already; waiting for that...\n", Stage.RESOLVE)


def running(found: Entered) -> Progress:
    """Said to who finds it running."""
    return Progress(Phase.LAUNCHING, f"Your project {found.name} runs already; going there...\n", Stage.LAUNCH)


def told(found: Entered, repo: ResolvedRepo) -> Progress:
    """Said before its session starts: what is in it."""
    name, project = found.name, found.project
    if project is None or not project.made:
        said = f"Making your project {name} with the files of the repository...\n"
    elif project.commit == repo.commit:
        said = f"Opening your project {name} as you left it...\n"
    else:
        said = f"Opening your project {name}: its files are as you left them, what is new in commit {repo.commit[:10]} is not put into them.\n"
    return Progress(Phase.LAUNCHING, said, Stage.LAUNCH)


def full(found: Entered) -> Progress:
    """Said to who has to make room."""
    return Progress(Phase.LAUNCHING, f"Your project {found.name} is full: remove files, or nothing more is saved in it.\n", Stage.LAUNCH)


async def server(session: Session, request: LaunchRequest, hub: Hub, config: Config) -> Server:
    """The session that has the project. Raises `NotFound` when it has just ended, `HubUnavailable`."""
    token = await hub.token(session)
    if token is None:
        raise NotFound("The session of your project has just ended. Launch again.")
    return Server(session.name, (request.host or config.public_url) + session.url.removeprefix(config.listen.base_url), token)
