"""The pages in Chromium, over a line that plays a script."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from binder_onprem.errors import BuildFailed
from binder_onprem.events import Phase, Progress, Stage
from binder_onprem.providers.refs import no_ref
from tests.unit.webstand import BUILD, Play, lines, ready, stand, usual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Browser, ConsoleMessage, Page

pytestmark = pytest.mark.browser

LINK = "v2/gh/o/r/HEAD"
ESC = "\x1b"
HOSTILE = f"<img src=x onerror=alert(1)> {ESC}]8;;http://evil.example\x07a link{ESC}]8;;\x07 {ESC}]52;c;ZXZpbA==\x07{ESC}[31mred{ESC}[0m {ESC}[2J\n"


@dataclass
class Watch:
    """What a page should not do."""

    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    def console(self, message: ConsoleMessage) -> None:
        # Losing the server is part of some tests, and a session of theirs is only an address.
        if message.type == "error" and "net::ERR" not in message.text and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)


@asynccontextmanager
async def page_of(browser: Browser, **more: Any) -> AsyncIterator[tuple[Page, Watch]]:
    watch = Watch()
    context = await browser.new_context(**more)
    page = await context.new_page()
    page.set_default_timeout(15000)
    page.on("console", watch.console)
    page.on("pageerror", lambda error: watch.complaints.append(str(error)))
    page.on("dialog", lambda dialog: watch.complaints.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: watch.hosts.add(urlsplit(request.url).hostname or ""))
    try:
        yield page, watch
    finally:
        await context.close()
    assert watch.complaints == []
    assert watch.hosts <= {"127.0.0.1"}


async def states(page: Page) -> list[str | None]:
    return [await item.get_attribute("data-state") for item in await page.locator("#phases li").all()]


async def test_phases_then_into_the_session(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with stand(tmp_path, vendor=vendor) as at, page_of(browser) as (page, _):
        session = f"{at.url}jupyter/user/o-r-1/"
        at.play.script = [*usual()[:4], gate, *usual()[4:-1], ready(session)]
        await page.goto(f"{at.url}{LINK}?labpath=notebooks/a b.ipynb&urlpath=//evil.example")
        await expect(page.locator("#phases [aria-current=step]")).to_contain_text("Build the environment")
        assert await states(page) == ["done", "done", "current", "pending", "pending"]
        await expect(page.locator("#announce")).to_have_text("Building the environment")
        gate.set()
        await page.wait_for_url(f"{session}doc/tree/notebooks/a%20b.ipynb?token=session-token")
        assert at.play.requests[0].client.trusted


async def test_an_image_that_is_there_skips_the_build(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    hold = asyncio.Event()
    async with stand(tmp_path, Play([usual()[0], *usual()[5:7], hold]), vendor=vendor) as at, page_of(browser) as (page, _):
        await page.goto(at.url + LINK)
        await expect(page.locator("#phases [aria-current=step]")).to_contain_text("Start the session")
        assert await states(page) == ["done", "skipped", "skipped", "done", "current"]


async def test_a_log_is_text_whatever_it_holds(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    script = [usual()[0], Progress(Phase.BUILDING, HOSTILE, Stage.BUILD, 1, {"build": BUILD}), asyncio.Event()]
    async with stand(tmp_path, Play(script), vendor=vendor) as at, page_of(browser) as (page, _):
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await page.goto(at.url + LINK)
        await expect(page.locator("#log .xterm-rows")).to_contain_text("<img src=x onerror=alert(1)> a link red")
        assert await page.locator("#log img, #log a").count() == 0
        assert await page.locator("#log[data-kind=terminal]").count() == 1
        await page.get_by_role("button", name="Copy").click()
        copied = await page.evaluate("navigator.clipboard.readText()")
        assert copied.endswith("<img src=x onerror=alert(1)> a link red \n")
        assert ESC not in copied


async def test_without_the_terminal_the_log_is_plain(browser: Browser, tmp_path: Path) -> None:
    script = [Progress(Phase.BUILDING, HOSTILE, Stage.BUILD, 1), asyncio.Event()]
    async with stand(tmp_path, Play(script), vendor=tmp_path) as at, page_of(browser) as (page, watch):
        await page.goto(at.url + LINK)
        await expect(page.locator("#log pre")).to_have_text("<img src=x onerror=alert(1)> a link red ")
        watch.complaints = [text for text in watch.complaints if "vendor" not in text]


async def test_failure_says_what_to_do_and_retry_starts_anew(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    play = Play([*usual()[:4], BuildFailed("numpy==99 does not exist.")])
    async with stand(tmp_path, play, vendor=vendor) as at, page_of(browser) as (page, _):
        await page.goto(at.url + LINK)
        await expect(page.locator("#failure-message")).to_have_text("numpy==99 does not exist.")
        await expect(page.locator("#failure-advice")).to_contain_text("The log below says which step failed.")
        await expect(page.locator("#failure")).to_be_focused()
        await expect(page.locator("#fulllog")).to_have_attribute("href", f"/api/builds/{BUILD}/log")
        assert await states(page) == ["done", "done", "failed", "pending", "pending"]
        play.script = [usual()[0], asyncio.Event()]
        await page.get_by_role("button", name="Try again").click()
        await expect(page.locator("#headline")).to_have_text("Finding the repository")
        await expect(page.locator("#failure")).to_be_hidden()
        assert len({request.key for request in play.requests}) == 2


async def test_the_page_goes_on_after_the_server_restarts(browser: Browser, tmp_path: Path) -> None:
    before = Play([usual()[0], *lines(5), asyncio.Event()])
    async with page_of(browser) as (page, watch):
        async with stand(tmp_path, before, vendor=tmp_path) as at:
            await page.goto(at.url + LINK)
            await expect(page.locator("#log pre")).to_contain_text("line 5")
        await expect(page.locator("#connection")).to_contain_text("The connection to the server is lost")
        after = Play([usual()[0], *lines(9), Progress(Phase.LAUNCHING, "Launching\n", Stage.LAUNCH, 2), asyncio.Event()])
        async with stand(tmp_path, after, vendor=tmp_path, port=at.port):
            await expect(page.locator("#log pre")).to_contain_text("Launching")
            await expect(page.locator("#connection")).to_be_hidden()
            text = await page.locator("#log pre").inner_text()
            assert text.splitlines() == ["Looking up https://example.org/o/r at HEAD...", *(f"line {number}" for number in range(1, 10)), "Launching"]
            assert {request.key for request in after.requests} == {before.requests[0].key}
        watch.complaints = [text for text in watch.complaints if "vendor" not in text]


async def test_a_reload_takes_the_launch_up_again(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    play = Play([usual()[0], *lines(5), asyncio.Event()])
    async with stand(tmp_path, play, vendor=vendor) as at, page_of(browser) as (page, _):
        await page.goto(at.url + LINK)
        await expect(page.locator("#log .xterm-rows")).to_contain_text("line 5")
        await page.reload()
        await expect(page.locator("#log .xterm-rows")).to_contain_text("line 5")
        assert len(play.requests) == 2
        assert len({request.key for request in play.requests}) == 1


async def test_queue_in_french(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    place = Progress(Phase.WAITING, "Waiting\n", Stage.BUILD, 0, {"position": 3, "estimate": 130.0})
    async with stand(tmp_path, Play([usual()[0], place, asyncio.Event()]), vendor=vendor) as at, page_of(browser, locale="fr-FR") as (page, _):
        await page.goto(at.url + LINK)
        await expect(page.locator("#queue")).to_have_text(
            "Votre construction est à la place 3 de la file. Elle devrait commencer dans environ 2 minutes."
        )
        await expect(page.locator("#headline")).to_have_text("En attente d\u2019une place libre")
        assert await page.locator("html").get_attribute("lang") == "fr"


async def test_a_failure_in_french(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    play = Play([*usual()[:4], no_ref("nope")])
    async with stand(tmp_path, play, vendor=vendor) as at, page_of(browser, locale="fr-FR") as (page, _):
        await page.goto(at.url + LINK)
        await expect(page.locator("#failure-message")).to_contain_text("ni commit \u00ab\u00a0nope\u00a0\u00bb. V\u00e9rifiez l\u2019orthographe")
        await expect(page.locator("#log .xterm-rows")).to_contain_text("Recherche de https://example.org/o/r")
        await expect(page.locator("#log .xterm-rows")).to_contain_text("line 2")


async def test_form_makes_links_and_badges(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    async with stand(tmp_path, vendor=vendor) as at, page_of(browser) as (page, _):
        await page.goto(at.url)
        await page.get_by_label("Git repository URL").fill("https://github.com/o/r/blob/main/a b.ipynb")
        await page.keyboard.press("Tab")
        await expect(page.locator("#provider")).to_have_value("gh")
        await expect(page.locator("#repo")).to_have_value("o/r")
        await expect(page.locator("#ref")).to_have_value("main")
        link = f"{at.url}v2/gh/o/r/main?urlpath=%2Flab%2Ftree%2Fa%2520b.ipynb"
        await expect(page.locator("#link")).to_have_value(link)
        await expect(page.locator("#markdown")).to_have_value(f"[![Binder]({at.url}badge_logo.svg)]({link})")
        await page.get_by_role("button", name="Launch", exact=True).click()
        await page.wait_for_url(link)


async def test_form_without_scripts(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    async with stand(tmp_path, vendor=vendor) as at, page_of(browser, java_script_enabled=False) as (page, _):
        await page.goto(at.url)
        await page.locator("#provider").select_option("gl")
        await page.locator("#repo").fill("group/project")
        await page.get_by_role("button", name="Launch", exact=True).click()
        await page.wait_for_url(f"{at.url}v2/gl/group%2Fproject/HEAD")
        assert "This page needs JavaScript" in await page.content()


async def test_an_ended_session_can_be_launched_again(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    async with stand(tmp_path, vendor=vendor) as at, page_of(browser) as (page, _):
        at.play.script = [ready(f"{at.url}jupyter/user/o-r-1/")]
        await page.goto(at.url + LINK)
        await page.wait_for_url("**/jupyter/user/o-r-1/**")
        # The proxy answers at the session's own address with this page.
        ended = await page.request.get(f"{at.url}_error/503?url=/jupyter/user/o-r-1/lab")
        body, headers = await ended.body(), dict(ended.headers)
        await page.route("**/jupyter/user/o-r-1/lab", lambda route: route.fulfill(status=503, headers=headers, body=body))
        await page.goto(f"{at.url}jupyter/user/o-r-1/lab")
        await expect(page.get_by_role("link", name="Launch it again")).to_have_attribute("href", f"/{LINK}")


async def test_the_keyboard_passes_through_the_log(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    async with stand(tmp_path, Play([*usual()[:3], asyncio.Event()]), vendor=vendor) as at, page_of(browser) as (page, _):
        await page.goto(at.url + LINK)
        await expect(page.locator("#log .xterm-rows")).to_contain_text("line")
        await page.locator("#copylog").focus()
        for _ in range(3):
            await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.closest('footer, header') !== null || document.activeElement === document.body")


PAGES = {
    "form": ("", usual()),
    "running": (LINK, [*usual()[:5], asyncio.Event]),
    "failed": (LINK, [*usual()[:4], BuildFailed("numpy==99 does not exist, " + "x" * 200)]),
    "missing": ("nope", usual()),
    "ended": ("_error/503?url=/jupyter/user/x/", usual()),
    "about": ("about", usual()),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
async def test_accessible_and_narrow_enough(browser: Browser, vendor: Path, tmp_path: Path, name: str, scheme: Any) -> None:
    path, script = PAGES[name]
    play = Play([item() if item is asyncio.Event else item for item in script])
    context = {"color_scheme": scheme, "viewport": {"width": 375, "height": 812}}
    async with stand(tmp_path, play, vendor=vendor) as at, page_of(browser, **context) as (page, _):
        await page.goto(at.url + path)
        if path == LINK:
            await page.locator("#log").scroll_into_view_if_needed()  # xterm draws nothing that is out of sight
            await expect(page.locator("#log .xterm-rows")).to_contain_text("line")
        if name == "form":
            await page.locator("#repo").fill("https://git.example.org/" + "long/" * 20)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        found = (await Axe().run(page)).response["violations"]
        serious = [(item["id"], item["nodes"][0]["html"][:200]) for item in found if item["impact"] in ("serious", "critical")]
        assert serious == []
