"""`kill -9` of every part, at the worst moments: what people watch goes on, what runs keeps running, nothing is left over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import subprocess
import time
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.building.enclosure import left
from tests.e2e.kernel import execute, kernel
from tests.e2e.stand import TERMINAL, launch, ready, resumed
from tests.repos import Trouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.e2e.conftest import Origin
    from tests.e2e.kernel import Kernel
    from tests.e2e.stand import Stand

pytestmark = pytest.mark.real

BACK = 5.0
"""Seconds from a part's restart until people notice nothing any more."""
PARTS = ("daemon", "hub", "proxy", "registry", "podman")
WORK = "for i in 1 2 3 4; do echo line-$i; sleep 1; done; head -c 80000000 /dev/urandom > big; echo written"
LINES = [f"line-{number}\n" for number in range(1, 5)]


class Viewer:
    """A page that is open on a launch and comes back when its stream breaks."""

    def __init__(self, stand: Stand, spec: str) -> None:
        self.seen: list[tuple[float, str | None, dict[str, Any]]] = []
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._watch(stand, spec))

    async def _watch(self, stand: Stand, spec: str) -> None:
        async for event_id, event in resumed(stand, spec, seconds=180):
            self.seen.append((time.monotonic(), event_id, event))
            self._news.set()

    async def until(self, found: Callable[[dict[str, Any]], bool], after: float = 0.0, seconds: float = 120) -> float:
        """Wait for an event that came later than `after`; when it came."""
        async with asyncio.timeout(seconds):
            while True:
                for moment, _, event in self.seen:
                    if moment > after and found(event):
                        return moment
                assert not self._task.done(), self.story()
                self._news.clear()
                await self._news.wait()

    async def ready(self) -> dict[str, Any]:
        """To the end, which must be a session; every numbered event exactly once, in order, none missing."""
        await self._task
        ids = [event_id.split(".")[1:] for _, event_id, _ in self.seen if event_id]
        stages: dict[str, list[int]] = {}
        for stage, number in ids:
            stages.setdefault(stage, []).append(int(number))
        assert ids[-1] == ["9", "0"], self.story()
        assert [stage for stage, _ in ids] == sorted(stage for stage, _ in ids), self.story()
        assert all(numbers == list(range(1, len(numbers) + 1)) for stage, numbers in stages.items() if stage != "9"), self.story()
        assert [event["phase"] in TERMINAL for _, _, event in self.seen].count(True) == 1, self.story()
        end = self.seen[-1][2]
        assert end["phase"] == "ready", self.story()
        return end

    def story(self) -> str:
        """For a failed assertion."""
        return "\n".join(f"{event_id} {event['phase']} {event['message'].strip()}" for _, event_id, event in self.seen)[-3000:]


