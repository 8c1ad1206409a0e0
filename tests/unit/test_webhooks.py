"""Webhooks to real receivers on loopback, with real databases, and a sender that is killed in between."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from binder_onprem.config import Config
from binder_onprem.egress.addresses import AddressRules
from binder_onprem.errors import ConfigError
from binder_onprem.providers.reader import checked_client
from binder_onprem.store import SqlOutbox, open_engine, opened
from binder_onprem.waitingevents import TRIES, Letter, pause
from binder_onprem.webhooks import Webhooks, secret, signature

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY = "k" * 32


@pytest.fixture
async def box(url: str) -> AsyncIterator[SqlOutbox]:
    async with open_engine(url) as engine, opened(SqlOutbox, engine) as found:
        yield found


class Receiver:
    """Answers with the statuses it is given, then 204; checks what came."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.got: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.port = 0

    async def handle(self, request: web.Request) -> web.Response:
        body, event_id = await request.read(), request.headers["webhook-id"]
        assert request.headers["webhook-signature"] == signature(KEY.encode(), event_id, int(request.headers["webhook-timestamp"]), body)
        status = self.statuses.pop(0) if self.statuses else 204
        if status == 204:
            self.got.append(json.loads(body))
            self.ids.append(event_id)
        return web.Response(status=status)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/", self.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        try:
            yield f"http://127.0.0.1:{self.port}/"
        finally:
            await runner.cleanup()


@asynccontextmanager
async def sending(box: SqlOutbox, target: str, home: Path, *, allow: tuple[str, ...] = ("127.0.0.0/8",)) -> AsyncIterator[Webhooks]:
    (home / "secret").write_text(KEY)
    hooks = Config.model_validate({"events": {"webhooks": {"x": {"url": target, "secret_file": home / "secret"}}}}).events.webhooks
    rules = AddressRules(allow, "10.213.0.0/16")

    async with checked_client(rules, ssl.create_default_context(), None, 10) as session:
        hook = Webhooks(hooks, box, session)
        task = asyncio.create_task(hook.run())
        try:
            yield hook
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def until(condition: Any, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - another task's doing
            await asyncio.sleep(0.02)


async def tell(box: SqlOutbox, *numbers: int) -> None:
    for number in numbers:
        assert await box.add(["x"], json.dumps({"number": number}), 1.0, 100)


async def test_in_order_signed_and_forgotten(box: SqlOutbox, tmp_path: Path) -> None:
    receiver = Receiver()
    await tell(box, 1, 2)
    async with receiver.up() as target, sending(box, target, tmp_path) as hook:
        await until(lambda: len(receiver.got) == 2)
        await tell(box, 3)
        hook.stir()
        await until(lambda: len(receiver.got) == 3)
        await asyncio.sleep(0.1)
    assert [event["number"] for event in receiver.got] == [1, 2, 3]
    assert len(set(receiver.ids)) == 3
    assert await box.counts() == {}


async def test_a_receiver_that_fails_gets_it_again(box: SqlOutbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("binder_onprem.webhooks.pause", lambda tries: 0.05 if tries < 4 else None)
    receiver = Receiver()
    receiver.statuses = [500, 302, 404]
    await tell(box, 1)
    async with receiver.up() as target, sending(box, target, tmp_path):
        await until(lambda: len(receiver.got) == 1)
    receiver.statuses = [500] * 4
    await tell(box, 2, 3)
    async with receiver.up() as target, sending(box, target, tmp_path):
        await until(lambda: len(receiver.got) == 2)
        await asyncio.sleep(0.1)
    assert [event["number"] for event in receiver.got] == [1, 3], "what never arrives is put aside and keeps nobody waiting"
    (dead,) = await box.dead()
    assert (dead.tries, dead.error, dead.receiver) == (4, "HTTP status 500", "x")
    assert await box.counts() == {"x": {"waiting": 0, "dead": 1}}
    assert await box.revive(2.0) == 1
    async with receiver.up() as target, sending(box, target, tmp_path):
        await until(lambda: len(receiver.got) == 3)


async def test_killed_in_between_nothing_is_lost(box: SqlOutbox, tmp_path: Path) -> None:
    receiver = Receiver()
    await tell(box, *range(30))
    async with receiver.up() as target:
        while len(set(receiver.ids)) < 30:
            before = len(receiver.got)
            async with sending(box, target, tmp_path):
                await until(lambda before=before: len(receiver.got) > before + 3 or len(set(receiver.ids)) >= 30)
    numbers = [event["number"] for event in receiver.got]
    assert sorted(set(numbers)) == list(range(30))
    assert len(set(receiver.ids)) == 30, "a repetition has the same id"


async def test_addresses_that_are_not_allowed_are_not_asked(box: SqlOutbox, tmp_path: Path) -> None:
    receiver = Receiver()
    await tell(box, 1)
    async with receiver.up() as target, sending(box, target, tmp_path, allow=()):
        async with asyncio.timeout(30):
            while not (await box.waiting("x"))[0].tries:  # noqa: ASYNC110 - another task's doing
                await asyncio.sleep(0.05)
    assert not receiver.got
    assert "network.allow" in str((await box.waiting("x"))[0].error)


async def test_the_outbox_is_bounded(box: SqlOutbox) -> None:
    for number in range(3):
        assert await box.add(["x"], f"{number}", 1.0, 3)
    assert not await box.add(["x"], "3", 1.0, 3)
    (first,) = await box.waiting("x")
    await box.failed(Letter(first.number, "x", "", 1.0, 15, 2.0, "no", dead=True))
    assert await box.add(["x"], "4", 1.0, 3)
    assert [letter.body for letter in await box.waiting("x", 9)] == ["1", "2", "4"]


async def test_pushes_are_remembered(box: SqlOutbox) -> None:
    assert await box.delivered("a" * 64) is None
    await box.deliver("a" * 64, "b" * 16, 10.0)
    await box.deliver("a" * 64, "c" * 16, 11.0)
    assert await box.delivered("a" * 64) == "b" * 16
    await box.deliver("d" * 64, "c" * 16, 10.0**9)
    assert await box.delivered("a" * 64) is None


def test_pauses_grow_and_end() -> None:
    assert [pause(n) for n in (1, 2, 3)] == [5, 10, 20]
    assert pause(TRIES - 1) == 3600
    assert pause(TRIES) is None


def test_secrets(tmp_path: Path) -> None:
    file = tmp_path / "s"
    file.write_text("whsec_" + "QUJDREVGR0hJSktMTU5PUA==\n")
    assert secret(file, "x") == b"ABCDEFGHIJKLMNOP"
    for text in ("short", ""):
        file.write_text(text)
        with pytest.raises(ConfigError, match="at least"):
            secret(file, "x")
    with pytest.raises(ConfigError, match="cannot be read"):
        secret(tmp_path / "absent", "x")
