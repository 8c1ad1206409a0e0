"""Events: their schemas, their file, what they hide."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.config import Config
from binder_onprem.errors import BuildFailed, StoreUnavailable
from binder_onprem.journal import LAUNCH, Journal, capsule, validators
from binder_onprem.model import BuildRecord, BuildState, Session
from binder_onprem.ruling import Entry
from tests.unit.parts import DIGEST, House, image, record, repo, request
from tests.unit.test_launch import run
from tests.unit.virtual import virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path


class Box:
    def __init__(self) -> None:
        self.letters: list[tuple[str, dict[str, Any]]] = []
        self.full = self.down = False

    async def add(self, receivers: Sequence[str], body: str, now: float, most: int, of: BuildRecord | None = None) -> bool:
        assert now
        assert (json.loads(body).get("build"), bool(of)) == (of.id if of else None, of is not None)
        assert most
        if self.down:
            raise StoreUnavailable("The database does not answer.")
        self.letters += [(receiver, json.loads(body)) for receiver in receivers if not self.full]
        return not self.full


BOOKS: list[Journal] = []


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    while BOOKS:
        await BOOKS.pop().close()


def opened(book: Journal) -> Journal:
    BOOKS.append(book)
    return book


def journal(home: Path, box: Box | None = None, **rules: Any) -> Journal:
    events = Config.model_validate({"home": home, "events": {"file": home / "events" / "events.jsonl"} | rules}).events
    return opened(Journal(events, {"gh": "GitHub"}, box or Box(), time.time))


def lines(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home / "events" / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_schema_is_one() -> None:
    for schema, (version, validator) in validators().items():
        assert isinstance(version, int)
        assert schema == LAUNCH or schema.startswith("binder-onprem/")
        validator.check_schema(validator.schema)
    assert validators()[LAUNCH][0] == 6


def test_what_the_schema_does_not_know_is_no_event() -> None:
    with pytest.raises(ValueError, match="status"):
        capsule(LAUNCH, {"provider": "GitHub", "spec": "a/b/c"}, 0)
    with pytest.raises(ValueError, match="GitHubX"):
        capsule(LAUNCH, {"provider": "GitHubX", "spec": "a/b/c", "status": "success"}, 0)
    event = capsule(LAUNCH, {"provider": "GitHub", "spec": "a/b/c", "status": "success"}, 0)
    assert list(event)[:3] == ["timestamp", "schema", "version"]
    assert event["timestamp"] == "1970-01-01T00:00:00.000000Z"


@virtual
async def test_a_launch_and_its_build_are_told(tmp_path: Path) -> None:
    house = House(tmp_path, events={"file": tmp_path / "events" / "events.jsonl"})
    house.outbox = Box()
    house.listen()
    assert house.journal
    opened(house.journal)
    await house.up()
    await run(house, replace(request(), origin="pages.example:8443"))
    house.builder.fails = [BuildFailed("No such package.")]
    with pytest.raises(BuildFailed):
        await run(house, request("other/repo/HEAD", "2" * 32))
    await house.down()
    told = lines(tmp_path)
    names = [(event["schema"].rpartition("/")[2], event.get("state") or event.get("code") or event.get("status")) for event in told]
    assert names == [
        *(("build", state) for state in ("queued", "running", "built")),
        ("launch", "success"),
        ("spawn", None),
        *(("build", state) for state in ("queued", "running", "failed")),
        ("launch-failure", "build"),
    ]
    launch = told[3]
    assert {key: launch[key] for key in ("schema", "version", "provider", "spec", "ref", "status", "origin", "request_origin")} == {
        "schema": LAUNCH,
        "version": 6,
        "provider": "GitHub",
        "spec": "owner/repo/HEAD",
        "ref": "a" * 40,
        "status": "success",
        "origin": "binder.test",
        "request_origin": "pages.example:8443",
    }
    assert told[4]["image"] == image().at(DIGEST)


class Slow(Box):
    """An outbox that takes the longer the earlier it is asked; `began` and what arrived are in the order in which they came."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    async def add(self, receivers: Sequence[str], body: str, now: float, most: int, of: BuildRecord | None = None) -> bool:
        self.seconds /= 2
        await asyncio.sleep(self.seconds)
        return await super().add(receivers, body, now, most, of)

    def states(self, build: str | None = None) -> list[str]:
        return [event["state"] for _, event in self.letters if event["schema"] == "binder-onprem/build" and build in (None, event["build"])]


def listening(home: Path, box: Box) -> House:
    hook = {"url": "https://a.example/", "secret_file": "/x"}
    house = House(home, events={"file": home / "events" / "events.jsonl", "webhooks": {"all": hook}}, build={"concurrency": 2})
    house.outbox = box
    house.listen()
    assert house.journal
    opened(house.journal)
    return house


def written(home: Path) -> list[str]:
    return [event["state"] for event in lines(home) if event["schema"] == "binder-onprem/build"]


