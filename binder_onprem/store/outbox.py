"""Events that wait for their receivers, and pushes that have been told of: what must not be lost between two processes of ours.

Satisfies `journal.Outbox`, `webhooks.Outbox` and `web.hooks`' deliveries; opened by the daemon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from binder_onprem.store.database import Database, whole
from binder_onprem.store.tables import BUILDS, METADATA
from binder_onprem.waitingevents import Letter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from binder_onprem.model import BuildRecord

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
DELIVERIES_SECONDS: Final = 30 * 86400.0

OUTBOX: Final = sa.Table(
    "outbox",
    METADATA,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("receiver", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("due", sa.Double, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("dead", sa.Boolean, nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("outbox_by_due", OUTBOX.c.dead, OUTBOX.c.due)

DELIVERIES: Final = sa.Table(
    "deliveries",
    METADATA,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("build", sa.String(16), nullable=False),
    sa.Column("at", sa.Double, nullable=False),
)


class SqlOutbox(Database):
    """The tables."""

    @whole
    async def add(self, receivers: Sequence[str], body: str, now: float, most: int, of: BuildRecord | None = None) -> bool:
        """Keep an event for each receiver; False when so many wait already. The build that it is of is told as it stands, in any case."""
        async with self._transaction() as connection:
            if of:
                await connection.execute(BUILDS.update().where(BUILDS.c.id == of.id).values(told=f"{of.attempt}:{of.state.value}"))
            return not receivers or await _added(connection, receivers, body, now, most)

    @whole
    async def waiting(self, receiver: str, limit: int = 1) -> Sequence[Letter]:
        """What is to be sent to a receiver, oldest first: one after the other, so that the order stays."""
        query = sa.select(OUTBOX).where(OUTBOX.c.receiver == receiver, sa.not_(OUTBOX.c.dead)).order_by(OUTBOX.c.number).limit(limit)
        async with self._transaction() as connection:
            return [Letter(**row) for row in (await connection.execute(query)).mappings()]

    @whole
    async def sent(self, number: int) -> None:
        """It has arrived."""
        async with self._transaction() as connection:
            await connection.execute(OUTBOX.delete().where(OUTBOX.c.number == number))

    @whole
    async def failed(self, letter: Letter) -> None:
        """Write how it stands after a try in vain."""
        values = {"tries": letter.tries, "due": letter.due, "error": letter.error, "dead": letter.dead}
        async with self._transaction() as connection:
            await connection.execute(OUTBOX.update().where(OUTBOX.c.number == letter.number).values(values))

    @whole
    async def counts(self) -> dict[str, dict[str, int]]:
        """Receiver → how many wait, how many are put aside."""
        query = sa.select(OUTBOX.c.receiver, OUTBOX.c.dead, sa.func.count()).group_by(OUTBOX.c.receiver, OUTBOX.c.dead)
        found: dict[str, dict[str, int]] = {}
        async with self._transaction() as connection:
            for receiver, dead, number in await connection.execute(query):
                found.setdefault(receiver, {"waiting": 0, "dead": 0})["dead" if dead else "waiting"] = number
        return found

    @whole
    async def dead(self, limit: int = 100) -> Sequence[Letter]:
        """What was put aside, newest first."""
        async with self._transaction() as connection:
            query = sa.select(OUTBOX).where(OUTBOX.c.dead).order_by(OUTBOX.c.number.desc()).limit(limit)
            return [Letter(**row) for row in (await connection.execute(query)).mappings()]

    @whole
    async def revive(self, now: float) -> int:
        """Try everything that was put aside once more, from now; how many."""
        values: dict[str, Any] = {"dead": False, "tries": 0, "due": now}
        async with self._transaction() as connection:
            return int((await connection.execute(OUTBOX.update().where(OUTBOX.c.dead).values(values))).rowcount)

    @whole
    async def delivered(self, key: str) -> str | None:
        """The build that a push was answered with before, if it was told of already."""
        async with self._transaction() as connection:
            query = sa.select(DELIVERIES.c.build).where(DELIVERIES.c.key == key)
            found: str | None = (await connection.execute(query)).scalar()
            return found

    @whole
    async def deliver(self, key: str, build: str, now: float) -> None:
        """Remember what a push was answered with, for a month."""
        async with self._transaction() as connection:
            await connection.execute(self._insert(DELIVERIES).values(key=key, build=build, at=now).on_conflict_do_nothing())
            await connection.execute(DELIVERIES.delete().where(DELIVERIES.c.at < now - DELIVERIES_SECONDS))


async def _added(connection: AsyncConnection, receivers: Sequence[str], body: str, now: float, most: int) -> bool:
    row = {"body": body, "created": now, "tries": 0, "due": now, "dead": False}
    waiting = (await connection.execute(sa.select(sa.func.count()).select_from(OUTBOX))).scalar_one()
    if waiting + len(receivers) > most:
        # What nobody will be sent any more makes room first.
        oldest = sa.select(OUTBOX.c.number).where(OUTBOX.c.dead).order_by(OUTBOX.c.number).limit(len(receivers))
        gone = await connection.execute(OUTBOX.delete().where(OUTBOX.c.number.in_(oldest)))
        if waiting - gone.rowcount + len(receivers) > most:
            return False
    await connection.execute(OUTBOX.insert(), [row | {"receiver": receiver} for receiver in receivers])
    return True
