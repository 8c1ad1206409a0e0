"""Logging in, as the web sees it: who is sent where, what proves a request, and that nobody sees or stops what is another's."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from yarl import URL

from binder_onprem.access import Owner
from binder_onprem.errors import HubUnavailable, Refused, StoreUnavailable
from binder_onprem.interfaces import AccessToken
from binder_onprem.model import Account, Role, Session
from binder_onprem.web.cookies import LOGIN, Login, Seal, local
from tests.unit.test_access import Host, Table, access_to
from tests.unit.webstand import ADMIN, SECRET, Records, Stand, ruled, stand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

AUTH = {"kind": "oidc", "issuer": "https://id.example", "client_id": "b", "client_secret_file": "/nowhere"}
FETCH = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
STREAM = {"Accept": "text/event-stream"}
BOTH = frozenset({Role.LAUNCH, Role.BUILD})
PEOPLE = {
    "token-of-ada": Account("ada", frozenset({"staff"}), BOTH),
    "token-of-bob": Account("bob", roles=frozenset({Role.LAUNCH})),
    "token-of-root": Account("root", roles=frozenset(Role)),
    "token-of-guest": Account("guest"),
    "token-of-program": Account("service:program", roles=BOTH, service=True),
}
SESSIONS = [
    Session(
        "a-0123456789abcdef",
        ready=True,
        started=5.0,
        last_activity=6.0,
        owner="ada",
        url="/jupyter/user/ada/a-0123456789abcdef/",
        repo_url="https://h/a",
    ),
    Session(
        "b-1123456789abcdef",
        ready=True,
        started=7.0,
        last_activity=8.0,
        owner="bob",
        url="/jupyter/user/bob/b-1123456789abcdef/",
        repo_url="https://h/b",
    ),
]


class People:
    """Who there is."""

    logout_url = "/jupyter/hub/logout"

    def __init__(self) -> None:
        self.known = dict(PEOPLE)
        self.down = False
        self.made: list[tuple[str, str, int, frozenset[Role]]] = []

    async def of_token(self, token: str) -> Account | None:
        if self.down:
            raise HubUnavailable("JupyterHub does not answer.")
        return self.known.get(token)

    def login_url(self, state: str) -> str:
        return f"/jupyter/hub/api/oauth2/authorize?state={state}"

    async def exchange(self, code: str) -> str:
        if f"token-of-{code}" not in self.known:
            raise Refused("This log-in has expired. Log in again.")
        return f"token-of-{code}"

    def forget(self, token: str) -> None:
        del self.known[token]

    async def tokens(self, name: str, token: str) -> Sequence[AccessToken]:
        assert self.known[token].name == name
        return [AccessToken("a1", "<b>course</b>", "2026-01-02T03:04:05Z", None, None)]

    async def add_token(self, name: str, token: str, note: str, seconds: int, roles: frozenset[Role]) -> str:
        assert self.known[token].name == name
        self.made.append((name, note, seconds, roles))
        return "made-token"

    async def remove_token(self, name: str, token: str, token_id: str) -> None:
        assert self.known[token].name == name
        self.made.append((name, token_id, 0, frozenset()))


class Hub(Records):
    def __init__(self) -> None:
        super().__init__()
        self.forgotten: list[str] = []

    async def sessions(self) -> list[Session]:
        return list(SESSIONS)

    async def forget(self, user: str) -> None:
        self.forgotten.append(user)

    async def token(self, session: Session) -> str | None:
        return f"session-token-of-{session.name}"


class World:
    def __init__(self, at: Stand, people: People, hub: Hub) -> None:
        self.at, self.people, self.hub = at, people, hub

    @asynccontextmanager
    async def browser(self, name: str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
        """A browser, in which somebody has logged in."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10), cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            if name:
                async with browser.get(self.at.url, allow_redirects=False) as answer:
                    state = parse_qs(urlsplit(answer.headers["Location"]).query)["state"][0]
                async with browser.get(f"{self.at.url}oauth_callback?code={name}&state={state}", allow_redirects=False) as answer:
                    assert answer.status == 302
            yield browser

    def proof(self, browser: aiohttp.ClientSession) -> str:
        seal = Seal(SECRET, 1209600, "/", secure=False)
        cookie = {one.key: one.value for one in browser.cookie_jar}[LOGIN]
        request: Any = type("Request", (), {"cookies": {LOGIN: cookie}})
        login = seal.login(request)
        assert login
        return seal.proof(login)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    people, hub = People(), Hub()
    async with ruled(tmp_path, records=hub, config={"auth": AUTH}, accounts=people) as at:
        yield World(at, people, hub)