@virtual
async def test_what_happens_to_a_build_is_told_in_that_order_however_long_telling_takes(tmp_path: Path) -> None:
    box = Slow(seconds=60)
    house = listening(tmp_path, box)
    house.builder.pace = house.builder.lines = 0
    await house.up()
    first, second = await asyncio.gather(*(house.builds.start(image(one), one, client=one.commit) for one in (repo(), repo("other/repo"))))
    while house.builds.places():  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(1)
    await house.down()
    for build in (first, second):
        assert box.states(build.id) == ["queued", "running", "built"]
    assert written(tmp_path) == box.states()


@virtual
async def test_a_build_starts_when_it_was_told_as_queued_and_is_seen_before(tmp_path: Path) -> None:
    # Killed in between, the next process would tell that it runs, and nobody had heard of it.
    box = Slow(seconds=60)
    house = listening(tmp_path, box)
    await house.up()
    starting = asyncio.create_task(house.builds.start(image(), repo(), client="x"))
    await asyncio.sleep(10)
    assert [build.state for build, _ in house.builds.places()] == [BuildState.QUEUED]
    assert box.letters == []
    await starting
    await asyncio.sleep(0.1)
    assert [build.state for build, _ in house.builds.places()] == [BuildState.RUNNING]
    await house.down()


@virtual
async def test_a_build_that_nobody_lets_begin_is_told_queued_and_then_cancelled(tmp_path: Path) -> None:
    box = Slow(seconds=60)
    house = listening(tmp_path, box)
    house.paused = True
    await house.up()
    starting = asyncio.create_task(house.builds.start(image(), repo(), client="x"))
    while not house.builds.places():  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0)
    await house.builds.cancel(house.builds.places()[0][0].id, "the administrator")
    await starting
    await house.down()
    assert box.states() == written(tmp_path) == ["queued", "cancelled"]


async def test_who_leaves_while_it_is_told_takes_nothing_away(tmp_path: Path) -> None:
    box = Slow(seconds=0.2)
    book = journal(tmp_path, box, webhooks={"all": {"url": "https://a.example/", "secret_file": "/x"}})
    telling = asyncio.create_task(book.built(record("1" * 16)))
    await asyncio.sleep(0.05)
    telling.cancel()
    await book.built(record("2" * 16))
    assert [event["build"][0] for _, event in box.letters] == ["1", "2"] == [event["build"][0] for event in lines(tmp_path)]


async def test_private_repositories_have_no_name(tmp_path: Path) -> None:
    book = journal(tmp_path, private=["gh/owner/"])
    await book.built(record("1" * 16))
    await book.culled(Session("owner-repo-0123", True, 1.0, 1.0, image().at(DIGEST), "0123"), "idle")  # noqa: FBT003
    await book.built(replace(record("2" * 16), state=BuildState.PUSHING))
    text = (tmp_path / "events" / "events.jsonl").read_text(encoding="utf-8")
    assert "owner" not in text
    assert lines(tmp_path)[0]["spec"].startswith("private-")
    assert [event["schema"] for event in lines(tmp_path)] == ["binder-onprem/build", "binder-onprem/cull"]


async def test_the_files_are_bounded(tmp_path: Path) -> None:
    book = journal(tmp_path, size="4KiB", keep=2)
    for number in range(200):
        await book.ordered(Entry(0.0, f"admin-{number}", "local", "images.delete", "x" * 50))
    files = sorted(path.name for path in (tmp_path / "events").iterdir())
    assert files == ["events.jsonl", "events.jsonl.1", "events.jsonl.2"]
    assert all(path.stat().st_size <= 5000 for path in (tmp_path / "events").iterdir())
    assert lines(tmp_path)[-1]["who"] == "admin-199"


async def test_each_receiver_gets_what_it_asked_for(tmp_path: Path) -> None:
    box = Box()
    hook = {"url": "https://a.example/", "secret_file": "/x"}
    book = journal(tmp_path, box, webhooks={"all": hook, "builds": hook | {"events": ["binder-onprem/build"]}})
    await book.built(record("1" * 16))
    await book.ordered(Entry(0.0, "ann", "local", "x", "y"))
    assert [(name, event["schema"]) for name, event in box.letters] == [
        ("all", "binder-onprem/build"),
        ("builds", "binder-onprem/build"),
        ("all", "binder-onprem/admin"),
    ]


async def test_nothing_that_fails_reaches_the_one_who_tells(tmp_path: Path) -> None:
    box = Box()
    book = journal(tmp_path, box, webhooks={"all": {"url": "https://a.example/", "secret_file": "/x"}})
    box.full = True
    await book.built(record("1" * 16))
    box.down = True
    await book.built(record("1" * 16))
    await book.tell("binder-onprem/nothing", {})
    await book.tell("binder-onprem/cull", {"nonsense": 1})
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    book = opened(Journal(Config.model_validate({"events": {"file": blocked / "x"}}).events, {}, box, time.time))
    await book.built(record("1" * 16))
    silent = Journal(Config().events, {}, box, time.time)
    await silent.built(record("1" * 16))
    assert not silent.listening
    assert len(lines(tmp_path)) == 2
    assert [path.name for path in (tmp_path / "events").iterdir()] == ["events.jsonl"]
