"""What the site's policy remembers over a restart: launches that count against a rate, and places for sessions, waited for or taken.

Satisfies `rates.Kept` and `room.Kept`; opened by the daemon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from binder_onprem.quotas import Claim, Held
from binder_onprem.rates import Hit
from binder_onprem.store.database import Database, whole
from binder_onprem.store.tables import METADATA, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.engine import RowMapping

HITS: Final = sa.Table(
    "hits",
    METADATA,
    sa.Column("launch_id", sa.String(16), primary_key=True),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("began", sa.Double, nullable=False),
)
sa.Index("hits_by_time", HITS.c.began)

PLACES: Final = sa.Table(
    "places",
    METADATA,
    sa.Column("launch_id", sa.String(16), primary_key=True),
    sa.Column("repository", sa.Text, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("quota", sa.Integer, nullable=False),
    sa.Column("subject", sa.Text),
    sa.Column("groups", sa.JSON, nullable=False),
    sa.Column("tag", sa.Double, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
    sa.Column("granted", sa.Boolean, nullable=False),
)


class SqlPolicy(Database):
    """The tables."""

    @whole
    async def hits(self, since: float) -> Sequence[Hit]:
        """Those of windows that began after `since`."""
        query = sa.select(HITS).where(HITS.c.began > since).order_by(HITS.c.began)
        async with self._transaction() as connection:
            return [Hit(row.launch_id, row.subject, row.began) for row in await connection.execute(query)]

    @whole
    async def count(self, hits: Sequence[Hit], before: float) -> None:
        """Keep these; forget those of windows that began before `before`."""
        rows = [{"launch_id": hit.launch_id, "subject": plain(hit.subject), "began": hit.began} for hit in hits]
        insert = self._insert(HITS)
        # A launch that comes back in a later window counts in that one.
        again = insert.on_conflict_do_update(index_elements=["launch_id"], set_={"began": insert.excluded.began, "subject": insert.excluded.subject})
        async with self._transaction() as connection:
            await connection.execute(again, rows)
            await connection.execute(HITS.delete().where(HITS.c.began < before))

    @whole
    async def places(self) -> Sequence[Held]:
        """All, in the order of their turns."""
        async with self._transaction() as connection:
            return [_held(row) for row in (await connection.execute(sa.select(PLACES).order_by(PLACES.c.tag, PLACES.c.since))).mappings()]

    @whole
    async def put(self, place: Held) -> None:
        """Keep it, or what changed of it."""
        claim = place.claim
        row = {
            "launch_id": claim.launch_id,
            "repository": claim.repository,
            "url": plain(claim.url),
            "quota": claim.quota,
            "subject": None if claim.subject is None else plain(claim.subject),
            "groups": sorted(claim.groups),
            "tag": place.tag,
            "since": place.since,
            "granted": place.granted,
        }
        async with self._transaction() as connection:
            await connection.execute(self._insert(PLACES).values(row).on_conflict_do_update(index_elements=["launch_id"], set_=row))

    @whole
    async def drop(self, launch_ids: Iterable[str]) -> None:
        """Forget these."""
        async with self._transaction() as connection:
            await connection.execute(PLACES.delete().where(PLACES.c.launch_id.in_(list(launch_ids))))


def _held(row: RowMapping) -> Held:
    claim = Claim(row["launch_id"], row["repository"], row["url"], row["quota"], row["subject"], frozenset(row["groups"]))
    return Held(claim, row["tag"], row["since"], row["granted"])
