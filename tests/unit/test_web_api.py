"""The JSON API over HTTP: who may what, and what comes back; its description agrees with the routes."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from openapi_spec_validator import validate

from binder_onprem.errors import HubUnavailable
from binder_onprem.model import BuildState
from binder_onprem.web.health import FRESH, Health
from tests.unit.webstand import ADMIN, BUILD, IMAGE, RECORD, Play, Records, stand, usual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

TOKEN = {"Authorization": f"Bearer {ADMIN}"}


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def call(client: aiohttp.ClientSession, method: str, url: str, headers: Mapping[str, str] = TOKEN) -> tuple[int, Any]:
    async with client.request(method, url, headers=headers) as answer:
        text = await answer.text()
        return answer.status, json.loads(text) if text.startswith(("{", "[")) else text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "api/builds"),
        ("DELETE", f"api/builds/{BUILD}"),
        ("GET", "api/sessions"),
        ("DELETE", "api/sessions/o-r-1"),
        ("POST", "api/sessions/reap"),
        ("GET", "api/images"),
        ("POST", "api/images/prune"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {ADMIN}"}, {"Authorization": "Bearer "}])
async def test_only_the_administrator(client: aiohttp.ClientSession, tmp_path: Path, method: str, path: str, headers: dict[str, str]) -> None:
    async with stand(tmp_path) as at:
        status, body = await call(client, method, at.url + path, headers)
        assert (status, body["code"]) == (403, "refused")
        assert at.records.stopped == []
        assert at.records.record == RECORD


async def test_builds(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path) as at:
        status, body = await call(client, "GET", at.url + "api/builds?limit=5&open=true")
        assert (status, [one["id"] for one in body["builds"]]) == (200, [BUILD])
        status, one = await call(client, "GET", f"{at.url}api/builds/{BUILD}", {})
        assert (status, one["state"], one["repo_url"]) == (200, "running", "https://example.org/o/r")
        assert "asker" not in one
        for wrong in ("0" * 16, "x", "..%2f..", "0" * 17):
            assert (await call(client, "GET", f"{at.url}api/builds/{wrong}", {}))[0] == 404
        for limit in ("0", "1001", "-1", "x", "1e3", "٣"):
            assert (await call(client, "GET", f"{at.url}api/builds?limit={limit}"))[0] == 400


async def test_cancel(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path) as at:
        status, body = await call(client, "DELETE", f"{at.url}api/builds/{BUILD}")
        assert (status, body["state"]) == (200, "cancelled")
    ended = replace(RECORD, state=BuildState.BUILT)
    async with stand(tmp_path, records=Records(record=ended)) as at:
        assert (await call(client, "DELETE", f"{at.url}api/builds/{BUILD}"))[1]["state"] == "built"


async def test_log_now_or_to_its_end(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    live = asyncio.Event()
    async with stand(tmp_path, records=Records(live=live)) as at:
        url = f"{at.url}api/builds/{BUILD}/log"
        status, text = await call(client, "GET", url, {})
        assert (status, text) == (200, "line 1\nline 2\nline 3\n")
        asyncio.get_running_loop().call_later(0.3, live.set)
        assert (await call(client, "GET", url + "?follow=1", {}))[1] == "line 1\nline 2\nline 3\nlast\n"


async def test_sessions_and_passes(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    asked: list[bool] = []

    async def work(dry_run: bool) -> Sequence[Mapping[str, Any]]:  # noqa: FBT001 - shape of a pass
        asked.append(dry_run)
        return [{"kind": "session", "name": "u", "reason": "idle"}]

    async with stand(tmp_path, reap=work, prune=work) as at:
        assert (await call(client, "GET", at.url + "api/sessions"))[1]["sessions"][0]["name"] == "o-r-1"
        assert (await call(client, "DELETE", at.url + "api/sessions/o-r-1"))[0] == 204
        assert (await call(client, "DELETE", at.url + "api/sessions/other"))[0] == 404
        assert [session.name for session in at.records.stopped] == ["o-r-1"]
        status, body = await call(client, "POST", at.url + "api/sessions/reap?dry_run=true")
        assert (status, body["dry_run"], body["actions"][0]["reason"]) == (200, True, "idle")
        assert (await call(client, "POST", at.url + "api/images/prune"))[1]["dry_run"] is False
        images = (await call(client, "GET", at.url + "api/images"))[1]["images"]
    assert [(image["reference"], image["size"], image["last_used"]) for image in images] == [(IMAGE, 11, 7.0)]
    assert asked == [True, False]


async def test_errors_of_the_parts_keep_their_code(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    class Down(Records):
        async def sessions(self) -> list[Any]:
            raise HubUnavailable("The hub does not answer.", retry_after=3)

    async with stand(tmp_path, records=Down()) as at, client.get(at.url + "api/sessions", headers=TOKEN) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "3")
        assert (await answer.json())["code"] == "hub"


async def test_wrong_methods_are_405(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path) as at, client.post(at.url + "api/builds") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")


async def test_health(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async def good() -> dict[str, Any]:
        return {"ok": True}

    async def broken() -> dict[str, Any]:
        raise RuntimeError("/secret")

    async def minor() -> dict[str, Any]:
        return {"ok": False, "_ignore_failure": True}

    async with stand(tmp_path, health={"JupyterHub API": good, "disk": minor}) as at:
        status, body = await call(client, "GET", at.url + "health", {})
        assert (status, body["ok"], [one["service"] for one in body["checks"]]) == (200, True, ["JupyterHub API", "disk"])
        async with client.head(at.url + "health") as answer:
            assert answer.status == 200
    async with stand(tmp_path, health={"Docker registry": broken}) as at:
        status, body = await call(client, "GET", at.url + "health", {})
        assert (status, body) == (503, {"ok": False, "checks": [{"service": "Docker registry", "ok": False}]})


async def test_health_is_asked_once_for_everybody() -> None:
    now, asked = [0.0], []

    async def check() -> dict[str, Any]:
        asked.append(now[0])
        await asyncio.sleep(0)
        return {"ok": True}

    health = Health({"x": check}, clock=lambda: now[0])
    await asyncio.gather(*(health.report() for _ in range(50)))
    now[0] = FRESH - 0.1
    await health.report()
    assert asked == [0.0]
    now[0] = FRESH
    await health.report()
    assert asked == [0.0, FRESH]


async def test_facts(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, builder_info={"build_image": "b:1"}) as at:
        _, versions = await call(client, "GET", at.url + "versions", {})
        assert versions["builder_info"] == {"build_image": "b:1"}
        assert versions["builder"] == "b:1"
        _, providers = await call(client, "GET", at.url + "api/repoproviders", {})
        assert [one["id"] for one in providers] == ["git", "gh", "gist", "gl", "zenodo", "figshare", "dataverse", "hydroshare", "ckan"]
        assert all({"displayName", "id", "spec", "repo", "ref"} <= one.keys() for one in providers)
        _, old = await call(client, "GET", at.url + "_config", {})
        assert old["gh"]["text"] == "GitHub repository name or URL"


async def test_metrics_name_no_repository(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, Play(usual())) as at:
        async with client.get(at.url + "build/gh/secret-owner/secret-repo/HEAD", headers={"Accept": "text/event-stream"}) as answer:
            await answer.read()
        _, text = await call(client, "GET", at.url + "metrics", {})
    assert 'binderhub_launch_count_total{provider="github",status="success"}' in text
    for name in ("build_time_seconds", "launch_time_seconds", "inprogress_builds", "inprogress_launches", "github_rate_limit_remaining"):
        assert f"# TYPE binderhub_{name} " in text
    assert "secret" not in text
    assert "repo=" not in text


async def test_the_description_is_valid_and_complete(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, config={"listen": {"base_url": "/b/"}}) as at:
        _, document = await call(client, "GET", at.url + "openapi.json", {})
        routes = {
            (route.method.lower(), re.sub(r":[^}]*", "", route.resource.canonical.removeprefix("/b")))
            for route in at.app.router.routes()
            if route.resource and route.method in ("GET", "POST", "PUT", "DELETE")
        }
    validate(document)
    described = {(method, path) for path, operations in document["paths"].items() for method in operations}
    api = {route for route in routes if route[1].startswith(("/api", "/build", "/v2", "/health", "/versions", "/metrics", "/_config"))}
    assert described <= routes
    assert api <= described
