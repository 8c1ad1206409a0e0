"""Databases for the rooms of tables: both kinds, PostgreSQL as one server for all tests of a run."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from binder_onprem.store import SqlStore, open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL of our own on a unix socket, run by an ordinary user."""
    if not BINARIES:
        pytest.skip("no PostgreSQL on this machine")
    binaries = BINARIES[-1].parent
    directory = Path(tempfile.mkdtemp(prefix="pg-"))
    user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    shutil.chown(directory, user)
    as_user = ["setpriv", f"--reuid={user}", "--clear-groups", "--"] if os.getuid() == 0 else []
    run = lambda *command: subprocess.run([*as_user, *command], check=True, stdout=subprocess.DEVNULL, cwd=directory)  # noqa: E731
    options = f"-c listen_addresses='' -c unix_socket_directories={directory} -c fsync=off"
    try:
        run(str(binaries / "initdb"), "-D", str(directory / "data"), "-U", "binder", "-A", "trust")
        run(str(binaries / "pg_ctl"), "-D", str(directory / "data"), "-w", "-l", str(directory / "log"), "-o", options, "start")
        yield f"postgresql+asyncpg://binder@/postgres?host={directory}"
        run(str(binaries / "pg_ctl"), "-D", str(directory / "data"), "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(directory)


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'binder.sqlite'}"
    found: str = request.getfixturevalue("postgres")
    await emptied(found)
    return found


@pytest.fixture
async def server(postgres: str) -> str:
    """PostgreSQL with nothing in it."""
    await emptied(postgres)
    return postgres


async def emptied(server: str) -> None:
    """Take away all that tests before have left there."""
    engine = create_async_engine(server)
    async with engine.begin() as connection:
        await connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        await connection.execute(sa.text("CREATE SCHEMA public"))
    await engine.dispose()


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlStore]:
    async with open_store(url) as opened:
        yield opened
