"""What the policy remembers, on both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from binder_onprem.quotas import Claim, Held
from binder_onprem.rates import Hit
from binder_onprem.store import SqlPolicy, open_engine, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def policy(url: str) -> AsyncIterator[SqlPolicy]:
    async with open_engine(url) as engine, opened(SqlPolicy, engine) as found:
        yield found


async def test_hits_come_back_and_old_ones_go(policy: SqlPolicy) -> None:
    await policy.count([Hit("1", "user:ann", 10.0), Hit("2", "192.0.2.1", 20.0)], 0)
    await policy.count([Hit("2", "192.0.2.1", 20.0), Hit("3", "x\0y", 30.0)], 15.0)
    assert await policy.hits(0) == [Hit("2", "192.0.2.1", 20.0), Hit("3", "x\ufffdy", 30.0)]
    assert await policy.hits(20.0) == [Hit("3", "x\ufffdy", 30.0)]
    await policy.count([Hit("2", "192.0.2.1", 40.0)], 15.0)
    assert [hit.launch_id for hit in await policy.hits(20.0)] == ["3", "2"]


async def test_places_come_back_in_their_order(policy: SqlPolicy) -> None:
    first = Held(Claim("a", "r/x", "https://git.test/x", 3, "user:ann", frozenset({"staff", "students"})), 1.0, 100.0)
    second = Held(Claim("b", "r/y"), 0.5, 200.0, granted=True)
    for place in (first, second):
        await policy.put(place)
    assert await policy.places() == [second, first]
    changed = Held(first.claim, 1.0, 100.0, granted=True)
    await policy.put(changed)
    await policy.drop(["b", "nobody"])
    assert await policy.places() == [changed]
