"""Projects over every real part: people who log in keep their work in them, each their own, no more than the quota, whatever is killed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from axe_playwright_python.async_playwright import Axe
from yarl import URL

from tests.e2e.identity import PASSWORD
from tests.e2e.kernel import kernel
from tests.e2e.stand import Stand
from tests.e2e.test_accounts import SECONDS, people

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Origin
    from tests.e2e.test_accounts import Person

pytestmark = [pytest.mark.real, pytest.mark.browser]

SETTINGS = {"auth": {"kind": "native", "named_servers": 2}, "projects": {"enabled": True, "quota": "48MiB", "most": 2, "total": "250MiB"}}


@pytest.fixture(scope="module")
def site() -> Iterator[Stand]:
    """Of accounts of its own, and two people."""
    if running := os.environ.get("BINDER_ONPREM_TEST_HOME"):
        yield Stand.at(Path(running))
        return
    stand = Stand.new(samples=False, **SETTINGS)
    try:
        stand.up()
        for name in ("ada", "bob"):
            assert stand.command("accounts", "add", name, given=PASSWORD + "\n").returncode == 0
        yield stand
    finally:
        stand.destroy()


class Program:
    """A program of somebody's, by her token."""

    def __init__(self, site: Stand, token: str) -> None:
        self._site, self._headers = site, {"Authorization": f"Bearer {token}"}

    async def call(self, method: str, path: str) -> tuple[int, Any]:
        """Status and JSON."""
        async with (
            aiohttp.ClientSession(headers=self._headers) as client,
            client.request(method, URL(self._site.url + path, encoded=True), allow_redirects=False) as answer,
        ):
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith("{") else text

    async def launch(self, spec: str, project: str) -> list[dict[str, Any]]:
        """The events of a launch."""
        _, text = await self.call("GET", f"build/{spec}?project={project}")
        return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]

    async def ready(self, spec: str, project: str) -> dict[str, Any]:
        """The last event, which must be that."""
        events = await self.launch(spec, project)
        assert events[-1]["phase"] == "ready", events[-5:]
        return events[-1]

    async def stop(self, ready: dict[str, Any]) -> None:
        """End a session."""
        assert (await self.call("DELETE", f"api/user/sessions/{ready['url'].split('/')[-2]}"))[0] == 204


async def logged_in(person: Person, name: str) -> Program:
    await person.page.goto(f"{person.site.url}sessions")
    await person.password(name)
    await person.page.get_by_label("What it is for").fill("test")
    await person.page.get_by_role("button", name="Make a token").click()
    return Program(person.site, await person.page.locator(".secret").inner_text(timeout=SECONDS))


def mounts(site: Stand) -> list[str]:
    return re.findall(rf"{site.home}/projects/([0-9a-f]{{16}})/", Path("/proc/mounts").read_text(encoding="ascii"))


