"""Projects: homes of people who have logged in, which last from session to session."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ByteSize, Field, PositiveInt

from binder_onprem.config.choice import Audience

_LEAST = 32 * 1024**2
_MOST = 16 * 1024**4


def _fits(value: ByteSize) -> ByteSize:
    if not _LEAST <= value <= _MOST:
        raise ValueError("must lie between 32 MiB and 16 TiB: what one file system can hold")
    return value


class Projects(Audience):
    """Who may have projects, how many, how large."""

    enabled: bool = Field(default=False, description="people who have logged in may keep a session's home as a project; needs `auth`")
    quota: Annotated[ByteSize, AfterValidator(_fits)] = Field(
        default=ByteSize(1024**3), description="bytes that one project can hold; one that is there keeps the size that it was made with"
    )
    most: PositiveInt = Field(default=5, description="projects that one person may have")
    total: ByteSize = Field(
        default=ByteSize(50 * 1024**3), description="bytes that all projects may take when they are full; no new one is made beyond"
    )
    users: tuple[str, ...] = Field(default=(), description="people who may have projects; nobody named in users, groups and roles: everybody")
    groups: tuple[str, ...] = Field(default=(), description="groups whose members may have projects")
    roles: tuple[str, ...] = Field(default=(), description="roles (launch, build, admin) whose holders may have projects")
