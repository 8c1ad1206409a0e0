"""Really killed: a process with builds, database and logs gets SIGKILL at a random moment, again and again."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.builds import Builds
from binder_onprem.config import Config
from binder_onprem.errors import StoreUnavailable
from binder_onprem.events import Phase
from binder_onprem.journal import Journal
from binder_onprem.model import BuildRecord, BuildState
from binder_onprem.store import SqlOutbox, SqlStore, open_engine, open_store, opened
from binder_onprem.telling import TERMINAL
from tests.unit.parts import DIGEST, image, repo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LINES = 200
ORDER = ("queued", "running", "built", "failed")


class Quick:
    """Writes lines as fast as it is let."""

    async def build(self, build: BuildRecord, log, pushing) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001
        for number in range(LINES):
            await log.write(Phase.BUILDING, f"{build.attempt}: {number}\n")
            await asyncio.sleep(0.001)
        await pushing()
        await asyncio.sleep(0.05)
        return DIGEST

    async def sweep(self, running: frozenset[str]) -> None:
        pass


@asynccontextmanager
async def telling(home: Path) -> AsyncIterator[tuple[SqlStore, Builds]]:
    """Builds whose events go to a file and to a receiver who never answers."""
    hook = {"url": "https://x.example/", "secret_file": home / "x"}
    config = Config.model_validate({"home": home, "events": {"file": home / "events.jsonl", "webhooks": {"x": hook}}})
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_engine(f"sqlite+aiosqlite:///{home / 'x.sqlite'}"))
        store = await stack.enter_async_context(opened(SqlStore, engine))
        journal = Journal(config.events, {}, await stack.enter_async_context(opened(SqlOutbox, engine)), time.time)
        store.telling = journal.listening
        stack.push_async_callback(journal.close)
        yield store, Builds(config, store, Quick(), told=journal.built)


async def told(home: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The events in the file, and those that wait for the receiver."""
    async with open_engine(f"sqlite+aiosqlite:///{home / 'x.sqlite'}") as engine, opened(SqlOutbox, engine) as outbox:
        sent = [json.loads(letter.body) for letter in await outbox.waiting("x", 1000)]
    return [json.loads(line) for line in (home / "events.jsonl").read_text(encoding="utf-8").splitlines()], sent


async def serve(home: Path) -> None:
    """What is killed: clicks at those of three images that nobody's click is recorded for, then waiting."""
    async with telling(home) as (store, builds):
        await builds.resume()
        running = asyncio.create_task(builds.run())
        recorded = {record.image for record in await store.builds()}
        for of in [repo(f"o/r{n}") for n in range(3)]:
            if image(of) not in recorded:
                asyncio.create_task(drain(builds, of)).add_done_callback(lambda task: task.cancelled() or task.exception())
        sys.stdout.write("up\n")
        sys.stdout.flush()
        await running


async def drain(builds: Builds, of) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    async for _ in builds.follow(image(of), of):
        pass


async def test_killed_again_and_again(tmp_path: Path) -> None:
    chance = random.Random(3)  # noqa: S311 - the same every time
    recorded, killed = 0, 0
    # A kill may come before its own clicks are recorded: whoever clicked does so again.
    while killed < 4 or recorded < 3:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.unit.test_killed", str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert process.stdout
        assert await process.stdout.readline() == b"up\n"
        await asyncio.sleep(chance.uniform(0.0, 0.3) * (1 + killed / 4))
        process.kill()
        await process.wait()
        async with open_store(f"sqlite+aiosqlite:///{tmp_path / 'x.sqlite'}") as store:
            before, recorded, killed = recorded, len(await store.builds()), killed + 1
        assert before <= recorded <= 3
    async with telling(tmp_path) as (store, builds):
        await builds.resume()
        running = asyncio.create_task(builds.run())
        async with asyncio.timeout(30):
            while await store.builds(open_only=True):  # noqa: ASYNC110 - another way would be another program
                await asyncio.sleep(0.05)
        records = await store.builds()
        assert len(records) == 3
        for record in records:
            numbers = [event.number async for event in builds.replay(record.id)]
            assert numbers == list(range(1, len(numbers) + 1))
            assert (record.state, record.error) in ((BuildState.BUILT, None), (BuildState.FAILED, "interrupted"))
            assert record.attempt <= 2
            lines = (tmp_path / "logs/builds" / f"{record.id}.jsonl").read_text().splitlines()
            # A process killed between a build's end and the log's last line has left that to whoever reads it.
            whole = Phase(json.loads(lines[-1])["phase"]) in TERMINAL
            assert [json.loads(line)["n"] for line in lines] == (numbers if whole else numbers[:-1])
        running.cancel()
        await asyncio.wait({running})
    for events in await told(tmp_path):
        for record in records:
            seen = [(event["attempt"], ORDER.index(event["state"])) for event in events if event["build"] == record.id]
            assert seen == sorted(set(seen)), "as it happened, each once"
            assert (seen[0], seen[-1]) == ((1, 0), (record.attempt, ORDER.index(record.state.value)))


@pytest.mark.parametrize("before", ["anything", "the outbox"])
async def test_what_was_recorded_and_not_told_before_the_kill_is_told_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    """The process ends between a build's state and its event, and between the event in the file and that in the outbox."""
    of = repo()
    async with telling(tmp_path) as (store, builds):
        record = await builds.start(image(of), of, client="x")
        after = replace(record, state=BuildState.RUNNING, started=2.0)
        assert await store.move(record, after)
        with monkeypatch.context() as killed:
            if before == "the outbox":
                killed.setattr(SqlOutbox, "add", down)
                await builds._attempt.told(after)
    async with telling(tmp_path) as (store, builds):
        await builds.resume()
        assert await store.untold() == []
    for events in await told(tmp_path):
        assert [(event["state"], event["attempt"]) for event in events] == [("queued", 1), ("running", 1), ("queued", 2)]


async def down(*_: object) -> bool:
    raise StoreUnavailable("Killed.")


async def test_nobody_hears_of_what_ended_before_anybody_listened(tmp_path: Path) -> None:
    of = repo()
    async with open_store(f"sqlite+aiosqlite:///{tmp_path / 'x.sqlite'}") as store:
        await Builds(Config(home=tmp_path), store, Quick()).start(image(of), of, client="x")
    async with telling(tmp_path) as (store, _):
        assert await store.untold() == []


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
