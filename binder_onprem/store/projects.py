"""People's projects: whose, of which repository, which volume. Satisfies `interfaces.ProjectStore`; opened by the daemon."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from binder_onprem.project import Project
from binder_onprem.store.database import Database, whole
from binder_onprem.store.tables import METADATA, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

PROJECTS: Final = sa.Table(
    "projects",
    METADATA,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("slot", sa.Integer, nullable=False, unique=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("repo_url", sa.Text, nullable=False),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("persistent", sa.Text, nullable=False),
    sa.Column("image", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("used", sa.Double, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("made", sa.Boolean, nullable=False),
    sa.Column("leaving", sa.Boolean, nullable=False),
)
sa.Index("projects_by_owner", PROJECTS.c.owner, PROJECTS.c.name, unique=True)


class SqlProjects(Database):
    """The table."""

    @whole
    async def projects(self, owner: str | None = None) -> Sequence[Project]:
        """Everybody's, or one person's; what was used last comes first."""
        query = sa.select(PROJECTS).order_by(PROJECTS.c.used.desc(), PROJECTS.c.id)
        if owner is not None:
            query = query.where(PROJECTS.c.owner == plain(owner))
        async with self._transaction() as connection:
            return [Project(**row) for row in (await connection.execute(query)).mappings()]

    @whole
    async def add(self, project: Project) -> None:
        """Keep a new one."""
        texts = {name: plain(value) for name, value in asdict(project).items() if isinstance(value, str)}
        async with self._transaction() as connection:
            await connection.execute(PROJECTS.insert().values({**asdict(project), **texts}))

    @whole
    async def change(self, project_id: str, values: dict[str, Any]) -> None:
        """Write what has changed of one; absent is fine."""
        kept = {name: plain(value) if isinstance(value, str) else value for name, value in values.items()}
        async with self._transaction() as connection:
            await connection.execute(PROJECTS.update().where(PROJECTS.c.id == project_id).values(kept))

    @whole
    async def drop(self, project_id: str) -> None:
        """Forget it; absent is fine."""
        async with self._transaction() as connection:
            await connection.execute(PROJECTS.delete().where(PROJECTS.c.id == project_id))
