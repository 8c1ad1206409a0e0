"""Whether somebody may have what a link asks for: pure decisions over the configuration and who asks.

`launch` calls `checked` before anything else is done for the link; the pages show what is `open_to` somebody. The spawner looks the names up
again, in its own configuration.
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from binder_onprem.config.choice import RESERVED
from binder_onprem.config.projects import Projects
from binder_onprem.errors import InvalidSpec, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from binder_onprem.choice import Choice
    from binder_onprem.config.choice import Audience, Choices, Open
    from binder_onprem.model import Client

NONE: Final = Projects()
"""Of a site that keeps none."""


def may(client: Client, what: Audience) -> bool:
    """Whether it is for this client: named by user, group or role, or for everybody."""
    if not (what.users or what.groups or what.roles):
        return True
    return client.user in what.users or not client.groups.isdisjoint(what.groups) or any(role.value in what.roles for role in client.roles)


def open_to(client: Client, listed: Mapping[str, Open]) -> tuple[str, ...]:
    """Names of what this client may choose, in the configuration's order."""
    return tuple(name for name, what in listed.items() if may(client, what))


def checked(choice: Choice, client: Client, choices: Choices, projects: Projects = NONE) -> Choice:
    """The choice with what it leaves open filled in.

    Raises:
        InvalidSpec: It names what does not exist here; says what there is.
        Refused: It names what this client may not have.
    """
    if choice.project:
        _project(choice, client, projects)
    profiles = open_to(client, choices.profiles)
    if choices.profiles and not choice.profile and profiles:
        choice = replace(choice, profile=profiles[0])
    for kind, names, listed in (
        ("profile", (choice.profile,), choices.profiles),
        ("image", (choice.image,), choices.images),
        ("data", choice.data, choices.data),
    ):
        for name in filter(None, names):
            _listed(kind, name, client, listed)
    for name, _ in choice.env:
        if RESERVED.fullmatch(name) or not any(fnmatchcase(name, pattern) for pattern in choices.environment):
            raise Refused(f"This link sets the variable {name}, which this site does not let links set. Ask the administrator.")
    return choice


def _project(choice: Choice, client: Client, projects: Projects) -> None:
    if not projects.enabled:
        raise InvalidSpec(f"This link asks for project={choice.project}, but this site keeps no projects. Open it without that.")
    if client.owner is None:
        raise Refused("Projects belong to people who have logged in. Log in, or open the link without project=….")
    if not may(client, projects):
        raise Refused("You may not have projects here. Ask the administrator, or open the link without project=….")
    if choice.image:
        raise InvalidSpec("A project has the environment of its repository: give either project or image in a link.")


def _listed(kind: str, name: str, client: Client, listed: Mapping[str, Open]) -> None:
    if name not in listed:
        there = ", ".join(open_to(client, listed))[:200] or "nothing"
        raise InvalidSpec(f"This link asks for {kind}={name}, which does not exist here. There is: {there}.")
    if not may(client, listed[name]):
        raise Refused(f"You may not use {kind}={name} here. Ask the administrator, or log in as somebody who may.")
