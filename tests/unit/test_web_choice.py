"""The page that asks what one needs, the page of a launch that says it, the form that makes links of it; with and without JavaScript."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from binder_onprem.choice import Choice
from tests.unit.webstand import ADMIN, Stand, stand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CONFIG: dict[str, Any] = {
    "choice": {
        "profiles": {"small": {"title": "Small <1>", "memory": "1GiB"}, "large": {}, "gpu": {"roles": ["admin"]}},
        "data": {"census": {"path": "/srv/census", "title": "Census"}},
        "environment": ["COURSE"],
        "images": {"stats": {"image": f"h.example/stats@sha256:{'d' * 64}"}},
    }
}
LINK = "v2/gh/o/r/HEAD"


@asynccontextmanager
async def asked(home: Path, path: str, headers: dict[str, str] | None = None) -> AsyncIterator[tuple[int, str, Stand]]:
    headers = {"Accept": "text/html"} | (headers or {})
    async with stand(home, config=CONFIG) as site, aiohttp.ClientSession(headers=headers) as session, session.get(site.url + path) as answer:
        yield answer.status, await answer.text(), site


async def test_the_page_asks_where_several_profiles_are_open(tmp_path: Path) -> None:
    async with asked(tmp_path, f"{LINK}?urlpath=lab&env.COURSE=%3Cb%3E&image=stats&data=census") as (status, text, _):
        assert status == 200
    assert re.findall(r'type="radio"[^>]* value="([a-z]+)"', text) == ["small", "large"]
    assert "Small &lt;1&gt;" in text
    assert "1 GiB of memory" in text
    kept = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]+)"', text))
    assert kept == {"urlpath": "lab", "env.COURSE": "&lt;b&gt;", "image": "stats"}
    assert re.search(r'value="census"\s+checked', text)
    assert "launch.js" not in text
    assert '"buildToken"' in text
    assert text.index("window.pageConfig") < text.index("<form")


async def test_a_link_that_names_its_profile_goes_on(tmp_path: Path) -> None:
    async with asked(tmp_path, f"{LINK}?profile=large&data=census&env.COURSE=%3Cb%3E") as (status, text, _):
        assert status == 200
    settings = json.loads(re.search(r'id="launch">(.*?)</script>', text)[1])  # type: ignore[index]
    assert "profile=large&data=census&env.COURSE=%3Cb%3E&build_token=" in settings["build"]
    assert settings["choice"] == "profile=large&data=census&env.COURSE=%3Cb%3E"
    assert "Profile: large · Data: Census · COURSE=&lt;b&gt;" in text


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("profile=huge", 400, "does not exist here"),
        ("profile=gpu", 403, "You may not use"),
        ("data=..%2Fetc", 400, "no valid name"),
        ("env.PATH=x", 403, "PATH"),
    ],
)
async def test_what_may_not_be_chosen_is_an_error_page(tmp_path: Path, query: str, status: int, words: str) -> None:
    async with asked(tmp_path, f"{LINK}?{query}") as (got, text, _):
        assert (got, words in text) == (status, True)


async def test_it_speaks_french(tmp_path: Path) -> None:
    async with asked(tmp_path, LINK, {"Accept-Language": "fr"}) as (_, text, _site):
        assert "De combien avez-vous besoin" in text
        assert "Gio de mémoire" in text


async def test_an_administrator_sees_what_is_for_administrators(tmp_path: Path) -> None:
    async with asked(tmp_path, LINK, {"Authorization": f"Bearer {ADMIN}"}) as (_, text, _site):
        assert 'value="gpu"' in text


async def test_the_stream_carries_the_choice(tmp_path: Path) -> None:
    path = "build/gh/o/r/HEAD?profile=large&data=census&env.COURSE=7"
    async with asked(tmp_path, path, {"Accept": "text/event-stream"}) as (status, _, site):
        assert status == 200
        assert site.play.requests[0].choice == Choice("large", "", ("census",), (("COURSE", "7"),))
    async with asked(tmp_path, "build/gh/o/r/HEAD?profile=../x", {"Accept": "text/event-stream"}) as (status, text, site):
        assert (status, '"phase": "failed"' in text or '"phase":"failed"' in text, site.play.requests) == (200, True, [])


async def test_the_form_makes_links_of_it(tmp_path: Path) -> None:
    async with asked(tmp_path, "?provider=gh&repo=o/r&profile=small&data=census&image=stats") as (_, text, _site):
        assert "v2/gh/o/r/HEAD?profile=small&amp;image=stats&amp;data=census" in text
        assert re.search(r'value="small" selected', text)
    async with asked(tmp_path, "launch?provider=gh&repo=o/r&ref=main&profile=large&data=census") as (_, _, site):
        assert site.url
    async with stand(tmp_path, config=CONFIG) as site, aiohttp.ClientSession() as session:
        path = f"{site.url}launch?provider=gh&repo=o/r&path=n.ipynb&profile=large&data=census"
        async with session.get(path, allow_redirects=False) as answer:
            assert answer.headers["Location"] == "/v2/gh/o/r/HEAD?urlpath=%2Fdoc%2Ftree%2Fn.ipynb&profile=large&data=census"
