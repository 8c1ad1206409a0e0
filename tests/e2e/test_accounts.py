"""People log in by everything that they can log in by, and each has her own: one Binder, whose accounts change kind from test to test."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from playwright.async_api import async_playwright
from yarl import URL

from tests.e2e import identity
from tests.e2e.conftest import CHROMIUM, FLAGS
from tests.e2e.identity import PASSWORD
from tests.e2e.kernel import kernel
from tests.e2e.stand import COMMAND, Stand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from playwright.async_api import BrowserContext, Page

    from tests.e2e.conftest import Origin

pytestmark = [pytest.mark.real, pytest.mark.browser]

ROLES = {"launch": ["everybody"], "build": ["group:staff"], "admin": ["group:heads"]}
PEOPLE = {"ada": ["staff"], "bob": ["students"], "joan": ["heads"]}
SESSION = re.compile(r".*/jupyter/user/([^/]+)/([^/?]+)/")
SECONDS = 120_000
REFRESH = 3
"""Seconds after which groups are asked for anew."""
REVOKED = 4.0
"""Seconds after which a revoked token is refused, with one to spare of five."""


@pytest.fixture(scope="module")
def site() -> Iterator[Stand]:
    stand = Stand.new(samples=False)
    try:
        yield stand
    finally:
        stand.destroy()


class Person:
    """A browser of somebody's own."""

    def __init__(self, site: Stand, context: BrowserContext, page: Page) -> None:
        self.site, self.context, self.page = site, context, page

    async def openid(self, name: str) -> None:
        """The provider's own form, then its consent."""
        await self.page.locator("input[name=login]").fill(name)
        await self.page.locator("input[name=password]").fill("any")
        await self.page.locator("button[type=submit]").click()
        await self.page.get_by_role("button", name="Continue").click()

    async def password(self, name: str, password: str = PASSWORD) -> None:
        """JupyterHub's form."""
        await self.page.locator("#username_input").fill(name)
        await self.page.locator("#password_input").fill(password)
        await self.page.locator("#login_submit").click()

    async def session(self) -> tuple[str, str]:
        """Owner and name of the session that the page has come to."""
        await self.page.wait_for_url("**/jupyter/user/**/lab**", timeout=SECONDS)
        match = SESSION.match(self.page.url)
        assert match
        return match[1], match[2]

    async def fetch(self, method: str, path: str, **headers: str) -> tuple[int, str]:
        """A request with this browser's cookies, by no page of ours."""
        answer = await self.context.request.fetch(self.site.url + path, method=method, headers=headers, max_redirects=0)
        return answer.status, await answer.text()

    async def proof(self) -> str:
        """What pages of hers send along."""
        await self.page.goto(f"{self.site.url}sessions")
        return await self.page.locator("input[name=_xsrf]").first.get_attribute("value") or ""


@asynccontextmanager
async def people(site: Stand, count: int = 1) -> AsyncIterator[list[Person]]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *FLAGS])
        contexts = [await browser.new_context() for _ in range(count)]
        yield [Person(site, context, await context.new_page()) for context in contexts]
        await browser.close()


def accounts(site: Stand, settings: dict[str, Any], **more: Any) -> None:
    site.configure(auth=settings | more)
    site.up()


async def stream(site: Stand, spec: str, token: str) -> str:
    url = URL(f"{site.url}build/{spec}", encoded=True)
    async with aiohttp.ClientSession() as client, client.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
        return await answer.text()


async def test_openid(site: Stand, origin: Origin, tmp_path: Path) -> None:
    spec = origin.spec("bare")
    with identity.openid(tmp_path, f"{site.url}jupyter/hub/oauth_callback", PEOPLE) as settings:
        accounts(site, settings, roles=ROLES, refresh=REFRESH)
        async with people(site, 3) as (ada, bob, joan):
            name = await _who_may_build(ada, bob, f"{site.url}v2/{spec}?urlpath=lab%2Ftree")
            await _each_has_her_own(ada, bob, name, f"{site.url}v2/{spec}")
            await joan.page.goto(f"{site.url}sessions")
            await joan.openid("joan")
            await joan.page.get_by_role("heading", name="Sessions").wait_for(timeout=SECONDS)
            assert {"ada", "bob"} <= set(re.findall(r"ada|bob", await joan.page.inner_text("main")))
            await _leaves_her_group(joan, tmp_path / identity.PEOPLE)
            await _a_programs_token(ada, spec)
            await _restarts(ada, name)
            await _leaving(ada, bob)


