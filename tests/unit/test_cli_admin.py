"""The administrator's commands against the real application over its real tables."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from binder_onprem import cli
from binder_onprem.model import BuildState
from tests.unit.webstand import BUILD, DIGEST, IMAGE, RECORD, Stand, ruled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Stand]:
    async with ruled(tmp_path) as stand:
        yield stand


async def run(at: Stand, *arguments: str) -> Result:
    home = at.site.config.home
    (home / "config.yaml").write_text(json.dumps({"listen": {"port": at.port - 3}}))
    return await asyncio.to_thread(CliRunner().invoke, cli.main, ["--home", str(home), *arguments])


async def answer(at: Stand, *arguments: str) -> Any:
    result = await run(at, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def test_builds(at: Stand) -> None:
    assert (await answer(at, "builds", "pause"))["paused_by"] == "administrator"
    assert "Builds begin again." in (await run(at, "builds", "resume")).output
    assert (await answer(at, "builds", "prioritise", BUILD))["front"]
    at.records.record = replace(RECORD, state=BuildState.BUILT)
    assert (await answer(at, "builds", "rebuild", BUILD))["fresh"]
    assert (await run(at, "builds", "rebuild", "../x")).exit_code == 5


async def test_images(at: Stand) -> None:
    at.records.session = None
    assert (await answer(at, "images", "pin", DIGEST))["pinned"]
    result = await run(at, "images", "delete", DIGEST)
    assert (result.exit_code, "pinned. Unpin it first" in result.output) == (3, True)
    assert not (await answer(at, "images", "unpin", DIGEST))["pinned"]
    assert "deleted" in (await run(at, "images", "delete", DIGEST)).output
    assert at.records.deleted == [IMAGE]


async def test_sessions_of_a_repository(at: Stand) -> None:
    assert await answer(at, "servers", "stop", "--repo", "gh/o/r") == {"stopped": [], "failed": []}
    assert (await run(at, "servers", "stop")).exit_code == 2
    assert (await run(at, "servers", "stop", "x", "--repo", "gh/o/r")).exit_code == 2


async def test_maintenance(at: Stand) -> None:
    assert "No maintenance." in (await run(at, "maintenance", "show")).output
    result = await run(at, "maintenance", "on", "--message", "New disks.", "--message-fr", "Disques.", "--for", "2h")
    assert "launches since" in result.output
    found = await answer(at, "maintenance", "show")
    assert (found["message"], found["message_fr"], round(found["until"] - found["since"])) == ("New disks.", "Disques.", 7200)
    assert (await run(at, "maintenance", "on", "--mode", "notice")).exit_code == 2
    assert (await run(at, "maintenance", "on", "--for", "soon")).exit_code == 2
    assert await answer(at, "maintenance", "off") is None


async def test_bans(at: Stand) -> None:
    made = await answer(at, "bans", "add", "network", "192.0.2.9/24", "--reason", "mining", "--for", "7d")
    assert made["value"] == "192.0.2.0/24"
    assert made["id"] in (await run(at, "bans", "list")).output
    assert "removed" in (await run(at, "bans", "remove", made["id"])).output
    assert (await run(at, "bans", "remove", made["id"])).exit_code == 5
    assert (await run(at, "bans", "add", "spec", "nonsense")).exit_code == 2


async def test_the_audit(at: Stand) -> None:
    await run(at, "builds", "pause")
    await run(at, "maintenance", "off")
    assert [row["action"] for row in await answer(at, "audit", "--last", "1h")] == ["maintenance.off", "queue.pause"]
    assert "queue.pause" in (await run(at, "audit", "--action", "queue.")).output
    lines = (await run(at, "audit", "--export", "--who", "administrator")).output.splitlines()
    assert [json.loads(line)["action"] for line in lines] == ["maintenance.off", "queue.pause"]
    assert "Nothing is recorded." in (await run(at, "audit", "--launches")).output