async def fetch(client: aiohttp.ClientSession, method: str, url: str, **more: Any) -> tuple[int, str, Any]:
    async with client.request(method, URL(url, encoded=True), allow_redirects=False, **more) as answer:
        return answer.status, await answer.text(), answer.headers


@pytest.mark.parametrize("path", ["", "v2/gh/o/r/HEAD?labpath=a%20b.ipynb", "repo/o/r/x", "launch?provider=gh&repo=o%2Fr", "sessions"])
async def test_a_link_leads_to_the_login_and_back_with_its_query(world: World, path: str) -> None:
    async with world.browser() as browser:
        status, _, headers = await fetch(browser, "GET", world.at.url + path)
        assert status == 302
        assert headers["Location"].startswith("/jupyter/hub/api/oauth2/authorize?state=")
        state = headers["Location"].partition("state=")[2]
        status, _, headers = await fetch(browser, "GET", f"{world.at.url}oauth_callback?code=ada&state={state}")
        assert (status, headers["Location"]) == (302, f"/{path}")
        assert "HttpOnly" in next(text for text in headers.getall("Set-Cookie") if text.startswith(f"{LOGIN}="))
        # A state is good once, and in the browser that set out with it.
        assert (await fetch(browser, "GET", f"{world.at.url}oauth_callback?code=ada&state={state}"))[0] == 403
    async with world.browser() as other:
        assert (await fetch(other, "GET", f"{world.at.url}oauth_callback?code=ada&state={state}"))[0] == 403


@pytest.mark.parametrize("path", ["about", "health", "versions", "metrics", "api/repoproviders", "badge.svg", "openapi.json", "static/site.css"])
async def test_what_everybody_may_see_asks_for_no_login(world: World, path: str) -> None:
    async with world.browser() as browser:
        assert (await fetch(browser, "GET", world.at.url + path))[0] in (200, 503)


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        ("/v2/gh/o/r/HEAD?urlpath=//x", True),
        ("//evil.example/", False),
        ("/\\evil.example", False),
        ("https://evil.example/", False),
        ("/\t/evil.example", False),
        ("/%0d%0aSet-Cookie:x", True),
        ("", False),
    ],
)
def test_nobody_is_sent_to_another_host(place: str, kept: bool) -> None:  # noqa: FBT001
    assert local(place, "/") == (place if kept else "/")


async def test_a_launch_without_login_is_a_failed_event(world: World) -> None:
    async with world.browser() as browser:
        status, text, _ = await fetch(browser, "GET", f"{world.at.url}build/gh/o/r/HEAD", headers=STREAM)
        assert (status, text.count("data:")) == (200, 1)
        assert '"status_code":403' in text
        assert '"failed"' in text
    assert world.at.play.requests == []


@pytest.mark.parametrize("kind", ["Bearer", "token"])
async def test_programs_bring_a_token(world: World, kind: str) -> None:
    async with world.browser() as browser:
        for name, owner in (("ada", "ada"), ("program", None)):
            _, text, _ = await fetch(browser, "GET", f"{world.at.url}build/gh/o/r/HEAD", headers={"Authorization": f"{kind} token-of-{name}"})
            assert '"ready"' in text
            assert world.at.play.requests[-1].client.owner == owner
            assert world.at.play.requests[-1].client.trusted
        for wrong in ("token-of-nobody", "token-of-guest", "", "x" * 9000):
            _, text, _ = await fetch(browser, "GET", f"{world.at.url}build/gh/o/r/HEAD", headers={"Authorization": f"{kind} {wrong}"})
            assert '"status_code":403' in text


async def test_a_cookie_alone_launches_nothing(world: World) -> None:
    url = f"{world.at.url}build/gh/o/r/HEAD"
    async with world.browser("ada") as browser, world.browser("bob") as other:
        assert '"status_code":403' in (await fetch(browser, "GET", url, headers=STREAM))[1]
        proven = STREAM | {"X-XSRFToken": world.proof(browser)}
        assert '"ready"' in (await fetch(browser, "GET", url, headers=proven))[1]
        assert '"status_code":403' in (await fetch(other, "GET", url, headers=proven))[1]
        # The page's own way: a build token, of this log-in and no other.
        page = (await fetch(browser, "GET", f"{world.at.url}v2/gh/o/r/HEAD"))[1]
        token = page.partition('"buildToken":"')[2].partition('"')[0]
        assert '"ready"' in (await fetch(browser, "GET", f"{url}?build_token={token}", headers=STREAM))[1]
        assert '"status_code":403' in (await fetch(other, "GET", f"{url}?build_token={token}", headers=STREAM))[1]
    assert [request.client.user for request in world.at.play.requests] == ["ada", "ada"]