def said(*words: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: any(word in event["message"] for word in words)


async def until(true: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait; how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, what
        await asyncio.sleep(0.1)
    return time.monotonic() - began


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def back(stand: Stand, part: str, seconds: float = 60) -> float:
    """Wait until the part that was killed listens again; the moment."""
    port = stand.port + {"proxy": 0, "hub": 2, "daemon": 3, "registry": 4}[part]
    async with asyncio.timeout(seconds):
        while not await listens(port):  # noqa: ASYNC110 - another process tells nobody
            await asyncio.sleep(0.02)
    return time.monotonic()


def healthy(stand: Stand) -> bool:
    return not stand.silent()


async def whole(stand: Stand) -> None:
    """Nothing of a build is left, and everything answers."""
    await until(lambda: healthy(stand), 60, "not healthy")
    ids = {row["id"] for row in stand.api("GET", "api/builds")["builds"]}
    leftovers: dict[str, Callable[[], object]] = {
        "containers": lambda: stand.podman("ps", "--all", "--quiet", "--filter", "label=io.binder-onprem.kind=build"),
        "working containers": lambda: [row for row in json.loads(stand.podman("ps", "--all", "--external", "--format=json")) if is_worker(row)],
        "directories": lambda: list((stand.home / "builds").iterdir()),
        "mounts": lambda: f"{stand.home}/builds/" in Path("/proc/mounts").read_text(encoding="utf-8"),
        "loop devices": lambda: [file for file in loops() if str(stand.home) in file],
        "images": lambda: stand.podman("images", "--quiet", "--filter", "reference=localhost/binder-build"),
        "groups": lambda: left(stand.port) & ids,
    }
    for what, look in leftovers.items():
        await until(partial(gone, look), 20, f"left over: {what}")


def gone(look: Callable[[], object]) -> bool:
    return not look()


def is_worker(row: dict[str, Any]) -> bool:
    return row.get("Command") == ["buildah"] or row.get("State") == "storage"


def loops() -> list[str]:
    """Files behind loop devices."""
    return subprocess.run(["losetup", "--noheadings", "--output=BACK-FILE"], capture_output=True, text=True, check=True).stdout.splitlines()


def builds_of(stand: Stand, name: str) -> list[dict[str, Any]]:
    return [row for row in stand.api("GET", "api/builds")["builds"] if row["repo_url"].endswith(f"/{name}")]


def fresh(name: str) -> str:
    """A repository that nobody has built yet."""
    return f"{name}-{secrets.token_hex(3)}"


def slow(origin: Origin, name: str, *, docker: bool = False) -> str:
    """A repository whose build takes seconds, writes lines and ends in a layer that takes a while to push; its spec."""
    if docker:
        origin.make(name, {"Dockerfile": f"FROM binder-onprem/base\nRUN : {name}; {WORK}\n"})  # podman keeps what it has run before
    else:
        repository = origin.make(name, {"postBuild": f"#!/bin/bash\nset -e\n{WORK}\n"})
        (repository.path / "postBuild").chmod(0o755)
        repository.save()
    return origin.spec(name)


def end(stand: Stand, event: dict[str, Any]) -> None:
    stand.api("DELETE", "api/sessions/" + event["url"].rstrip("/").rpartition("/")[2])


@contextmanager
def stopped(stand: Stand, part: str) -> Iterator[None]:
    stand.keeper.stop(part)
    try:
        yield
    finally:
        stand.keeper.start(part)


@asynccontextmanager
async def remembering(stand: Stand, origin: Origin) -> AsyncIterator[tuple[dict[str, Any], Kernel]]:
    """A session whose kernel holds a variable; it must still hold it at the end."""
    event = await ready(stand, origin.spec("bare"))
    async with kernel(event) as inside:
        await inside.run("kept = 6 * 7")
        yield event, inside
        assert await inside.run("print(kept)") == "42\n"
    end(stand, event)


MOMENTS = {
    "clone": (False, None),
    "layer": (False, said("line-2")),
    "layer-push": (False, said("written")),
    "image": (True, said("line-2")),
    "image-push": (True, said("Pushing")),
    "launch": (False, said("Launching")),
}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_the_daemon_dies_in_the_middle(stand: Stand, origin: Origin, moment: str) -> None:
    docker, sign = MOMENTS[moment]
    name = fresh(moment)
    spec = slow(origin, name, docker=docker)
    viewer = Viewer(stand, spec)
    if sign:
        await viewer.until(sign)
    else:
        origin.server.trouble[name] = Trouble(delay=5, posts=True)
        await until(lambda: f"POST /{name}/git-upload-pack" in origin.server.asked, 60, "no clone")
    killed = time.monotonic()
    stand.kill("daemon")
    origin.server.trouble.pop(name, None)
    assert viewer.seen[-1][2]["phase"] not in TERMINAL, "too late"
    restarted = await back(stand, "daemon")
    went_on = await viewer.until(lambda _: True, after=killed + 0.5)
    assert went_on - restarted < BACK, viewer.story()
    event = await viewer.ready()
    rows = builds_of(stand, name)
    assert [(row["state"], row["attempt"]) for row in rows] == [("built", 1 if moment == "launch" else 2)]
    if moment != "clone":
        lines = [event["message"] for _, _, event in viewer.seen if event["message"].startswith("line-")]
        assert lines in (LINES, LINES[:2] + LINES, LINES[:3] + LINES, LINES + LINES), lines
    end(stand, event)
    await whole(stand)


async def test_hub_registry_and_podman_die_and_the_websocket_lives(stand: Stand, origin: Origin) -> None:
    async with remembering(stand, origin) as (_, inside), inside.channel() as channel:
        for part in ("hub", "registry", "podman", "daemon"):
            stand.kill(part)
            assert await execute(channel, "print(kept)") == "42\n"
            await until(lambda: healthy(stand), 60, part)
            assert await inside.answers()
            click = await ready(stand, origin.spec("bare"))
            assert await execute(channel, "print(kept + 1)") == "43\n"
            end(stand, click)


async def test_the_proxy_dies_and_its_routes_come_back(stand: Stand, origin: Origin) -> None:
    async with remembering(stand, origin) as (_, inside):
        stand.kill("proxy")
        restarted = await back(stand, "proxy")
        while not await inside.answers():
            assert time.monotonic() - restarted < BACK
            await asyncio.sleep(0.1)
        click = await ready(stand, origin.spec("bare"))
        end(stand, click)


async def test_everything_dies_at_once_while_builds_run(stand: Stand, origin: Origin) -> None:
    names = fresh("layers"), fresh("docker")
    specs = [slow(origin, name, docker=name.startswith("docker")) for name in names]
    assert stand.keeper  # nothing is looked up once they run
    async with remembering(stand, origin):
        viewers = [Viewer(stand, spec) for spec in specs]
        await asyncio.gather(*(viewer.until(said("line-2")) for viewer in viewers))
        stand.kill(*PARTS)
        for viewer in viewers:
            end(stand, await viewer.ready())
    for name in names:
        assert [(row["state"], row["attempt"]) for row in builds_of(stand, name)] == [("built", 2)]
    await whole(stand)


async def test_podman_dies_under_a_build(stand: Stand, origin: Origin) -> None:
    name = fresh("under")
    viewer = Viewer(stand, slow(origin, name))
    await viewer.until(said("line-2"))
    killed = time.monotonic()
    stand.kill("podman")
    assert await viewer.until(said("Trying again"), after=killed) - killed < 5
    end(stand, await viewer.ready())
    assert len(builds_of(stand, name)) == 1
    await whole(stand)


async def test_a_container_is_removed_behind_the_hubs_back(stand: Stand, origin: Origin) -> None:
    event = await ready(stand, origin.spec("bare"))
    user = event["url"].rstrip("/").rpartition("/")[2]
    stand.api("POST", "api/sessions/reap?dry_run=true")  # it has been seen
    removed = time.monotonic()
    container = stand.podman("ps", "--quiet", "--filter", f"label=io.binder-onprem.launch={user[-16:]}").strip()
    stand.podman("stop", "--time=0", container)
    with contextlib.suppress(subprocess.CalledProcessError):  # the hub sees the stop at its next look, and may be removing it this moment
        stand.podman("rm", "--force", "--ignore", container)
    await until(lambda: user not in {row["name"] for row in stand.api("GET", "api/sessions")["sessions"]}, 35, "the user stays")
    assert time.monotonic() - removed < 35
    assert user not in routes(stand)


def routes(stand: Stand) -> str:
    import urllib.request  # noqa: PLC0415 - one place

    token = (stand.home / "secrets" / "proxy-token").read_text(encoding="utf-8").strip()
    asked = urllib.request.Request(f"http://127.0.0.1:{stand.port + 1}/api/routes", headers={"Authorization": f"token {token}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=10) as answer:
        return str(answer.read().decode())


async def test_without_registry_what_is_here_starts_and_nothing_is_built(stand: Stand, origin: Origin) -> None:
    end(stand, await ready(stand, origin.spec("bare")))
    name = fresh("unbuilt")
    origin.make(name, {"requirements.txt": "six\n"})
    with stopped(stand, "registry"):
        (here, before), (other, _) = await asyncio.gather(launch(stand, origin.spec("bare")), launch(stand, origin.spec(name)))
        assert here["phase"] == "ready", before
        assert any("does not answer" in event["message"] for event in before)
        assert (other["phase"], other["code"]) == ("failed", "registry")
        assert other["retryable"]
        assert not builds_of(stand, name)
    end(stand, here)
    await until(lambda: healthy(stand), 30, "registry")
    end(stand, await ready(stand, origin.spec(name)))
