"""Pages and small routes over HTTP, without a browser."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from yarl import URL

from binder_onprem.web.tokens import BuildTokens
from tests.unit.webstand import SECRET, stand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10), cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


async def get(client: aiohttp.ClientSession, url: str, headers: dict[str, str] | None = None) -> tuple[aiohttp.ClientResponse, str]:
    async with client.get(URL(url, encoded=True), headers=headers or HTML, allow_redirects=False) as answer:
        return answer, await answer.text()


def page_config(page: str) -> dict[str, Any]:
    first = re.search(r"<script[^>]*>(.*?)</script>", page.partition("<head>")[2], re.DOTALL)
    assert first is not None
    found: dict[str, Any] = json.loads(first[1].removeprefix("window.pageConfig = ").removesuffix(";"))
    return found


async def test_launch_page_carries_binderhubs_facts(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, config={"listen": {"base_url": "/b/"}}) as at:
        answer, page = await get(client, f"{at.url}v2/gl/g%2Fp/main?urlpath=x")
        config = page_config(page)
        assert BuildTokens(SECRET).valid(config["buildToken"], "gl/g%2Fp/main", f"127.0.0.1:{at.port}")
    assert answer.status == 200
    keys = {"aboutMessage", "badgeBaseUrl", "bannerHtml", "baseUrl", "binderVersion", "buildToken", "logoUrl", "logoWidth", "repoProviders"}
    assert keys == set(config)
    assert config["baseUrl"] == "/b/"
    assert '<meta property="og:title" content="GitLab: g/p/main">' in page
    assert f'<meta property="og:image" content="{at.url}logo_social.png">' in page
    policy = answer.headers["Content-Security-Policy"]
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", policy)
    assert nonce is not None
    assert re.findall(r"<script(?![^>]*application/json)[^>]*>", page) == re.findall(rf'<script[^>]*nonce="{nonce[1]}"[^>]*>', page)
    assert "unsafe" not in policy
    assert "http" not in re.sub(r'<meta property="og:[^>]*>|window\.pageConfig[^\n]*', "", page)


async def test_hostile_names_stay_text(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path) as at:
        _, page = await get(client, f"{at.url}v2/gh/o/%3C%2Fscript%3E%3Cimg%20src=x%20onerror=alert(1)%3E/HEAD?labpath=%3C%2Fscript%3E%3Cb%3E")
    assert "<img src=x" not in page
    assert "</script><b>" not in page


@pytest.mark.parametrize(
    "path", ["v2/nope/o/r/HEAD", "nope", "v2/gh", "api/nope", "static/nope.js", "static/../site.py", "static/vendor/nope", "static/%2e%2e/site.py"]
)
async def test_what_does_not_exist_is_404(client: aiohttp.ClientSession, tmp_path: Path, path: str) -> None:
    async with stand(tmp_path) as at:
        answer, _ = await get(client, at.url + path)
        as_json, body = await get(client, at.url + path, {"Accept": "*/*"})
    assert (answer.status, answer.content_type) == (404, "text/html")
    assert (as_json.status, json.loads(body)["code"]) == (404, "not_found")
    assert "Content-Security-Policy" in answer.headers


async def test_message_with_percent_signs_is_shown(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path) as at:
        answer, _ = await get(client, f"{at.url}api/builds?limit=%25s", HTML | {"Authorization": "Bearer x"})
    assert answer.status == 403


@pytest.mark.parametrize(
    ("query", "location"),
    [
        ("provider=gh&repo=o%2Fr&ref=&path=&kind=file", "/v2/gh/o/r/HEAD"),
        ("provider=gh&repo=https://github.com/o/r/blob/main/a.ipynb&kind=lab", "/v2/gh/o/r/main?urlpath=%2Flab%2Ftree%2Fa.ipynb"),
        ("provider=git&repo=https%3A%2F%2Fh%2Fr%0d%0aX-Evil:1", "/v2/git/https%3A%2F%2Fh%2Fr%0D%0AX-Evil%3A1/HEAD"),
    ],
)
async def test_the_form_works_without_scripts(client: aiohttp.ClientSession, tmp_path: Path, query: str, location: str) -> None:
    async with stand(tmp_path) as at:
        answer, _ = await get(client, f"{at.url}launch?{query}")
    assert (answer.status, answer.headers["Location"]) == (302, location)
    assert "X-Evil" not in answer.headers


@pytest.mark.parametrize(("query", "status"), [("provider=nope&repo=x", 404), ("provider=gh&repo=", 400), ("", 404)])
async def test_a_form_that_leads_nowhere(client: aiohttp.ClientSession, tmp_path: Path, query: str, status: int) -> None:
    async with stand(tmp_path) as at:
        assert (await get(client, f"{at.url}launch?{query}"))[0].status == status


@pytest.mark.parametrize(
    ("path", "location"),
    [("repo/o/r", "/b/v2/gh/o/r/HEAD"), ("repo/o/r/a/b.ipynb", "/b/v2/gh/o/r/HEAD?urlpath=%2Fa%2Fb.ipynb"), ("repo/o/r/", "/b/v2/gh/o/r/HEAD")],
)
async def test_oldest_links(client: aiohttp.ClientSession, tmp_path: Path, path: str, location: str) -> None:
    async with stand(tmp_path, config={"listen": {"base_url": "/b/"}}) as at:
        answer, _ = await get(client, at.url + path)
    assert (answer.status, answer.headers["Location"]) == (302, location)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("badge.svg", "image/svg+xml"),
        ("badge_logo.svg", "image/svg+xml"),
        ("assets/images/badge.svg", "image/svg+xml"),
        ("logo_social.png", "image/png"),
        ("favicon.svg", "image/svg+xml"),
        ("favicon.ico", "image/x-icon"),
        ("static/launch.js", "text/javascript"),
        ("static/site.css", "text/css"),
    ],
)
async def test_pictures_and_files(client: aiohttp.ClientSession, tmp_path: Path, name: str, kind: str) -> None:
    async with stand(tmp_path) as at, client.get(at.url + name) as answer, client.head(at.url + name) as head:
        assert (answer.status, answer.content_type, head.status) == (200, kind, 200)
        assert len(await answer.read()) > 200
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Server" not in answer.headers


async def test_language_by_header_query_and_cookie(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path) as at:
        assert "Launch</button>" in (await get(client, at.url))[1]
        assert "Lancer</button>" in (await get(client, at.url, HTML | {"Accept-Language": "fr-FR,en;q=0.5"}))[1]
        answer, page = await get(client, at.url + "?lang=fr")
        assert 'lang="fr"' in page
        assert "SameSite=Lax" in answer.headers["Set-Cookie"]
        assert "Lancer</button>" in (await get(client, at.url))[1]


async def test_banner_and_about_are_the_administrators(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, config={"web": {"banner": "<b>Friday</b>", "about": "<i>Run by us</i>"}}) as at:
        assert "<b>Friday</b>" in (await get(client, at.url))[1]
        assert "<i>Run by us</i>" in (await get(client, at.url + "about"))[1]


async def test_cors_is_a_setting(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, config={"web": {"cors_allow_origin": "*"}}) as at:
        async with client.options(at.url + "build/gh/o/r/HEAD", headers={"Access-Control-Request-Headers": "authorization"}) as answer:
            assert answer.status == 200
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert "authorization" in answer.headers["Access-Control-Allow-Headers"]
            assert "DELETE" in answer.headers["Access-Control-Allow-Methods"]
        async with client.get(at.url + "build/gh/o/r/HEAD", headers={"Accept": "text/event-stream"}) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
    async with stand(tmp_path) as at:
        assert "Access-Control-Allow-Origin" not in (await get(client, at.url))[0].headers
        assert (await get(client, at.url + "versions"))[0].headers["Access-Control-Allow-Origin"] == "*"
