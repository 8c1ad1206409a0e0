"""A site that is given PostgreSQL begins with what SQLite had."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from binder_onprem.errors import StoreUnavailable
from binder_onprem.store import SqlStore, moving, open_engine, open_store, opened
from binder_onprem.store.tables import METADATA
from tests.unit.parts import record

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

ID = "0" * 16
ROWS = 3


def made(column: sa.Column[Any], number: int) -> Any:
    """A value of the column's type, another one for each number."""
    if column.autoincrement is True:
        return 10 + number
    if column.nullable and number == 0:
        return None
    if isinstance(column.type, sa.JSON):
        return {"of": [column.name, number, "Größe 漢"]}
    if isinstance(column.type, sa.Boolean):
        return number == 1
    if isinstance(column.type, sa.String):
        return f"{number}{column.name}"[: column.type.length or 100]
    return number


async def filled(file: Path) -> dict[str, list[Any]]:
    """SQLite with rows in every table."""
    async with open_engine(f"sqlite+aiosqlite:///{file}") as engine:
        async with engine.begin() as connection:
            for table in METADATA.sorted_tables:
                rows = [{column.name: made(column, number) for column in table.columns} for number in range(ROWS)]
                await connection.execute(table.insert(), rows)
        return await everything(engine)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def everything(engine: AsyncEngine) -> dict[str, list[Any]]:
    async with engine.connect() as connection:
        return {table.name: [tuple(row) for row in await connection.execute(sa.select(table))] for table in METADATA.sorted_tables}


@pytest.mark.parametrize("at_once", [1, 1000])
async def test_every_table_goes_along_and_is_gone_on_with(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(moving, "ROWS", at_once)
    file = tmp_path / "binder.sqlite"
    before = await filled(file)
    assert all(len(rows) == ROWS for rows in before.values())
    async with open_engine(server) as engine:
        assert await moving.take_over(file, engine) == ROWS * len(before)
        assert await everything(engine) == before
        async with opened(SqlStore, engine) as store:
            await store.add(replace(record(ID), image=replace(record(ID).image, tag="another")))
        assert [row[0] for row in (await everything(engine))["builds"]] == [10, 11, 12, 13]
        assert await moving.take_over(file, engine) == 0
    assert names(tmp_path) == ["binder.sqlite.moved"]


async def test_a_database_that_has_something_is_left_alone(tmp_path: Path, server: str) -> None:
    file = tmp_path / "binder.sqlite"
    await filled(file)
    async with open_engine(server) as engine, opened(SqlStore, engine) as store:
        await store.touch("r/x@sha256:1", 5.0)
        assert await moving.take_over(file, engine) == 0
        assert sum(len(rows) for rows in (await everything(engine)).values()) == 1
    assert file.exists()


async def test_what_fails_in_the_middle_moves_nothing(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "binder.sqlite"
    before = await filled(file)
    whole = moving._copied

    async def cut(table: sa.Table, *both: Any) -> int:
        if table is METADATA.sorted_tables[-1]:
            raise OSError("The line is cut.")
        return await whole(table, *both)

    async with open_engine(server) as engine:
        with monkeypatch.context() as broken:
            broken.setattr(moving, "_copied", cut)
            with pytest.raises(StoreUnavailable):
                await moving.take_over(file, engine)
        assert not any((await everything(engine)).values())
        assert await moving.take_over(file, engine) == ROWS * len(before)


async def test_nul_becomes_what_postgresql_takes(tmp_path: Path, server: str) -> None:
    file = tmp_path / "binder.sqlite"
    async with open_store(f"sqlite+aiosqlite:///{file}") as store:
        await store.add(record(ID, state=record(ID).state, asker="a\0b"))
    async with open_engine(server) as engine, opened(SqlStore, engine) as store:
        assert await moving.take_over(file, engine) == 1
        assert (await store.builds())[0].asker == "a\ufffdb"


async def test_nothing_is_there_or_it_stays_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "binder.sqlite"
    async with open_engine(f"sqlite+aiosqlite:///{tmp_path / 'other.sqlite'}") as engine:
        await filled(file)
        assert await moving.take_over(file, engine) == 0
    assert file.exists()
