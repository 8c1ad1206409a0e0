"""A push is built before anybody clicks, what happens is told, and who finds no place waits for one: with every real part."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from aiohttp import web

from binder_onprem.webhooks import signature
from tests.e2e.stand import launch, ready
from tests.e2e.test_idle import settings, user_of
from tests.repos.contents import notebook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Origin
    from tests.e2e.stand import Stand

pytestmark = pytest.mark.real

KEY = "planted-secret-of-the-hook"


class Receiver:
    """What webhooks bring."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        assert request.headers["webhook-signature"] == signature(
            KEY.encode(), request.headers["webhook-id"], int(request.headers["webhook-timestamp"]), body
        )
        self.events.append(json.loads(body))
        return web.Response(status=204)

    def told(self, schema: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["schema"].endswith(schema)]


def pushed(stand: Stand, payload: dict[str, str]) -> dict[str, Any]:
    body = json.dumps(payload).encode()
    headers = {"X-Hub-Signature-256": "sha256=" + hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest(), "Content-Type": "application/json"}
    request = urllib.request.Request(f"{stand.url}api/hooks/ours", body, headers)  # noqa: S310 - loopback
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        return dict(json.loads(answer.read()))


async def until(what: Any, seconds: float = 180) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(what):  # noqa: ASYNC110 - another process tells nobody
            await asyncio.sleep(0.5)


async def test_a_push_is_built_and_the_click_waits_only_for_a_place(stand: Stand, origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(KEY)
    receiver, runner = Receiver(), web.AppRunner(app := web.Application())
    app.router.add_post("/", receiver.handle)
    await runner.setup()
    listening = web.TCPSite(runner, "127.0.0.1", 0)
    await listening.start()
    target = f"http://127.0.0.1:{listening._server.sockets[0].getsockname()[1]}/"  # type: ignore[union-attr]
    origin.make("pushed", {"requirements.txt": "six\n", "a.ipynb": notebook("1")})
    url = origin.server.url("pushed")
    hook = {"kind": "generic", "secret_file": str(tmp_path / "secret"), "repositories": [f"git/{quote(quote(url, safe=''))}".replace("%25", "%")]}
    events = {"file": str(tmp_path / "events.jsonl"), "webhooks": {"here": {"url": target, "secret_file": str(tmp_path / "secret")}}}
    running = len(stand.json("servers", "list"))
    try:
        with settings(stand, hooks={"ours": hook}, events=events, session={"total": running + 1}, quota={"when_full": "wait"}):
            commit = origin.repositories["pushed"].change({"a.ipynb": notebook("2")})
            payload = {"url": url, "ref": "refs/heads/main", "commit": commit}
            first = await asyncio.to_thread(pushed, stand, payload)
            assert await asyncio.to_thread(pushed, stand, payload) | {"state": ""} == first | {"state": ""}, "told twice, built once"
            await until(lambda: stand.api("GET", f"api/builds/{first['build']}")["state"] == "built")
            end, before = await launch(stand, origin.spec("pushed", commit))
            assert end["phase"] == "ready", (end, before[-10:])
            assert not [event for event in before if event["phase"] in ("fetching", "building")]

            second = asyncio.create_task(launch(stand, origin.spec("pushed", commit)))
            await until(lambda: [row["waiting_for"] for row in stand.api("GET", "api/waiting")["waiting"]] == ["total"])
            stand.kill("daemon")  # its viewer's stream breaks; who comes back finds the place
            await asyncio.gather(second, return_exceptions=True)
            await until(lambda: not stand.silent())
            third = asyncio.create_task(ready(stand, origin.spec("pushed", commit)))
            await asyncio.to_thread(stand.command, "servers", "stop", user_of(end))
            other = await third
            await asyncio.to_thread(stand.command, "servers", "stop", user_of(other))
            await until(lambda: len(receiver.told("/launch")) >= 2)
        states = [event["state"] for event in receiver.told("/build")]
        assert states == ["queued", "running", "built"]
        assert {event["ref"] for event in receiver.told("/launch")} == {commit}
        lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [event["state"] for event in lines if event["schema"] == "binder-onprem/build"] == states
    finally:
        await runner.cleanup()
