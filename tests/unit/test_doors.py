"""One at a time for each key, and nothing is remembered of a key that nobody uses."""

from __future__ import annotations

import asyncio
import gc

from binder_onprem.doors import Doors


async def test_equal_keys_wait_for_each_other_and_others_do_not() -> None:
    doors, inside, most = Doors(), {"a": 0, "b": 0}, 0

    async def enter(key: str) -> None:
        nonlocal most
        async with doors.of(key):
            inside[key] += 1
            assert inside[key] == 1
            most = max(most, sum(inside.values()))
            await asyncio.sleep(0)
            inside[key] -= 1

    await asyncio.gather(*(enter(key) for key in "aababb"))
    assert most == 2


async def test_a_key_is_forgotten_also_by_who_gave_up_waiting() -> None:
    doors = Doors()
    async with doors.of("a"):
        waiting = asyncio.create_task(doors.of("a").acquire())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    del waiting
    await asyncio.sleep(0)  # its end is a callback of the loop
    gc.collect()
    assert not doors._locks
