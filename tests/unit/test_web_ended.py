"""What the addresses of sessions say when the session is no more."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import aiohttp
import pytest
from yarl import URL

from tests.unit.webstand import stand

if TYPE_CHECKING:
    from pathlib import Path

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FRENCH = HTML | {"Accept-Language": "fr"}
SESSION = "jupyter/user/o-r-1/"


async def ask(url: str, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as client,
        client.request(method, URL(url, encoded=True), headers=headers, allow_redirects=False) as answer,
    ):
        return answer.status, answer.content_type, await answer.text()


@pytest.mark.parametrize("base", ["/", "/b/"])
@pytest.mark.parametrize("tail", ["", "lab", "lab/tree/a%20b.ipynb?token=x", "doc/tree/x%0Ay"])
async def test_a_person_gets_a_page_in_their_language(tmp_path: Path, base: str, tail: str) -> None:
    async with stand(tmp_path, config={"listen": {"base_url": base}}) as at:
        status, kind, page = await ask(at.url + SESSION + tail, headers=HTML)
        _, _, french = await ask(at.url + SESSION + tail, headers=FRENCH)
    assert (status, kind) == (424, "text/html")
    assert "This session has ended" in page
    assert f'data-base="{base}"' in page
    assert f'href="{base}"' in page
    assert 'data-look="0"' in page
    assert "Cette session est terminée" in french


@pytest.mark.parametrize(
    ("method", "tail", "headers"),
    [
        ("GET", "api/kernels?1", HTML),
        ("GET", "lab", {"Accept": "*/*"}),
        ("POST", "login", HTML),
        ("DELETE", "api/sessions/1", {}),
        ("PUT", "lab", HTML),
        ("PATCH", "api/contents/x", {}),
    ],
)
async def test_a_script_gets_json(tmp_path: Path, method: str, tail: str, headers: dict[str, str]) -> None:
    async with stand(tmp_path) as at:
        status, kind, body = await ask(at.url + SESSION + tail, method, headers)
    assert (status, kind) == (424, "application/json")
    assert json.loads(body) == {
        "status": 424,
        "code": "session_ended",
        "message": "This session has ended. Launch its repository again.",
        "retryable": False,
    }


async def test_a_kernels_socket_is_refused(tmp_path: Path) -> None:
    async with stand(tmp_path) as at, aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(f"{at.url}{SESSION}api/kernels/1/channels", headers=HTML)
    assert refused.value.status == 424


@pytest.mark.parametrize("path", ["jupyter/", "jupyter/hub/login", "jupyter/hub/nothing-here/x", "jupyter/user", "jupyter/hub/api/users"])
async def test_nothing_of_the_hub_is_there(tmp_path: Path, path: str) -> None:
    async with stand(tmp_path) as at:
        assert (await ask(at.url + path, headers=HTML))[0] == 404
        assert json.loads((await ask(at.url + path, "POST"))[2])["code"] == "not_found"


async def test_what_the_proxy_shows_while_its_route_remains(tmp_path: Path) -> None:
    async with stand(tmp_path) as at:
        page = await ask(f"{at.url}_error/503?url=%2Fjupyter%2Fuser%2Fx%2Flab", headers=HTML)
        script = await ask(f"{at.url}_error/503?url=%2Fjupyter%2Fuser%2Fx%2Fapi%2Fkernels%3F1")
        other = await ask(f"{at.url}_error/503?url=%2Fjupyter%2Fhub", headers=HTML)
        assert (await ask(f"{at.url}_error/200"))[0] == 404
    assert page[0] == other[0] == 503
    assert "This session has ended" in page[2]
    assert 'data-look="3"' in page[2]
    assert "This session has ended" not in other[2]
    assert (script[0], json.loads(script[2])["code"]) == (503, "session_ended")
