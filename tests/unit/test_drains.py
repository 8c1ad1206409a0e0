"""Whose machine is maintained: what is known of it, told, and said of the end."""

from __future__ import annotations

import asyncio

import pytest

from binder_onprem import config
from binder_onprem.drains import EVERY, LATE, SECONDS, SKEW, Drains, known
from binder_onprem.errors import EngineUnavailable
from binder_onprem.kube.pods import moment
from binder_onprem.reaper import Reaped, Reaper, Reason
from tests.unit.parts import Jupyter
from tests.unit.test_reaper import Clock, session
from tests.unit.virtual import now, virtual


class Cluster:
    """Says what it is told to, or does not answer."""

    def __init__(self, **found: float | None) -> None:
        self.found = found
        self.asked, self.down, self.takes = 0, False, 0.0

    async def drains(self) -> dict[str, float | None]:
        self.asked += 1
        await asyncio.sleep(self.takes)
        if self.down:
            raise EngineUnavailable("down")
        return dict(self.found)


def test_what_is_known() -> None:
    assert known({}, {"a": 500.0, "b": None}, 100.0) == {"a": 500.0}
    assert known({"a": 500.0, "gone": 600.0}, {"a": None}, 100.0) == {"gone": 600.0}, "called off; its pod is gone, not its drain"
    assert known({"a": 500.0}, {"a": 700.0}, 100.0) == {"a": 700.0}
    assert known({"a": 500.0}, {"a": 500.0}, 500.0 + LATE) == {"a": 500.0}
    assert known({"a": 500.0}, {"a": 500.0}, 501.0 + LATE) == {}, "one that was broken off holds no longer"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-01T00:00:00Z", 1767225600.0),
        ("2026-01-01T01:00:00+01:00", 1767225600.0),
        ("2026-01-01T00:00:00", 1767225600.0),
        ("soon", None),
        ("", None),
    ],
)
def test_an_annotation_is_a_moment_or_nothing(text: str, seconds: float | None) -> None:
    assert moment(text) == seconds


@virtual
async def test_a_drain_is_known_until_it_is_called_off_and_by_one_look_for_all() -> None:
    clock = Clock()
    until = clock() + 3600
    cluster = Cluster(u=until, other=None)
    drains, one = Drains(cluster, wall=clock, now=now), session("u")
    assert await asyncio.gather(*(drains.until(one) for _ in range(20))) == [until] * 20
    assert (cluster.asked, await drains.until(session("other")), await drains.until(session("x", launch_id=None))) == (1, None, None)
    await asyncio.sleep(EVERY)
    assert (await drains.left(one), cluster.asked) == (3600 - EVERY, 2)
    cluster.found["u"] = None
    await asyncio.sleep(EVERY)
    assert await drains.until(one) is None


@virtual
async def test_a_cluster_that_does_not_answer_calls_nothing_off_and_keeps_no_page_waiting() -> None:
    clock = Clock()
    until = clock() + 3600
    cluster, one = Cluster(u=until), session("u")
    drains, another = Drains(cluster, wall=clock, now=now), Drains(cluster, wall=clock, now=now)
    assert await drains.until(one) == until
    cluster.down = True
    await asyncio.sleep(600)
    assert await drains.left(one) == 3000
    cluster.down, cluster.takes = False, 1000.0
    await asyncio.sleep(EVERY)
    began = now()
    assert await asyncio.gather(*(drains.until(one) for _ in range(20))) == [until] * 20
    assert now() - began <= SECONDS
    assert await another.until(one) is None
    cluster.takes = 0.0
    await asyncio.sleep(EVERY)
    assert await another.until(one) == until, "a process that has begun anew is told the same"


@virtual
@pytest.mark.parametrize(
    ("seconds", "reason"), [(SKEW + 120, Reason.GONE), (SKEW - 1, Reason.MAINTENANCE), (0, Reason.MAINTENANCE), (-LATE - 1, Reason.GONE)]
)
async def test_the_end_by_a_drain_has_its_name(seconds: float, reason: Reason) -> None:
    hub, clock = Jupyter(), Clock()
    hub.users["u"] = session("u", started=clock(), last_activity=clock())
    cluster = Cluster(u=clock() + 30 + seconds)
    reaper = Reaper(hub, hub, config.Session(), drains=Drains(cluster, wall=clock, now=now), wall=clock, now=now)
    assert await reaper.reap() == ()
    await asyncio.sleep(30)
    del cluster.found["u"]
    hub.users["u"] = session("u", server=False, ready=False)
    assert await reaper.reap() == (Reaped("u", reason, stopped=True),)
