"""JupyterHub's pages as people meet them: a real hub with accounts of the site's own, in a real browser, in both languages, on a phone."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from axe_playwright_python.async_playwright import Axe

import binder_onprem.web
from binder_onprem.hub.pages import SAID
from binder_onprem.web import locale
from tests.e2e import identity
from tests.e2e.stand import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from playwright.async_api import Browser, Page, Route

pytestmark = pytest.mark.browser
STATIC = Path(binder_onprem.web.__file__).parent / "static"
PASSWORD = "a planted password"
HUB = """
import json, os
from jupyterhub.proxy import Proxy
from binder_onprem.config import load
from binder_onprem.hub import config_file

class Nowhere(Proxy):
    should_start = False
    async def add_route(self, routespec, target, data): pass
    async def delete_route(self, routespec): pass
    async def get_all_routes(self): return {}

c = get_config()
config_file.configure(c, load())
c.JupyterHub.proxy_class = Nowhere
"""


@contextmanager
def hub(home: Path, port: int, token: str = "0" * 64, **auth: Any) -> Iterator[str]:
    """A hub of its own; where its pages lie."""
    (home / "secrets").mkdir(exist_ok=True)
    for name in ("hub-token", "proxy-token", "hub-state-key"):
        (home / "secrets" / name).write_text(token)
    (home / "secrets" / "registry-account").write_text("builder:x")
    # People meet the hub itself here: there is no proxy.
    listen = {"port": port, "public_url": f"http://127.0.0.1:{port + 2}"}
    (home / "config.yaml").write_text(json.dumps({"listen": listen, "auth": auth}))
    (home / "hub.py").write_text(HUB)
    with (home / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "-f", str(home / "hub.py")],
            env={"PATH": "/usr/bin:/bin", "BINDER_ONPREM_HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])},
            cwd=home,
            stdout=said,
            stderr=said,
        )
    try:
        yield f"http://127.0.0.1:{port + 2}/jupyter/hub/"
    finally:
        process.kill()
        process.wait()


async def up(url: str) -> None:
    """Wait for the hub."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as client:
        while True:
            try:
                async with client.get(f"{url}login", allow_redirects=False) as answer:
                    if answer.ok:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)


@asynccontextmanager
async def people(browser: Browser, url: str, language: str) -> AsyncIterator[Page]:
    """A phone of somebody who reads this language; no page asks another host, and none runs a script."""
    await up(url)
    context = await browser.new_context(viewport={"width": 375, "height": 812}, locale=language)
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    await context.route("**/static/*", _given)
    await context.route("**/favicon.svg", _given)
    page = await context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if "Content Security Policy" in message.text else None)
    yield page
    assert {urlsplit(address).netloc for address in asked} == {urlsplit(url).netloc}
    assert errors == []
    await context.close()


async def _given(route: Route) -> None:
    """What the daemon gives in a whole Binder."""
    await route.fulfill(path=STATIC / urlsplit(route.request.url).path.rpartition("/")[2])


async def looked_at(page: Page, *words: str) -> None:
    """It says that, fits the phone, and axe finds no serious fault."""
    text = await page.inner_text("body")
    for word in words:
        assert word in text, text
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await page.locator("script").count() == 0
    found = await Axe().run(page)
    assert [item for item in found.response["violations"] if item["impact"] in ("serious", "critical")] == []


async def submitted(page: Page, **fields: str) -> None:
    for name, value in fields.items():
        await page.locator(f"input[name={name}]").fill(value)
    async with page.expect_navigation():
        await page.locator("main button").first.click()


async def test_signing_up_and_logging_in_on_a_phone_in_french(browser: Browser, tmp_path: Path) -> None:
    with hub(tmp_path, free_ports(8), kind="native", signup="open") as url:
        async with people(browser, url, "fr-FR") as page:
            await page.goto(f"{url}login?next=%2Fjupyter%2Fhub%2Fchange-password")
            assert await page.locator("html").get_attribute("lang") == "fr"
            await looked_at(page, "Se connecter", "Nom d\u2019utilisateur", "Mot de passe", "Créer un compte")
            await submitted(page, username="ada", password="wrong")
            await looked_at(page, "Nom d\u2019utilisateur ou mot de passe incorrect")
            assert await page.locator("input[name=username]").input_value() == "ada"
            await page.get_by_role("link", name="Créer un compte").click()
            await looked_at(page, "Créer un compte", "Au moins 10 caractères")
            await submitted(page, username="ada", signup_password=PASSWORD, signup_password_confirmation="another one")
            await looked_at(page, "Les deux mots de passe ne sont pas les mêmes")
            await submitted(page, username="ada", signup_password="password123", signup_password_confirmation="password123")
            await looked_at(page, "Cela n\u2019a pas marché", "au moins 10 caractères")
            await submitted(page, username="ada", signup_password=PASSWORD, signup_password_confirmation=PASSWORD)
            await looked_at(page, "Votre compte est créé")
            await page.goto(f"{url}login?next=%2Fjupyter%2Fhub%2Fchange-password")
            await submitted(page, username="ada", password=PASSWORD)
            await looked_at(page, "Changer mon mot de passe", "ada")
            await submitted(page, old_password="wrong", new_password=PASSWORD + "2", new_password_confirmation=PASSWORD + "2")
            await looked_at(page, "Le mot de passe actuel n\u2019est pas le bon")
            await submitted(page, old_password=PASSWORD, new_password=PASSWORD + "2", new_password_confirmation=PASSWORD + "2")
            await looked_at(page, "Votre mot de passe a été changé")
            await page.goto(f"{url}nothing-here")
            await looked_at(page, "404", "Il n\u2019y a rien ici")


