from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from binder_onprem.engine import sessionfiles
from binder_onprem.engine.sessionfiles import Layers
from binder_onprem.errors import HubUnavailable, NotFound
from binder_onprem.model import Session
from binder_onprem.quota import Over, Quota
from tests.unit.parts import Jupyter
from tests.unit.virtual import now, virtual

LIMIT = 1000
HOLD = """
import os, sys, tempfile
print("up", flush=True)
sys.stdin.readline()
held = tempfile.TemporaryFile(dir=sys.argv[1])
held.write(b"x" * 5_000_000)
held.flush()
os.fsync(held.fileno())
print("held", flush=True)
sys.stdin.readline()
"""


class Disk:
    """An engine and what its containers have written; counting takes `slow` seconds."""

    def __init__(self, hub: Jupyter, **written: int) -> None:
        self.hub, self.sizes = hub, dict(written)
        self.base, self.slow, self.looks = 0, 0.0, 0
        for user in written:
            hub.users[user] = Session(user, ready=True, started=0, last_activity=0, launch_id=user)

    async def used(self) -> int:
        return self.base + sum(self.sizes.values())

    async def labelled(self, labels: Any) -> list[Any]:
        assert labels == {"io.binder-onprem.kind": "session"}
        self.looks += 1
        return [
            SimpleNamespace(name=f"binder-{user}", labels={"io.binder-onprem.launch": user}, created=0.0)
            for user in self.sizes
            if user in self.hub.users
        ]

    async def remove(self, name: str) -> None:
        raise AssertionError(name)

    async def written(self, container: str) -> int:
        await asyncio.sleep(self.slow)
        size = self.sizes[container.removeprefix("binder-")]
        if size < 0:
            raise NotFound("gone")
        return size


def house(**written: int) -> tuple[Jupyter, Disk, Quota]:
    hub = Jupyter()
    disk = Disk(hub, **written)
    return hub, disk, Quota(disk, disk, hub, LIMIT, now=now)


@virtual
async def test_who_wrote_too_much_is_ended_and_nobody_else() -> None:
    hub, _, quota = house(much=1001, most=1000, little=5, gone=-1)
    before = REGISTRY.get_sample_value("binder_onprem_reaped_total", {"reason": "disk"}) or 0
    assert await quota.look(dry_run=True) == (Over("much", 1001, stopped=False),)
    assert not hub.stopped
    assert await quota.look() == (Over("much", 1001, stopped=True),)
    assert hub.stopped == ["much"]
    assert REGISTRY.get_sample_value("binder_onprem_reaped_total", {"reason": "disk"}) == before + 1


@virtual
async def test_nothing_is_counted_while_the_disk_rests_but_for_every_five_minutes() -> None:
    _, disk, quota = house(one=5)
    for _ in range(20):
        await quota.look()
        await asyncio.sleep(10)
    assert disk.looks == 1
    disk.sizes["one"] += 49
    await quota.look()
    assert disk.looks == 1
    disk.sizes["one"] += 1
    await quota.look()
    assert disk.looks == 2
    disk.base -= 900  # somebody else deletes what this one writes
    disk.sizes["one"] += 900
    await asyncio.sleep(301)
    await quota.look()
    assert disk.looks == 3


@virtual
async def test_a_slow_look_is_followed_by_a_rest() -> None:
    _, disk, quota = house(one=5)
    disk.slow = 6
    await quota.look()
    disk.base += 10_000
    await asyncio.sleep(59)
    await quota.look()
    assert disk.looks == 1
    await asyncio.sleep(1)
    await quota.look()
    assert disk.looks == 2


@virtual
async def test_a_starting_session_and_one_that_does_not_stop_are_met_again() -> None:
    hub, disk, quota = house(one=2000)
    assert await quota.look(held=lambda: frozenset({"one"})) == (Over("one", 2000, stopped=False),)
    hub.stop_error = HubUnavailable("no")
    assert await quota.look() == (Over("one", 2000, stopped=False),)
    hub.stop_error = None
    assert await quota.look() == (Over("one", 2000, stopped=True),)
    assert disk.looks == 3


def shell(script: str, folder: Path) -> None:
    subprocess.run(["/bin/sh", "-c", script], cwd=folder, check=True)


def deep(folder: Path) -> None:
    """A file whose path is longer than any path may be."""
    shell("for i in $(seq 400); do mkdir dddddddddddddddddddd && cd dddddddddddddddddddd; done; head -c 500000 /dev/zero >x", folder)


class Engine:
    def __init__(self, upper: Path, pid: int = 0) -> None:
        self.found = {"State": {"Pid": pid}, "GraphDriver": {"Data": {"UpperDir": str(upper)}}}

    async def inspect(self, _name: str) -> dict[str, Any]:
        return self.found


async def test_layers_are_counted_as_they_lie_on_disk(tmp_path: Path) -> None:
    layers = Layers(Engine(tmp_path), tmp_path)
    empty = await layers.written("x")
    (tmp_path / "-name\nwith\t9").write_bytes(b"x" * 1_000_000)
    os.link(tmp_path / "-name\nwith\t9", tmp_path / "again")
    (tmp_path / "out").symlink_to("/usr")
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(10**12)
    deep(tmp_path)
    try:
        assert 1_500_000 <= await layers.written("x") - empty < 4_000_000
        assert await layers.used() > 1_500_000
    finally:
        shell("rm -rf dddddddddddddddddddd", tmp_path)


async def test_a_count_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessionfiles, "SECONDS", 0.1)
    monkeypatch.setattr(sessionfiles, "COUNT", ("sleep", "100"))
    assert await Layers(Engine(tmp_path / "5"), tmp_path).written("x") == 0


def test_a_file_that_is_deleted_and_still_open_counts(tmp_path: Path) -> None:
    if tmp_path.stat().st_dev != Path("/").stat().st_dev:
        pytest.skip("temporary files lie on another file system than the root, and only the root's count")
    # In a namespace of its own, as a session is: files of all processes in one count, and other tests' come and go.
    mapped = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *mapped, "--pid", "--fork", "--kill-child", sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as outer:
        assert outer.stdin
        assert outer.stdout
        assert outer.stdout.readline() == b"up\n"
        inner = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text(encoding="ascii"))
        before = sessionfiles.unlinked(inner)
        outer.stdin.write(b"\n")
        outer.stdin.flush()
        assert outer.stdout.readline() == b"held\n"
        assert sessionfiles.unlinked(inner) - before >= 5_000_000
        outer.kill()
    assert sessionfiles.unlinked(0) == 0
