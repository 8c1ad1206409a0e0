"""Stored credentials: whose, for which host, and the secret as it was sealed. Satisfies `access.Kept`; opened by the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from binder_onprem.interfaces import StoredCredential
from binder_onprem.store.database import Database, whole
from binder_onprem.store.tables import METADATA

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CREDENTIALS: Final = sa.Table(
    "credentials",
    METADATA,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("username", sa.Text, nullable=False),
    sa.Column("sealed", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("used", sa.Double),
)
sa.Index("credentials_by_owner", CREDENTIALS.c.kind, CREDENTIALS.c.owner, CREDENTIALS.c.origin, unique=True)


class SqlCredentials(Database):
    """The table."""

    @whole
    async def credentials(self) -> Sequence[StoredCredential]:
        """All, by owner and host."""
        query = sa.select(CREDENTIALS).order_by(CREDENTIALS.c.kind, CREDENTIALS.c.owner, CREDENTIALS.c.origin)
        async with self._transaction() as connection:
            return [StoredCredential(**row) for row in (await connection.execute(query)).mappings()]

    @whole
    async def put_credential(self, row: StoredCredential) -> None:
        """Keep it; one that the same owner had for the same host is replaced."""
        values = {name: getattr(row, name) for name in StoredCredential.__dataclass_fields__}
        async with self._transaction() as connection:
            await connection.execute(
                CREDENTIALS.delete().where(CREDENTIALS.c.kind == row.kind, CREDENTIALS.c.owner == row.owner, CREDENTIALS.c.origin == row.origin)
            )
            await connection.execute(CREDENTIALS.insert().values(values))

    @whole
    async def drop_credential(self, credential_id: str) -> bool:
        """Whether it was there."""
        async with self._transaction() as connection:
            return bool((await connection.execute(CREDENTIALS.delete().where(CREDENTIALS.c.id == credential_id))).rowcount)

    @whole
    async def credential_used(self, credential_id: str, now: float) -> None:
        """Remember when it last opened something (Unix seconds)."""
        async with self._transaction() as connection:
            await connection.execute(CREDENTIALS.update().where(CREDENTIALS.c.id == credential_id).values(used=now))

    @whole
    async def reseal(self, sealed: Callable[[str], str]) -> int:
        """Replace what is stored of each secret, all or none; how many."""
        async with self._transaction() as connection:
            rows = (await connection.execute(sa.select(CREDENTIALS.c.id, CREDENTIALS.c.sealed))).all()
            for row in rows:
                where = (CREDENTIALS.c.id == row.id, CREDENTIALS.c.sealed == row.sealed)
                await connection.execute(CREDENTIALS.update().where(*where).values(sealed=sealed(row.sealed)))
        return len(rows)
