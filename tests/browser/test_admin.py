"""The administrator's page in Chromium, over the real application and its real tables."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from binder_onprem.model import BuildState
from tests.browser.test_web import HOSTILE, page_of
from tests.unit.webstand import ADMIN, RECORD, SESSION, Records, lines, ruled

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.browser


class Using:
    async def now(self) -> dict[str, Any]:
        return {"e" * 16: SimpleNamespace(cpu=0.53, memory=300 * 2**20)}


async def host() -> dict[str, Any]:
    return {
        "storage": [{"place": "home", "bytes": 10**12, "free": 4 * 10**11, "inodes": 100, "inodes_free": 50, "device": "1"}],
        "memory": {"bytes": 16 * 2**30, "available": 7 * 2**30},
        "load": [1.0, 0.5, 0.2],
        "processors": 4,
        "parts": [{"name": "hub", "state": "failed", "pid": 0, "answers": False}],
        "findings": [{"level": "warn", "subject": "listen", "text": "no encryption", "fix": "Put a proxy with TLS in front."}],
        "certificates": [],
        "versions": {"podman": "4.3.1"},
    }


def records() -> Records:
    made = Records(live=asyncio.Event())
    made.session = replace(SESSION, launch_id="e" * 16, started=time.time() - 4000, last_activity=time.time() - 30)
    made.record = replace(RECORD, created=time.time() - 100, started=time.time() - 90)
    return made


DESK: dict[str, Any] = {"host": host, "usage": Using(), "passes": {"prune": {"at": 5.0, "ok": True, "seconds": 0.4}}}


async def signed_in(page: Page, url: str, label: str = "Admin token") -> None:
    await page.goto(f"{url}admin")
    await page.get_by_label(label).fill(ADMIN)
    await page.keyboard.press("Enter")
    await page.locator("#builds-table tbody tr").first.wait_for()


async def test_a_running_build_is_seen_live_its_log_read_and_cancelled(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    at_work = records()
    at_work.log = [*lines(2), replace(lines(1)[0], message=HOSTILE, number=3)]
    async with ruled(tmp_path, at_work, vendor=vendor, desk=DESK) as at, page_of(browser) as (page, _):
        await signed_in(page, at.url)
        row = page.locator("#builds-table tbody tr")
        await expect(row).to_contain_text("running")
        await row.get_by_role("button", name="Log").click()
        await expect(page.locator("#log .xterm-rows")).to_contain_text("<img src=x onerror=alert(1)> a link red")
        assert at_work.live
        at_work.live.set()
        await expect(page.locator("#log .xterm-rows")).to_contain_text("last")
        await row.get_by_role("button", name="Cancel").click()
        await page.get_by_role("button", name="Yes").click()
        await expect(page.locator("#said")).to_have_text("The build is cancelled.")
        await expect(row).to_contain_text("cancelled")
        await expect(row.get_by_role("button", name="Rebuild")).to_be_visible()


async def test_what_another_does_is_seen_without_a_reload(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    at_work = records()
    async with ruled(tmp_path, at_work, vendor=vendor, desk=DESK) as at, page_of(browser) as (page, _):
        await signed_in(page, at.url)
        assert at.site.desk
        await at.site.desk.rules.pause("somebody")
        await expect(page.locator("#queue-state")).to_contain_text("paused")
        await page.get_by_role("button", name="Resume the queue").click()
        await expect(page.locator("#queue-state")).not_to_contain_text("paused")
        at_work.record = replace(at_work.record or RECORD, state=BuildState.BUILT, ended=time.time())
        await expect(page.locator("#builds-table tbody tr")).to_contain_text("built")


async def test_sessions_images_bans_and_maintenance(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    at_work = records()
    async with ruled(tmp_path, at_work, vendor=vendor, desk=DESK) as at, page_of(browser) as (page, _):
        await signed_in(page, at.url)
        await page.get_by_role("link", name="Sessions").click()
        await expect(page.locator("#sessions-table tbody tr")).to_contain_text("300 MiB")
        await page.get_by_role("button", name="Stop: o-r-1").click()
        await page.get_by_role("button", name="No", exact=True).click()
        assert at_work.stopped == []
        await page.get_by_role("button", name="Stop: o-r-1").click()
        await page.get_by_role("button", name="Yes").click()
        await expect(page.locator("#said")).to_have_text("The session is stopped.")
        at_work.session = None
        await expect(page.locator("#sessions-table")).to_contain_text("No sessions.")
        await page.get_by_role("link", name="Images").click()
        await page.get_by_role("button", name="Pin").click()
        await expect(page.get_by_role("button", name="Unpin")).to_be_visible()
        await page.get_by_role("button", name="Delete").click()
        await page.get_by_role("button", name="Yes").click()
        await expect(page.locator("#said")).to_have_text("The image is pinned. Unpin it first.")
        await page.get_by_role("link", name="Bans").click()
        await page.get_by_label("What", exact=True).fill("gh/<b>evil</b>/*")
        await page.get_by_role("button", name="Ban", exact=True).click()
        await expect(page.locator("#bans-table tbody tr")).to_contain_text("gh/<b>evil</b>/*")
        await page.get_by_role("link", name="Maintenance").click()
        await page.get_by_label("Words in English").fill("New disks.")
        await page.get_by_role("button", name="Begin").click()
        await page.get_by_role("button", name="Yes").click()
        await expect(page.locator("#maintenance-now")).to_contain_text("New disks.")
        await page.get_by_role("button", name="End", exact=True).click()
        await expect(page.locator("#maintenance-now")).to_have_text("No maintenance.")
        await page.get_by_role("link", name="Audit").click()
        await expect(page.locator("#audit-table tbody tr").first).to_contain_text("maintenance.off")
        async with page.expect_download() as saving:
            await page.get_by_role("button", name="Save as JSON lines").click()
        assert "ban.add" in (await (await saving.value).path()).read_text()


async def test_signing_out_ends_the_page(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    async with ruled(tmp_path, records(), vendor=vendor, desk=DESK) as at, page_of(browser) as (page, _):
        await signed_in(page, at.url)
        other = await page.context.new_page()
        await other.goto(f"{at.url}admin")
        await page.get_by_role("button", name="Sign out").click()
        await page.get_by_label("Admin token").wait_for()
        await expect(other.locator("#connection")).to_contain_text("You are signed out.", timeout=30_000)


async def test_a_session_of_the_same_origin_gets_no_hold_of_the_page(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    async with ruled(tmp_path, records(), vendor=vendor, desk=DESK) as at, page_of(browser) as (page, _):
        await signed_in(page, at.url)
        await page.goto(f"{at.url}about")  # any page of the same origin, as a session's would be
        got = await page.evaluate("fetch('/admin').then(async answer => [answer.status, (await answer.text()).includes('xsrf')])")
        assert got == [403, False]
        assert await page.evaluate("fetch('/api/builds').then(answer => answer.status)") == 403
        opened = await page.evaluate(
            """() => { const other = window.open('/admin'); return new Promise(done => setTimeout(() => {
            try { done(other.closed || !other.document.querySelector('[name=xsrf]')); } catch { done(true); } }, 2000)); }"""
        )
        assert opened is True


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_accessible_narrow_and_french(browser: Browser, vendor: Path, tmp_path: Path, scheme: Any) -> None:
    context = {"color_scheme": scheme, "viewport": {"width": 375, "height": 812}, "locale": "fr-FR"}
    async with ruled(tmp_path, records(), vendor=vendor, desk=DESK) as at, page_of(browser, **context) as (page, _):
        await page.goto(f"{at.url}admin")
        await sound(page)
        await signed_in(page, at.url, "Jeton d’administration")  # noqa: RUF001 - French
        await expect(page.locator("#builds-table tbody tr")).to_contain_text("en cours")
        await page.locator("#builds-table button").first.click()
        for tab in ("builds", "sessions", "images", "bans", "maintenance", "host", "audit"):
            await page.locator(f"[data-tab={tab}]").focus()
            await page.keyboard.press("Enter")
            await expect(page.locator(f"#{tab}")).to_be_visible()
            await sound(page)
        await page.goto(f"{at.url}api/docs")
        await sound(page)


async def sound(page: Page) -> None:
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    found = (await Axe().run(page)).response["violations"]
    serious = [(item["id"], item["nodes"][0]["html"][:200]) for item in found if item["impact"] in ("serious", "critical")]
    assert serious == []
