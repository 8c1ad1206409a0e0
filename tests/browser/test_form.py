"""The form in Chromium: links and badges for every kind of repository, copying, what was launched before, without scripts, by keyboard."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from binder_onprem.popular import Popular
from tests.browser.test_web import LINK, page_of
from tests.unit.webstand import ready, stand

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Browser

pytestmark = pytest.mark.browser

NAME = "(({ id, dataset, className, pathname }) => id || dataset.copy || className || pathname)(document.activeElement)"
POPULAR = (Popular("gh", "course/statistics/HEAD", 9), Popular("gl", "group%2Flong-" + "name-" * 12 + "project/main", 4))
TYPED = {"gh": "owner/name", "gl": "group/sub/project", "git": "https://git.example.org/group/project.git"}


async def test_every_kind_gets_its_link_and_badges(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    async with stand(tmp_path, vendor=vendor) as at, page_of(browser) as (page, _):
        await page.goto(at.url)
        for shown in at.site.displays:
            await page.locator("#provider").select_option(shown["id"])
            await expect(page.locator("#repo")).to_have_attribute("placeholder", shown["repo"]["placeholder"])
            assert await page.locator("#ref").is_disabled() == (not shown["ref"]["enabled"])
            await page.locator("#repo").fill(TYPED.get(shown["id"], shown["repo"]["placeholder"]))
            await page.locator("#path").fill("a b.ipynb")
            link = await page.locator("#link").input_value()
            assert link.startswith(f"{at.url}v2/{shown['id']}/")
            assert link.endswith("?urlpath=%2Flab%2Ftree%2Fa%2520b.ipynb")
            for field, text in (("markdown", f"]({link})"), ("html", f'<a href="{link}">'), ("rst", f"\n   :target: {link}\n")):
                assert text in await page.locator(f"#{field}").input_value()
            assert await page.locator("#badge").get_attribute("href") == link.removeprefix(at.url.rstrip("/"))
        await page.locator("#kind").select_option("file")
        assert (await page.locator("#link").input_value()).endswith("?urlpath=%2Fdoc%2Ftree%2Fa%2520b.ipynb")
        await page.locator("#kind").select_option("url")
        assert (await page.locator("#link").input_value()).endswith("?urlpath=a%20b.ipynb")


async def test_copying_says_so(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    async with stand(tmp_path, vendor=vendor) as at, page_of(browser) as (page, _):
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await page.goto(f"{at.url}?provider=gh&repo=o/r&kind=lab")
        await page.get_by_role("button", name="Copy: reStructuredText").click()
        await expect(page.locator("#copied")).to_have_text("Copied")
        link = f"{at.url}v2/gh/o/r/HEAD"
        assert await page.evaluate("navigator.clipboard.readText()") == f".. image:: {at.url}badge_logo.svg\n   :target: {link}\n   :alt: Binder"


async def test_what_was_launched_from_here_is_offered_again(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    async with stand(tmp_path, vendor=vendor) as at, page_of(browser) as (page, _):
        at.play.script = [ready(f"{at.url}jupyter/user/o-r-1/")]
        await page.goto(f"{at.url}{LINK}?lang=en&labpath=a.ipynb")
        await page.wait_for_url("**/jupyter/user/o-r-1/**")
        # A session shares the origin: what it may have written must not lead anywhere else.
        await page.evaluate("""() => { const items = JSON.parse(localStorage.getItem("binder-recent"));
            const planted = [{path: "javascript:alert(1)", name: "x"}, {path: "//evil.example/v2/", name: "x"}, 7];
            localStorage.setItem("binder-recent", JSON.stringify([...items, ...planted])); }""")
        await page.goto(at.url)
        await expect(page.locator("#recentlist a")).to_have_count(1)
        await expect(page.get_by_role("link", name="o/r")).to_have_attribute("href", f"/{LINK}?labpath=a.ipynb")
        await page.get_by_role("button", name="Forget them").click()
        await expect(page.locator("#recent")).to_be_hidden()
        assert await page.evaluate("localStorage.getItem('binder-recent')") is None


async def test_links_and_badges_without_scripts(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    async with stand(tmp_path, vendor=vendor) as at, page_of(browser, java_script_enabled=False, locale="fr-FR") as (page, _):
        await page.goto(at.url)
        await expect(page.locator("#share")).to_be_hidden()
        await page.locator("#provider").select_option("gl")
        await page.locator("#repo").fill("group/project")
        await page.get_by_role("button", name="Créer le lien et le badge").click()
        await expect(page.locator("#link")).to_have_value(f"{at.url}v2/gl/group%2Fproject/HEAD")
        await expect(page.locator("#repo")).to_have_value("group/project")
        await expect(page.locator("#provider")).to_have_value("gl")
        assert await page.get_by_role("button", name="Copier").count() == 0


async def test_by_keyboard_alone(browser: Browser, vendor: Path, tmp_path: Path) -> None:
    async with stand(tmp_path, vendor=vendor, popular=lambda: POPULAR) as at, page_of(browser) as (page, _):
        await page.goto(at.url)
        await page.keyboard.press("Tab")
        await expect(page.locator(".skip")).to_be_focused()
        await page.keyboard.press("Enter")
        for field in ("provider", "repo"):
            await page.keyboard.press("Tab")
            await expect(page.locator(f"#{field}")).to_be_focused()
        await page.keyboard.type("https://github.com/o/r/blob/main/a.ipynb")
        reached = []
        for _ in range(20):
            await page.keyboard.press("Tab")
            reached.append(await page.evaluate(NAME))
        order = ["ref", "path", "kind", "primary big", "badge", "link", "link", "markdown", "markdown", "html", "html", "rst", "rst"]
        assert reached[: len(order)] == order
        assert "/v2/gh/course/statistics/HEAD" in reached
        await page.locator("#repo").focus()
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{at.url}v2/gh/o/r/main?urlpath=%2Flab%2Ftree%2Fa.ipynb")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("light", 375), ("dark", 375)])
async def test_filled_in_it_is_accessible_and_narrow_enough(browser: Browser, vendor: Path, tmp_path: Path, scheme: Any, width: int) -> None:
    context = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}
    async with stand(tmp_path, vendor=vendor, popular=lambda: POPULAR) as at, page_of(browser, **context) as (page, _):
        await page.goto(at.url)
        await page.evaluate("localStorage.setItem('binder-recent', JSON.stringify([{path: '/v2/gh/o/r/HEAD', name: 'o/r'}]))")
        await page.goto(f"{at.url}?provider=git&repo=https://git.example.org/{'long/' * 20}&kind=lab&lang=fr")
        await expect(page.locator("#recentlist a")).to_have_count(1)
        await page.screenshot(path=f"{os.environ.get('BINDER_SCREENSHOTS', tmp_path)}/form-{scheme}-{width}.png", full_page=True)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        found = (await Axe().run(page)).response["violations"]
        assert [(item["id"], item["nodes"][0]["html"][:200]) for item in found if item["impact"] in ("serious", "critical")] == []
