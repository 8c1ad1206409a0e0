from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from binder_onprem.choice import Choice
from binder_onprem.errors import InvalidSpec, StoreUnavailable
from binder_onprem.model import TRANSITIONS, BuildState, Client, LaunchAudit, LaunchRequest
from binder_onprem.store import SqlStore, database, open_store, tables
from tests.unit.parts import DIGEST, image, record, repo, request

ID = "0" * 16


async def test_a_record_comes_back_as_it_was(store: SqlStore) -> None:
    build = replace(record(ID, started=2.5, asker="192.0.2.1"), repo=replace(repo(), notice="Größe 漢 \n"))
    assert await store.add(build) == build
    assert await store.build(ID) == build
    assert (await store.build(ID)).asker == "192.0.2.1"  # type: ignore[union-attr]
    assert await store.build("1" * 16) is None
    assert await store.build("x' OR 1=1 --\0") is None


async def test_one_open_build_per_image_whoever_asks(store: SqlStore) -> None:
    found = await asyncio.gather(*(store.add(record(f"{n:016}")) for n in range(20)))
    assert len({build.id for build in found}) == 1
    assert len(await store.builds()) == 1
    other = repo("other/repo")
    assert (await store.add(record("f" * 16, of=other))).id == "f" * 16
    ended = replace(found[0], state=BuildState.FAILED, ended=3.0, error="build", message="m")
    assert await store.move(found[0], ended)
    assert (await store.add(record("e" * 16))).id == "e" * 16
    assert await store.latest(image()) == record("e" * 16)
    assert await store.latest(image(repo("no/no"))) is None


async def test_every_pair_of_states(store: SqlStore) -> None:
    for number, before in enumerate(BuildState):
        for place, after in enumerate(BuildState):
            build = record(f"{number:08}{place:08}", before, of=repo(f"o/r{number}-{place}"))
            await store.add(build)
            changed = replace(build, state=after, message="changed")
            if after in TRANSITIONS[before]:
                assert await store.move(build, changed)
                assert not await store.move(build, changed), "somebody was faster"
                assert await store.build(build.id) == changed
            else:
                with pytest.raises(ValueError, match="does not go"):
                    await store.move(build, changed)
                assert await store.build(build.id) == build
    with pytest.raises(ValueError, match="does not go"):
        await store.move(record(ID), record("1" * 16, BuildState.RUNNING))


async def test_an_old_attempt_moves_nothing(store: SqlStore) -> None:
    first = record(ID, BuildState.RUNNING)
    await store.add(first)
    again = replace(first, state=BuildState.QUEUED, attempt=2)
    assert await store.move(first, again)
    assert await store.move(again, running := replace(again, state=BuildState.RUNNING))
    assert not await store.move(first, replace(first, state=BuildState.FAILED))
    assert await store.build(ID) == running


async def test_of_many_who_move_one_succeeds(store: SqlStore) -> None:
    build = await store.add(record(ID))
    moved = await asyncio.gather(*(store.move(build, replace(build, state=BuildState.RUNNING, started=float(n))) for n in range(20)))
    assert moved.count(True) == 1


async def test_lists(store: SqlStore) -> None:
    for n in range(5):
        await store.add(record(f"{n:016}", BuildState.BUILT if n % 2 else BuildState.QUEUED, of=repo(f"o/r{n}"), created=1.0))
    assert [int(build.id) for build in await store.builds(limit=3)] == [4, 3, 2]
    assert [int(build.id) for build in await store.builds(open_only=True)] == [0, 2, 4]


async def test_the_last_digest(store: SqlStore) -> None:
    assert await store.built(image()) is None
    await store.add(record(ID, BuildState.BUILT, digest=DIGEST))
    await store.add(record("1" * 16, BuildState.FAILED))
    assert await store.built(image()) == DIGEST


async def test_uses_never_grow_older(store: SqlStore) -> None:
    await store.touch("a", 5.0)
    await store.touch("b", 1.0)
    await store.touch("a", 3.0)
    await store.touch("b", 2.0)
    assert await store.last_used() == {"a": 5.0, "b": 2.0}


async def test_a_launch_stays_with_its_commit(store: SqlStore) -> None:
    first, second = repo(), repo(commit="b" * 40)
    assert await store.begin(request(), first, 10.0) == (first, 10.0)
    assert await store.begin(request(), second, 20.0) == (first, 10.0)
    assert await store.begin(request(key="2" * 32), second, 20.0) == (second, 20.0)
    with pytest.raises(InvalidSpec, match="another link"):
        await store.begin(request("other/repo/HEAD"), first, 30.0)


async def test_a_launch_keeps_its_choice(store: SqlStore) -> None:
    small, large = (replace(request(key="3" * 32), choice=Choice(profile)) for profile in ("small", "large"))
    assert await store.begin(small, repo(), 10.0) == (repo(), 10.0)
    assert await store.begin(small, repo(), 20.0) == (repo(), 10.0)
    with pytest.raises(InvalidSpec, match="another link"):
        await store.begin(large, repo(), 30.0)


async def test_what_becomes_of_a_launch(store: SqlStore) -> None:
    audit = LaunchAudit(request().launch_id, "gh", "owner/repo/HEAD", "192.0.2.1", 9.0, "rate_limited")
    await store.audit(audit)
    assert await store.begin(request(), repo(), 10.0) == (repo(), 9.0)
    await store.audit(replace(audit, began=50.0, outcome="ready", commit="a" * 40, image="i", resolve=0.5, build=1.5, start=2.5))
    await store.audit(replace(audit, began=60.0, outcome="left"))
    (found,) = await store.launches()
    assert found == replace(audit, outcome="left", commit="a" * 40, image="i", resolve=0.5, build=1.5, start=2.5)