async def test_the_language_is_the_one_chosen_and_stays(browser: Browser, tmp_path: Path) -> None:
    with hub(tmp_path, free_ports(8), kind="native") as url:
        async with people(browser, url, "en-GB") as page:
            await page.goto(f"{url}login?next=%2Fx%3Fa%3D1")
            await looked_at(page, "Log in", "User name", "Make an account")
            await page.get_by_role("link", name="Français").click()
            assert "next=%2Fx%3Fa%3D1" in page.url
            await looked_at(page, "Se connecter")
            await page.goto(f"{url}signup")
            await submitted(page, username="eve", signup_password=PASSWORD, signup_password_confirmation=PASSWORD)
            await looked_at(page, "L\u2019administrateur doit encore l\u2019autoriser")
            await page.goto(f"{url}login?lang=<script>")
            await looked_at(page, "Se connecter")
            await page.goto(f"{url}login?lang=en")
            await looked_at(page, "Log in")
            # A form that was open for too long: what came by no page of ours is refused, and the form is shown again.
            await page.context.clear_cookies()
            await page.evaluate("document.querySelector('input[name=_xsrf]').value = 'old'")
            await submitted(page, username="eve", password=PASSWORD)
            await looked_at(page, "Login form invalid or expired. Try again.")


async def test_who_leaves_a_group_has_left_it_here_without_logging_out(browser: Browser, tmp_path: Path) -> None:
    port = free_ports(8)
    with (
        identity.openid(tmp_path, f"http://127.0.0.1:{port + 2}/jupyter/hub/oauth_callback", {"joan": ["heads"]}) as settings,
        hub(tmp_path, port, refresh=1, roles={"admin": ["group:heads"]}, **settings) as url,
    ):
        page = await (await browser.new_context()).new_page()
        await up(url)
        await page.goto(f"{url}login?next=%2Fjupyter%2Fhub%2Fnothing-here")
        await page.locator("input[name=login]").fill("joan")
        await page.locator("input[name=password]").fill("any")
        await page.locator("button[type=submit]").click()
        await page.get_by_role("button", name="Continue").click()
        await page.wait_for_url(f"{url}nothing-here")

        async def groups() -> Any:
            answer = await page.context.request.get(f"{url}api/user")
            return (await answer.json()).get("groups")

        for now in (["heads"], [], ["heads", "staff"]):
            (tmp_path / identity.PEOPLE).write_text(json.dumps({"joan": now}))
            async with asyncio.timeout(60):
                while await groups() != now:  # noqa: ASYNC110 - the hub tells nobody
                    await asyncio.sleep(0.3)
    database = b"".join(file.read_bytes() for file in (tmp_path / "hub").glob("jupyterhub.sqlite*"))
    assert b"joan" in database
    assert b"access_token" not in database, "what the log-in brought lies encrypted"


async def test_a_token_that_was_replaced_is_worth_nothing_once_the_hub_has_started_anew(tmp_path: Path) -> None:
    """JupyterHub by itself would take it for ever."""
    port, file = free_ports(8), tmp_path / "course"
    ours, programs = [[secrets.token_hex(32) for _ in range(2)] for _ in range(2)]
    service = {"name": "course", "token_file": str(file)}
    for now in (0, 1):
        file.write_text(programs[now])
        with hub(tmp_path, port, ours[now], kind="native", services=[service]) as url:
            await up(url)
            async with aiohttp.ClientSession() as client:
                for number, pair in enumerate(zip(ours, programs, strict=True)):
                    for token in pair:
                        async with client.get(f"{url}api/user", headers={"Authorization": f"token {token}"}) as answer:
                            assert answer.ok == (number == now), (now, number)


def test_what_jupyterhub_says_has_an_entry() -> None:
    catalogues = locale.read()
    untold = [said for said in SAID if catalogues.told("fr", said.replace("{}", "10")) == said.replace("{}", "10")]
    assert untold == []
