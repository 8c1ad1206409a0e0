from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from binder_onprem import config
from binder_onprem.ends import Ends
from binder_onprem.errors import HubUnavailable
from binder_onprem.model import Session
from binder_onprem.reaper import Reaped, Reaper, Reason, Seen, observe, overdue
from tests.unit.parts import Jupyter
from tests.unit.virtual import now, virtual

LIMITS = config.Session(idle=900, age=6 * 3600, start_timeout=60)
WALL = 1_700_000_000.0


def session(user: str = "u", **fields: Any) -> Session:
    return Session(**({"name": user, "ready": True, "started": WALL, "last_activity": WALL, "launch_id": user} | fields))


@pytest.mark.parametrize(
    ("found", "seen", "reason"),
    [
        (session(), Seen(9_000, 9_100, None, WALL), None),
        (session(), Seen(9_000, 9_099, None, WALL), Reason.IDLE),
        (session(), Seen(-11_600, 9_999, None, WALL), None),
        (session(), Seen(-11_601, 9_999, None, WALL), Reason.AGE),
        (session(ready=False), Seen(9_000, 9_000, 9_820, None), None),
        (session(ready=False), Seen(9_000, 9_000, 9_819, None), Reason.START),
        (session(server=False), Seen(0, 0, 0, None), None),
        (session(server=False), Seen(9_000, 9_000, 9_999, None, served=True), Reason.GONE),
    ],
)
def test_overdue(found: Session, seen: Seen, reason: Reason | None) -> None:
    assert overdue(found, seen, 10_000, LIMITS) is reason


def test_first_sight_believes_wall_clocks_little() -> None:
    # Watching began at 5000 on a machine that is up for 6000 s; the wall clock says the session is idle for a day.
    seen = observe(None, session(started=WALL - 86_400, last_activity=WALL - 86_400), WALL, 6_000, 5_000)
    assert seen == Seen(born=0, active=5_000, waiting=None, last_activity=WALL - 86_400, served=True)
    future = observe(None, session(started=WALL + 3600, last_activity=WALL + 3600), WALL, 6_000, 5_000)
    assert (future.born, future.active) == (6_000, 6_000)
    starting = observe(None, session(ready=False, started=None, last_activity=None), WALL, 6_000, 5_000)
    assert starting == Seen(6_000, 6_000, 6_000, None)
    assert observe(None, session(last_activity=None, started=WALL - 100), WALL, 6_000, 5_000).active == 5_900


def test_any_change_is_activity_and_waiting_ends_with_the_answer() -> None:
    seen = Seen(0, 0, 50, WALL)
    assert observe(seen, session(), WALL, 100, 0) == Seen(0, 0, None, WALL, served=True)
    assert observe(seen, session(last_activity=WALL - 3600), WALL, 100, 0).active == 100
    assert observe(seen, session(ready=False), WALL, 100, 0).waiting == 50
    assert observe(replace(seen, served=True), session(ready=False, server=False), WALL, 100, 0).served
    assert observe(replace(seen, waiting=None), session(ready=False), WALL, 100, 0).waiting == 100


class Clock:
    offset = 0.0

    def __call__(self) -> float:
        return WALL + now() + self.offset


def house(*users: str, **fields: Any) -> tuple[Jupyter, Reaper, Clock]:
    hub, clock = Jupyter(), Clock()
    for user in users:
        hub.users[user] = session(user, **({"started": clock(), "last_activity": clock()} | fields))
    return hub, Reaper(hub, hub, LIMITS, wall=clock, now=now), clock


@virtual
async def test_idle_sessions_end_and_busy_ones_do_not() -> None:
    hub, reaper, _ = house("idle", "busy", "held")
    hub.busy_users = {"busy"}
    assert await reaper.reap() == ()
    await asyncio.sleep(901)
    assert {reaped.name for reaped in await reaper.reap(dry_run=True)} == {"idle", "held"}
    assert {reaped.name for reaped in await reaper.reap(held=lambda: frozenset({"held"}), dry_run=True)} == {"idle"}
    assert not hub.stopped
    done = await reaper.reap(held=lambda: frozenset({"held"}))
    assert set(done) == {
        Reaped("idle", Reason.IDLE, stopped=True),
        Reaped("held", Reason.IDLE, stopped=False),
    }
    assert hub.stopped == ["idle"]
    hub.busy_users = set()
    await asyncio.sleep(800)
    assert [reaped.name for reaped in await reaper.reap()] == ["held"]
    await asyncio.sleep(200)
    assert [reaped.name for reaped in await reaper.reap()] == ["busy"]


