"""From a click to a notebook: what a person sees, in a real browser, with every real part."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.e2e.kernel import kernel
from tests.e2e.stand import events, launch, ready
from tests.repos.contents import notebook

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Page

    from tests.e2e.conftest import Origin
    from tests.e2e.stand import Stand

pytestmark = [pytest.mark.real, pytest.mark.browser]


def built(messages: list[dict[str, object]]) -> bool:
    return any(event["phase"] in ("fetching", "building") for event in messages)


async def test_a_click_ends_in_a_notebook_whose_figure_is_there(stand: Stand, origin: Origin, page: Page) -> None:
    await page.goto(f"{stand.url}v2/{origin.spec('requirements')}?labpath=figure.ipynb")
    await page.wait_for_url("**/jupyter/user/**/doc/tree/figure.ipynb**", timeout=300_000)
    await page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
    await page.get_by_text("| Idle").wait_for(timeout=60_000)  # what is run before the kernel is there is not run
    await page.get_by_role("menuitem", name="Run", exact=True).click()
    await page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    figure = page.locator(".jp-OutputArea-output img")
    await figure.wait_for(timeout=90_000)
    assert await figure.evaluate("image => image.naturalWidth") > 100


async def test_the_second_click_builds_nothing(stand: Stand, origin: Origin) -> None:
    await ready(stand, origin.spec("requirements"))
    began = time.monotonic()
    end, before = await launch(stand, origin.spec("requirements"))
    assert end["phase"] == "ready"
    assert not built(before)
    assert any("Found built image" in str(event["message"]) for event in before)
    assert time.monotonic() - began < 10


async def test_a_bug_report_has_what_runs_and_no_secret(stand: Stand, origin: Origin, tmp_path: Path) -> None:
    end = await ready(stand, origin.spec("bare"))
    async with aiohttp.ClientSession() as client, client.get(f"{end['url']}lab?token={end['token']}") as answer:
        assert answer.status == 200
    text = stand.report(tmp_path)
    assert json.loads(text["binder-status.json"])["up"]
    assert "findings" in json.loads(text["binder-check.json"])
    assert end["image"].partition("@")[0].rpartition("/")[2] in text["podman.txt"]
    assert any("serving" in inner for inner in text.values())
    secrets = {file.name: file.read_text().strip() for file in (stand.home / "secrets").iterdir() if file.is_file()}
    assert len(secrets) > 6
    assert [name for name, value in {**secrets, "session": end["token"]}.items() if any(value in inner for inner in text.values())] == []


async def test_an_edited_notebook_reuses_the_environment(stand: Stand, origin: Origin) -> None:
    await ready(stand, origin.spec("requirements"))
    commit = origin.repository("requirements").change({"figure.ipynb": notebook("print('edited')")})
    try:
        end, before = await launch(stand, origin.spec("requirements", commit))
        assert end["phase"] == "ready", (end, before[-20:])
        log = "".join(str(event["message"]) for event in before)
        assert "matplotlib==" not in log
        async with kernel(end) as session:
            assert "edited" in await session.run("print(open('figure.ipynb').read())")
            assert "3" in await session.run("import numpy, pandas, matplotlib; print(3)")
    finally:
        origin.repository("requirements").git("reset", "--hard", "HEAD~1")


@pytest.mark.parametrize(
    ("name", "code", "answer"),
    [
        ("bare", "import os; print(6 * 7, sorted(os.listdir()))", "hello.ipynb"),
        ("apt", "import os; print(os.environ['FROM_START'], open('built-by-postBuild.txt').read())", "tree v"),
        ("dockerfile", "print(open('/home/jovyan/built-by-dockerfile.txt').read())", "built"),
    ],
)
async def test_every_kind_of_repository_runs(stand: Stand, origin: Origin, name: str, code: str, answer: str) -> None:
    async with kernel(await ready(stand, origin.spec(name))) as session:
        assert answer in await session.run(code)
        assert "uid=1000" in await session.run("import subprocess; print(subprocess.check_output('id', text=True))")


async def test_why_a_build_failed_stands_on_the_page(stand: Stand, origin: Origin, page: Page, tmp_path: Path) -> None:
    await page.goto(f"{stand.url}v2/{origin.spec('failing')}")
    await page.get_by_text("The launch failed").first.wait_for(timeout=180_000)
    await page.screenshot(path=os.environ.get("BINDER_SCREENSHOTS", str(tmp_path)) + "/failed.png", full_page=True)
    body = await page.inner_text("body")
    assert "numpy" in body
    assert "0.0.0.1" in body


async def test_two_people_one_build(stand: Stand, origin: Origin) -> None:
    origin.make("shared", {"requirements.txt": "six\n", "a.ipynb": notebook("1")})
    first, second = await asyncio.gather(launch(stand, origin.spec("shared")), launch(stand, origin.spec("shared")))
    assert [end["phase"] for end, _ in (first, second)] == ["ready", "ready"]
    assert first[0]["url"] != second[0]["url"]
    logs = [[event["message"] for event in before if event["phase"] in ("fetching", "building")] for _, before in (first, second)]
    assert logs[0] == logs[1] != []
    rows = stand.json("builds", "list")
    assert len([row for row in rows if row["repo_url"].endswith("/shared")]) == 1


async def test_a_late_viewer_gets_the_whole_log(stand: Stand, origin: Origin) -> None:
    origin.make("late", {"postBuild": "#!/bin/bash\nfor i in $(seq 8); do echo line-$i-of-8; sleep 1; done\n"})
    origin.repositories["late"].git("update-index", "--chmod=+x", "postBuild")
    origin.repositories["late"].git("commit", "--quiet", "--message=x")

    async def watched(delay: float) -> list[str]:
        await asyncio.sleep(delay)
        return [event["message"] async for _, event in events(stand, origin.spec("late")) if event["phase"] == "building"]

    early, late = await asyncio.gather(watched(0), watched(6))
    assert early == late
    assert [line for line in early if line.startswith("line-")] == [f"line-{number}-of-8\n" for number in range(1, 9)]
