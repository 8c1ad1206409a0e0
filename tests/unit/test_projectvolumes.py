"""Projects' volumes where calls meet, leave or fail in the middle; the real file systems are in tests/real."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.engine import loopfile, projectvolumes
from binder_onprem.engine.containers import Exit
from binder_onprem.engine.projectvolumes import ProjectVolumes
from binder_onprem.errors import HostUnfit, LimitHit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

ONE = "0123456789abcdef"
IMAGE = f"r/i@sha256:{'a' * 64}"


class Containers:
    """Copies nothing; what is removed first waits for `go`."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.removing = 0
        self.copying = asyncio.Event()
        self.seconds = 0.0

    async def remove(self, _name: str) -> None:
        self.removing += 1
        await self.go.wait()

    async def run(self, _run: object, _line: object) -> Exit:
        self.copying.set()
        await asyncio.sleep(self.seconds)
        return Exit(0, out_of_memory=False, out_of_processes=False)


class Images:
    """Every image begins in one home."""

    async def fetch(self, _image: str) -> None:
        pass

    async def configuration(self, _image: str) -> dict[str, str]:
        return {"WorkingDir": "/home/jovyan"}


class Place:
    """A folder of volumes whose files are never mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.containers, images = Containers(), Images()
        engine: Any = self.containers
        known: Any = images
        self.volumes = ProjectVolumes(folder, engine, known)

    def make(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.volumes.make(ONE, 0, 2**20, IMAGE))

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    async def make(file: Path, _size: int, _options: Sequence[str]) -> None:
        await asyncio.to_thread(file.write_bytes, b"a file system")

    async def mount(_file: Path, _target: Path, _options: str) -> None:
        pass

    monkeypatch.setattr(loopfile, "make", make)
    monkeypatch.setattr(loopfile, "mount", mount)
    monkeypatch.setattr(os, "chown", lambda *_: None)
    (tmp_path / "projects").mkdir()
    return Place(tmp_path / "projects")


async def soon(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110 - a thread has no event for it
            await asyncio.sleep(0.01)


async def test_who_leaves_while_a_volume_gets_its_name_names_no_later_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bringing it to the disk takes seconds; a second click in that time begins anew."""
    written, synced, real = threading.Event(), threading.Event(), projectvolumes._named

    def slow(new: Path, name: Path) -> None:
        written.set()
        assert synced.wait(10)
        real(new, name)

    monkeypatch.setattr(projectvolumes, "_named", slow)
    first = place.make()
    await soon(written.is_set)
    first.cancel()
    place.containers.copying.clear()
    place.containers.seconds = 0.2
    second = place.make()
    await asyncio.sleep(0.1)
    begun = place.containers.copying.is_set()
    synced.set()
    assert not begun, "it begins when the first has ended"
    with suppress(asyncio.CancelledError):
        await first
    await place.containers.copying.wait()
    place.volumes._at(ONE).rename(place.folder / "of-the-first")
    await asyncio.sleep(0.05)
    assert not place.volumes.there(ONE), "half of the second"
    await second
    assert place.volumes.there(ONE)


async def test_a_sweep_that_has_begun_never_clears_what_is_made_anew(place: Place) -> None:
    (place.folder / f"{ONE}.new" / "mounted").mkdir(parents=True)
    place.containers.go.clear()
    sweep = asyncio.create_task(place.volumes.sweep())
    await soon(lambda: place.containers.removing == 1)
    making = place.make()
    await asyncio.sleep(0.1)
    begun = place.containers.removing
    place.containers.go.set()
    assert begun == 1, "it waits until the sweep is done"
    await asyncio.gather(sweep, making)
    assert place.names == [ONE]


async def test_only_what_is_ours_is_swept(place: Place) -> None:
    for name in ("backup.new", "from-the-tape.gone", f"{ONE}.gone", "1" * 15 + ".new"):
        (place.folder / name).mkdir()
    await place.volumes.sweep()
    assert place.names == ["1" * 15 + ".new", "backup.new", "from-the-tape.gone"]


async def test_a_copy_without_end_and_a_full_disk_are_told_as_that(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projectvolumes, "COPY_SECONDS", 0.05)
    place.containers.seconds = 5
    with pytest.raises(LimitHit, match="takes too long"):
        await place.make()
    assert place.names == []

    def full(_new: Path, _name: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place.containers.seconds = 0
    monkeypatch.setattr(projectvolumes, "_named", full)
    with pytest.raises(HostUnfit, match="written to the disk"):
        await place.make()
    assert place.names == []


async def test_a_volume_that_came_back_from_a_backup_is_mounted_out_of_reach_of_others(place: Place) -> None:
    (place.folder / ONE).mkdir()
    (place.folder / ONE / "volume.img").write_bytes(b"a file system")
    place.folder.chmod(0o755)
    files = await place.volumes.mount(ONE)
    assert files.parent.is_dir()
    assert place.folder.stat().st_mode & 0o777 == 0o700
