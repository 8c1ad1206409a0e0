"""BinderHub's contract at the wire, beyond the other tests of the web: the stream's exact bytes, prefixes, proxies in front; old clients."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from prometheus_client import REGISTRY
from yarl import URL

from binder_onprem.errors import BuildFailed, QuotaExceeded, RepositoryFull
from binder_onprem.web.health import capacity
from binder_onprem.web.tokens import BuildTokens
from tests.unit.test_web_pages import page_config
from tests.unit.webstand import SECRET, Play, lines, stand, usual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LINK = "build/gh/o/r/HEAD"
EVENTS = {"Accept": "text/event-stream"}
PHASES = {"built", "launching", "ready", "failed", "waiting", "fetching", "building", "unknown"}
STRINGS = ("url", "token", "image", "repo_url", "binder_ref_url", "binder_launch_host", "binder_request", "binder_persistent_request")


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def read(client: aiohttp.ClientSession, url: str, headers: dict[str, str] | None = None) -> tuple[aiohttp.ClientResponse, bytes]:
    async with client.get(URL(url, encoded=True), headers=EVENTS if headers is None else headers, allow_redirects=False) as answer:
        return answer, await answer.read()


def strict(body: bytes) -> list[dict[str, Any]]:
    """As the crate `mybinder` reads it: every line that is not empty is ``data: `` and an object with one of the eight phases."""
    events = []
    for line in filter(None, body.decode().split("\n")):
        assert line.startswith("data: ")
        event = json.loads(line[6:])
        assert event["phase"] in PHASES
        assert isinstance(event["message"], str)
        if event["phase"] == "ready":
            assert all(isinstance(event[name], str) and event[name] for name in STRINGS)
        events.append(event)
    return events


@pytest.mark.parametrize(
    ("script", "end"), [(usual(), "ready"), ([usual()[0], *lines(2), BuildFailed("No such package.")], "failed"), ([RuntimeError("x")], "failed")]
)
async def test_a_strict_reader_understands_every_line(client: aiohttp.ClientSession, tmp_path: Path, script: list[Any], end: str) -> None:
    async with stand(tmp_path, Play(script)) as at:
        answer, body = await read(client, at.url + LINK)
    assert answer.status == 200
    assert answer.headers["Content-Type"].partition(";")[0] == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-cache"
    phases = [event["phase"] for event in strict(body)]
    assert [phase in ("ready", "failed") for phase in phases] == [False] * (len(phases) - 1) + [True]
    assert phases[-1] == end
    assert body.endswith(b"}\n\n")
    assert b"\n\n\n" not in body


@pytest.mark.parametrize(
    ("query", "headers", "end"),
    [
        ("", {}, "failed"),  # curl, load-test.py, holepunch without Accept: told why, under HTTP 200
        ("", {"Accept": "*/*"}, "failed"),
        ("", {"Authorization": "token any"}, "ready"),  # tljh-repo2docker, binderbot: no Accept, a token
        ("", {"Authorization": "Bearer any", "Accept": "*/*"}, "ready"),
        ("?build_token=TOKEN", {"Accept": "*/*"}, "ready"),
        ("?BUILD_TOKEN=x", {"Accept": "text/html, text/event-stream ; q=0.9"}, "ready"),
    ],
)
async def test_what_clients_send(client: aiohttp.ClientSession, tmp_path: Path, query: str, headers: dict[str, str], end: str) -> None:
    async with stand(tmp_path) as at:
        token = BuildTokens(SECRET).issue("gh/o/r/HEAD", f"127.0.0.1:{at.port}")
        answer, body = await read(client, at.url + LINK + query.replace("TOKEN", token), headers)
    assert (answer.status, strict(body)[-1]["phase"]) == (200, end)
    if end == "failed":
        assert "Accept" in strict(body)[0]["message"]


@pytest.mark.parametrize(
    ("configured", "asked"),
    [("/a@b/c d/", "/a@b/c%20d/"), ("a%40b/c%20d", "/a%40b/c%20d/"), ("/\u00fcbung/", "/%C3%BCbung/"), ("/services/binder", "/services/binder/")],
)
async def test_a_prefix_may_be_spelled_as_it_likes(client: aiohttp.ClientSession, tmp_path: Path, configured: str, asked: str) -> None:
    async with stand(tmp_path, config={"listen": {"base_url": configured}}) as at:
        root = f"http://127.0.0.1:{at.port}{asked}"
        _, body = await read(client, f"{root}build/gl/g%2Fp/main")
        answer, page = await read(client, f"{root}v2/gl/g%2Fp/main", {"Accept": "text/html"})
        health, _ = await read(client, f"{root}health")
        badge, _ = await read(client, f"{root}badge_logo.svg")
        elsewhere, _ = await read(client, f"http://127.0.0.1:{at.port}/health")
    assert strict(body)[-1]["phase"] == "ready"
    assert (at.play.requests[0].provider, at.play.requests[0].path) == ("gl", "g%2Fp/main")
    assert (answer.status, health.status, badge.status, elsewhere.status) == (200, 200, 200, 404)
    base = page_config(page.decode())["baseUrl"]
    assert base.isascii()
    assert URL(base) == URL(asked)
    for link in re.findall(r'(?:src|href)="(/[^"]*)"', page.decode()):
        assert link.startswith(base)


@pytest.mark.parametrize("wrong", ["/a//b/", "/../", "/a/./b", "/a%2Fb/", "/{x}/", "/100%25/"])
def test_a_prefix_that_is_none(wrong: str) -> None:
    from binder_onprem.config import Listen  # noqa: PLC0415 - one test's

    with pytest.raises(ValueError, match="must be a path"):
        Listen(base_url=wrong)


FORWARDED = {"X-Forwarded-For": "192.0.2.9, 203.0.113.1", "X-Forwarded-Proto": "https,http", "X-Forwarded-Host": "binder.uni.example"}


@pytest.mark.parametrize(
    ("trusted", "host", "url", "address"),
    [
        (["203.0.113.0/24"], "binder.uni.example", "https://binder.uni.example/b/", "192.0.2.9"),
        (["198.51.100.1"], None, "http://HERE/b/", "203.0.113.1"),  # whoever this is, it is none of ours
        ([], None, "http://HERE/b/", "203.0.113.1"),
    ],
)
async def test_a_proxy_in_front_is_believed_only_when_trusted(  # noqa: PLR0913, PLR0917 - a table
    client: aiohttp.ClientSession, tmp_path: Path, trusted: list[str], host: str | None, url: str, address: str
) -> None:
    async with stand(tmp_path, config={"listen": {"base_url": "/b/", "trusted_proxies": trusted}}) as at:
        _, page = await read(client, f"{at.url}v2/gh/o/r/HEAD", FORWARDED | {"Accept": "text/html"})
        config = page_config(page.decode())
        _, body = await read(client, f"{at.url}{LINK}?build_token={config['buildToken']}", FORWARDED)
        same_page = FORWARDED | {"Origin": f"https://{host or f'127.0.0.1:{at.port}'}"}
        _, again = await read(client, f"{at.url}{LINK}?build_token={config['buildToken']}", same_page)
    assert config["badgeBaseUrl"] == url.replace("HERE", f"127.0.0.1:{at.port}")
    assert [strict(one)[-1]["phase"] for one in (body, again)] == ["ready", "ready"]
    assert [(request.client.address, request.client.trusted) for request in at.play.requests] == [(address, True)] * 2
    assert at.play.requests[0].host == config["badgeBaseUrl"]


async def test_a_malformed_forwarded_host_is_not_repeated(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, config={"listen": {"trusted_proxies": ["203.0.113.1"]}}) as at:
        _, page = await read(client, f"{at.url}v2/gh/o/r/HEAD", FORWARDED | {"X-Forwarded-Host": 'evil"><b>', "Accept": "text/html"})
    assert "evil" not in page.decode()


async def test_cors_as_a_thebe_page_needs_it(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    origin = "https://course.example"
    async with stand(tmp_path, config={"web": {"cors_allow_origin": origin}}) as at:
        asked = {"Origin": origin, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization,cache-control"}
        async with client.options(at.url + LINK, headers=asked) as preflight:
            allowed = {name.strip() for name in preflight.headers["Access-Control-Allow-Headers"].lower().split(",")}
            assert preflight.status == 200
            assert {"authorization", "cache-control", "x-xsrftoken"} <= allowed
        for path in (LINK, "health", "api/repoproviders", "nope", "build/nope/x"):
            answer, _ = await read(client, at.url + path, EVENTS | {"Origin": origin})
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert "Access-Control-Allow-Credentials" not in answer.headers
        answer, body = await read(client, f"{at.url}{LINK}?build_token={BuildTokens(SECRET).issue('gh/o/r/HEAD', f'127.0.0.1:{at.port}')}", asked)
        assert strict(body)[0]["status_code"] == 403  # a token that another page took


async def test_small_routes_have_binderhubs_fields(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async def quota() -> dict[str, Any]:
        return capacity(7, 2, 5)

    async def fine() -> dict[str, Any]:
        return {"ok": True}

    checks = {"Docker registry": fine, "JupyterHub API": fine, "Pod quota": quota}
    async with stand(tmp_path, health=checks, builder_info={"build_image": "binder-onprem:x"}) as at:
        _, health = await read(client, at.url + "health")
        _, versions = await read(client, at.url + "versions")
        _, old = await read(client, at.url + "_config")
        _, providers = await read(client, at.url + "api/repoproviders")
        async with client.head(at.url + "health") as head:
            assert (head.status, await head.read()) == (200, b"")
    told = json.loads(health)
    assert told["ok"] is True
    assert [check["service"] for check in told["checks"]] == list(checks)
    expected = {"service": "Pod quota", "ok": False, "total_pods": 9, "build_pods": 2, "user_pods": 7, "quota": 5, "_ignore_failure": True}
    assert told["checks"][-1] == expected
    assert set(json.loads(versions)) == {"builder_info", "binderhub", "builder"}
    assert json.loads(old)["gh"] == {
        "text": "GitHub repository name or URL",
        "tag_text": "Git ref (branch, tag, or commit)",
        "ref_prop_disabled": False,
        "label_prop_disabled": False,
    }
    for shown in json.loads(providers):
        assert {"displayName", "id", "spec", "repo", "ref"} <= set(shown)
        assert {"label", "placeholder", "urlEncode"} <= set(shown["repo"])
        assert isinstance(shown["ref"]["enabled"], bool)
        re.compile(shown["spec"]["validateRegex"])


async def test_metrics_have_binderhubs_names_and_no_repository(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path) as at:
        await read(client, at.url + "build/gh/secret-owner/secret-repo/HEAD")
        answer, body = await read(client, at.url + "metrics")
    names = {metric.name for metric in REGISTRY.collect()}
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert names >= {
        "binderhub_build_time_seconds",
        "binderhub_launch_time_seconds",
        "binderhub_build_count",
        "binderhub_launch_count",
        "binderhub_inprogress_builds",
        "binderhub_inprogress_launches",
        "binderhub_github_rate_limit_remaining",
    }
    assert b"binderhub_launch_count_total{" in body
    assert b"secret" not in body


@pytest.mark.parametrize(
    ("error", "status"), [(QuotaExceeded("x"), "pod_quota"), (RepositoryFull("x"), "repo_quota"), (BuildFailed("x"), "failure"), (None, "success")]
)
async def test_launches_are_counted_by_binderhubs_words(client: aiohttp.ClientSession, tmp_path: Path, error: Any, status: str) -> None:
    labels = {"status": status, "provider": "git"}
    before = REGISTRY.get_sample_value("binderhub_launch_count_total", labels) or 0
    async with stand(tmp_path, Play([usual()[0], error or usual()[-1]])) as at:
        await read(client, at.url + "build/git/https%3A%2F%2Fh%2Fr/HEAD")
    assert REGISTRY.get_sample_value("binderhub_launch_count_total", labels) == before + 1


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_other_methods_are_refused_with_the_ones_there_are(client: aiohttp.ClientSession, tmp_path: Path, method: str) -> None:
    async with stand(tmp_path) as at, client.request(method, at.url + LINK) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    assert at.play.requests == []
