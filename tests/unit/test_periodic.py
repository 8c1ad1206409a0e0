from __future__ import annotations

import asyncio
import logging
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from binder_onprem.errors import HubUnavailable
from binder_onprem.periodic import periodic
from tests.unit.virtual import now, virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def starts(work: Callable[[], Awaitable[None]], seconds: float, interval: float = 10.0, **more: float) -> list[float]:
    began = now()
    times: list[float] = []

    async def noted() -> None:
        times.append(now() - began)
        await work()

    task = asyncio.create_task(periodic("work", interval, noted, **more))  # type: ignore[arg-type]
    await asyncio.sleep(seconds)
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    return times


async def nothing() -> None:
    pass


def gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


@virtual
async def test_from_start_to_start_with_some_jitter() -> None:
    times = await starts(lambda: asyncio.sleep(4), 1000)
    assert all(9 <= gap <= 11 for gap in [times[0], *gaps(times)])
    assert len({round(gap, 6) for gap in gaps(times)}) > 10


@virtual
async def test_at_once() -> None:
    assert (await starts(nothing, 5, at_once=True)) == [0.0]


@virtual
@pytest.mark.parametrize("error", [HubUnavailable("down"), ZeroDivisionError(), TimeoutError()])
async def test_errors_are_logged_and_pauses_grow_until_it_works(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    broken = True

    async def work() -> None:
        if broken:
            raise error

    times = await starts(work, 600)
    assert gaps(times)[:3] == [pytest.approx(20, rel=0.11), pytest.approx(40, rel=0.11), pytest.approx(80, rel=0.11)]
    assert all(gap <= 111 for gap in gaps(times))
    assert len(caplog.records) == len(times)
    broken = False
    assert all(gap <= 11 for gap in gaps(await starts(work, 100)))


@virtual
async def test_overrun_and_limit_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    told: list[tuple[str, bool, float]] = []
    task = asyncio.create_task(periodic("slow", 10, lambda: asyncio.sleep(25), limit=30, done=lambda *facts: told.append(facts)))
    await asyncio.sleep(90)
    task.cancel()
    await asyncio.wait({task})
    assert told[0] == ("slow", True, pytest.approx(25))
    assert "overrun" in caplog.messages
    assert len(await starts(lambda: asyncio.sleep(1000), 100, limit=30)) in (2, 3)
    assert "work took too long" in caplog.messages
