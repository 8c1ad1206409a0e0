"""The administrator's page over every real part: a build seen live and cancelled, an image pinned, a session stopped, a maintenance in force."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from tests.e2e.stand import launch, ready

if TYPE_CHECKING:
    from playwright.async_api import Page

    from tests.e2e.conftest import Origin
    from tests.e2e.stand import Stand

pytestmark = [pytest.mark.real, pytest.mark.browser]

SLOW = {"requirements.txt": "", "postBuild": "#!/bin/bash\necho 'this takes a while'\nsleep 600\n"}
PATIENCE = 120_000


async def test_the_administrators_day(stand: Stand, origin: Origin, page: Page) -> None:  # noqa: PLR0915 - one day, step by step
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    session = await ready(stand, origin.spec("requirements"))
    origin.make("admin-slow", SLOW)
    building = asyncio.create_task(launch(stand, origin.spec("admin-slow")))
    try:
        await page.goto(f"{stand.url}admin")
        await page.get_by_label("Admin token").fill((stand.home / "secrets" / "admin-token").read_text().strip())
        await page.get_by_role("button", name="Sign in").click()

        row = page.locator("#builds-table tbody tr", has_text="admin-slow").first
        await expect(row).to_contain_text("running")
        await row.get_by_role("button", name="Log").click()
        await expect(page.locator("#log")).to_contain_text("this takes a while")
        await row.get_by_role("button", name="Cancel").click()
        await page.get_by_role("button", name="Yes").click()
        await expect(row).to_contain_text("cancelled")
        end, _ = await building
        assert end["code"] == "cancelled"

        await page.get_by_role("link", name="Sessions").click()
        name = str(session["url"]).rstrip("/").rpartition("/")[2]
        mine = page.locator("#sessions-table tbody tr", has=page.get_by_role("button", name=f"Stop: {name}"))
        await expect(mine).to_contain_text("MiB")

        await page.get_by_role("link", name="Images").click()
        image = page.locator("#images-table tbody tr", has_text="requirements").first
        await image.get_by_role("button", name="Delete").click()
        await page.get_by_role("button", name="Yes").click()
        await expect(page.locator("#said")).to_contain_text("in use by a session")
        await image.get_by_role("button", name="Pin", exact=False).first.click()
        await expect(page.locator("#said")).to_have_text("The image is pinned.")
        assert any(one["pinned"] for one in stand.json("images", "list"))
        await image.get_by_role("button", name="Unpin").click()
        await expect(page.locator("#said")).to_have_text("The image is not pinned any more.")

        await page.get_by_role("link", name="Sessions").click()
        await mine.get_by_role("button", name="Stop").click()
        await page.get_by_role("button", name="Yes").click()
        await expect(page.locator("#said")).to_have_text("The session is stopped.")
        await expect(mine).to_have_count(0)

        await page.get_by_role("link", name="Maintenance").click()
        await page.get_by_label("Words in English").fill("New disks until noon.")
        await page.get_by_role("button", name="Begin").click()
        await page.get_by_role("button", name="Yes").click()
        await expect(page.locator("#maintenance-now")).to_contain_text("New disks until noon.")
        refused, _ = await launch(stand, origin.spec("requirements"))
        assert (refused["phase"], refused["code"], refused["message"]) == ("failed", "maintenance", "New disks until noon.\n")
        await page.get_by_role("button", name="End", exact=True).click()
        await expect(page.locator("#maintenance-now")).to_have_text("No maintenance.")
        await ready(stand, origin.spec("requirements"))

        await page.get_by_role("link", name="Machine").click()
        await expect(page.locator("#host-parts tbody tr", has_text="proxy")).to_contain_text("yes")
        actions = [entry["action"] for entry in stand.json("audit", "--limit", "20")]
        assert {"sign-in", "build.cancel", "image.pin", "image.unpin", "session.stop", "maintenance.on", "maintenance.off"} <= set(actions)
    finally:
        stand.command("maintenance", "off")
        building.cancel()


async def test_an_image_is_made_anew_and_a_ban_holds_at_once(stand: Stand, origin: Origin) -> None:
    origin.make("admin-anew", {"README.md": "Nothing to install."})
    await ready(stand, origin.spec("admin-anew"))
    first = next(build for build in stand.json("builds", "list") if build["state"] == "built" and "admin-anew" in build["repo_url"])
    made = stand.json("builds", "rebuild", first["id"])
    assert stand.command("builds", "log", "--follow", made["id"]).returncode == 0
    after = stand.json("builds", "show", made["id"])
    assert (after["state"], after["fresh"]) == ("built", True)
    digests = [image["id"] for image in stand.json("images", "list")]
    assert after["digest"] in digests
    assert after["digest"] == first["digest"] or first["digest"] not in digests
    assert str((await ready(stand, origin.spec("admin-anew")))["image"]).endswith(after["digest"])
    ban = stand.json("bans", "add", "network", "127.0.0.0/8", "--reason", "A drill.")
    try:
        end, _ = await launch(stand, origin.spec("admin-anew"))
        assert (end["phase"], end["code"]) == ("failed", "banned")
        assert "A drill." in str(end["message"])
    finally:
        stand.json("bans", "remove", ban["id"])
    assert (await ready(stand, origin.spec("admin-anew")))["phase"] == "ready"
