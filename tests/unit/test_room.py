"""Places and the queue for them, in virtual time."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.config import Quota
from binder_onprem.errors import HubUnavailable, QuotaExceeded, RepositoryFull, StoreUnavailable
from binder_onprem.model import Session
from binder_onprem.quotas import Claim, Held, Limits, Turns, shortage
from binder_onprem.room import Room
from tests.unit.virtual import now, virtual

if TYPE_CHECKING:
    from collections.abc import Iterable

    from binder_onprem.events import Progress


def claim(launch: str, subject: str | None = None, repository: str = "r/x", **more: Any) -> Claim:
    return Claim(launch, repository, f"https://git.test/{repository}", subject=subject or launch, **more)


class Hub:
    """Sessions; `most` is the highest number there ever was."""

    def __init__(self) -> None:
        self.running: dict[str, Session] = {}
        self.slow = 0.0
        self.down = False
        self.most = 0

    def begin(self, of: Claim) -> None:
        self.running[of.launch_id] = Session(f"u-{of.launch_id}", True, 0.0, 0.0, f"{of.repository}@sha256:0", of.launch_id)  # noqa: FBT003
        self.most = max(self.most, len(self.running))

    async def sessions(self) -> list[Session]:
        found = list(self.running.values())
        await asyncio.sleep(self.slow)  # what is answered is what was there when it was asked
        if self.down:
            raise HubUnavailable("The hub does not answer.")
        return found


class Table:
    """Places that outlive a room."""

    def __init__(self) -> None:
        self.rows: dict[str, Held] = {}
        self.down = False

    async def places(self) -> list[Held]:
        await self._here()
        return list(self.rows.values())

    async def put(self, place: Held) -> None:
        await self._here()
        self.rows[place.claim.launch_id] = place

    async def drop(self, launch_ids: Iterable[str]) -> None:
        await self._here()
        for launch_id in launch_ids:
            self.rows.pop(launch_id, None)

    async def _here(self) -> None:
        await asyncio.sleep(0)
        if self.down:
            raise StoreUnavailable("The database does not answer.")


class Site:
    """A room, and launches that take their sessions in it."""

    def __init__(self, total: int = 2, *, user: int = 0, groups: dict[str, int] | None = None, **rules: Any) -> None:
        self.hub, self.table = Hub(), Table()
        self.limits = Limits(total, user, user, groups or {})
        self.rules = Quota(**({"when_full": "wait"} | rules))
        self.room = self.opened()
        self.started: list[str] = []

    def opened(self) -> Room:
        return Room(self.limits, self.rules, self.hub, self.table, now=now, monotonic=now)  # type: ignore[arg-type]

    def killed(self) -> None:
        """A new process."""
        if self.room._pump:
            self.room._pump.cancel()
        self.room = self.opened()

    async def launch(self, of: Claim, seconds: float = 1.0, said: list[Progress] | None = None) -> None:
        async with self.room.place(of) as waiting:
            async for event in waiting:
                (said if said is not None else []).append(event)
            self.started.append(of.launch_id)
            await asyncio.sleep(seconds)
            self.hub.begin(of)

    def watch(self, of: Claim, said: list[Progress] | None = None) -> asyncio.Task[None]:
        return asyncio.create_task(self.launch(of, said=said))

    def end(self, launch: str) -> None:
        del self.hub.running[launch]


async def left(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def test_what_stands_against_one_more() -> None:
    limits = Limits(3, user=1, address=2, groups={"students": 1})
    mine = claim("a", "user:ann", quota=1)
    assert shortage(mine, [], limits) is None
    words = [
        ([claim(str(n)) for n in range(3)], "Too many users on this BinderHub! Try again soon."),
        ([claim("b")], "Too many users running https://git.test/r/x! Try again soon."),
        ([claim("b", "user:ann", "r/y")], "You have 1 sessions here already, which is the most at once. End one, then try again."),
    ]
    for others, sentence in words:
        assert (found := shortage(mine, others, limits))
        assert found.message == sentence
    student = claim("a", "user:ann", groups=frozenset({"students"}))
    assert (found := shortage(student, [claim("b", "user:ben", "r/y", groups=frozenset({"students", "staff"}))], limits))
    assert found.message.startswith("The members of students have 1 sessions")
    nat = [claim(str(n), "192.0.2.1", "r/y") for n in range(2)]
    assert (found := shortage(claim("a", "192.0.2.1"), nat, limits))
    assert found.message.startswith("Your address has 2 sessions")
    assert shortage(replace(claim("a"), subject=None), [replace(other, subject=None) for other in nat], limits) is None


@virtual
async def test_full_is_refused_where_nobody_waits() -> None:
    site = Site(1, when_full="refuse")
    await site.launch(claim("a"))
    with pytest.raises(QuotaExceeded, match="Too many users on this BinderHub! Try again soon"):
        await site.room.check(claim("b"))
    with pytest.raises(QuotaExceeded, match="Too many users"):
        await site.launch(claim("b"))
    await site.room.check(claim("a"))
    await site.launch(claim("a"))
    assert site.started == ["a", "a"]
    assert not site.table.rows, "no write where nobody counts on it"


@virtual
@pytest.mark.parametrize("when_full", ["refuse", "wait"])
async def test_a_full_repository_is_told_from_a_full_site(when_full: str) -> None:
    site = Site(9, when_full=when_full, patience=5)
    await site.launch(claim("a", quota=1))
    if when_full == "refuse":
        with pytest.raises(RepositoryFull):
            await site.room.check(claim("b", quota=1))
    with pytest.raises(RepositoryFull):
        await site.launch(claim("b", quota=1))
    await site.launch(claim("c", repository="r/y", quota=1))


@virtual
@pytest.mark.parametrize("when_full", ["refuse", "wait"])
async def test_maintenance_is_no_room_at_all(when_full: str) -> None:
    site = Site(0, when_full=when_full)
    with pytest.raises(QuotaExceeded, match="Too many users on this BinderHub! Try again soon"):
        await site.room.check(claim("a"))
    with pytest.raises(QuotaExceeded, match="Too many users on this BinderHub! Try again soon"):
        await site.launch(claim("a"))
    assert not site.room.queue()


@virtual
async def test_who_waits_sees_the_place_and_gets_the_next_free_one() -> None:
    site = Site(1)
    await site.launch(claim("a"))
    said: list[Progress] = []
    second, third = site.watch(claim("b")), site.watch(claim("c"), said)
    await asyncio.sleep(5)
    assert [event.message for event in said] == ["Waiting for a free place on this BinderHub... (number 2 in the queue)\n"]
    assert said[0].data == {"position": 2, "waiting_for": "total"}
    assert said[0].number == 0
    assert [(row.position, row.launch_id, row.present) for row in site.room.queue()] == [(1, "b", True), (2, "c", True)]
    site.end("a")
    await second
    await asyncio.sleep(5)
    assert [event.data["position"] for event in said] == [2, 1]
    site.end("b")
    await third
    assert site.started == ["a", "b", "c"]
    assert site.hub.most == 1
    assert site.room.starting == frozenset()


@virtual
async def test_everybody_has_a_turn_however_many_launches_one_brings() -> None:
    site = Site(1)
    await site.launch(claim("0"))
    greedy = [site.watch(claim(f"g{n}", "greedy")) for n in range(5)]
    await asyncio.sleep(1)
    other = site.watch(claim("o", "other"))
    await asyncio.sleep(1)
    for _ in range(6):
        site.end(next(iter(site.hub.running)))
        await asyncio.sleep(6)
    await asyncio.gather(*greedy, other)
    assert site.started == ["0", "g0", "o", "g1", "g2", "g3", "g4"]


@virtual
async def test_a_full_repository_lets_others_by() -> None:
    site = Site(5)
    await site.launch(claim("a", quota=1))
    waiting, other = site.watch(claim("b", quota=1)), site.watch(claim("c", repository="r/y"))
    await other
    assert [row.waiting_for for row in site.room.queue()] == ["repository"]
    site.end("a")
    await waiting
    assert site.started == ["a", "c", "b"]


@virtual
async def test_waiting_ends() -> None:
    site = Site(1, patience=120)
    await site.launch(claim("a"))
    began = now()
    with pytest.raises(QuotaExceeded, match=r"No place became free in 2 min\. Too many users"):
        await site.launch(claim("b"))
    assert now() - began == pytest.approx(120, abs=1)
    assert not site.room.queue()
    await asyncio.sleep(10)
    assert set(site.table.rows) == {"a"}


@virtual
async def test_the_queue_is_bounded() -> None:
    site = Site(1, waiting=2)
    await site.launch(claim("a"))
    tasks = [site.watch(claim(name)) for name in "bc"]
    await asyncio.sleep(1)
    with pytest.raises(QuotaExceeded, match="2 launches wait for one already"):
        await site.room.check(claim("d"))
    with pytest.raises(QuotaExceeded, match="2 launches wait for one already"):
        await site.launch(claim("d"))
    await site.room.check(claim("b"))
    for task in tasks:
        await left(task)


@virtual
async def test_a_broken_connection_keeps_its_place_for_a_while() -> None:
    site = Site(1, grace=30)
    await site.launch(claim("a"))
    first, second = site.watch(claim("b")), site.watch(claim("c"))
    await asyncio.sleep(3)
    await left(first)
    assert [(row.launch_id, row.present) for row in site.room.queue()] == [("b", False), ("c", True)]
    site.end("a")
    await asyncio.sleep(10)
    assert site.started == ["a"], "the free place is kept for the one who is away for a moment"
    await site.launch(claim("b"))
    site.end("b")
    await second
    assert site.started == ["a", "b", "c"]


@virtual
async def test_a_viewer_who_stays_away_gives_the_place_up() -> None:
    site = Site(1, grace=30)
    await site.launch(claim("a"))
    first, second = site.watch(claim("b")), site.watch(claim("c"))
    await asyncio.sleep(3)
    await left(first)
    site.end("a")
    began = now()
    await second
    assert 28 <= now() - began <= 40
    assert "b" not in site.table.rows


@virtual
async def test_two_pages_of_one_launch_have_one_place() -> None:
    site = Site(1, grace=5)
    await site.launch(claim("a"))
    one, two = site.watch(claim("b")), site.watch(claim("b"))
    await asyncio.sleep(1)
    assert len(site.room.queue()) == 1
    await left(one)
    site.end("a")
    await two
    assert site.started == ["a", "b"]


@virtual
async def test_who_leaves_while_it_starts_keeps_the_place_for_the_grace() -> None:
    site = Site(1, grace=20)
    task = site.watch(claim("a"))
    await asyncio.sleep(0.5)
    assert site.room.starting == {"a"}
    await left(task)
    assert site.room.starting == frozenset()
    waiting = site.watch(claim("b"))
    await asyncio.sleep(10)
    assert site.started == ["a"]
    await waiting
    assert site.started == ["a", "b"]


@virtual
async def test_a_start_that_fails_frees_the_place_at_once() -> None:
    site = Site(1, when_full="refuse")

    async def failing() -> None:
        async with site.room.place(claim("a")) as waiting:
            async for _ in waiting:
                pass
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await failing()
    await site.launch(claim("b"))
    assert site.started == ["b"]


@virtual
async def test_a_launch_whose_session_is_gone_needs_room_anew() -> None:
    site = Site(1, when_full="refuse")
    await site.launch(claim("a"))
    site.end("a")
    await site.launch(claim("b"))
    with pytest.raises(QuotaExceeded):
        await site.launch(claim("a"))


@virtual
async def test_an_answer_that_was_asked_for_before_a_start_does_not_hide_it() -> None:
    site = Site(1, when_full="refuse")
    site.hub.slow = 3
    first = asyncio.create_task(site.launch(claim("a"), seconds=1))
    await asyncio.sleep(3.5)  # it starts; the next one asks the hub now, and hears nothing of it
    with pytest.raises(QuotaExceeded):
        await site.launch(claim("b"))
    await first
    assert site.hub.most == 1


@virtual
async def test_order_and_owners_survive_a_restart() -> None:
    site = Site(1, user=1)
    await site.launch(claim("a", "user:ann"))
    tasks = [site.watch(claim(name, f"user:{name}")) for name in "bcd"]
    await asyncio.sleep(5)
    for task in tasks:
        await left(task)
    site.killed()
    # Everybody comes back, in another order.
    newcomer = site.watch(claim("n", "user:n"))
    again = [site.watch(claim(name, f"user:{name}")) for name in "dcb"]
    await asyncio.sleep(3)
    assert [row.launch_id for row in site.room.queue()] == ["b", "c", "d", "n"]
    for _ in range(4):
        site.end(next(iter(site.hub.running)))
        await asyncio.sleep(6)
    await asyncio.gather(newcomer, *again)
    assert site.started == ["a", "b", "c", "d", "n"]


@virtual
async def test_whose_the_sessions_are_is_known_after_a_restart() -> None:
    site = Site(9, user=1, when_full="refuse")
    await site.launch(claim("a", "user:ann"))
    await asyncio.sleep(100)
    site.killed()
    with pytest.raises(QuotaExceeded, match="You have 1 sessions"):
        await site.launch(claim("b", "user:ann"))
    await site.launch(claim("c", "user:ben"))
    site.end("a")
    await site.launch(claim("b", "user:ann"))
    await asyncio.sleep(10)
    assert set(site.table.rows) == {"b", "c"}


@virtual
async def test_the_hub_away_for_a_while_loses_nobody() -> None:
    site = Site(1)
    await site.launch(claim("a"))
    waiting = site.watch(claim("b"))
    await asyncio.sleep(3)
    site.hub.down = True
    await asyncio.sleep(100)
    assert not waiting.done()
    site.end("a")
    site.hub.down = False
    await waiting
    site.hub.down = True
    with pytest.raises(HubUnavailable):
        await site.launch(claim("c"))


@virtual
async def test_the_database_down_is_said() -> None:
    site = Site(1)
    site.table.down = True
    with pytest.raises(StoreUnavailable):
        await site.launch(claim("a"))
    site.table.down = False
    await site.launch(claim("a"))
    site.end("a")
    site.table.down = True
    site.room._gone.add("a")
    await site.room._look()


def test_every_ticket_is_served_whoever_comes() -> None:
    for seed in range(30):
        chance = random.Random(seed)  # noqa: S311 - schedules
        turns, queue, number, overtaken = Turns(), [(0.0, -1)], 0, 0
        turns.due["old"] = 5.0
        queue = [(turns.tag("old"), -1)]
        while (0, -1) in [(0, n) for _, n in queue]:
            for _ in range(chance.randint(1, 2)):
                queue.append((turns.tag(f"new{number}"), number))
                number += 1
            queue.sort()
            queue.pop(0)
            turns.served(min(len(queue) + 1, 100))
            overtaken += 1
            assert overtaken < 5000, "somebody waits for ever"


@virtual
async def test_random_schedules_keep_every_promise() -> None:
    for seed in range(25):
        await _schedule(random.Random(seed))  # noqa: S311 - schedules


async def _schedule(chance: random.Random) -> None:
    total, each = chance.randint(1, 4), chance.choice([0, 1, 2])
    site = Site(total, user=each, grace=20, patience=100_000)
    site.hub.slow = chance.choice([0.0, 0.3, 2.5])
    quota = {"r/0": 0, "r/1": 1, "r/2": 2}
    of_repository = [f"r/{chance.randint(0, 2)}" for _ in range(25)]
    claims = [claim(f"{n}", f"user:{chance.randint(0, 3)}", name, quota=quota[name]) for n, name in enumerate(of_repository)]

    async def visit(of: Claim) -> None:
        await asyncio.sleep(chance.uniform(0, 60))
        while chance.random() < 0.4 and of.launch_id not in site.hub.running:  # a connection that breaks, and comes back in time
            task = asyncio.create_task(site.launch(of, seconds=chance.uniform(0, 3)))
            await asyncio.wait({task}, timeout=chance.uniform(0, 20))
            if task.done():
                break
            await left(task)
            await asyncio.sleep(chance.uniform(0, 8))
        if of.launch_id not in site.hub.running:
            await site.launch(of, seconds=chance.uniform(0, 3))
        check(of)
        await asyncio.sleep(chance.uniform(1, 30))
        site.end(of.launch_id)

    def check(of: Claim) -> None:
        running = [other for other in claims if other.launch_id in site.hub.running]
        assert len(running) <= total
        assert not each or sum(other.subject == of.subject for other in running) <= each
        assert not of.quota or sum(other.repository == of.repository for other in running) <= of.quota

    async with asyncio.timeout(50_000):  # nobody starves
        await asyncio.gather(*(visit(of) for of in claims))
    assert site.hub.most <= total
    assert not site.room.queue()
    assert site.room.starting == frozenset()


@virtual
async def test_what_is_told_stops_when_the_viewer_goes() -> None:
    site = Site(1)
    await site.launch(claim("a"))

    async def events() -> Any:
        async with site.room.place(claim("b")) as waiting:
            async for event in waiting:
                yield event

    async with aclosing(events()) as told:
        async for _ in told:
            break
    assert [row.present for row in site.room.queue()] == [False]
