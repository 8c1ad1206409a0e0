"""The administrator's tables: bans, pinned images, what is switched, the audit. Satisfies `interfaces.Rulings` and `interfaces.Audit`.

The audit is only ever added to and, after its time, forgotten from its old end.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from binder_onprem.ruling import Ban, BanKind, Entry
from binder_onprem.store.database import Database, whole
from binder_onprem.store.tables import BUILDS, LAUNCHES, METADATA, build_record, launch_record, plain

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from binder_onprem.model import BuildRecord, LaunchAudit

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
CHUNK: Final = 500

BANS: Final = sa.Table(
    "bans",
    METADATA,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("until", sa.Double),
    sa.Column("by", sa.Text, nullable=False),
)
PINS: Final = sa.Table("pins", METADATA, sa.Column("image", sa.Text, primary_key=True), sa.Column("pinned", sa.Double, nullable=False))
SWITCHES: Final = sa.Table("switches", METADATA, sa.Column("name", sa.String(32), primary_key=True), sa.Column("value", sa.JSON, nullable=False))
AUDIT: Final = sa.Table(
    "audit",
    METADATA,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("outcome", sa.String(64), nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("audit_by_time", AUDIT.c.at)


class SqlRulings(Database):
    """The tables; see `interfaces.Rulings` and `interfaces.Audit` for the methods."""

    @whole
    async def bans(self) -> Sequence[Ban]:
        """Oldest first."""
        async with self._transaction() as connection:
            rows = (await connection.execute(sa.select(BANS).order_by(BANS.c.created, BANS.c.id))).mappings()
            return [Ban(**{**row, "kind": BanKind(row["kind"])}) for row in rows]

    @whole
    async def ban(self, ban: Ban) -> None:
        """Keep it."""
        async with self._transaction() as connection:
            await connection.execute(BANS.insert().values(**{**asdict(ban), "value": plain(ban.value), "reason": plain(ban.reason)}))

    @whole
    async def unban(self, ban_id: str) -> bool:
        """Forget it; whether it was there."""
        async with self._transaction() as connection:
            return bool((await connection.execute(BANS.delete().where(BANS.c.id == ban_id))).rowcount)

    @whole
    async def pins(self) -> frozenset[str]:
        """``…@sha256:…`` of pinned images."""
        async with self._transaction() as connection:
            return frozenset((await connection.execute(sa.select(PINS.c.image))).scalars())

    @whole
    async def pin(self, image: str, now: float) -> None:
        """Pin it; once more changes nothing."""
        async with self._transaction() as connection:
            await connection.execute(self._insert(PINS).values(image=image, pinned=now).on_conflict_do_nothing())

    @whole
    async def unpin(self, image: str) -> None:
        """No longer; absent is fine."""
        async with self._transaction() as connection:
            await connection.execute(PINS.delete().where(PINS.c.image == image))

    @whole
    async def switches(self) -> Mapping[str, Any]:
        """Everything that is switched, by name."""
        async with self._transaction() as connection:
            return {row.name: row.value for row in await connection.execute(sa.select(SWITCHES))}

    @whole
    async def switch(self, name: str, value: Mapping[str, Any] | None) -> None:
        """Set it; None: no longer."""
        async with self._transaction() as connection:
            if value is None:
                await connection.execute(SWITCHES.delete().where(SWITCHES.c.name == name))
                return
            insert = self._insert(SWITCHES).values(name=name, value=dict(value))
            await connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"value": dict(value)}))

    @whole
    async def record(self, entry: Entry) -> None:
        """Add a line."""
        row = {**asdict(entry), "who": plain(entry.who), "address": plain(entry.address), "subject": plain(entry.subject)}
        del row["number"]
        async with self._transaction() as connection:
            await connection.execute(AUDIT.insert().values(**row))

    @whole
    async def entries(self, *, before: int | None = None, limit: int = 100, action: str = "", who: str = "", since: float = 0.0) -> Sequence[Entry]:
        """Newest first."""
        where = [AUDIT.c.at >= since]
        if before is not None:
            where.append(AUDIT.c.number < before)
        if action:
            where.append(AUDIT.c.action.startswith(plain(action), autoescape=True))
        if who:
            where.append((AUDIT.c.who == plain(who)) | (AUDIT.c.address == plain(who)))
        async with self._transaction() as connection:
            rows = (await connection.execute(sa.select(AUDIT).where(*where).order_by(AUDIT.c.number.desc()).limit(limit))).mappings()
            return [Entry(**row) for row in rows]

    @whole
    async def launches(self, *, before: int | None = None, limit: int = 100, who: str = "", since: float = 0.0) -> Sequence[tuple[int, LaunchAudit]]:
        """Launches newest first, each with its number."""
        where = [LAUNCHES.c.began >= since]
        if before is not None:
            where.append(LAUNCHES.c.number < before)
        if who:
            where.append(LAUNCHES.c.client == plain(who))
        async with self._transaction() as connection:
            rows = (await connection.execute(sa.select(LAUNCHES).where(*where).order_by(LAUNCHES.c.number.desc()).limit(limit))).mappings()
            return [(row["number"], launch_record(row)) for row in rows]

    @whole
    async def launched(self, ids: Collection[str]) -> Mapping[str, LaunchAudit]:
        """The launches of these ids, as far as they are known."""
        wanted = list(ids)
        found: dict[str, LaunchAudit] = {}
        async with self._transaction() as connection:
            for start in range(0, len(wanted), CHUNK):
                query = sa.select(LAUNCHES).where(LAUNCHES.c.launch_id.in_(wanted[start : start + CHUNK]))
                found |= {row["launch_id"]: launch_record(row) for row in (await connection.execute(query)).mappings()}
        return found

    @whole
    async def made(self, digests: Collection[str]) -> Mapping[str, BuildRecord]:
        """The last build that made each of these."""
        wanted = list(digests)
        found: dict[str, BuildRecord] = {}
        async with self._transaction() as connection:
            for start in range(0, len(wanted), CHUNK):
                query = sa.select(BUILDS).where(BUILDS.c.digest.in_(wanted[start : start + CHUNK])).order_by(BUILDS.c.number)
                found |= {row["digest"]: build_record(row) for row in (await connection.execute(query)).mappings()}
        return found

    @whole
    async def search(self, *, before: str | None = None, limit: int = 50, state: str | None = None, text: str = "") -> Sequence[BuildRecord]:
        """Builds, newest first."""
        where: list[sa.ColumnElement[bool]] = []
        if before is not None:
            older = sa.select(BUILDS.c.number).where(BUILDS.c.id == plain(before)).scalar_subquery()
            where.append(BUILDS.c.number < older)
        if state:
            where.append(BUILDS.c.state == plain(state))
        if text:
            fields = (BUILDS.c.repo["spec"]["url"].as_string(), BUILDS.c.repo["path"].as_string(), BUILDS.c.repo["commit"].as_string())
            where.append(sa.or_(*(field.icontains(plain(text), autoescape=True) for field in fields)))
        async with self._transaction() as connection:
            rows = (await connection.execute(sa.select(BUILDS).where(*where).order_by(BUILDS.c.number.desc()).limit(limit))).mappings()
            return [build_record(row) for row in rows]

    @whole
    async def forget(self, before: float) -> None:
        """Lines of the audit older than `before` (Unix seconds), and bans that ended before it."""
        async with self._transaction() as connection:
            await connection.execute(AUDIT.delete().where(AUDIT.c.at < before))
            await connection.execute(BANS.delete().where(BANS.c.until < before))
