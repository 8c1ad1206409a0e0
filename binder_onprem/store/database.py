"""The database: opening it, bringing its schema up to date, and what every room of tables stands on.

SQLite by default, PostgreSQL with the same statements. Nothing of the driver's crosses the border: whatever goes wrong becomes `StoreUnavailable`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from binder_onprem.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D", bound="Database")

MIGRATIONS: Final = Path(__file__).parent / "migrations"
BUSY_MILLISECONDS: Final = 10_000
"""How long SQLite waits for another process's write."""
COMMAND_SECONDS: Final = 15
DOWN: Final = "The database does not answer or cannot be written. Try again in a moment; if that does not help, tell the administrator."
NEWER: Final = "The database was made by a newer version of this software. Start that version, or restore the backup made before the update."
LOCK: Final = sa.text("SELECT pg_advisory_xact_lock(42646965)")
"""Held on PostgreSQL until the transaction ends, by whoever changes all of it."""
_INSERT: Final = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def engine_of(url: str) -> AsyncEngine:
    """An engine that has not connected yet, with the pragmas and limits that everything here relies on."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        patience = {"command_timeout": COMMAND_SECONDS, "timeout": COMMAND_SECONDS}
        plain, secured = _secured(parsed)
        return create_async_engine(plain, pool_pre_ping=True, pool_size=10, connect_args={**patience, **secured})
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(url)

    @sa.event.listens_for(engine.sync_engine, "connect")
    def _pragmas(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        # FULL: a build once told as built must be so after a power cut; with WAL that costs one fsync per transaction.
        for pragma in (f"busy_timeout={BUSY_MILLISECONDS}", "journal_mode=WAL", "synchronous=FULL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def _secured(url: sa.URL) -> tuple[sa.URL, dict[str, object]]:
    """A URL with ``ssl=verify-full`` without it, and what has the driver do so: by itself it knows no CA but one of a file in the account's home."""
    if url.query.get("ssl") != "verify-full":
        return url, {}
    given = url.query.get("sslrootcert")
    context = ssl.create_default_context(cafile=given if isinstance(given, str) else None)
    return url.difference_update_query(["ssl", "sslrootcert"]), {"ssl": context}


def migrate(connection: sa.Connection) -> None:
    """Bring the schema up to date, in the connection's transaction."""
    if connection.dialect.name == "postgresql":
        # Two replicas that start at once: the second waits, then finds the work done.
        connection.execute(LOCK)
    if _revision(connection) == _newest():
        return  # the usual start does without Alembic, whose import alone takes longer than everything here
    from alembic import command, util  # noqa: PLC0415 - see above
    from alembic.config import Config  # noqa: PLC0415 - see above

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except util.CommandError as error:
        raise StoreUnavailable(NEWER) from error


def _newest() -> str:
    return max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def _revision(connection: sa.Connection) -> str | None:
    """Which migration the database had last; None: none yet."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


@contextmanager
def translated() -> Iterator[None]:
    """The one seam where the driver's errors become ours."""
    try:
        yield
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        logger.warning("database", extra={"error": f"{type(error).__name__}: {error}"[:500]})
        raise StoreUnavailable(DOWN) from error


def whole(method: Callable[Concatenate[D, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[D, P], Coroutine[Any, Any, T]]:
    """Carry a call to its end even if the caller is cancelled: a connection dropped in the middle costs a thread or a server's process."""

    @functools.wraps(method)
    async def run(self: D, /, *args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.create_task(method(self, *args, **kwargs))
        self.calls.add(task)
        task.add_done_callback(self.ended)
        return await asyncio.shield(task)

    return run


class Database:
    """Tables over an engine whose schema is up to date; each room of tables is a subclass.

    Args:
        engine: SQLAlchemy's.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._insert: Any = _INSERT[engine.dialect.name]
        self.calls: set[asyncio.Task[Any]] = set()

    def ended(self, task: asyncio.Task[Any]) -> None:
        """A call is over; the error of one whose caller has left is told to nobody."""
        self.calls.discard(task)
        if not task.cancelled():
            task.exception()

    async def settled(self) -> None:
        """Wait until no call is under way, but not for ever."""
        if self.calls:
            await asyncio.wait(set(self.calls), timeout=COMMAND_SECONDS)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Any]:
        with translated():
            async with self._engine.begin() as connection:
                yield connection


@asynccontextmanager
async def open_engine(url: str) -> AsyncIterator[AsyncEngine]:
    """The engine at a SQLAlchemy URL (``sqlite+aiosqlite:///…``, ``postgresql+asyncpg://…``), its schema brought up to date.

    Raises:
        StoreUnavailable: It cannot be opened, or was made by a newer version.
    """
    with translated():
        engine = engine_of(url)
    try:
        with translated():
            async with engine.begin() as connection:
                await connection.run_sync(migrate)
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def opened(room: type[D], engine: AsyncEngine) -> AsyncIterator[D]:
    """A room of tables; leaving waits for its calls."""
    tables = room(engine)
    try:
        yield tables
    finally:
        await tables.settled()