async def _leaves_her_group(joan: Person, file: Path) -> None:
    """Without logging out and in, and comes back."""
    for groups, others in (([], False), (["heads"], True)):
        file.write_text(json.dumps(PEOPLE | {"joan": groups}))  # noqa: ASYNC240 - a moment
        async with asyncio.timeout(60):
            while ("ada" in await _body(joan, "sessions")) is not others:  # noqa: ASYNC110 - the hub tells nobody
                await asyncio.sleep(0.5)


async def _who_may_build(ada: Person, bob: Person, link: str) -> str:
    """Who may not is told whom to ask, and launches what is there. The name of ada's session."""
    await bob.page.goto(link)
    await bob.openid("bob")
    await bob.page.get_by_text("you may not have environments built here").first.wait_for(timeout=SECONDS)
    await ada.page.goto(link)
    await ada.openid("ada")
    owner, name = await ada.session()
    assert (owner, "/lab/tree" in ada.page.url) == ("ada", True)
    await bob.page.goto(link)
    assert (await bob.session())[0] == "bob"
    return name


async def _each_has_her_own(ada: Person, bob: Person, name: str, link: str) -> None:
    await bob.page.goto(link)
    await bob.page.get_by_text("User bob already has a running server.").first.wait_for(timeout=SECONDS)
    assert name not in await _body(bob, "sessions")
    assert name in await _body(ada, "sessions")
    assert (await bob.fetch("GET", f"sessions/{name}/open"))[0] == 404
    proof = {"X-XSRFToken": await bob.proof()}
    assert (await bob.fetch("DELETE", f"api/user/sessions/{name}", **proof))[0] == 404
    assert (await bob.fetch("DELETE", f"api/sessions/{name}", **proof))[0] == 403
    assert (await bob.fetch("GET", "api/sessions", **proof))[0] == 403


async def _a_programs_token(ada: Person, spec: str) -> None:
    """It works until it is revoked, and no other does."""
    await ada.page.goto(f"{ada.site.url}sessions")
    await ada.page.get_by_label("What it is for").fill("course")
    await ada.page.get_by_role("button", name="Make a token").click()
    token = await ada.page.locator(".secret").inner_text()
    assert "already has a running server" in await stream(ada.site, spec, token)
    assert '"status_code":403' in await stream(ada.site, spec, token[:-1] + ("a" if token[-1] != "a" else "b"))
    await ada.page.get_by_role("button", name="Revoke: course").click()
    await ada.page.wait_for_url("**/sessions", timeout=SECONDS)
    await asyncio.sleep(REVOKED)
    assert '"status_code":403' in await stream(ada.site, spec, token)


async def _restarts(ada: Person, name: str) -> None:
    """Everybody stays logged in and at work."""
    async with kernel(await _end(ada)) as python:
        await python.run("x = 41")
        ada.site.kill("hub", "daemon", "proxy")
        async with asyncio.timeout(120):
            while ada.site.silent():  # noqa: ASYNC110 - processes tell nobody that they are up
                await asyncio.sleep(0.3)
            while not await python.answers():  # noqa: ASYNC110 - nor does the proxy that it has its routes again
                await asyncio.sleep(0.3)
        assert await python.run("print(x + 1)") == "42\n"
    assert name in await _body(ada, "sessions")


