"""What the daemon relies on of JupyterHub: the same assertions against the fake of the unit tests and against the real one."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from yarl import URL

from binder_onprem.config import Config, Listen, load
from binder_onprem.errors import HubUnavailable
from binder_onprem.hub.rest import JupyterHub
from binder_onprem.model import Client, LaunchRequest, RepoSpec, ResolvedRepo
from tests.contract.fake_hub import TOKEN, FakeHub, of_name
from tests.e2e.stand import Stand, free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

SPEC = RepoSpec("git", "x/HEAD", "http://127.0.0.1/x.git", "HEAD", "Some Repository with a long name")
REPO = ResolvedRepo(SPEC, "a" * 40, "x/" + "a" * 40, "http://127.0.0.1/x.git")


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    stand = Stand.new(samples=False)
    try:
        stand.up()
        yield stand
    finally:
        stand.destroy()


@pytest_asyncio.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real)])
async def hub(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[JupyterHub, Config, str]]:
    async with aiohttp.ClientSession() as session:
        if request.param == "fake":
            config = Config(home=tmp_path, listen=Listen(port=free_ports(8)))
            runner = web.AppRunner(FakeHub().application())
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", config.hub_port).start()
            yield JupyterHub(config, session, TOKEN, b"s" * 32), config, f"{config.image_prefix}/x-0123456789ab@sha256:{'0' * 64}"
            await runner.cleanup()
        else:
            home = request.getfixturevalue("stand").home
            config = load(home=home)
            adapter = JupyterHub(config, session, (config.secrets / "hub-token").read_text().strip(), b"s" * 32)
            yield adapter, config, json.loads((home / "images.json").read_text())["base"]
            for found in await adapter.remains():
                await adapter.stop(found)


async def quiet(_message: str) -> None:
    pass


async def test_start_list_repeat_stop(hub: tuple[JupyterHub, Config, str]) -> None:
    adapter, _, image = hub
    await adapter.ping()
    assert (await adapter.version()).startswith("6.")
    request = LaunchRequest("git", "x/HEAD", Client("127.0.0.1"), host="http://people.test:1/")
    server = await adapter.start(request, REPO, image, quiet)
    assert server.name == f"some-reposito-{request.launch_id}"
    assert server.url == f"http://people.test:1/jupyter/user/{server.name}/"
    assert server.token == request.token(b"s" * 32)
    assert await adapter.start(request, REPO, image, quiet) == server

    (session,) = await adapter.sessions()
    assert (session.name, session.ready, session.image, session.launch_id) == (server.name, True, image, request.launch_id)
    assert abs((session.started or 0) - time.time()) < 60
    assert await adapter.routes() == {f"/jupyter/user/{server.name}/": server.name}
    await adapter.sync_proxy()
    await adapter.drop("/jupyter/user/nobody/")

    await adapter.stop(of_name(server.name))
    await adapter.stop(of_name(server.name))
    assert await adapter.sessions() == []
    assert await adapter.routes() == {}
    assert not await adapter.busy(of_name(server.name))


@pytest.mark.parametrize("person", ["jürgen müller@uni.example", "o'brien+x", "名前", "-x..", "a%2fb"])
async def test_a_persons_sessions_are_her_named_servers_and_she_stays(hub: tuple[JupyterHub, Config, str], person: str) -> None:
    adapter, config, image = hub
    await make_person(config, person)
    alone = LaunchRequest("git", "x/HEAD", Client("127.0.0.1"))
    clicks = [LaunchRequest("git", "x/HEAD", Client("127.0.0.1", person), host="http://people.test:1/") for _ in range(2)]
    servers = await asyncio.gather(*(adapter.start(click, REPO, image, quiet) for click in (alone, *clicks)))
    assert await adapter.start(clicks[0], REPO, image, quiet) == servers[1]
    below = f"/jupyter/user/{quote(person, safe='@~')}/"
    assert [server.url for server in servers[1:]] == [f"http://people.test:1{below}{server.name}/" for server in servers[1:]]

    listed = {session.name: session for session in await adapter.sessions()}
    assert {name: session.owner for name, session in listed.items()} == {servers[0].name: None, servers[1].name: person, servers[2].name: person}
    assert all(session.ready and session.launch_id == name[-16:] for name, session in listed.items())
    assert {path: name for path, name in (await adapter.routes()).items() if path.startswith(below)} == {
        f"{below}{server.name}/": server.name for server in servers[1:]
    }
    await adapter.stop(listed[servers[1].name])
    await adapter.stop(listed[servers[1].name])
    assert {session.name for session in await adapter.sessions()} == {servers[0].name, servers[2].name}
    await asyncio.gather(*(adapter.stop(session) for session in listed.values()))
    assert await adapter.sessions() == []
    assert await adapter.routes() == {}
    assert await has_person(config, person)


async def test_what_has_lost_its_server_is_left_and_found(hub: tuple[JupyterHub, Config, str]) -> None:
    adapter, config, image = hub
    await make_person(config, "ada")
    clicks = [LaunchRequest("git", "x/HEAD", Client("127.0.0.1", owner)) for owner in (None, "ada")]
    await asyncio.gather(*(adapter.start(click, REPO, image, quiet) for click in clicks))
    before = await adapter.sessions()
    assert {session.owner for session in before} == {None, "ada"}
    for session in before:
        path = f"{session.name}/server" if session.owner is None else f"ada/servers/{session.name}"
        url = f"http://127.0.0.1:{config.hub_port}{config.hub_base_url}hub/api/users/{path}"
        async with aiohttp.ClientSession() as client, client.delete(url, headers=authorization(config), json={"remove": False}) as answer:
            assert answer.status in (202, 204)
    async with asyncio.timeout(60):
        while await adapter.sessions():  # noqa: ASYNC110 - the hub has no event for it
            await asyncio.sleep(0.1)
    assert {session.name: session.server for session in await adapter.remains()} == {session.name: False for session in before}
    for session in before:
        left = await adapter.current(session)
        assert left is not None
        assert (left[0].name, left[0].server) == (session.name, False)
        await adapter.stop(session)
        assert await adapter.current(session) is None
    assert await adapter.remains() == []


async def make_person(config: Config, name: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(person_url(config, name), headers=authorization(config)) as answer:
        assert answer.status in (201, 409)


async def has_person(config: Config, name: str) -> bool:
    async with aiohttp.ClientSession() as session, session.get(person_url(config, name), headers=authorization(config)) as answer:
        return answer.status == 200


def person_url(config: Config, name: str) -> URL:
    return URL(f"http://127.0.0.1:{config.hub_port}{config.hub_base_url}hub/api/users/{quote(name, safe='')}", encoded=True)


def authorization(config: Config) -> dict[str, str]:
    file = config.secrets / "hub-token"
    return {"Authorization": f"token {file.read_text().strip() if file.exists() else TOKEN}"}


async def test_many_at_once_have_servers_of_their_own(hub: tuple[JupyterHub, Config, str]) -> None:
    adapter, _, image = hub
    requests = [LaunchRequest("git", "x/HEAD", Client("127.0.0.1")) for _ in range(4)]
    servers = await asyncio.gather(*(adapter.start(request, REPO, image, quiet) for request in requests))
    assert {session.name for session in await adapter.sessions() if session.ready} == {server.name for server in servers}
    assert len({server.token for server in servers}) == 4
    await asyncio.gather(*(adapter.stop(of_name(server.name)) for server in servers))
    assert await adapter.sessions() == []


async def test_another_token_is_refused_as_our_fault_not_as_absence(hub: tuple[JupyterHub, Config, str]) -> None:
    adapter, config, _ = hub
    async with aiohttp.ClientSession() as session:
        stranger = JupyterHub(config, session, "0" * 64, b"s" * 32)
        with pytest.raises(HubUnavailable, match="refuses"):
            await stranger.sessions()
        with pytest.raises(HubUnavailable, match="refuses"):
            await stranger.stop(of_name("x-0123456789abcdef"))
    assert await adapter.sessions() == []
