"""What a link chooses, seen from inside the session; and what it may not choose."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.kernel import kernel
from tests.e2e.stand import events, launch, ready

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Origin
    from tests.e2e.stand import Stand

pytestmark = pytest.mark.real

INSIDE = """
import json, os, pathlib
def limit():
    for name in ("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"):
        if os.path.exists(name):
            return open(name).read().strip()
def written():
    try:
        pathlib.Path("/data/census/new").write_text("x")
    except OSError as error:
        return error.strerror
names = ("COURSE", "LAB_1", "BINDER_PROFILE")
print(json.dumps([open("/data/census/answer").read(), written(), limit(), [os.environ.get(name) for name in names]]))
"""


async def test_profile_data_and_variables_reach_the_session(stand: Stand, origin: Origin) -> None:
    spec = origin.spec("bare")
    async with kernel(await ready(stand, f"{spec}?profile=usual&data=census&env.COURSE=101&env.LAB_1=a%20b")) as session:
        told = json.loads(await session.run(INSIDE))
    assert told == ["42\n", "Read-only file system", "500", ["101", "a b", "usual"]]


async def test_a_link_without_a_choice_gets_the_usual_one_and_nothing_else(stand: Stand, origin: Origin) -> None:
    async with kernel(await ready(stand, origin.spec("bare"))) as session:
        told = await session.run("import os; print(os.path.exists('/data'), os.environ.get('COURSE'), os.environ['BINDER_PROFILE'])")
    assert told == "False None usual\n"


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ("profile=huge", "invalid_spec", "There is: usual."),
        ("profile=broken", "refused", "profile=broken"),
        ("data=census,other", "invalid_spec", "There is: census, closed."),
        ("data=/etc", "invalid_spec", "no valid name"),
        ("env.PATH=/x", "refused", "PATH"),
        ("env.COURSE=a%0Ab", "invalid_spec", "printable"),
        ("image=other", "invalid_spec", "There is: nothing."),
    ],
)
async def test_what_may_not_be_chosen_is_said_before_anything_is_done(stand: Stand, origin: Origin, query: str, code: str, words: str) -> None:
    end, before = await launch(stand, f"{origin.spec('bare')}?{query}")
    assert (end["phase"], end["code"], words in end["message"]) == ("failed", code, True)
    assert before == []


def test_a_device_that_is_not_there_is_said(stand: Stand, origin: Origin) -> None:
    code, end = launched(stand, origin.spec("bare"), "--profile", "broken")
    assert (code != 0, "/dev/no-such-device" in end["message"]) == (True, True)


@pytest.fixture
def device(stand: Stand) -> Iterator[Path]:
    """A device file, and its description for containers, as a GPU's driver and its tools leave them."""
    kind, _, name = stand.settings["choice"]["profiles"]["gpu"]["devices"][0].partition("=")
    file, described = Path(f"/dev/{stand.home.name}-gpu"), Path(f"/var/run/cdi/{stand.home.name}.json")
    edits = {"deviceNodes": [{"path": str(file)}], "env": ["GPU_OF_A_TEST=1"]}
    described.parent.mkdir(exist_ok=True)
    try:
        os.mknod(file, stat.S_IFCHR, os.makedev(1, 3))  # what /dev/null is
        file.chmod(0o666)
        described.write_text(json.dumps({"cdiVersion": "0.5.0", "kind": kind, "devices": [{"name": name, "containerEdits": edits}]}))
        yield file
    finally:
        file.unlink(missing_ok=True)
        described.unlink(missing_ok=True)


def launched(stand: Stand, spec: str, *options: str) -> tuple[int, dict[str, Any]]:
    """By the administrator's own token: the exit code and the last event."""
    result = stand.command("launch", spec, *options, "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    return result.returncode, next(event for event in reversed(events) if event.get("phase") in ("ready", "failed"))


async def test_a_gpu_is_in_the_session_by_its_cdi_name(stand: Stand, origin: Origin, device: Path) -> None:
    code, end = await asyncio.to_thread(launched, stand, origin.spec("bare"), "--profile", "gpu")
    assert (code, end["phase"]) == (0, "ready"), end
    async with kernel(end) as session:
        told = await session.run(f"import os; print(open({str(device)!r}, 'w').write('x'), os.environ['GPU_OF_A_TEST'])")
    assert told == "1 1\n"


def test_a_gpu_that_is_not_here_is_said_at_the_launch_and_by_check(stand: Stand, origin: Origin) -> None:
    name = stand.settings["choice"]["profiles"]["gpu"]["devices"][0]
    code, end = launched(stand, origin.spec("bare"), "--profile", "gpu")
    assert (code != 0, end["phase"], f"the device {name}" in end["message"]) == (True, "failed", True)
    findings = json.loads(stand.command("check", "--json").stdout)["findings"]
    (gpu,) = [found for found in findings if found["subject"] == "choice.profiles.gpu"]
    assert (gpu["level"], "cdi" in gpu["fix"]) == ("warn", True)
    (closed,) = [found for found in findings if found["subject"].startswith("choice.data.")]
    assert (closed["subject"], "chmod -R o+rX" in closed["text"]) == ("choice.data.closed", True)


async def test_data_that_sessions_may_not_read_are_no_empty_folder(stand: Stand, origin: Origin) -> None:
    end, _ = await launch(stand, f"{origin.spec('bare')}?data=closed")
    assert (end["phase"], "may not read the data" in end["message"]) == ("failed", True)


async def test_a_launch_keeps_its_choice(stand: Stand, origin: Origin) -> None:
    spec = origin.spec("bare")
    last: str | None = None
    async for event_id, _ in events(stand, f"{spec}?env.COURSE=1&x=", resume=False):
        last = event_id
    assert last is None
    async for event_id, event in events(stand, f"{spec}?env.COURSE=1&resume=true"):
        last = event_id or last
        assert event["phase"] != "failed"
        if event["phase"] == "built":  # "waiting" is told before the launch is pinned; left then, it was none
            break
    assert last
    again = [event async for _, event in events(stand, f"{spec}?env.COURSE=2&resume=true", last=last)]
    assert (again[-1]["phase"], "another link" in again[-1]["message"]) == ("failed", True)
    again = [event async for _, event in events(stand, f"{spec}?env.COURSE=1&resume=true", last=last)]
    async with kernel(again[-1]) as session:
        assert await session.run("import os; print(os.environ['COURSE'])") == "1\n"
