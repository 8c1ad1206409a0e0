"""What SQLite has goes along to PostgreSQL: a site that is given a server begins with all its records, or does not begin.

Called by the daemon before anything is served, with the database that its settings name. Both have the same tables, which the migrations see to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from binder_onprem.store import credentials, outbox, policy, projects, rulings  # noqa: F401 - their tables
from binder_onprem.store.database import LOCK, open_engine, translated
from binder_onprem.store.tables import METADATA

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

ROWS: Final = 1000
"""So many at once: a site of years has more launches than memory."""


async def take_over(file: Path, engine: AsyncEngine) -> int:
    """Move what a daemon has kept in `file` to a server's database that has nothing yet.

    It goes in one transaction; then the file gets ``.moved`` at the end of its name. A process killed between the two finds rows in the database, and
    leaves the file.

    Args:
        file: SQLite's; may be absent.
        engine: The database of the settings; nothing is done where that is SQLite, too.

    Returns:
        How many rows.

    Raises:
        StoreUnavailable: One of the two does not answer, or the file is of a newer version; nothing has been moved.
    """
    if engine.dialect.name == "sqlite" or not _there(file):
        return 0
    async with open_engine(f"sqlite+aiosqlite:///{file}") as source:
        with translated():
            async with source.connect() as old, engine.begin() as new:
                await new.execute(LOCK)  # two daemons that start at once: the second finds rows
                if await _filled(new):
                    return 0
                count = sum([await _copied(table, old, new) for table in METADATA.sorted_tables])
    for part in _there(file):
        part.rename(part.with_name(part.name.replace(file.name, f"{file.name}.moved")))
    return count


def _there(file: Path) -> list[Path]:
    """The file and, while somebody else has it open, what SQLite keeps beside it."""
    return [part for part in (file.with_name(file.name + end) for end in ("-wal", "-shm", "")) if part.exists()]


async def _filled(connection: AsyncConnection) -> bool:
    for table in METADATA.sorted_tables:
        if (await connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1))).first():
            return True
    return False


async def _copied(table: sa.Table, old: AsyncConnection, new: AsyncConnection) -> int:
    count = 0
    found = await old.stream(sa.select(table))
    async for rows in found.mappings().partitions(ROWS):
        await new.execute(table.insert(), [_fit(row) for row in rows])
        count += len(rows)
    if (number := table.autoincrement_column) is not None:
        # Rows that come after go on where SQLite has stopped.
        most = sa.select(sa.func.coalesce(sa.func.max(number), 1), sa.func.max(number).is_not(None)).subquery()
        sequence = sa.func.pg_get_serial_sequence(table.name, number.name)
        await new.execute(sa.select(sa.func.setval(sequence, *most.c)))
    return count


def _fit(row: Any) -> dict[str, Any]:
    """What PostgreSQL takes: it refuses NUL, which SQLite has let through."""
    return {name: value.replace("\0", "\ufffd") if isinstance(value, str) else value for name, value in row.items()}
