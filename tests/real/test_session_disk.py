"""A session that writes more than it may, on a real Binder."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.kernel import kernel
from tests.e2e.stand import Stand, git_spec, ready

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    stand = Stand.new(session={"disk": "60 MB"})
    try:
        stand.up()
        yield stand
    finally:
        stand.destroy()


KEPT = "open('{0}', 'wb').write(b'x' * {0}); import os; os.sync()"
DELETED = "import os; held = open('x', 'wb'); os.unlink('x'); held.write(b'x' * {0}); held.flush(); os.sync()"


@pytest.mark.parametrize("fill", [KEPT, DELETED])
async def test_it_ends_and_the_others_go_on(stand: Stand, fill: str) -> None:
    spec = git_spec(f"http://127.0.0.1:{stand.port + 5}/sample.git", "main")
    greedy, modest = await ready(stand, spec), await ready(stand, spec)
    async with kernel(greedy) as one, kernel(modest) as two:
        await two.run(fill.format(30_000_000))
        await one.run(fill.format(90_000_000))
        began = time.monotonic()
        while await one.answers():
            assert time.monotonic() < began + 60
            await asyncio.sleep(1)
        assert await two.run("print(6 * 7)") == "42\n"
    name = greedy["url"].split("/")[-2]
    assert (await said(stand, name, "session ended"))["reason"] == "disk"
    over = await said(stand, name, "session over the limit")
    assert 90_000_000 < over["bytes"] < 200_000_000
    assert over["session"] not in [line["name"] for line in stand.json("servers", "list")]


async def said(stand: Stand, name: str, event: str) -> dict[str, Any]:
    """What the daemon logged of the session, which it does when that is gone altogether."""
    for _ in range(40):
        lines = (stand.home / "logs" / "parts" / "daemon.log").read_text().splitlines()
        for line in lines:
            if f'"event": "{event}"' in line and name in line:
                return dict(json.loads(line))
        await asyncio.sleep(0.5)
    raise AssertionError((name, event))
