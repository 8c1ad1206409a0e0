"""Programs written for BinderHub against ours: its own npm client, the event source of bots, curl."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.e2e.kernel import kernel

if TYPE_CHECKING:
    from tests.e2e.conftest import Origin
    from tests.e2e.stand import Stand

pytestmark = pytest.mark.real

INSTALLED = Path(sys.prefix) / "clients"
SCRIPTS = Path(__file__).parents[1] / "clients"
STRINGS = ("url", "token", "image", "repo_url", "binder_ref_url", "binder_launch_host", "binder_request", "binder_persistent_request")


async def output(*command: str, env: dict[str, str] | None = None, seconds: float = 300) -> str:
    """What a program prints; it must end by itself and well."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=env)
    try:
        out, err = await asyncio.wait_for(process.communicate(), seconds)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, (out[-2000:], err[-2000:])
    return out.decode()


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


async def binderhub_client(endpoint: str, spec: str, env: dict[str, str] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Events as BinderHub's own client sees them."""
    return events(await output("node", str(SCRIPTS / "binderhub.mjs"), str(INSTALLED), endpoint, spec, json.dumps(options), env=env))


async def test_binderhubs_own_client_launches(stand: Stand, origin: Origin) -> None:
    seen = await binderhub_client(f"{stand.url}build", origin.spec("bare"))
    assert [event["phase"] for event in seen][-2:] == ["launching", "ready"], seen[-5:]
    end = seen[-1]
    assert end["phase"] == "ready", seen[-5:]
    assert all(isinstance(end[name], str) and end[name] for name in STRINGS)
    assert end["binder_launch_host"] == stand.url
    assert end["url"].startswith(stand.url)
    assert all(event["phase"] != "unknown" and isinstance(event["message"], str) for event in seen)
    async with kernel(end) as session:
        assert "42" in await session.run("print(6 * 7)")


@pytest.mark.parametrize(
    ("options", "spec", "words"),
    [
        ({}, "git/ftp%3A%2F%2Fhost%2Frepository/HEAD", ""),
        ({}, "nope/owner/repository/HEAD", "No provider found for prefix nope"),
        ({"buildOnly": True}, "", "Building but not launching is not permitted"),
        ({"buildToken": "wrong"}, "", "Invalid build token"),
    ],
)
async def test_binderhubs_own_client_is_told_of_a_failure_once(stand: Stand, origin: Origin, options: dict[str, Any], spec: str, words: str) -> None:
    seen = await binderhub_client(f"{stand.url}build/", spec or origin.spec("bare"), **options)
    assert [event["phase"] for event in seen].count("failed") == 1
    assert seen[-1]["phase"] == "failed"
    assert words in seen[-1]["message"]
    assert "closed unexpectedly" not in seen[-1]["message"]


async def test_a_bot_launches_and_stops_its_session(stand: Stand, origin: Origin) -> None:
    url = f"{stand.url}build/{origin.spec('bare')}"
    *_, ready, stopped = events(await output("node", str(SCRIPTS / "eventsource.mjs"), str(INSTALLED), url))
    assert (ready["phase"], stopped["phase"]) == ("ready", "stopped")
    assert stopped["message"] in ("200", "204")
    async with aiohttp.ClientSession() as session:
        for _ in range(200):
            async with session.get(f"{ready['url']}api/status", headers={"Authorization": f"token {ready['token']}"}) as answer:
                if answer.status in (404, 424):
                    return
            await asyncio.sleep(0.5)
    raise AssertionError("the session that was stopped still answers")


async def test_curl_with_and_without_accept(stand: Stand, origin: Origin) -> None:
    url = f"{stand.url}build/{origin.spec('bare')}"
    plain = await output("curl", "--silent", "--location", "--max-time", "120", "--write-out", "%{http_code}", url)
    assert plain.endswith("\n\n200")
    assert json.loads(plain.split("\n\n")[0].removeprefix("data: "))["status_code"] == 400
    asked = await output("curl", "--silent", "--max-time", "240", "--header", "Accept: text/event-stream", url)
    lines = [line for line in asked.split("\n") if line and line != ":keepalive"]
    assert all(line.startswith("data: {") for line in lines)
    assert json.loads(lines[-1][6:])["phase"] == "ready"
    head = await output(
        "curl", "--silent", "--head", "--output", "/dev/null", "--write-out", "%{http_code} %{content_type}", f"{stand.url}badge_logo.svg"
    )
    assert head == "200 image/svg+xml"