async def _leaving(ada: Person, bob: Person) -> None:
    site = ada.site
    await ada.page.goto(f"{site.url}sessions")
    await ada.page.get_by_role("button", name="Stop:").click()
    await ada.page.get_by_text("No session runs").wait_for(timeout=SECONDS)
    await ada.page.get_by_role("button", name="Log out").click()
    await ada.page.wait_for_url("**/jupyter/hub/logout", timeout=SECONDS)
    assert (await ada.fetch("GET", "sessions"))[0] == 302
    assert [row["owner"] for row in site.json("servers", "list")] == ["bob"]
    assert site.command("accounts", "logout", "bob").returncode == 0
    await asyncio.sleep(REVOKED)
    assert (await bob.fetch("GET", "sessions"))[0] == 302
    assert site.json("servers", "list") == []


async def _body(person: Person, path: str) -> str:
    await person.page.goto(person.site.url + path)
    return await person.page.inner_text("body")


async def _end(person: Person) -> dict[str, str]:
    """URL and token of her one session, as the kernel's test client wants them."""
    status, text = await person.fetch("GET", "api/user/sessions", **{"X-XSRFToken": await person.proof()})
    assert status == 200, text
    url = URL(re.search(r'"url": "([^"]+)"', text)[1], encoded=True)  # type: ignore[index]
    return {"url": str(url.with_query(None)), "token": url.query["token"]}


async def test_a_directory(site: Stand, origin: Origin, tmp_path: Path) -> None:
    with identity.directory(tmp_path, PEOPLE) as directory:
        accounts(site, directory.settings, roles=ROLES)
        async with people(site) as (ada,):
            await ada.page.goto(f"{site.url}v2/{origin.spec('bare')}?urlpath=lab%2Ftree")
            for name, password in (("ada", "wrong"), ("nobody", PASSWORD), ("*", PASSWORD), ("ada)(uid=*", PASSWORD)):
                await ada.password(name, password)
                await ada.page.get_by_text("Invalid username or password").wait_for(timeout=SECONDS)
            await ada.password("Ada")
            assert (await ada.session())[0] == "ada"
            status, text = await ada.fetch("GET", "api/user", **{"X-XSRFToken": await ada.proof()})
            assert (status, '"roles": ["build", "launch"]' in text, '"staff"' in text) == (200, True, True)
        accounts(site, directory.distrusted)
        async with people(site) as (ada,):
            await ada.page.goto(site.url)
            await ada.password("ada")
            await ada.page.get_by_text("The directory of accounts does not answer").wait_for(timeout=SECONDS)


async def test_this_machines_accounts(site: Stand) -> None:
    with identity.unix_account() as (name, group):
        accounts(site, {"kind": "pam"}, roles={"admin": [f"group:{group}"]})
        async with people(site) as (person,):
            await person.page.goto(f"{site.url}about?x=1")
            assert person.page.url.endswith("about?x=1")
            await person.page.goto(f"{site.url}sessions")
            await person.password(name, "wrong")
            await person.page.get_by_text("Invalid username or password").wait_for(timeout=SECONDS)
            await person.password(name)
            await person.page.wait_for_url("**/sessions", timeout=SECONDS)
            status, text = await person.fetch("GET", "api/user", **{"X-XSRFToken": await person.proof()})
            assert (status, '"admin"' in text, f'"{name}"' in text) == (200, True, True)
            await _administers(person)


async def _administers(person: Person) -> None:
    """By her own log-in, live, without the site's token."""
    page = person.page
    await page.get_by_role("link", name="Administration").click()
    await page.get_by_role("button", name="Pause the queue").click(timeout=SECONDS)
    await page.get_by_role("button", name="Resume the queue").click(timeout=SECONDS)
    await page.get_by_role("button", name="Pause the queue").wait_for(timeout=SECONDS)
    await page.get_by_role("link", name="Bans and limits").click()
    await page.get_by_text("Sessions of groups").wait_for(timeout=SECONDS)
    actions = [entry["action"] for entry in person.site.json("audit", "--limit", "20")]
    assert {"queue.pause", "queue.resume"} <= set(actions)


