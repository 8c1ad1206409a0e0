"""What a person sees at the address of a session that is no more, and how they get a new one."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.e2e.kernel import kernel
from tests.e2e.stand import ready

if TYPE_CHECKING:
    from playwright.async_api import Page

    from tests.e2e.conftest import Origin
    from tests.e2e.stand import Stand

pytestmark = [pytest.mark.real, pytest.mark.browser]

SESSION = re.compile(r".*/jupyter/user/([^/]+)/")


async def opened(stand: Stand, spec: str, page: Page) -> str:
    """Click; the session's URL."""
    await page.goto(f"{stand.url}v2/{spec}")
    await page.wait_for_url("**/jupyter/user/**/lab**", timeout=300_000)
    await page.locator(".jp-Launcher, .jp-Notebook").first.wait_for(timeout=60_000)
    return page.url


async def test_a_stopped_sessions_address_leads_to_a_new_one(stand: Stand, origin: Origin, page: Page) -> None:
    url = await opened(stand, origin.spec("bare"), page)
    session = SESSION.match(url)
    assert session
    assert stand.command("servers", "stop", session[1]).returncode == 0
    answer = await page.goto(url)
    assert answer is not None
    assert answer.status == 424
    assert await page.get_by_role("heading", name="This session has ended").is_visible()
    assert "jupyterhub" not in (await page.content()).lower()
    await page.get_by_role("link", name="Français").click()
    await page.get_by_role("heading", name="Cette session est terminée").wait_for(timeout=10_000)
    await page.get_by_role("link", name="English").click()
    await page.get_by_role("link", name="Launch it again").click()
    await page.wait_for_url("**/jupyter/user/**/lab**", timeout=120_000)
    assert SESSION.match(page.url)[1] != session[1]  # type: ignore[index]


async def test_a_session_that_died_says_so_before_and_after_its_route_is_gone(stand: Stand, origin: Origin, page: Page) -> None:
    url = await opened(stand, origin.spec("bare"), page)
    session = SESSION.match(url)
    assert session
    await page.goto("about:blank")
    with contextlib.suppress(subprocess.CalledProcessError):
        stand.podman("kill", f"binder-{session[1].rpartition('-')[2]}")
    # From the beginning: the page looks again by itself, perhaps before the next line here.
    gone = asyncio.Event()
    page.on("response", lambda found: gone.set() if found.status == 424 else None)
    answer = await page.goto(url, wait_until="commit", timeout=90_000)
    assert answer is not None
    assert answer.status in (424, 503)
    await page.get_by_role("heading", name="This session has ended").wait_for(timeout=15_000)
    await page.get_by_role("link", name="Launch it again").wait_for(timeout=15_000)
    await asyncio.wait_for(gone.wait(), 60)


async def test_scripts_get_json_and_sockets_are_refused(stand: Stand, origin: Origin) -> None:
    end = await ready(stand, origin.spec("bare"))
    async with kernel(end) as session, aiohttp.ClientSession() as client:
        user = SESSION.match(end["url"])[1]  # type: ignore[index]
        assert stand.command("servers", "stop", user).returncode == 0
        async with client.get(f"{end['url']}api/kernels?token={end['token']}") as answer:
            assert (answer.status, (await answer.json())["code"]) == (424, "session_ended")
        async with client.post(f"{end['url']}api/contents") as answer:
            assert answer.status == 424
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.run("1")
        assert refused.value.status == 424


async def test_nothing_of_jupyterhub_is_on_the_public_port(stand: Stand) -> None:
    async with aiohttp.ClientSession() as client:
        for path in (
            "",
            "hub/",
            "hub/login",
            "hub/home",
            "hub/error/404",
            "hub/nothing-here/x",
            "hub/api",
            "hub/logo",
            "hub/static/favicon.ico",
            "user",
        ):
            async with client.get(f"{stand.url}jupyter/{path}", headers={"Accept": "text/html"}, allow_redirects=False) as answer:
                assert answer.status == 404, path
                assert "jupyterhub" not in (await answer.text()).lower()
                assert not any("jupyterhub" in f"{name}{value}".lower() for name, value in answer.headers.items())
