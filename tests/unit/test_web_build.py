"""The event stream as clients see it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from yarl import URL

from binder_onprem.errors import BuildFailed, RateLimited
from binder_onprem.events import Phase, Progress, Stage
from binder_onprem.web.build import Seen
from binder_onprem.web.tokens import BuildTokens
from tests.unit.webstand import ADMIN, SECRET, Play, lines, ready, stand, usual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

EVENTS = {"Accept": "text/event-stream"}
LINK = "build/gh/o/r/HEAD"


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def events(client: aiohttp.ClientSession, url: str, headers: dict[str, str] | None = None) -> list[tuple[str | None, dict[str, Any]]]:
    async with client.get(URL(url, encoded=True), headers=EVENTS if headers is None else headers) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        return parse(await answer.text())


def parse(text: str) -> list[tuple[str | None, dict[str, Any]]]:
    found = []
    for block in text.split("\n\n")[:-1]:
        fields = block.split("\n")
        event_id = fields.pop(0).removeprefix("id: ") if fields[0].startswith("id: ") else None
        if fields == [":keepalive"]:
            continue
        assert len(fields) == 1
        assert fields[0].startswith("data: {")
        found.append((event_id, json.loads(fields[0][6:])))
    return found


async def test_a_launch_is_told_in_binderhubs_form(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path) as at:
        told = await events(client, at.url + LINK)
    assert [data["phase"] for _, data in told] == ["waiting", "fetching", "building", "building", "building", "built", "launching", "ready"]
    assert all(isinstance(data["message"], str) for _, data in told)
    assert all(event_id is None for event_id, _ in told)
    strings = ("url", "token", "image", "repo_url", "binder_ref_url", "binder_launch_host", "binder_request", "binder_persistent_request")
    assert all(isinstance(told[-1][1][name], str) for name in strings)
    assert at.play.requests[0].host == at.url


async def test_raw_spec_survives_and_slashes_at_the_end_go(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, config={"listen": {"base_url": "/a@b/c/"}}) as at:
        await events(client, f"http://127.0.0.1:{at.port}/a%40b/c/build/gl/group%2Fsub%2Fproject/feature/x%20y//")
    assert (at.play.requests[0].provider, at.play.requests[0].path) == ("gl", "group%2Fsub%2Fproject/feature/x%20y")


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/event-stream;q=0"])
async def test_anonymous_requests_must_name_the_type(client: aiohttp.ClientSession, tmp_path: Path, accept: str | None) -> None:
    async with stand(tmp_path) as at:
        told = await events(client, at.url + LINK, {"Accept": accept} if accept else {})
    assert [(data["phase"], data["status_code"]) for _, data in told] == [("failed", 400)]
    assert at.play.requests == []


@pytest.mark.parametrize(
    "headers", [{"Accept": "text/event-stream, */*;q=0.1"}, {"Accept": "TEXT/Event-Stream;charset=utf-8"}, {"Authorization": "token x"}]
)
async def test_lists_and_authorized_requests_are_let_in(client: aiohttp.ClientSession, tmp_path: Path, headers: dict[str, str]) -> None:
    async with stand(tmp_path) as at:
        told = await events(client, at.url + LINK, headers)
    assert told[-1][1]["phase"] == "ready"


async def test_leniency_is_a_setting(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, config={"web": {"strict_accept": False}}) as at:
        assert (await events(client, at.url + LINK, {}))[-1][1]["phase"] == "ready"


async def test_build_token_makes_a_client_trusted(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path) as at:
        token = BuildTokens(SECRET).issue("gh/o/r/HEAD", f"127.0.0.1:{at.port}")
        assert (await events(client, f"{at.url}{LINK}?build_token={token}", {}))[-1][1]["phase"] == "ready"
        await events(client, at.url + LINK)
    assert [request.client.trusted for request in at.play.requests] == [True, False]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://pages.example", "pages.example"),
        ("https://Pages.example:8443", "pages.example:8443"),
        ("http://[2001:db8::1]:80", "[2001:db8::1]:80"),
        ("https://ann:planted@pages.example/a?b", "pages.example"),
        ("null", None),
        ("https://a b", ""),
        ("https://<script>", ""),
        ("https://" + "a" * 400, ""),
        (None, None),
    ],
)
async def test_the_page_that_asked_is_noted_and_nothing_else_of_a_header(
    client: aiohttp.ClientSession, tmp_path: Path, given: str | None, kept: str | None
) -> None:
    async with stand(tmp_path) as at:
        await events(client, at.url + LINK, EVENTS | ({"Origin": given} if given else {}))
        (asked,) = at.play.requests
        assert asked.origin == (f"127.0.0.1:{at.port}" if kept is None else kept)


async def test_wrong_build_tokens_are_refused(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path) as at:
        here, tokens = f"127.0.0.1:{at.port}", BuildTokens(SECRET)
        wrong = [
            tokens.issue("gh/o/other/HEAD", here),
            tokens.issue("gh/o/r/HEAD", "evil.example"),
            tokens.issue("gh/o/r/HEAD", here, now=1000),
            BuildTokens(b"x" * 32).issue("gh/o/r/HEAD", here),
            "eyJhbGciOiJub25lIn0.e30.",
            "",
        ]
        told = [await events(client, f"{at.url}{LINK}?build_token={token}") for token in wrong]
    assert all([(data["phase"], data["status_code"]) for _, data in one] == [("failed", 403)] for one in told)
    assert at.play.requests == []


@pytest.mark.parametrize("path", [LINK + "?build_only=true", "build/gh/" + "x" * 5000, "build/gh//"])
async def test_refused_before_anything_is_asked(client: aiohttp.ClientSession, tmp_path: Path, path: str) -> None:
    async with stand(tmp_path) as at:
        told = await events(client, at.url + path)
    assert [(data["phase"], data["status_code"]) for _, data in told] == [("failed", 400)]
    assert at.play.requests == []


async def test_unknown_provider_is_a_failed_event(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path) as at:
        assert (await events(client, at.url + "build/nope/x/y"))[-1][1]["code"] == "unknown_provider"


async def test_errors_end_the_stream_once(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, Play([*lines(1), BuildFailed("It broke.")])) as at:
        told = await events(client, at.url + LINK)
    assert [data["phase"] for _, data in told] == ["building", "failed"]
    assert told[-1][1]["message"] == "It broke.\n"
    assert told[-1][1]["status_code"] == 422


@pytest.mark.parametrize("script", [[RuntimeError("/secret/path")], []])
async def test_what_nobody_foresaw_is_not_shown(client: aiohttp.ClientSession, tmp_path: Path, script: list[Any]) -> None:
    async with stand(tmp_path, Play(script)) as at:
        told = await events(client, at.url + LINK)
    assert [(data["phase"], data["status_code"]) for _, data in told] == [("failed", 500)]
    assert "secret" not in told[0][1]["message"]


async def test_resume_continues_without_gap_or_repeat(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    notice = Progress(Phase.WAITING, "queue\n", Stage.BUILD, 0, {"position": 2})
    script = [*usual()[:5], notice, *usual()[5:]]
    async with stand(tmp_path, Play(script)) as at:
        first = await events(client, f"{at.url}{LINK}?resume=true")
        assert [event_id is None for event_id, _ in first] == [False] * 5 + [True] + [False] * 3
        seen = first[2][0]
        assert seen is not None
        again = await events(client, f"{at.url}{LINK}?resume=true", EVENTS | {"Last-Event-ID": seen})
        assert again == first[3:]
        by_query = await events(client, f"{at.url}{LINK}?resume=true&last_id={seen}")
        assert by_query == again
        keys = {request.key for request in at.play.requests}
        assert len(keys) == 1
        async with client.get(f"{at.url}{LINK}?resume=true", headers=EVENTS | {"Last-Event-ID": str(first[-1][0])}) as answer:
            assert answer.status == 204
    assert len(at.play.requests) == 3


@pytest.mark.parametrize(
    "event_id", ["", "x", "a" * 32, "A" * 32 + ".1.1", "a" * 32 + ".0.1", "a" * 32 + ".1.-1", "a" * 32 + ".1.1\n", "a" * 32 + ".1." + "9" * 50]
)
def test_malformed_ids_begin_anew(event_id: str) -> None:
    assert Seen.read(event_id) is None


async def test_an_expired_token_does_not_stop_a_resume(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path) as at:
        token = BuildTokens(SECRET).issue("gh/o/r/HEAD", f"127.0.0.1:{at.port}", now=time.time() - 4000)
        url = f"{at.url}{LINK}?resume=true&build_token={token}"
        assert (await events(client, url))[-1][1]["phase"] == "failed"
        assert (await events(client, f"{url}&last_id={'a' * 32}.1.1"))[-1][1]["phase"] == "ready"


async def test_quiet_streams_carry_comments(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, Play([*lines(1), 0.7, ready("http://h/u/")])) as at, client.get(at.url + LINK, headers=EVENTS) as answer:
        text = await answer.text()
    assert 2 <= text.count(":keepalive\n\n") <= 4
    assert [data["phase"] for _, data in parse(text)] == ["building", "ready"]


async def test_a_viewer_that_leaves_closes_its_launch(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    forever = asyncio.Event()
    async with stand(tmp_path, Play([*lines(1), forever])) as at:
        async with client.get(at.url + LINK, headers=EVENTS) as answer:
            await answer.content.readline()
            answer.close()
        async with asyncio.timeout(3):
            await at.play.closed.wait()


async def test_a_viewer_that_does_not_read_is_dropped(tmp_path: Path) -> None:
    chunk = Progress(Phase.BUILDING, "x" * 100_000, Stage.BUILD, 1)
    async with stand(tmp_path, Play([chunk] * 2000)) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port, limit=1024)
        writer.write(f"GET /{LINK} HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n".encode())
        async with asyncio.timeout(5):
            await at.play.closed.wait()
        writer.transport.abort()
        assert reader is not None


async def test_too_many_streams_of_one_address(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    release = asyncio.Event()
    async with stand(tmp_path, Play([*lines(1), release, ready("http://h/u/")]), config={"web": {"streams_per_client": 2}}) as at:
        url = at.url + LINK
        open_streams = [await client.get(url, headers=EVENTS | {"X-Forwarded-For": "203.0.113.7"}) for _ in range(2)]
        async with client.get(url, headers=EVENTS | {"X-Forwarded-For": "9.9.9.9, 203.0.113.7"}) as answer:
            assert answer.status == 429
            assert answer.headers["Retry-After"] == "10"
            assert parse(await answer.text())[0][1]["code"] == "rate_limited"
        release.set()
        assert (await events(client, url, EVENTS | {"X-Forwarded-For": "203.0.113.8"}))[-1][1]["phase"] == "ready"
        for one in open_streams:
            assert parse(await one.text())[-1][1]["phase"] == "ready"
        assert (await events(client, url, EVENTS | {"X-Forwarded-For": "203.0.113.7"}))[-1][1]["phase"] == "ready"
    assert {request.client.address for request in at.play.requests} == {"203.0.113.7", "203.0.113.8"}


async def test_a_stopping_server_breaks_streams_without_an_end(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, Play([*lines(1), asyncio.Event()])) as at:
        answer = await client.get(at.url + LINK, headers=EVENTS)
        await answer.content.readline()
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 3
    with pytest.raises(aiohttp.ClientPayloadError):
        await answer.read()
    answer.close()


async def test_retry_time_is_told(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, Play([RateLimited("Later.", retry_after=7)])) as at:
        assert (await events(client, at.url + LINK))[0][1]["retry_after"] == 7


async def test_the_administrator_is_trusted(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path) as at:
        await events(client, at.url + LINK, {"Authorization": f"Bearer {ADMIN}"})
        await events(client, at.url + LINK, {"Authorization": "Bearer other"})
    assert [request.client.trusted for request in at.play.requests] == [True, False]
