"""Sessions by the real hub, proxy and podman: what survives which kill, and what a session gets to see."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import subprocess
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio

from binder_onprem.config import load
from binder_onprem.errors import SpawnFailed, SpawnTimeout
from binder_onprem.hub.rest import JupyterHub
from binder_onprem.model import Client, LaunchRequest, RepoSpec, ResolvedRepo, Server
from tests.contract.fake_hub import of_name
from tests.e2e.kernel import kernel
from tests.e2e.stand import Stand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.real

SPEC = RepoSpec("git", "http%3A%2F%2F127.0.0.1%2Fx.git/HEAD", "http://127.0.0.1/x.git", "HEAD", "x")
REPO = ResolvedRepo(SPEC, "a" * 40, "http%3A%2F%2F127.0.0.1%2Fx.git/" + "a" * 40, "http://127.0.0.1/x.git")


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    stand = Stand.new(samples=False, session={"start_timeout": 30})
    try:
        stand.up()
        yield stand
    finally:
        stand.destroy()


class Site:
    """The adapter, and the sessions that a test has started."""

    def __init__(self, stand: Stand, hub: JupyterHub, http: aiohttp.ClientSession) -> None:
        self.stand, self.hub, self.http = stand, hub, http
        self.config = load(home=stand.home)
        self.image: str = json.loads((stand.home / "images.json").read_text())["base"]
        self.said: list[str] = []

    async def log(self, message: str) -> None:
        self.said.append(message)

    async def start(self, request: LaunchRequest | None = None, image: str | None = None) -> Server:
        return await self.hub.start(request or click(), REPO, image or self.image, self.log)

    async def status(self, server: Server, token: str | None = None) -> int:
        headers = {"Authorization": f"token {server.token if token is None else token}"}
        async with self.http.get(f"{server.url}api/status", headers=headers) as answer:
            return answer.status

    def container(self, server: Server) -> str:
        return f"binder-{server.name.rpartition('-')[2]}"

    def inspect(self, server: Server) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stand.podman("inspect", self.container(server)))[0]
        return found

    async def derived(self, *changes: str) -> str:
        """An image in the registry, and no longer in podman, that is the base image with other settings."""
        name = f"{self.config.image_prefix}/derived-{secrets.token_hex(6)}"
        account = (self.config.secrets / "registry-account").read_text().strip()
        container = self.stand.podman("create", self.image, "true").strip()
        flags = [flag for change in changes for flag in ("--change", change)]
        self.stand.podman("commit", *flags, container, f"{name}:x")
        self.stand.podman("rm", container)
        self.stand.podman("push", "--creds", account, "--tls-verify=false", f"{name}:x")
        self.stand.podman("rmi", f"{name}:x")
        path = name.partition("/")[2]
        headers = {"Accept": "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"}
        headers["Authorization"] = aiohttp.encode_basic_auth(*account.split(":"))
        async with self.http.head(f"http://{self.config.registry_host}/v2/{path}/manifests/x", headers=headers) as answer:
            return f"{name}@{answer.headers['Docker-Content-Digest']}"

    async def until(self, seconds: float, condition: Any) -> float:
        """Seconds it took until the condition held."""
        start = time.monotonic()
        while time.monotonic() < start + seconds:
            try:
                if await condition():
                    return time.monotonic() - start
            except (aiohttp.ClientError, OSError):
                pass
            await asyncio.sleep(0.05)
        raise TimeoutError


def click() -> LaunchRequest:
    return LaunchRequest("git", SPEC.path, Client("127.0.0.1"))


def of(server: Server) -> dict[str, str]:
    return {"url": server.url, "token": server.token}


@pytest_asyncio.fixture
async def site(stand: Stand) -> AsyncIterator[Site]:
    config = load(home=stand.home)
    async with aiohttp.ClientSession() as http:
        hub = JupyterHub(config, http, (config.secrets / "hub-token").read_text().strip(), b"s" * 32)
        yield Site(stand, hub, http)
        for session in await hub.remains():
            await hub.stop(session)
    assert "binder-" not in stand.podman("ps", "-a", "--format", "{{.Names}}")


async def test_a_session_answers_to_its_own_token_only_and_is_gone_when_stopped(site: Site) -> None:
    one, two = await asyncio.gather(site.start(), site.start())
    assert [await site.status(one), await site.status(two)] == [200, 200]
    assert await site.status(one, two.token) == 403
    assert await site.status(one, "") == 403
    listed = {session.name: session for session in await site.hub.sessions()}
    assert listed[one.name].ready
    assert listed[one.name].image == site.image
    assert listed[one.name].launch_id == one.name.rpartition("-")[2]
    assert abs((listed[one.name].started or 0) - time.time()) < 60
    assert await site.hub.routes() == {f"{site.config.hub_base_url}user/{server.name}/": server.name for server in (one, two)}

    await site.hub.stop(of_name(one.name))
    await site.hub.stop(of_name(one.name))
    assert [session.name for session in await site.hub.sessions()] == [two.name]
    assert list((await site.hub.routes()).values()) == [two.name]


async def test_a_launch_repeated_gives_the_same_session(site: Site) -> None:
    request = click()
    first = await site.start(request)
    before = site.inspect(first)["Id"]
    assert set(await asyncio.gather(site.start(request), site.start(request))) == {first}
    assert site.inspect(first)["Id"] == before


async def test_the_same_launch_twice_at_once_makes_one_container(site: Site) -> None:
    request = click()
    one, two = await asyncio.gather(site.start(request), site.start(request))
    assert one == two
    assert await site.status(one) == 200


async def test_a_session_is_confined_and_holds_nothing_of_the_hubs(site: Site) -> None:
    server = await site.start()
    async with kernel(of(server)) as python:
        code = "import os; print(dict(os.environ)); print(open('/proc/1/environ').read()); print(open('/proc/self/status').read())"
        seen = await python.run(code)
    inspected = json.dumps(site.inspect(server))
    for name in ("hub-token", "proxy-token", "site-secret", "registry-account"):
        secret = (site.config.secrets / name).read_text().strip().rpartition(":")[2]
        assert secret not in seen + inspected
    assert "JUPYTERHUB" not in seen + inspected
    assert "CapEff:\t0000000000000000" in seen
    assert "NoNewPrivs:\t1" in seen
    host = site.inspect(server)["HostConfig"]
    assert host["Memory"] == int(site.config.session.memory)
    assert host["PidsLimit"] == site.config.session.pids
    assert host["Binds"] in ([], None)
    with open(f"/proc/{site.inspect(server)['State']['Pid']}/uid_map") as file:  # noqa: ASYNC230, PTH123 - proc
        assert int(file.read().split()[1]) > 0


async def test_a_kernel_outlives_hub_and_proxy(site: Site) -> None:
    server = await site.start()
    async with kernel(of(server)) as python:
        await python.run("x = 41")
        site.stand.kill("hub")
        assert await python.run("x += 1; print(x)") == "42\n"
        other = await site.start()  # bridged: the hub comes back meanwhile
        assert await site.status(other) == 200
        assert {session.name for session in await site.hub.sessions() if session.ready} == {server.name, other.name}

        site.stand.kill("proxy")

        async def answers() -> bool:
            return await site.status(server) == 200

        assert await site.until(30, answers) < 15
        assert await python.run("x += 1; print(x)") == "43\n"
        assert len(await site.hub.routes()) == 2


async def test_a_route_without_a_server_goes_and_one_with_a_server_stays(site: Site) -> None:
    server = await site.start()
    mine, stale = (f"{site.config.hub_base_url}user/{name}/" for name in (server.name, "nobody-0123456789abcdef"))
    headers = {"Authorization": f"token {(site.config.secrets / 'proxy-token').read_text().strip()}"}
    body = {"target": "http://127.0.0.1:1", "user": "nobody-0123456789abcdef", "server_name": "", "jupyterhub": True}
    async with site.http.post(f"http://127.0.0.1:{site.config.proxy_api_port}/api/routes{stale}", json=body, headers=headers) as answer:
        assert answer.status == 201
    assert await site.hub.routes() == {mine: server.name, stale: "nobody-0123456789abcdef"}
    await site.hub.drop(stale)
    await site.hub.drop(mine)
    assert await site.hub.routes() == {mine: server.name}


async def test_routes_are_back_when_asked_for(site: Site) -> None:
    server = await site.start()
    async with site.http.delete(
        f"http://127.0.0.1:{site.config.proxy_api_port}/api/routes{site.config.hub_base_url}user/{server.name}",
        headers={"Authorization": f"token {(site.config.secrets / 'proxy-token').read_text().strip()}"},
    ) as answer:
        assert answer.status == 204
    await site.hub.sync_proxy()
    assert await site.status(server) == 200


async def test_a_kernel_outlives_podmans_service(site: Site) -> None:
    server = await site.start()
    async with kernel(of(server)) as python:
        await python.run("x = 1")
        site.stand.kill("podman")
        other = await site.start()  # bridged: the service comes back meanwhile
        assert await site.status(other) == 200
        await asyncio.sleep(5)  # two polls of the hub
        assert await python.run("print(x)") == "1\n"
    assert [session.ready for session in await site.hub.sessions()] == [True, True]


async def test_a_hub_killed_in_the_middle_of_a_start_goes_on_with_the_same_container(site: Site) -> None:
    starting = asyncio.create_task(site.start())
    await asyncio.sleep(0.35)
    site.stand.kill("hub")
    server = await starting
    assert await site.status(server) == 200
    names = site.stand.podman("ps", "-a", "--format", "{{.Names}}").split()
    assert names == [site.container(server)]


async def test_a_container_removed_behind_the_hubs_back_is_noticed(site: Site) -> None:
    server = await site.start()
    with contextlib.suppress(subprocess.CalledProcessError):  # this podman often says that it is busy, though it is done
        site.stand.podman("rm", "-f", "-t", "0", site.container(server))

    async def gone() -> bool:
        return not await site.hub.routes() and not any(session.ready for session in await site.hub.sessions())

    assert await site.until(10, gone) < 4
    again = await site.start()
    assert await site.status(again) == 200


async def test_a_session_that_computes_is_busy(site: Site) -> None:
    server = await site.start()
    assert not await site.hub.busy(of_name(server.name))
    async with kernel(of(server)) as python:
        running = asyncio.create_task(python.run("import time; time.sleep(6)"))
        while not await site.hub.busy(of_name(server.name)):
            assert not running.done()
            await asyncio.sleep(0.2)
        await running

        async def rests() -> bool:
            return not await site.hub.busy(of_name(server.name))

        await site.until(5, rests)
    assert not await site.hub.busy(of_name("nobody-0123456789abcdef"))


async def test_an_image_that_is_not_ours_is_refused(site: Site) -> None:
    for image in ("docker.io/library/debian:12", site.image.partition("@")[0] + ":latest", f"evil.example/x@sha256:{'0' * 64}"):
        with pytest.raises(SpawnFailed, match="does not hold"):
            await site.start(image=image)


async def test_an_image_that_is_gone_is_told_as_such(site: Site) -> None:
    with pytest.raises(SpawnFailed, match="gone"):
        await site.start(image=f"{site.config.image_prefix}/none-0123456789ab@sha256:{secrets.token_hex(32)}")


async def test_an_image_comes_from_the_registry_when_it_is_not_here(site: Site) -> None:
    server = await site.start(image=await site.derived("ENV ORIGIN=registry"))
    async with kernel(of(server)) as python:
        assert await python.run("import os; print(os.environ['ORIGIN'])") == "registry\n"
    assert any("Fetching" in message for message in site.said) or not site.said  # told when it takes longer than the hub waits


async def test_a_server_that_ends_is_told_at_once_with_what_it_said(site: Site) -> None:
    request = click()
    broken = await site.derived("ENV PATH=/bin", 'ENTRYPOINT ["/bin/sh", "-c", "echo $JUPYTER_TOKEN the data is missing >&2; exit 3"]')
    start = time.monotonic()
    with pytest.raises(SpawnFailed, match=r"(?s)exit code 3.*the data is missing") as caught:
        await site.start(request, image=broken)
    assert time.monotonic() - start < 5
    assert request.token(b"s" * 32) not in caught.value.message
    with pytest.raises(SpawnFailed, match="no Jupyter server"):
        await site.start(image=await site.derived("ENV PATH=/bin"))


async def test_a_server_that_never_answers_is_a_timeout_and_leaves_nothing(site: Site) -> None:
    silent = await site.derived('ENTRYPOINT ["/bin/sh", "-c", "sleep 1000"]')
    with pytest.raises(SpawnTimeout, match="did not answer within"):
        await site.start(image=silent)
    assert site.stand.podman("ps", "-a", "--format", "{{.Names}}") == ""


async def test_strangers_get_nothing_of_the_hub(site: Site) -> None:
    for path in ("hub/login", "hub/home", "hub/api", "hub/api/users", "hub/nothing-here/x", "hub/token"):
        async with site.http.get(f"{site.stand.url}jupyter/{path}", allow_redirects=False) as answer:
            assert answer.status in (404, 503), path