@virtual
@pytest.mark.parametrize("jump", [3600, -3600, 40 * 86_400])
async def test_a_jump_of_the_clock_ends_nothing(jump: float) -> None:
    hub, reaper, clock = house(*(f"u{n}" for n in range(10)))
    await reaper.reap()
    await asyncio.sleep(60)
    clock.offset = jump
    assert await reaper.reap() == ()
    await asyncio.sleep(60)
    hub.users["u0"] = replace(hub.users["u0"], last_activity=clock())
    assert await reaper.reap() == ()
    await asyncio.sleep(800)
    assert {reaped.name for reaped in await reaper.reap()} == {f"u{n}" for n in range(1, 10)}


@virtual
async def test_just_restarted_after_a_jump_ends_nothing() -> None:
    hub, _, clock = house("a")
    clock.offset = 3600
    assert await Reaper(hub, hub, LIMITS, wall=clock, now=now).reap() == ()


@virtual
async def test_what_fails_is_tried_again() -> None:
    hub, reaper, _ = house("a")
    await reaper.reap()
    await asyncio.sleep(1000)
    hub.stop_error = HubUnavailable("down")
    assert await reaper.reap() == (Reaped("a", Reason.IDLE, stopped=False),)
    hub.stop_error = None
    assert await reaper.reap() == (Reaped("a", Reason.IDLE, stopped=True),)


@virtual
async def test_a_session_that_does_not_say_is_left_alone_for_now_and_nothing_hangs() -> None:
    hub, reaper, _ = house("a")
    await reaper.reap()
    await asyncio.sleep(1000)
    hub.busy = lambda _: asyncio.sleep(10_000)  # type: ignore[method-assign,assignment,return-value]
    began = now()
    assert await reaper.reap() == (Reaped("a", Reason.IDLE, stopped=False),)
    assert now() - began <= 11


@virtual
async def test_two_passes_at_once_stop_once() -> None:
    hub, reaper, _ = house("a")
    await reaper.reap()
    await asyncio.sleep(1000)
    await asyncio.gather(reaper.reap(), reaper.reap())
    assert hub.stopped == ["a"]


@virtual
async def test_a_session_that_came_back_to_life_while_it_was_asked() -> None:
    hub, reaper, _ = house("a")
    await reaper.reap()
    await asyncio.sleep(1000)
    held: set[str] = set()

    async def ask(_: str) -> bool:
        held.add("a")  # the click comes now
        return False

    hub.busy = ask  # type: ignore[method-assign]
    assert await reaper.reap(held=lambda: frozenset(held)) == (Reaped("a", Reason.IDLE, stopped=False),)
    assert not hub.stopped


@virtual
async def test_files_are_kept_before_the_end_and_who_comes_back_meanwhile_stays() -> None:
    hub, _, clock = house("gone", "back")
    kept: list[str] = []

    async def keep(session: Session) -> None:
        kept.append(session.name)
        assert session.name in hub.users
        await asyncio.sleep(5)
        if session.name == "back":
            reaper.used(session)

    reaper = Reaper(hub, hub, LIMITS, ends=Ends(hub, keep=keep), wall=clock, now=now)
    await reaper.reap()
    await asyncio.sleep(901)
    assert set(await reaper.reap()) == {Reaped("gone", Reason.IDLE, stopped=True), Reaped("back", Reason.IDLE, stopped=False)}
    assert (sorted(kept), hub.stopped) == (["back", "gone"], ["gone"])


@virtual
async def test_the_end_is_foreseen() -> None:
    hub, reaper, clock = house("u")
    found = await reaper.find("u")
    assert found
    assert reaper.foresee(found) == (Reason.IDLE, 900)
    await asyncio.sleep(100)
    assert reaper.foresee(found) == (Reason.IDLE, 800)
    assert reaper.foresee(replace(found, last_activity=clock())) == (Reason.IDLE, 900)
    assert reaper.foresee(replace(found, idle=7000, age=300)) == (Reason.AGE, 200)
    assert reaper.foresee(replace(found, ready=False)) is None
    hub.users.clear()
    assert await reaper.find("other") is None
