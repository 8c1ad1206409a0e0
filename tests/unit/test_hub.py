from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from binder_onprem.config import Config, Listen
from binder_onprem.errors import HubUnavailable, SpawnFailed, SpawnTimeout
from binder_onprem.hub import wire as hub_api
from binder_onprem.hub.rest import JupyterHub
from binder_onprem.model import Client, LaunchRequest, RepoSpec, ResolvedRepo, Server
from tests.contract.fake_hub import TOKEN, FakeHub, of_name
from tests.e2e.stand import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REPO = ResolvedRepo(RepoSpec("git", "x/HEAD", "http://h/x", "HEAD", "x"), "a" * 40, "x/" + "a" * 40, "http://h/x")
IMAGE = f"127.0.0.1:8589/binder/x-0123456789ab@sha256:{'0' * 64}"


class World:
    def __init__(self, fake: FakeHub, adapter: JupyterHub, config: Config) -> None:
        self.fake, self.adapter, self.config = fake, adapter, config
        self.request = LaunchRequest("git", "x/HEAD", Client("127.0.0.1"))
        self.said: list[str] = []

    async def log(self, message: str) -> None:
        self.said.append(message)

    async def start(self) -> Server:
        return await self.adapter.start(self.request, REPO, IMAGE, self.log)

    async def serve(self) -> web.AppRunner:
        runner = web.AppRunner(self.fake.application())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.config.hub_port).start()
        return runner


