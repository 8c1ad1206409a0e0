"""The database's tables and how a record becomes a row and a row a record; the schema itself is made by `migrations`.

Pure; used by `store` alone.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from binder_onprem.content import Content
from binder_onprem.model import BuildRecord, BuildState, ImageRef, LaunchAudit, RepoSpec, ResolvedRepo

if TYPE_CHECKING:
    from collections.abc import Mapping

METADATA: Final = sa.MetaData()
OPEN_STATES: Final = tuple(state.value for state in BuildState if not state.terminal)
BEGUN: Final = "begun"
"""Outcome of a launch that goes on."""
PATH_CHARACTERS: Final = 1024

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")

BUILDS: Final = sa.Table(
    "builds",
    METADATA,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(16), nullable=False, unique=True),
    sa.Column("repository", sa.Text, nullable=False),
    sa.Column("tag", sa.Text, nullable=False),
    sa.Column("repo", sa.JSON, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("started", sa.Double),
    sa.Column("ended", sa.Double),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("digest", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("message", sa.Text),
    sa.Column("asker", sa.Text, nullable=False),
    sa.Column("fresh", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("front", sa.Double),
    sa.Column("told", sa.String(32)),
)
_OPEN = BUILDS.c.state.in_([sa.literal_column(f"'{state}'") for state in OPEN_STATES])
sa.Index("one_open_build", BUILDS.c.repository, BUILDS.c.tag, unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN)
sa.Index("builds_of_image", BUILDS.c.repository, BUILDS.c.tag, BUILDS.c.number)
sa.Index("builds_by_state", BUILDS.c.state, BUILDS.c.number)

USES: Final = sa.Table("uses", METADATA, sa.Column("image", sa.Text, primary_key=True), sa.Column("used", sa.Double, nullable=False))

LAUNCHES: Final = sa.Table(
    "launches",
    METADATA,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("launch_id", sa.String(16), nullable=False, unique=True),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("client", sa.Text, nullable=False),
    sa.Column("began", sa.Double, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("commit", sa.Text),
    sa.Column("image", sa.Text),
    sa.Column("resolve", sa.Double),
    sa.Column("build", sa.Double),
    sa.Column("start", sa.Double),
    sa.Column("pinned", sa.JSON(none_as_null=True)),
)
sa.Index("launches_by_time", LAUNCHES.c.began)


def build_row(build: BuildRecord) -> dict[str, Any]:
    """A build as a row, without its number."""
    return {
        "id": build.id,
        "repository": build.image.repository,
        "tag": build.image.tag,
        "repo": asdict(build.repo),
        "state": build.state.value,
        "created": build.created,
        "started": build.started,
        "ended": build.ended,
        "attempt": build.attempt,
        "digest": build.digest,
        "error": build.error,
        "message": build.message,
        "asker": build.asker,
        "fresh": build.fresh,
        "front": build.front,
    }


def build_record(row: Mapping[str, Any]) -> BuildRecord:
    """A row as a build."""
    return BuildRecord(
        id=row["id"],
        image=ImageRef(row["repository"], row["tag"]),
        repo=resolved(row["repo"]),
        state=BuildState(row["state"]),
        created=row["created"],
        started=row["started"],
        ended=row["ended"],
        attempt=row["attempt"],
        digest=row["digest"],
        error=row["error"],
        message=row["message"],
        asker=row["asker"],
        fresh=bool(row["fresh"]),
        front=row["front"],
    )


def resolved(data: Mapping[str, Any]) -> ResolvedRepo:
    """A repository from what `asdict` made of it."""
    content = data.get("content")
    return ResolvedRepo(**{**data, "spec": RepoSpec(**data["spec"]), "content": Content.read(content) if content else None})


def launch_row(launch: LaunchAudit) -> dict[str, Any]:
    """A launch as a row, without its number and pin."""
    return {**asdict(launch), "path": plain(launch.path)}


def launch_record(row: Mapping[str, Any]) -> LaunchAudit:
    """A row as a launch."""
    return LaunchAudit(**{name: row[name] for name in LaunchAudit.__dataclass_fields__})


def plain(path: str) -> str:
    """A link's path fit to be stored: cut, and without the two things that a database refuses, NUL and lone surrogates."""
    return path[:PATH_CHARACTERS].replace("\0", "\ufffd").encode(errors="replace").decode()
