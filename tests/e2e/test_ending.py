"""Before a session ends its page says so; who goes on working keeps it, who does not finds the changed files afterwards."""

from __future__ import annotations

import asyncio
import io
import json
import re
import tarfile
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.e2e.kernel import kernel
from tests.e2e.stand import ready
from tests.e2e.test_idle import settings

if TYPE_CHECKING:
    from playwright.async_api import Page

    from tests.e2e.conftest import Origin
    from tests.e2e.stand import Stand

pytestmark = [pytest.mark.real, pytest.mark.browser]

IDLE = 50
HIDDEN = "Object.defineProperty(document, 'hidden', {get: () => true}); Object.defineProperty(document, 'visibilityState', {get: () => 'hidden'})"
"""A tab that nobody looks at: JupyterLab asks its server for nothing then, which would be activity."""
WRITE = """
import os, pathlib
pathlib.Path("results.csv").write_text("1,2\\n")
os.symlink("/etc/passwd", "link")
open("holes", "wb").truncate(2**40)
"""


def members(data: bytes) -> dict[str, bytes | str]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        return {
            entry.name.partition("/")[2]: file.read() if (file := tar.extractfile(entry) if entry.isreg() else None) else entry.linkname
            for entry in tar
        }


async def asked(url: str, token: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as client, client.get(url, headers={"Authorization": f"token {token}"}) as answer:
        return answer.status, await answer.read()


async def test_warned_kept_and_downloaded_after_the_end(stand: Stand, origin: Origin, page: Page) -> None:
    # The image is there before idleness is short.
    await ready(stand, origin.spec("bare"))
    with settings(stand, session={"idle": IDLE}, ending={"warn": IDLE - 1}, passes={"reap": 2}):
        await page.add_init_script(HIDDEN)
        await page.goto(f"{stand.url}v2/{origin.spec('bare')}")
        await page.wait_for_url("**/jupyter/user/**/lab**", timeout=120_000)
        name, url = _named(page.url)
        token = str(await page.evaluate(f"localStorage.getItem('binder-token:/jupyter/user/{name}/')"))
        api = f"{stand.url}api/session/{name}"
        async with kernel({"url": url, "token": token}) as session:
            await session.run(WRITE)
        status, data = await asked(f"{api}/files", token)
        found = members(data)
        assert (status, found["results.csv"], found["link"]) == (200, b"1,2\n", "/etc/passwd")
        assert b"holes\n" in found["LEFT-OUT.txt"]
        assert (await asked(f"{api}/files", "x" * 43))[0] == 403

        warning = page.get_by_role("alert", name="End of the session")
        await warning.get_by_text("Nobody uses this session").wait_for(timeout=90_000)
        await _until(lambda: _seconds(api, token), lambda seconds: seconds < IDLE - 15)
        await warning.get_by_role("button", name="Keep working").click()
        await _until(lambda: _seconds(api, token), lambda seconds: seconds > IDLE - 12)

        # Now nobody says anything.
        await page.get_by_text("The files you changed are kept for a while").wait_for(timeout=180_000)
        answer = await page.goto(url)
        assert answer
        assert answer.status in (424, 503)
        link = page.get_by_role("link", name="Download my changed files")
        await link.wait_for(timeout=30_000)
        async with page.expect_download() as download:
            await link.click()
        kept = members(await asyncio.to_thread((await (await download.value).path()).read_bytes))
        assert kept["results.csv"] == b"1,2\n"
        assert name not in [row["name"] for row in stand.json("servers", "list")]


async def test_one_that_crashed_and_one_that_an_administrator_stops_leave_their_files(stand: Stand, origin: Origin) -> None:
    ends = [await ready(stand, origin.spec("bare")) for _ in range(3)]
    names = [_named(end["url"])[0] for end in ends]
    for end in ends:
        async with kernel(end) as session:
            await session.run(WRITE)
        assert (await asked(f"{stand.url}api/session/{_named(end['url'])[0]}", end["token"]))[0] == 200, "as its page asks when it opens"
    stand.podman("kill", f"binder-{names[0][-16:]}")
    assert (await asyncio.to_thread(stand.command, "servers", "stop", names[1])).returncode == 0
    for name, end in zip(names[:2], ends, strict=False):
        api = f"{stand.url}api/session/{name}"
        # Until it is noticed that the container is dead, its files come from there.
        await _until(lambda api=api, end=end: asked(api, end["token"]), _kept, seconds=180)
        assert members((await asked(f"{api}/files", end["token"]))[1])["results.csv"] == b"1,2\n"
        assert (await asked(f"{api}/files", "x" * 43))[0] == 404
    assert not [name for name in names[:2] if name in stand.podman("ps", "--all", "--format={{.Names}}")]
    assert (await asked(f"{stand.url}api/session/{names[2]}", ends[2]["token"]))[0] == 200


def _named(url: str) -> tuple[str, str]:
    found = re.match(r"(.*/jupyter/user/([^/]+)/)", url)
    assert found
    return found[2], found[1]


def _kept(answer: tuple[int, bytes]) -> bool:
    return answer[0] == 200 and bool(json.loads(answer[1])["kept"])


async def _seconds(api: str, token: str) -> float:
    return float(json.loads((await asked(api, token))[1])["seconds"])


async def _until(ask: Any, holds: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds(found := await ask()):
        assert time.monotonic() < end, found
        await asyncio.sleep(0.5)