async def test_a_script_of_a_session_reads_no_page_and_forms_need_their_proof(world: World) -> None:
    async with world.browser("ada") as browser:
        for headers in ({"Sec-Fetch-Mode": "cors"}, {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, {"Sec-Fetch-Mode": "no-cors"}):
            for path in ("", "sessions", "v2/gh/o/r/HEAD", "api/user/sessions"):
                status, text, _ = await fetch(browser, "GET", world.at.url + path, headers=headers)
                assert status == 403
                assert "session-token" not in text
        name = SESSIONS[0].name
        for form in ({}, {"_xsrf": "0" * 64}, {"_xsrf": world.proof(browser)[:-1]}):
            assert (await fetch(browser, "POST", f"{world.at.url}sessions/{name}/stop", data=form))[0] == 403
            assert (await fetch(browser, "POST", f"{world.at.url}logout", data=form))[0] == 403
        assert (await fetch(browser, "DELETE", f"{world.at.url}api/user/sessions/{name}"))[0] == 403
        assert world.hub.stopped == []
        _, page, headers = await fetch(browser, "GET", f"{world.at.url}sessions")
        assert world.proof(browser) in page
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["X-Frame-Options"] == "DENY"


async def test_everybody_sees_opens_and_stops_her_own_sessions_only(world: World) -> None:
    ada, bob = (session.name for session in SESSIONS)
    async with world.browser("ada") as browser:
        _, page, _ = await fetch(browser, "GET", f"{world.at.url}sessions")
        assert ada in page
        assert bob not in page
        proof = {"X-XSRFToken": world.proof(browser)}
        async with browser.get(f"{world.at.url}api/user/sessions", headers=proof) as answer:
            (row,) = (await answer.json())["sessions"]
        assert row["url"].endswith(f"/jupyter/user/ada/{ada}/?token=session-token-of-{ada}")
        assert (await fetch(browser, "GET", f"{world.at.url}sessions/{bob}/open"))[0] == 404
        status, _, headers = await fetch(browser, "GET", f"{world.at.url}sessions/{ada}/open")
        assert (status, headers["Location"]) == (303, row["url"])
        assert (await fetch(browser, "GET", f"{world.at.url}sessions/{bob}/files"))[0] == 404
        status, _, headers = await fetch(browser, "GET", f"{world.at.url}sessions/{ada}/files")
        assert (status, headers["Location"]) == (303, f"/api/session/{ada}/files?token=session-token-of-{ada}")
        assert (await fetch(browser, "DELETE", f"{world.at.url}api/user/sessions/{bob}", headers=proof))[0] == 404
        assert (await fetch(browser, "POST", f"{world.at.url}sessions/{bob}/stop", headers=proof))[0] == 404
        assert (await fetch(browser, "GET", f"{world.at.url}api/sessions", headers=proof))[0] == 403
        assert (await fetch(browser, "DELETE", f"{world.at.url}api/users/bob", headers=proof))[0] == 403
        assert world.hub.stopped == []
        assert (await fetch(browser, "POST", f"{world.at.url}sessions/{ada}/stop", data={"_xsrf": world.proof(browser)}))[0] == 303
        assert (await fetch(browser, "DELETE", f"{world.at.url}api/user/sessions/{ada}", headers=proof))[0] == 204
    assert [session.name for session in world.hub.stopped] == [ada, ada]


async def test_an_administrator_sees_everybodys_sessions_but_opens_none_of_them(world: World) -> None:
    ada, bob = (session.name for session in SESSIONS)
    async with world.browser("root") as browser:
        _, page, _ = await fetch(browser, "GET", f"{world.at.url}sessions")
        assert ada in page
        assert bob in page
        assert "/open" not in page
        assert (await fetch(browser, "GET", f"{world.at.url}sessions/{ada}/open"))[0] == 404
        assert (await fetch(browser, "POST", f"{world.at.url}sessions/{bob}/stop", data={"_xsrf": world.proof(browser)}))[0] == 303
    assert [session.name for session in world.hub.stopped] == [bob]


async def test_tokens_are_made_in_a_browser_and_never_administrate(world: World) -> None:
    async with world.browser("root") as browser:
        form = {"_xsrf": world.proof(browser), "note": "course", "days": "30"}
        _, page, _ = await fetch(browser, "POST", f"{world.at.url}sessions/tokens", data=form)
        assert "made-token" in page
        assert "&lt;b&gt;course&lt;/b&gt;" in page
        assert world.people.made == [("root", "course", 30 * 86400, BOTH)]
        for wrong in ({"days": "0"}, {"days": "367"}, {"days": "x"}, {"days": "9" * 5000}, {"note": ""}, {"note": "x" * 101}, {"note": "a\nb"}):
            assert (await fetch(browser, "POST", f"{world.at.url}sessions/tokens", data=form | wrong))[0] == 400
        assert (await fetch(browser, "POST", f"{world.at.url}sessions/tokens/a1/revoke", data=form))[0] == 303
    assert world.people.made[1:] == [("root", "a1", 0, frozenset())]
    async with world.browser() as program:
        header = {"Authorization": "Bearer token-of-ada"}
        assert (await fetch(program, "POST", f"{world.at.url}sessions/tokens", data=form, headers=header))[0] == 403


async def test_who_leaves_is_unknown_at_once(world: World) -> None:
    async with world.browser("ada") as browser:
        kept = {one.key: one.value for one in browser.cookie_jar}[LOGIN]
        status, _, headers = await fetch(browser, "POST", f"{world.at.url}logout", data={"_xsrf": world.proof(browser)})
        assert (status, headers["Location"]) == (303, "/jupyter/hub/logout")
        assert LOGIN not in {one.key for one in browser.cookie_jar}
    async with world.browser() as thief:
        assert (await fetch(thief, "GET", world.at.url, headers={"Cookie": f"{LOGIN}={kept}"}))[0] == 302


async def test_a_revoked_token_and_a_forged_cookie_are_nobodys(world: World) -> None:
    async with world.browser("ada") as browser:
        del world.people.known["token-of-ada"]
        assert (await fetch(browser, "GET", world.at.url))[0] == 302
    async with world.browser() as forger:
        for cookie in ("", "x", "gAAAA" + "A" * 200, "é"):
            assert (await fetch(forger, "GET", world.at.url, headers={"Cookie": f"{LOGIN}={cookie}"}))[0] == 302


async def test_a_hub_that_is_down_is_told(world: World) -> None:
    async with world.browser("ada") as browser:
        world.people.down = True
        status, text, _ = await fetch(browser, "GET", world.at.url, headers={"Accept": "text/html"})
        assert (status, "JupyterHub does not answer" in text) == (503, True)
        assert (await fetch(browser, "GET", f"{world.at.url}about"))[0] == 200


async def test_whoami_and_the_sites_own_token(world: World) -> None:
    async with world.browser() as client:
        async with client.get(f"{world.at.url}api/user", headers={"Authorization": "token token-of-ada"}) as answer:
            assert await answer.json() == {"name": "ada", "groups": ["staff"], "roles": ["build", "launch"]}
        async with client.get(f"{world.at.url}api/user") as answer:
            assert await answer.json() == {"name": None, "groups": [], "roles": []}
        admin = {"Authorization": f"Bearer {ADMIN}"}
        assert (await fetch(client, "GET", f"{world.at.url}api/sessions", headers=admin))[0] == 200
        assert (await fetch(client, "GET", f"{world.at.url}api/user/sessions", headers=admin))[0] == 403


async def test_an_account_with_the_role_administers(world: World) -> None:
    async with world.browser("root") as root:
        status, text, headers = await fetch(root, "GET", f"{world.at.url}admin")
        key = re.search(r'"xsrf":"([0-9a-f]+)"', text)
        assert (status, key and key[1]) == (200, world.proof(root))
        assert 'action="/logout"' in text
        assert "admin/sign-out" not in text
        assert headers["Cross-Origin-Opener-Policy"] == "noopener-allow-popups"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert (await fetch(root, "GET", f"{world.at.url}admin", headers={"Sec-Fetch-Dest": "empty"}))[0] == 403
        assert (await fetch(root, "GET", f"{world.at.url}api/quotas", headers=FETCH))[0] == 403
        assert (await fetch(root, "GET", f"{world.at.url}api/quotas", headers=FETCH | {"X-XSRFToken": world.proof(root)}))[0] == 200
        assert 'href="/admin"' in (await fetch(root, "GET", world.at.url))[1]


async def test_an_account_without_it_gets_words(world: World) -> None:
    async with world.browser("ada") as ada:
        status, text, _ = await fetch(ada, "GET", f"{world.at.url}admin")
        assert (status, "Your account may not administer this site" in text, "admin-settings" in text) == (403, True, False)
        assert 'href="/admin"' not in (await fetch(ada, "GET", world.at.url))[1]
        world.people.down = True
        status, text, _ = await fetch(ada, "GET", f"{world.at.url}admin")
        assert (status, "JupyterHub does not answer" in text, 'name="token"' in text) == (503, True, True)


async def test_who_is_unknown_may_log_in_or_show_the_token(world: World) -> None:
    async with world.browser() as browser:
        status, text, _ = await fetch(browser, "GET", f"{world.at.url}admin")
        assert (status, 'name="token"' in text, 'href="/admin?account="' in text) == (200, True, True)
        status, _, headers = await fetch(browser, "GET", f"{world.at.url}admin?account=")
        state = parse_qs(urlsplit(headers["Location"]).query)["state"][0]
        assert status == 302
        assert (await fetch(browser, "GET", f"{world.at.url}oauth_callback?code=root&state={state}"))[2]["Location"] == "/admin?account="
        assert "admin-settings" in (await fetch(browser, "GET", f"{world.at.url}admin?account="))[1]
        assert (await fetch(browser, "POST", f"{world.at.url}admin/sign-in", data={"token": ADMIN}))[0] == 303
        assert "admin/sign-out" in (await fetch(browser, "GET", f"{world.at.url}admin"))[1]


class Failing(Table):
    """A table that dies in the middle of a removal, once."""

    asked = 0

    async def drop_credential(self, credential_id: str) -> bool:
        self.asked += 1
        if self.asked == 2:
            raise StoreUnavailable("The database does not answer.")
        return await super().drop_credential(credential_id)


async def test_who_is_removed_leaves_no_credential_and_the_next_run_does_what_one_left(world: World, tmp_path: Path) -> None:
    table = Failing()
    access = world.at.site.line.access = access_to(tmp_path, table, Host())  # type: ignore[misc]
    for owner in (Owner("user", "ada"), Owner("user", "bob"), Owner("group", "ada"), Owner("site")):
        await access.add(owner, "git.test", "", "canary")
    await access.add(Owner("user", "ada"), "other.test", "", "canary")
    kept = {(row.kind, row.owner) for row in table.rows.values()} - {("user", "ada")}
    admin = {"Authorization": f"Bearer {ADMIN}"}
    async with world.browser() as client:
        url = f"{world.at.url}api/users/ada"
        assert (await fetch(client, "DELETE", url, headers=admin))[0] == 204
        assert len(table.rows) == 5, "a log-out keeps them"
        assert (await fetch(client, "DELETE", f"{url}?credentials=x", headers=admin))[0] == 400
        assert (await fetch(client, "DELETE", f"{url}?credentials=true"))[0] == 403
        assert (await fetch(client, "DELETE", f"{url}?credentials=true", headers=admin))[0] == 503
        assert len(table.rows) == 4, "one is gone, one is left"
        for _ in range(2):
            assert (await fetch(client, "DELETE", f"{url}?credentials=true", headers=admin))[0] == 204
        assert {(row.kind, row.owner) for row in table.rows.values()} == kept
        assert world.hub.forgotten == ["ada"] * 4
        assert "user.remove" in (await fetch(client, "GET", f"{world.at.url}api/audit", headers=admin))[1]


async def test_who_has_an_account_of_the_sites_own_finds_where_to_change_the_password(world: World, tmp_path: Path) -> None:
    async with world.browser("ada") as browser:
        assert "change-password" not in (await fetch(browser, "GET", f"{world.at.url}sessions"))[1]
    native = {"auth": {"kind": "native"}}
    (tmp_path / "native").mkdir()
    async with (
        ruled(tmp_path / "native", records=Hub(), config=native, accounts=People()) as at,
        World(at, People(), Hub()).browser("ada") as browser,
    ):
        assert 'href="/jupyter/hub/change-password"' in (await fetch(browser, "GET", f"{at.url}sessions"))[1]


async def test_without_accounts_nobody_is_asked(tmp_path: Path) -> None:
    async with stand(tmp_path) as at, aiohttp.ClientSession() as client:
        assert (await fetch(client, "GET", at.url))[0] == 200
        for method, path in (("GET", "oauth_callback?state=x"), ("POST", "logout"), ("GET", "sessions"), ("GET", "api/user/sessions")):
            status, text, _ = await fetch(client, method, at.url + path)
            assert (status, "Nobody has to log in here" in text) == (404, True)


def test_one_cookies_value_is_none_of_anothers() -> None:
    seal = Seal(SECRET, 100, "/", secure=True)
    login = Login("t", "i")
    assert seal.proves(login, seal.proof(login))
    assert not seal.proves(replace(login, id="j"), seal.proof(login))
    assert not Seal(b"x" * 32, 100, "/", secure=True).proves(login, seal.proof(login))