async def test_accounts_of_the_sites_own(site: Stand) -> None:
    accounts(site, {"kind": "native"})
    async with people(site, 2) as (ada, eve):
        await ada.page.goto(site.url)
        await ada.page.get_by_role("link", name="Make an account").click()
        await ada.page.locator("input[name=username]").fill("ada")
        await ada.page.locator("input[name=signup_password]").fill(PASSWORD)
        await ada.page.locator("input[name=signup_password_confirmation]").fill(PASSWORD)
        await ada.page.locator("#signup_submit").click()
        await ada.page.get_by_text("sent to the admin").wait_for(timeout=SECONDS)
        await ada.page.goto(f"{site.url}launch?provider=git&repo=http%3A%2F%2Fh%2Fx")
        await ada.password("ada")
        await ada.page.get_by_text("Invalid username or password").wait_for(timeout=SECONDS)
        assert site.json("accounts", "list") == [{"name": "ada", "allowed": False}]
        assert site.command("accounts", "allow", "ada").returncode == 0
        await ada.password("ada")
        await ada.page.wait_for_url("**/v2/git/http%3A%2F%2Fh%2Fx/HEAD", timeout=SECONDS)

        assert site.command("accounts", "add", "Eve", given=PASSWORD + "\n").returncode == 0
        await eve.page.goto(f"{site.url}sessions")
        await eve.password("eve")
        await eve.page.wait_for_url("**/sessions", timeout=SECONDS)
        await _removed(site, eve)


def test_a_bug_report_has_pseudonyms_for_people(site: Stand, tmp_path: Path) -> None:
    found = {words: "".join(site.report(tmp_path, *words).values()) for words in ((), ("--people",))}
    named = re.compile(r"\b(?:ada|joan|eve)\b")
    assert named.search(found["--people",])
    assert not named.search(found[()])
    assert "person-" in found[()]


async def _removed(site: Stand, eve: Person) -> None:
    """With all that is kept of her, also where the command is killed in the middle."""
    await eve.page.goto(f"{site.url}credentials")
    await eve.page.get_by_label("Host").fill("git.uni.example")
    await eve.page.get_by_label("Token").fill("a-token-of-eves")
    await eve.page.get_by_role("button", name="Add").click()
    await eve.page.get_by_role("heading", name="git.uni.example").wait_for(timeout=SECONDS)
    told = site.json("accounts", "remove", "eve", "--dry-run")
    assert told["credentials"] == ["git.uni.example"]
    assert [row["owner"] for row in site.json("credentials", "list")] == ["eve"]
    process = await asyncio.create_subprocess_exec(*COMMAND, "--home", str(site.home), "accounts", "remove", "eve")
    async with asyncio.timeout(60):
        with closing(sqlite3.connect(f"file:{site.home}/hub/jupyterhub.sqlite?mode=ro", uri=True)) as table:
            while (1,) in table.execute("SELECT is_authorized FROM users_info WHERE username = 'eve'").fetchall():  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.005)
    process.kill()
    await process.wait()
    # Nothing is lost of an order that was killed: it is found again, and the next run does the rest (or finds that all is done).
    assert site.command("accounts", "remove", "eve").returncode in (0, 5)
    assert site.json("credentials", "list") == []
    assert [row["name"] for row in site.json("accounts", "list")] == ["ada"]
    assert (await eve.fetch("GET", "sessions"))[0] == 302


async def test_the_hub_shows_no_more_than_a_login_needs(site: Stand) -> None:
    async with aiohttp.ClientSession() as client:
        for path in ("home", "api", "api/users", "api/user", "api/oauth2/token", "token", "admin", "spawn", "authorize", "authorize/ada", "metrics"):
            async with client.get(f"{site.url}jupyter/hub/{path}", allow_redirects=False) as answer:
                assert answer.status == 404, path
        async with client.get(f"{site.url}jupyter/hub/login?next=//evil.example/", allow_redirects=False) as answer:
            assert answer.status == 200
            assert "evil.example" not in (await answer.text()).replace("%2F", "/").partition("</form>")[2]
