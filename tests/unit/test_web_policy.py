"""What clients and administrators are told of the site's policy, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

from binder_onprem.quotas import Waiting
from tests.unit.webstand import ADMIN, stand

if TYPE_CHECKING:
    from pathlib import Path

STREAM = {"Accept": "text/event-stream"}


async def test_what_is_left_stands_in_the_headers(tmp_path: Path) -> None:
    async with stand(tmp_path, config={"admission": {"rate": 2, "period": 600}}) as at, aiohttp.ClientSession() as client:
        seen = []
        for _ in range(3):
            async with client.get(f"{at.url}build/gh/o/r/HEAD", headers=STREAM) as answer:
                seen.append(
                    [answer.headers.get(f"x-ratelimit-{name}") for name in ("limit", "remaining", "reset")] + [answer.headers.get("Retry-After")]
                )
                await answer.read()
            at.site.line.admission.admit(at.play.requests[-1], at.site.line.now()) if len(seen) < 3 else None
        async with client.get(f"{at.url}build/gh/o/r/HEAD", headers=STREAM | {"Authorization": f"Bearer {ADMIN}"}) as answer:
            assert "x-ratelimit-limit" not in answer.headers, "the site's own token"
    assert seen[0] == ["2", "1", "600", None]
    assert [row[1] for row in seen] == ["1", "0", "0"]
    assert seen[2][3] is not None
    assert 590 <= int(seen[2][3] or 0) <= 600


async def test_who_waits_is_listed_for_the_administrator(tmp_path: Path) -> None:
    async with stand(tmp_path, config={"quota": {"per_user": 3}}) as at, aiohttp.ClientSession() as client:
        at.site.line.room.queue = lambda: [Waiting(1, "0" * 16, "https://git.test/x", None, 5.0, "total", True)]  # noqa: FBT003
        async with client.get(f"{at.url}api/waiting") as answer:
            assert answer.status == 403
        async with client.get(f"{at.url}api/waiting", headers={"Authorization": f"Bearer {ADMIN}"}) as answer:
            body = await answer.json()
    assert body["waiting"][0]["waiting_for"] == "total"
    assert (body["quotas"]["total"], body["quotas"]["per_user"], body["quotas"]["when_full"]) == (100, 3, "refuse")


async def test_every_limit_is_shown(tmp_path: Path) -> None:
    config = {"quota": {"per_group": {"staff": 2}}, "admission": {"specs": [{"pattern": "^gh/o/", "quota": 7}], "high_quota": ["^gh/big/"]}}
    async with (
        stand(tmp_path, config=config) as at,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {ADMIN}"}) as client,
        client.get(f"{at.url}api/quotas") as answer,
    ):
        body = await answer.json()
    assert (body["quota"]["per_group"], body["high_quota"], body["specs"]) == ({"staff": 2}, ["^gh/big/"], [{"pattern": "^gh/o/", "quota": 7}])