@pytest_asyncio.fixture
async def down(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(hub_api, "PAUSE", 0.01)
    monkeypatch.setattr("binder_onprem.hub.rest.PAUSE", 0.01)
    config = Config(listen=Listen(port=free_ports(8)))
    async with aiohttp.ClientSession() as session:
        yield World(FakeHub(), JupyterHub(config, session, TOKEN, b"s" * 32), config)


@pytest_asyncio.fixture
async def world(down: World) -> AsyncIterator[World]:
    runner = await down.serve()
    yield down
    await runner.cleanup()


@pytest.mark.parametrize(
    ("refusal", "error", "words"),
    [
        (
            (502, "The session did not start: its server ended.\nIt said \x1b[31mno\x00"),
            SpawnFailed,
            "did not start: its server ended.\nIt said [31mno",
        ),
        ((504, "did not answer within 60 seconds"), SpawnTimeout, "60 seconds"),
        ((503, "The container engine does not answer"), HubUnavailable, "container engine"),
        ((429, "Too many users trying to log in"), HubUnavailable, "Too many sessions"),
        ((410, "The image of this repository is gone."), SpawnFailed, "image"),
        ((400, "This session cannot be started: its request does not hold."), SpawnFailed, "does not hold"),
        ((500, ""), SpawnFailed, "did not start"),
    ],
)
async def test_the_spawners_reason_reaches_the_person(world: World, refusal: tuple[int, str], error: type[Exception], words: str) -> None:
    world.fake.refusal = refusal
    with pytest.raises(error) as caught:
        await world.start()
    assert words in str(caught.value)
    assert type(caught.value) is error


async def test_a_slow_start_is_followed_to_its_end(world: World) -> None:
    world.fake.slow = True
    world.fake.events = [{"progress": 10, "message": "Fetching the image\n"}, {"progress": 100, "ready": True, "message": "Server ready"}]
    server = await world.start()
    assert server.token == world.request.token(b"s" * 32)
    assert world.said == ["Fetching the image"]


@pytest.mark.parametrize(("html", "error"), [("504", SpawnTimeout), ("503", HubUnavailable), ("502", SpawnFailed), (None, SpawnFailed)])
async def test_a_slow_start_that_fails_says_why(world: World, html: str | None, error: type[Exception]) -> None:
    world.fake.slow = True
    event: dict[str, Any] = {"progress": 100, "failed": True, "message": "Spawn failed: it ended"} | ({"html_message": html} if html else {})
    world.fake.events = [event]
    with pytest.raises(error, match=r"^it ended$") as caught:
        await world.start()
    assert type(caught.value) is error


async def test_a_stream_that_breaks_is_not_the_end(world: World) -> None:
    world.fake.slow = True
    starting = asyncio.create_task(world.start())
    while "GET /users/x-" + world.request.launch_id + "/server/progress" not in world.fake.asked:  # noqa: ASYNC110 - the fake has no event
        await asyncio.sleep(0.01)
    world.fake.slow = False
    assert (await starting).name == f"x-{world.request.launch_id}"


async def test_a_hub_that_restarts_is_waited_for(down: World) -> None:
    starting = asyncio.create_task(down.start())
    await asyncio.sleep(0.1)
    runner = await down.serve()
    assert (await starting).name == f"x-{down.request.launch_id}"
    await runner.cleanup()


async def test_a_hub_that_stays_away_is_told(down: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_api.Call.__init__, "__defaults__", (None, None, 30.0, 0.1, None, None))
    with pytest.raises(HubUnavailable, match="does not answer"):
        await down.adapter.sessions()
    with pytest.raises(HubUnavailable):
        await down.adapter.version()


async def test_the_token_of_a_server_that_runs_already_is_its_own(world: World) -> None:
    user = f"x-{world.request.launch_id}"
    world.fake.users[user] = {"ready": True, "options": {"token": "of-before", "launch_id": world.request.launch_id}}
    assert (await world.start()).token == "of-before"


async def test_all_pages_are_read(world: World) -> None:
    for number in range(450):
        world.fake.users[f"x-{number:016x}"] = {"ready": number % 2 == 0, "options": {}}
    found = await world.adapter.remains()
    assert len({session.name for session in found}) == 450
    assert sum(session.ready for session in found) == 225
    assert found[0].last_activity == 1767323045.678901
    assert {session.name for session in await world.adapter.sessions()} == {session.name for session in found if session.ready}
    assert len(await world.adapter.routes()) == 225


async def test_what_is_left_of_a_persons_session_is_listed_and_she_is_not(world: World) -> None:
    world.fake.people = {"ada", "bob"}
    world.fake.named["ada", "x-0123456789abcdef"] = {"ready": False, "options": {"launch_id": "0123456789abcdef"}}
    assert await world.adapter.sessions() == []
    (left,) = await world.adapter.remains()
    assert (left.name, left.owner, left.server, left.ready, left.launch_id) == ("x-0123456789abcdef", "ada", False, False, "0123456789abcdef")
    await world.adapter.stop(left)
    assert await world.adapter.remains() == []
    assert world.fake.people == {"ada", "bob"}
    assert "DELETE /users/ada" not in world.fake.asked


async def test_people_who_are_not_here_cost_nothing_however_many_the_hub_knows(world: World) -> None:
    world.fake.people = {f"person{number}" for number in range(10_000)}
    world.fake.away = world.fake.people - {"person1"}
    for person in ("person1", "person2", "person3"):
        world.fake.named[person, f"x-{person[-1]:>016}"] = {"ready": person == "person3", "options": {}}
    assert [session.owner for session in await world.adapter.sessions()] == ["person3"]
    assert len(world.fake.queries) == 1
    assert {session.owner: session.server for session in await world.adapter.remains()} == {"person1": False, "person3": True}
    assert len(world.fake.queries) == 4


async def test_only_a_temporary_user_is_ever_deleted(world: World) -> None:
    world.fake.users["ada"] = {"ready": True, "options": {}}
    await world.adapter.stop(of_name("ada"))
    assert "ada" in world.fake.users


async def test_stop_waits_until_it_is_gone(world: World) -> None:
    world.fake.users["x-0123456789abcdef"] = {"ready": True, "options": {}}
    world.fake.stops = 2
    await world.adapter.stop(of_name("x-0123456789abcdef"))
    assert world.fake.users == {}
    assert world.fake.asked.count("DELETE /users/x-0123456789abcdef/server") == 3


async def test_a_stop_that_does_not_end_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("binder_onprem.hub.rest.STOP", 0.2)
    world.fake.users["x-0123456789abcdef"] = {"ready": True, "options": {}}
    world.fake.stops = 10**6
    with pytest.raises(HubUnavailable, match="does not stop"):
        await world.adapter.stop(of_name("x-0123456789abcdef"))


async def test_what_cannot_be_read_is_never_taken_for_an_empty_list(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.adapter._api, "_url", world.adapter._api._url + "/missing")
    with pytest.raises(HubUnavailable):
        await world.adapter.sessions()


@pytest.mark.parametrize(
    ("listen", "host", "url"),
    [
        ({"base_url": "/b/"}, "", "http://127.0.0.1:{port}/b/jupyter/user/{user}/"),
        ({"base_url": "/b/"}, "http://people.test/b/", "http://people.test/b/jupyter/user/{user}/"),
        ({"base_url": "/b/", "public_url": "https://people.test/b"}, "", "https://people.test/b/jupyter/user/{user}/"),
        ({}, "", "http://127.0.0.1:{port}/jupyter/user/{user}/"),
        ({}, "http://people.test/", "http://people.test/jupyter/user/{user}/"),
    ],
)
async def test_the_sessions_url_is_the_one_that_people_can_open(listen: dict[str, Any], host: str, url: str) -> None:
    config = Config(listen=Listen(port=free_ports(8), **listen))
    runner = web.AppRunner(FakeHub(config.hub_base_url).application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", config.hub_port).start()
    async with aiohttp.ClientSession() as session:
        world = World(FakeHub(), JupyterHub(config, session, TOKEN, b"s" * 32), config)
        world.request = LaunchRequest("git", "x/HEAD", Client("127.0.0.1"), host=host)
        server = await world.start()
    await runner.cleanup()
    assert server.url == url.format(port=config.listen.port, user=server.name)
