"""The build service for another hub: what its routes answer, who may use it, what a launch without a session says."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from binder_onprem.config import Config
from binder_onprem.errors import RegistryUnavailable
from binder_onprem.events import Done, Phase, Progress, Stage
from binder_onprem.host import buildservice
from binder_onprem.launch import launch
from binder_onprem.web import services
from tests.unit.parts import DIGEST, House, image, request
from tests.unit.test_web_contract import read, strict
from tests.unit.virtual import virtual
from tests.unit.webstand import ADMIN, Play, lines, stand, usual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from binder_onprem.model import ImageRef

TOKEN = "planted-token-of-the-other-hub"
BUILD = "build/gh/o/r/HEAD?build_only=true"
BUILT = [
    *usual()[:2],
    *lines(2, first=2),
    Progress(Phase.BUILDING, "Copying the image to r/x ...\n", Stage.LAUNCH, 1),
    Done("r/x/o-r@sha256:1", found=False),
]


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def test_ready_carries_the_image_and_nothing_of_a_session(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, Play(BUILT), config={"web": {"api_only": True}}) as at:
        answer, body = await read(client, at.url + BUILD, {})
    assert answer.status == 200
    events = strict_of(body)
    assert events[-1] == {"phase": "ready", "message": "Done! Image built\n", "imageName": "r/x/o-r@sha256:1"}
    assert not any(event["phase"] == "built" for event in events)  # tljh-repo2docker takes the first `imageName`
    assert at.play.requests[0].build_only


def strict_of(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in body.decode().split("\n") if line]


@pytest.mark.parametrize("query", ["build_only=TRUE", "build_only=true&build_token=x", "resume=true&build_only=true"])
async def test_without_the_mode_nothing_is_only_built(client: aiohttp.ClientSession, tmp_path: Path, query: str) -> None:
    async with stand(tmp_path) as at:
        _, body = await read(client, f"{at.url}build/gh/o/r/HEAD?{query}", {"Authorization": f"Bearer {ADMIN}"})
    assert strict(body)[0]["status_code"] in (400, 403)
    assert at.play.requests == []


@pytest.mark.parametrize(
    "path", ["", "v2/gh/o/r/HEAD", "about", "launch?provider=gh&repo=x", "repo/o/r", "badge.svg", "badge_logo.svg", "logo_social.png"]
)
async def test_it_has_no_pages(client: aiohttp.ClientSession, tmp_path: Path, path: str) -> None:
    async with stand(tmp_path, config={"web": {"api_only": True}}) as at:
        answer, body = await read(client, at.url + path, {"Accept": "text/html"})
    assert (answer.status, answer.content_type, json.loads(body)["code"]) == (404, "application/json", "not_found")


async def test_it_has_the_rest(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, config={"web": {"api_only": True}}) as at:
        for path in ("health", "versions", "metrics", "_config", "api/repoproviders", "static/site.css"):
            assert (await read(client, at.url + path, {}))[0].status == 200
        _, described = await read(client, at.url + "openapi.json", {})
    assert "/build/{provider}/{spec}" in json.loads(described)["paths"]
    assert "/v2/{provider}/{spec}" not in json.loads(described)["paths"]


def clients(tmp_path: Path) -> Path:
    file = tmp_path / "clients"
    file.write_text(f"# programs\n\nhub-of-physics {TOKEN}\nshort x\n  spaced   planted-token-of-a-course  \n")
    file.chmod(0o600)
    return file


@pytest.mark.parametrize(
    ("headers", "end"),
    [
        ({}, "failed"),
        ({"Authorization": "Bearer nobody's"}, "failed"),
        ({"Authorization": "Bearer x"}, "failed"),
        ({"Authorization": "Bearer "}, "failed"),
        ({"Authorization": f"Basic {TOKEN}"}, "failed"),
        ({"Authorization": f"Bearer {TOKEN}"}, "ready"),
        ({"Authorization": "token planted-token-of-a-course"}, "ready"),
        ({"Authorization": f"Bearer {ADMIN}"}, "ready"),
    ],
)
async def test_only_programs_with_a_token(client: aiohttp.ClientSession, tmp_path: Path, headers: dict[str, str], end: str) -> None:
    config = {"web": {"api_only": True, "clients_file": clients(tmp_path)}}
    async with stand(tmp_path, Play(BUILT), config=config) as at:
        answer, body = await read(client, at.url + BUILD, headers)
        _, launched = await read(client, at.url + "build/gh/o/r/HEAD", headers | {"Accept": "text/event-stream"})
    told = strict_of(body)
    assert (answer.status, told[-1]["phase"], strict_of(launched)[-1]["phase"]) == (200, end, end)
    if end == "failed":
        assert told[0]["status_code"] == 403
        assert at.play.requests == []
    else:
        assert at.play.requests[0].client.trusted
        assert at.play.requests[0].client.user in (None, "service:hub-of-physics", "service:spaced")


async def test_a_token_taken_away_is_nobodys_at_once(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    file = clients(tmp_path)
    async with stand(tmp_path, Play(BUILT), config={"web": {"api_only": True, "clients_file": file}}) as at:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert strict_of((await read(client, at.url + BUILD, headers))[1])[-1]["phase"] == "ready"
        file.write_text("")
        assert strict_of((await read(client, at.url + BUILD, headers))[1])[-1]["phase"] == "failed"
        file.unlink()
        assert strict_of((await read(client, at.url + BUILD, headers))[1])[-1]["phase"] == "failed"


def test_no_file_knows_nobody(tmp_path: Path) -> None:
    assert services.named("x" * 20, None) is None
    assert services.tokens(tmp_path / "absent") == {}


class Outside:
    place = "registry.test/shared"

    def __init__(self) -> None:
        self.asked: list[tuple[ImageRef, str]] = []
        self.error: Exception | None = None

    async def publish(self, image: ImageRef, digest: str) -> str:
        self.asked.append((image, digest))
        if self.error:
            raise self.error
        return f"{self.place}/name@{digest}"


@virtual
async def test_a_launch_that_only_builds_starts_no_session(tmp_path: Path) -> None:
    house = House(tmp_path, session={"total": 1})
    await house.up()
    outside, wanted = Outside(), replace(request(), build_only=True)
    line = replace(house.line, publication=outside)
    first = [event async for event in launch(wanted, line)]
    await asyncio.sleep(1)
    again = [event async for event in launch(replace(wanted, key="2" * 32), line)]
    here = [event async for event in launch(replace(wanted, key="3" * 32), house.line)]
    assert first[-1] == Done(f"registry.test/shared/name@{DIGEST}", found=False)
    assert again[-1] == Done(f"registry.test/shared/name@{DIGEST}", found=True)
    assert here[-1] == Done(image().at(DIGEST), found=True)
    assert isinstance(first[-2], Progress)
    assert (first[-2].phase, first[-2].message) == (Phase.BUILDING, "Copying the image to registry.test/shared ...\n")
    assert outside.asked == [(image(), DIGEST)] * 2
    assert house.hub.users == {}
    assert {audit.outcome for audit in house.store.audits.values()} == {"ready"}
    assert image().at(DIGEST) in house.store.used
    await house.down()


@virtual
async def test_a_registry_outside_that_fails_is_told(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    outside = Outside()
    outside.error = RegistryUnavailable("It refuses our account.")
    with pytest.raises(RegistryUnavailable, match="refuses"):
        async for _ in launch(replace(request(), build_only=True), replace(house.line, publication=outside)):
            pass
    await house.down()


@pytest.mark.parametrize(
    "registry", ["https://r.example/x", "R.example", "r.example/", "-x", "r.example:99999999", "r.example/../x", "r.example/a b"]
)
def test_places_that_are_none(registry: str) -> None:
    if registry == "r.example/":
        assert Config(publish={"registry": registry}).publish.registry == "r.example"  # type: ignore[arg-type]
        return
    with pytest.raises(ValueError, match="must be host"):
        Config(publish={"registry": registry})  # type: ignore[arg-type]


def test_files_without_a_registry_are_an_error() -> None:
    with pytest.raises(ValueError, match="belong to registry"):
        Config(publish={"ca_file": "/x"})  # type: ignore[arg-type]


def test_check_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("binder_onprem.host.machine.PATH", str(tmp_path))
    file = clients(tmp_path)
    web = {"api_only": True, "clients_file": file}
    found = list(buildservice.findings(Config.model_validate({"web": web})))
    assert [(one.level, one.subject) for one in found] == [("warn", "publish.registry"), ("warn", "web.clients_file")]
    file.write_text(f"hub {TOKEN}\n")
    file.chmod(0o644)
    web["clients_file"] = file
    publish = {"registry": "r.example/x", "account_file": tmp_path / "absent"}
    found = list(buildservice.findings(Config.model_validate({"web": web, "publish": publish})))
    assert [(one.level, one.subject) for one in found] == [("fail", "skopeo"), ("fail", "publish.account_file"), ("warn", "web.clients_file")]
    assert "chmod 600" in found[-1].fix
    file.chmod(0o600)
    assert [one.level for one in buildservice.findings(Config.model_validate({"web": {"clients_file": file}}))] == ["ok"]
    file.unlink()
    assert [one.level for one in buildservice.findings(Config.model_validate({"web": {"clients_file": file}}))] == ["fail"]
