"""Launches counted in windows that outlive a restart."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from binder_onprem.errors import StoreUnavailable
from binder_onprem.rates import Hit, Rates
from tests.unit.virtual import now, virtual

if TYPE_CHECKING:
    from collections.abc import Sequence


MOMENT = [0.0]
"""When the last launch was counted."""


class Table:
    def __init__(self) -> None:
        self.rows: dict[str, Hit] = {}
        self.writes = 0
        self.down = False

    async def hits(self, since: float) -> Sequence[Hit]:
        await self._here()
        return [hit for hit in self.rows.values() if hit.began > since]

    async def count(self, hits: Sequence[Hit], before: float) -> None:
        await self._here()
        self.writes += 1
        self.rows |= {hit.launch_id: hit for hit in hits}
        self.rows = {key: hit for key, hit in self.rows.items() if hit.began >= before}

    async def _here(self) -> None:
        await asyncio.sleep(0.01)
        if self.down:
            raise StoreUnavailable("The database does not answer.")


async def launched(rates: Rates, subject: str, launch: str, limit: int = 3) -> bool:
    await rates.loaded(now())
    MOMENT[:] = [now()]
    wait = rates.count(subject, limit, launch, now())
    await rates.settled(now())
    return wait is None


@virtual
async def test_what_was_acknowledged_counts_after_a_restart() -> None:
    table = Table()
    rates = Rates(100, table)
    assert [await launched(rates, "a", str(n)) for n in range(2)] == [True, True]
    rates = Rates(100, table)
    assert [await launched(rates, "a", launch) for launch in ("1", "2", "3")] == [True, True, False], "a repetition is no launch"
    assert await launched(rates, "b", "9")
    await asyncio.sleep(101)
    rates = Rates(100, table)
    assert await launched(rates, "a", "4")


@virtual
async def test_many_at_once_are_few_writes() -> None:
    table = Table()
    rates = Rates(100, table)
    await asyncio.gather(*(launched(rates, f"s{n}", str(n)) for n in range(500)))
    assert len(table.rows) == 500
    assert table.writes <= 3


@virtual
async def test_the_database_away_for_a_while() -> None:
    table = Table()
    rates = Rates(100, table)
    table.down = True
    assert await launched(rates, "a", "1")
    table.down = False
    assert await launched(rates, "a", "2")
    assert set(table.rows) == {"1", "2"}


@virtual
async def test_a_viewer_who_leaves_in_the_middle_is_counted_all_the_same() -> None:
    table = Table()
    rates = Rates(100, table)
    await rates.loaded(now())
    task = asyncio.create_task(launched(rates, "a", "1"))
    await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.wait({task})
    assert await launched(rates, "b", "2")
    assert set(table.rows) == {"1", "2"}


@virtual
async def test_never_more_than_the_limit_in_a_window_whatever_happens() -> None:
    for seed in range(20):
        chance = random.Random(seed)  # noqa: S311 - schedules
        table = Table()
        rates = Rates(50, table)
        passed: list[tuple[float, str]] = []
        began: float | None = None
        for number in range(200):
            await asyncio.sleep(chance.uniform(0, 6))
            if chance.random() < 0.1:
                rates = Rates(50, table)
            if await launched(rates, "a", str(number)):
                if began is None or MOMENT[0] >= began + 50:
                    began, passed = MOMENT[0], []
                passed.append((MOMENT[0], str(number)))
                assert len(passed) <= 3
        await asyncio.sleep(51)
        assert await launched(rates, "a", "last")


@pytest.mark.parametrize("limit", [1, 5])
def test_the_window_is_fixed(limit: int) -> None:
    rates = Rates(10)
    assert [rates.count("a", limit, str(n), n) for n in range(limit)] == [None] * limit
    assert rates.count("a", limit, "x", 9) == 1
    assert rates.count("a", limit, "x", 10) is None