async def eventually(question: Any, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not question():  # noqa: ASYNC110 - passes tell nobody that they have run
            await asyncio.sleep(0.3)


async def test_what_somebody_does_is_there_the_next_time_and_nobody_elses(site: Stand, origin: Origin) -> None:
    spec = origin.spec("bare")
    async with people(site, 2) as (ada, bob):
        hers, his = await logged_in(ada, "ada"), await logged_in(bob, "bob")
        first = await hers.ready(spec, "thesis")
        async with kernel(first) as python:
            assert await python.run("print(open('mine', 'w').write('work'))") == "4\n"
            assert "No space left" in await python.run("file = open('big', 'wb', 0)\nwhile True:\n    file.write(bytes(1000))")
            assert await python.run("import os; os.remove('README.md')") == ""
        again = await hers.ready(spec, "thesis")
        assert (again["url"], again["token"]) == (first["url"], first["token"])
        site.kill("daemon")
        await eventually(lambda: not site.silent(), 120)
        assert (await hers.ready(spec, "thesis"))["url"] == first["url"]
        await hers.stop(first)
        await eventually(lambda: not mounts(site))
        second = await hers.ready(spec, "thesis")
        assert second["url"] != first["url"]
        async with kernel(second) as python:
            # Full as it is, it has started.
            assert await python.run("import os; print(open('mine').read(), os.path.exists('README.md'))") == "work False\n"
            assert await python.run("os.remove('big'); print(open('more', 'w').write('work'))") == "4\n"
        other = await his.ready(spec, "thesis")
        async with kernel(other) as python:
            assert await python.run("import os; print(os.path.exists('mine'), os.path.exists('README.md'))") == "False True\n"


def volumes(site: Stand) -> set[str]:
    """Ids of the whole ones on the disk."""
    return {path.parent.name for path in (site.home / "projects").glob("*/volume.img") if not path.parent.suffix}


async def test_it_outlives_down_and_a_kill_while_it_is_made_and_goes_when_it_is_deleted(site: Stand, origin: Origin) -> None:
    spec = origin.spec("bare")
    async with people(site, 2) as (ada, bob):
        hers, his = await logged_in(ada, "ada"), await logged_in(bob, "bob")
        await _killed_while_it_is_made(site, hers, spec)
        first = await hers.ready(spec, "second")
        async with kernel(first) as python:
            assert (
                await python.run("import os; print(open('a', 'wb').write(os.urandom(20_000_000)), os.path.exists('README.md'))") == "20000000 True\n"
            )
        assert site.command("down").returncode == 0
        await eventually(lambda: not left(site.home))
        site.up()
        await eventually(lambda: not site.silent(), 120)
        again = await hers.ready(spec, "second")
        async with kernel(again) as python:
            assert await python.run("import os; print(os.path.getsize('a'))") == "20000000\n"
        (row,) = [row for row in site.json("projects", "list") if row["name"] == "second"]
        assert (row["owner"], row["running"], row["bytes"] > 20_000_000) == ("ada", True, True)
        await _only_hers(site, his, row)
        await _its_address_says_that_it_is_kept(ada, hers, f"{site.url}v2/{spec}?project=second", again)
        await hers.ready(spec, "second")
        await _deleted_on_the_page(site, ada, row)
        assert site.command("accounts", "remove", "bob").returncode == 0
        assert {row["owner"] for row in site.json("projects", "list")} <= {"ada"}


async def _killed_while_it_is_made(site: Stand, hers: Program, spec: str) -> None:
    before, folder = volumes(site), site.home / "projects"
    launch = asyncio.create_task(hers.launch(spec, "second"))
    async with asyncio.timeout(60):
        while not list(folder.glob("*.new")):  # noqa: ASYNC110 - as often as can be
            await asyncio.sleep(0.01)
    site.kill("daemon")
    await asyncio.wait({launch})
    assert launch.exception() or launch.result()[-1]["phase"] == "failed"
    await eventually(lambda: not site.silent() and not list(folder.glob("*.new")), 120)
    assert len(volumes(site) - before) <= 1
    assert not [path for path in left(site.home) if ".new" in path]


def left(folder: Path) -> list[str]:
    """Projects' mounts and loop devices below a directory."""
    loops = subprocess.run(["losetup", "--list", "--noheadings", "--output", "BACK-FILE"], capture_output=True, text=True, check=True).stdout
    lines = (*Path("/proc/mounts").read_text(encoding="ascii").splitlines(), *loops.splitlines())
    return [line for line in lines if f"{folder}/projects/" in line]


async def _only_hers(site: Stand, his: Program, row: dict[str, Any]) -> None:
    _, seen = await his.call("GET", "api/user/projects")
    assert "second" not in [project["name"] for project in seen["projects"]]
    for method, path in (("DELETE", ""), ("POST", "/stop"), ("GET", "/files")):
        assert (await his.call(method, f"api/user/projects/second{path}"))[0] == 404
    assert (await his.call("DELETE", f"api/projects/{row['id']}"))[0] == 403
    assert site.command("projects", "delete", "ada/second", "--dry-run").stdout.startswith("ada/second: would be deleted")
    assert row["id"] in volumes(site)


async def _its_address_says_that_it_is_kept(ada: Person, hers: Program, link: str, running: dict[str, Any]) -> None:
    await ada.page.goto(link)
    assert (await ada.session())[1] == running["url"].split("/")[-2]
    await hers.stop(running)
    await ada.page.reload()
    await ada.page.get_by_text("Its files are kept in a project.").wait_for(timeout=SECONDS)


async def _deleted_on_the_page(site: Stand, ada: Person, row: dict[str, Any]) -> None:
    """By the keyboard, on a phone, with its session open."""
    await ada.page.set_viewport_size({"width": 375, "height": 800})
    await ada.page.goto(f"{site.url}projects")
    card = ada.page.locator("li.project").filter(has=ada.page.get_by_role("heading", name="second"))
    await card.get_by_text("a session is open").wait_for(timeout=SECONDS)
    assert await ada.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    found = await Axe().run(ada.page)
    assert [item for item in found.response["violations"] if item["impact"] in ("serious", "critical")] == []
    await card.locator("summary").focus()
    await ada.page.keyboard.press("Enter")
    await ada.page.keyboard.press("Tab")
    await ada.page.keyboard.press("Enter")
    await ada.page.wait_for_function("!document.body.innerText.includes('second')", timeout=SECONDS)
    assert row["id"] not in volumes(site)
    assert not [line for line in left(site.home) if row["id"] in line]
    assert row["id"] not in [project["id"] for project in site.json("projects", "list")]