async def test_hostile_links_are_recorded(store: SqlStore) -> None:
    for n, path in enumerate(["x" * 100_000, "a\0b", "\udcff", "'; DROP TABLE builds; --", "漢"]):
        hostile = LaunchRequest("gh", path, Client("192.0.2.1"), f"{n:032}")
        await store.audit(LaunchAudit(hostile.launch_id, "gh", path, "x", 1.0, "invalid_spec"))
        await store.begin(hostile, repo(), 1.0)
    assert max(len(launch.path) for launch in await store.launches()) == tables.PATH_CHARACTERS
    assert len(await store.launches(2)) == 2
    assert await store.builds() == []


async def test_what_is_old_goes(store: SqlStore) -> None:
    await store.add(record(ID))
    for n, ended in enumerate([10.0, 20.0], start=1):
        await store.add(record(f"{n:016}", BuildState.BUILT, of=repo(f"o/r{n}"), ended=ended))
    await store.begin(request(), repo(), 10.0)
    await store.begin(request(key="2" * 32), repo(), 20.0)
    await store.touch("old", 10.0)
    await store.touch("new", 20.0)
    assert list(await store.expire(15.0)) == [f"{1:016}"]
    assert {build.id for build in await store.builds()} == {ID, f"{2:016}"}
    assert len(await store.launches()) == 1


async def test_old_uses_are_forgotten(store: SqlStore) -> None:
    await store.touch("r/old@sha256:1", 10.0)
    await store.touch("r/new@sha256:2", 20.0)
    await store.expire(15.0)
    assert await store.last_used() == {"r/new@sha256:2": 20.0}


async def test_opened_again_and_by_two_at_once(url: str) -> None:
    async with open_store(url) as one, open_store(url) as two:
        await one.add(record(ID))
        assert await two.builds(open_only=True) == [record(ID)]
    async with open_store(url) as again:
        assert await again.builds() == [record(ID)]


async def test_the_schema_is_what_the_tables_say(store: SqlStore) -> None:
    def columns(connection: sa.Connection) -> dict[str, set[str]]:
        inspector = sa.inspect(connection)
        return {name: {column["name"] for column in inspector.get_columns(name)} for name in tables.METADATA.tables}

    async with store._engine.begin() as connection:
        found = await connection.run_sync(columns)
    assert found == {name: {column.name for column in table.columns} for name, table in tables.METADATA.tables.items()}


async def test_a_newer_schema_is_refused(url: str) -> None:
    async with open_store(url) as store, store._engine.begin() as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreUnavailable, match="newer version"):
        async with open_store(url):
            pass


async def test_a_cancelled_call_leaves_the_store_usable(store: SqlStore) -> None:
    for n in range(30):
        task = asyncio.create_task(store.add(record(f"{n:016}", BuildState.BUILT)))
        await asyncio.sleep(0.0005 * (n % 5))
        task.cancel()
        await asyncio.wait({task})
    assert len(await store.builds()) <= 30
    await store.add(record("f" * 16))


async def test_sqlite_is_durable_and_patient(tmp_path: Path) -> None:
    async with open_store(f"sqlite+aiosqlite:///{tmp_path / 'x.sqlite'}") as store, store._engine.connect() as connection:
        found = [(await connection.execute(sa.text(f"PRAGMA {name}"))).scalar() for name in ("journal_mode", "synchronous", "busy_timeout")]
    assert found == ["wal", 2, 10_000]


async def test_a_database_locked_by_another_is_said_to_be_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MILLISECONDS", 50)
    path = tmp_path / "x.sqlite"
    async with open_store(f"sqlite+aiosqlite:///{path}") as store:
        other = create_async_engine(f"sqlite+aiosqlite:///{path}")
        async with other.connect() as connection:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
            for call in (store.add(record(ID)), store.touch("a", 1.0)):
                with pytest.raises(StoreUnavailable, match="does not answer"):
                    await call
            assert await store.builds() == [], "readers are not in a writer's way"
        await other.dispose()
        assert await store.add(record(ID)) == record(ID)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite:////dev/null/x/y.sqlite",
        "postgresql+asyncpg://x@/y?host=/nowhere",
        "postgresql+asyncpg://x@127.0.0.1:1/y?ssl=verify-full",
        "postgresql+asyncpg://x@127.0.0.1:1/y?ssl=verify-full&sslrootcert=/nowhere",
    ],
)
async def test_what_cannot_be_opened(url: str) -> None:
    with pytest.raises(StoreUnavailable):
        async with open_store(url):
            pass


async def test_an_add_that_never_finds_its_rival(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.add(record(ID))

    async def gone(_: object) -> None:
        return None

    monkeypatch.setattr(store, "_open", gone)
    with pytest.raises(StoreUnavailable):
        await store.add(record("1" * 16))


async def test_killed_in_the_middle_of_writing_it_opens_clean(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from binder_onprem.store import open_store
from tests.unit.parts import record, repo
async def main():
    async with open_store(sys.argv[1]) as store:
        for n in range(100000):
            await store.add(record(f"{n:016}", of=repo(f"o/r{n}")))
            print(n, flush=True)
asyncio.run(main())
"""
    url = f"sqlite+aiosqlite:///{tmp_path / 'x.sqlite'}"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, url, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdout
    for _ in range(50):
        await process.stdout.readline()
    process.kill()
    acknowledged = 50 + len((await process.stdout.read()).splitlines())
    await process.wait()
    async with open_store(url) as store:
        found = await store.builds(open_only=True)
    assert acknowledged <= len(found) <= acknowledged + 1
