"""The administrator's sign-in: what a cookie is worth, and what it is not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
import pytest

from binder_onprem.errors import RateLimited
from binder_onprem.web.admin.signin import ADDRESSES, COOKIE, LIFETIME, LONGEST, PERIOD, TRIES, SignIns
from tests.unit.webstand import ADMIN, SECRET, ruled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.unit.webstand import Stand

TOKEN = ADMIN.encode()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20), cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


async def signed_in(client: aiohttp.ClientSession, at: Stand) -> dict[str, str]:
    """Headers of a browser that has signed in."""
    async with client.post(f"{at.url}admin/sign-in", data={"token": ADMIN}, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/admin")
        given = answer.headers.getall("Set-Cookie")
    cookies = {"Cookie": given[0].split(";")[0]}
    async with client.get(f"{at.url}admin", headers=cookies) as page:
        found = re.search(r'name="xsrf" value="([0-9a-f]+)"', await page.text())
    assert found
    return cookies | {"X-XSRFToken": found[1]}


async def status(client: aiohttp.ClientSession, at: Stand, method: str, path: str, headers: dict[str, str]) -> int:
    async with client.request(method, at.url + path, headers=headers, allow_redirects=False) as answer:
        return answer.status


def test_a_cookie_ends_is_revoked_and_falls_with_the_token() -> None:
    clock = [1000.0]
    one = SignIns(SECRET, lambda: clock[0])
    cookie = one.issue(TOKEN)
    found = one.read(cookie, TOKEN)
    assert found
    assert one.read(cookie, b"another token") is None
    assert one.read(cookie, b"") is None
    assert SignIns(b"x" * 32, lambda: clock[0]).read(cookie, TOKEN) is None
    clock[0] += LIFETIME - 1
    again = one.issue(TOKEN, found)
    assert one.read(cookie, TOKEN)
    clock[0] += 1
    assert one.read(cookie, TOKEN) is None
    prolonged = one.read(again, TOKEN)
    assert prolonged
    assert (prolonged.id, prolonged.began, prolonged.xsrf) == (found.id, found.began, found.xsrf)
    one.revoke(prolonged)
    assert one.read(again, TOKEN) is None


def test_nobody_is_signed_in_for_ever() -> None:
    clock = [1000.0]
    one = SignIns(SECRET, lambda: clock[0])
    cookie = one.issue(TOKEN)
    for _ in range(LONGEST // 1800):
        clock[0] += 1800
        found = one.read(cookie, TOKEN)
        if found is None:
            break
        cookie = one.issue(TOKEN, found)
    assert one.read(cookie, TOKEN) is None
    assert clock[0] - 1000.0 <= LONGEST


@pytest.mark.parametrize(
    "cookie", ["", "x", "a.b.c", jwt.encode({"sub": "admin"}, "k" * 32), jwt.encode({"jti": "x", "began": 0, "exp": 9e9}, None, "none")]
)
def test_forged_cookies(cookie: str) -> None:
    assert SignIns(SECRET).read(cookie, TOKEN) is None


def test_wrong_tokens_are_bounded() -> None:
    clock = [1000.0]
    one = SignIns(SECRET, lambda: clock[0])
    for _ in range(TRIES):
        one.tried("192.0.2.1")
        one.wrong("192.0.2.1")
    with pytest.raises(RateLimited) as refused:
        one.tried("192.0.2.1")
    assert refused.value.retry_after == PERIOD
    one.tried("192.0.2.2")
    clock[0] += PERIOD
    one.tried("192.0.2.1")
    for number in range(ADDRESSES + 5):
        one.wrong(str(number))
    assert len(one._wrong) == ADDRESSES


async def test_the_cookie_alone_opens_nothing(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with ruled(tmp_path) as at:
        headers = await signed_in(client, at)
        assert await status(client, at, "GET", "api/builds", headers) == 200
        assert await status(client, at, "POST", "api/queue/pause", headers) == 200
        for key in ("", "0" * 64, "é"):
            assert await status(client, at, "GET", "api/builds", headers | {"X-XSRFToken": key}) == 403
        assert await status(client, at, "GET", "api/builds", {"X-XSRFToken": headers["X-XSRFToken"]}) == 403
        # A wrong bearer token is not made good by a cookie.
        assert await status(client, at, "GET", "api/builds", headers | {"Authorization": "Bearer wrong"}) == 403


async def test_where_the_cookie_goes(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with ruled(tmp_path, config={"listen": {"base_url": "/b/", "trusted_proxies": ["127.0.0.1"]}}) as at:
        proxied = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
        async with client.post(f"{at.url}admin/sign-in", data={"token": ADMIN}, headers=proxied, allow_redirects=False) as answer:
            cookies = answer.headers.getall("Set-Cookie")
        assert [re.search(r"Path=([^;]+)", cookie)[1] for cookie in cookies] == ["/b/admin", "/b/api/"]  # type: ignore[index]
        assert all("HttpOnly" in cookie and "SameSite=Strict" in cookie and "Secure" in cookie for cookie in cookies)
        assert all(cookie.startswith(f"{COOKIE}=") for cookie in cookies)


async def test_wrong_tokens(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with ruled(tmp_path) as at:
        (tmp_path / "secrets" / "hub-token").write_text("planted-hub-token")
        tries: list[Any] = ["", "x", "planted-hub-token", ADMIN + "x", "é" * 600, *(["x"] * (TRIES - 5))]
        for given in tries:
            async with client.post(f"{at.url}admin/sign-in", data={"token": given}, allow_redirects=False) as answer:
                assert answer.status == 403
                assert "Set-Cookie" not in answer.headers
                assert "This is not the admin token" in await answer.text()
        async with client.post(f"{at.url}admin/sign-in?lang=fr", data={"token": ADMIN}, allow_redirects=False) as answer:
            assert (answer.status, int(answer.headers["Retry-After"]) > 800) == (429, True)
            assert "Trop de jetons erronés" in await answer.text()


async def test_other_pages_neither_sign_in_nor_show_the_page(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with ruled(tmp_path) as at:
        headers = await signed_in(client, at)
        for foreign in ("cross-site", "same-site"):
            async with client.post(
                f"{at.url}admin/sign-in", data={"token": ADMIN}, headers={"Sec-Fetch-Site": foreign}, allow_redirects=False
            ) as answer:
                assert answer.status == 403
        # What runs in a session has our origin: it can neither fetch the page with its key, nor frame it, nor hold on to its window.
        for kind in ("empty", "iframe", "object"):
            async with client.get(f"{at.url}admin", headers=headers | {"Sec-Fetch-Dest": kind}) as answer:
                assert (answer.status, "xsrf" in await answer.text()) == (403, False)
        async with client.get(f"{at.url}admin", headers=headers | {"Sec-Fetch-Dest": "document"}) as answer:
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Cross-Origin-Opener-Policy"] == "noopener-allow-popups"
            assert answer.headers["Cache-Control"] == "no-store"


async def test_signing_out(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with ruled(tmp_path) as at:
        headers = await signed_in(client, at)
        cookie = {"Cookie": headers["Cookie"]}
        assert await status(client, at, "POST", "admin/sign-out", cookie) == 403
        assert await status(client, at, "GET", "api/builds", headers) == 200
        async with client.post(f"{at.url}admin/sign-out", data={"xsrf": headers["X-XSRFToken"]}, headers=cookie, allow_redirects=False) as answer:
            assert answer.status == 303
            assert all("Max-Age=0" in value for value in answer.headers.getall("Set-Cookie"))
        assert await status(client, at, "GET", "api/builds", headers) == 403
        assert await status(client, at, "POST", "admin/sign-out", {}) == 303
        assert at.site.desk
        assert [entry.action for entry in reversed(await at.site.desk.audit.entries())] == ["sign-in", "sign-out"]


async def test_a_new_admin_token_ends_every_sign_in(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with ruled(tmp_path) as at:
        headers = await signed_in(client, at)
        (tmp_path / "secrets" / "admin-token").write_text("another")
        assert await status(client, at, "GET", "api/builds", headers) == 403
        (tmp_path / "secrets" / "admin-token").unlink()
        assert await status(client, at, "GET", "api/builds", headers) == 403
        async with client.post(f"{at.url}admin/sign-in", data={"token": ""}, allow_redirects=False) as answer:
            assert answer.status == 403
