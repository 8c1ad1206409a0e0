"""What a session changed, as an archive: hostile trees, limits, what is kept and for how long."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem import config
from binder_onprem.engine import changes
from binder_onprem.engine.sessionarchive import SessionArchive
from binder_onprem.errors import Busy, NotFound
from binder_onprem.model import Session

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "t" * 43
SESSION = Session("o-r-0123456789abcdef", ready=True, started=0, last_activity=0, launch_id="0123456789abcdef")


def members(data: bytes) -> dict[str, bytes | str | None]:
    """Path → contents, link target, None for a directory."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz", errors="surrogateescape") as tar:
        found: dict[str, bytes | str | None] = {}
        for entry in tar:
            assert entry.name.startswith(f"{changes.FOLDER}/")
            file = tar.extractfile(entry) if entry.isreg() else None
            found[entry.name.removeprefix(f"{changes.FOLDER}/")] = file.read() if file else entry.linkname or None
        return found


def archived(home: Path, limit: int = 10**6) -> dict[str, bytes | str | None]:
    out = io.BytesIO()
    archive = changes.Archive(out, limit)
    root = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    changes.write(root, archive)
    os.close(root)
    archive.close()
    return members(out.getvalue())


def test_files_directories_and_links_whatever_they_are_called(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    home = tmp_path / "home"
    (home / "deep" / "deeper").mkdir(parents=True)
    (home / "deep" / "deeper" / "a.ipynb").write_text("{}")
    (home / "deep" / "out").symlink_to(tmp_path)
    (home / "link").symlink_to(secret)
    os.mkfifo(home / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.open(home, os.O_RDONLY)
        bound.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    (home / ".cache").mkdir()
    (home / ".cache" / "x").write_text("a program's")
    (home / ".local").symlink_to(tmp_path)
    (home / "deep" / "__pycache__").mkdir()
    with open(os.fsencode(home) + b"/\xff\nname", "w", encoding="utf-8") as odd:  # noqa: PTH123 - a name that is no text
        odd.write("odd")
    assert archived(home) == {
        "deep": None,
        "deep/deeper": None,
        "deep/deeper/a.ipynb": b"{}",
        "deep/out": str(tmp_path),
        "link": str(secret),
        "\udcff\nname": b"odd",
    }


def test_what_does_not_fit_is_named_and_a_file_of_holes_costs_its_length(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"s" * 100)
    with open(tmp_path / "holes", "wb") as file:  # noqa: PTH123
        file.truncate(2**40)
    found = archived(tmp_path, 1000)
    assert found.pop("small") == b"s" * 100
    note = found.pop(changes.NOTE)
    assert isinstance(note, bytes)
    assert note.decode().splitlines()[1:] == ["holes"]
    assert not found


def test_deep_and_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = tmp_path
    for _ in range(changes.DEPTH + 20):
        where /= "d"
    where.mkdir(parents=True)
    (where / "f").write_text("too deep")
    assert max(path.count("/") for path in archived(tmp_path)) == changes.DEPTH - 1
    monkeypatch.setattr(changes, "ENTRIES", 10)
    assert changes.NOTE in archived(tmp_path)


def test_a_file_that_shrinks_or_grows_keeps_the_length_it_had(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    descriptor = os.open(tmp_path / "f", os.O_RDONLY)
    assert changes.Whole(descriptor, 3).read(10) == b"123"
    os.lseek(descriptor, 0, os.SEEK_SET)
    assert changes.Whole(descriptor, 8).read(20) == b"12345\0\0\0"
    os.close(descriptor)


def test_the_home_is_reached_without_links(tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer" / "home").symlink_to(tmp_path)
    assert changes.opened(str(tmp_path / "layer"), "/home/jovyan") is None
    assert changes.opened(str(tmp_path / "layer"), "/srv") is None


class Engine:
    """One container, whose layer is `layer`."""

    def __init__(self, layer: Path) -> None:
        self.layer = layer

    async def inspect(self, name: str) -> dict[str, Any]:
        if name != f"binder-{SESSION.launch_id}":
            raise NotFound("none")
        return {"GraphDriver": {"Data": {"UpperDir": str(self.layer)}}, "Config": {"WorkingDir": "/home/jovyan"}}


class House:
    """An archive whose clock is set by hand."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.now = 0.0
        self.home = folder / "layer" / "home" / "jovyan"
        self.home.mkdir(parents=True)
        self.kept = folder / "kept"
        self.archive = SessionArchive(Engine(folder / "layer"), self.kept, config.Ending(**limits), self.current, wall=lambda: self.now)

    async def current(self, session: Session) -> tuple[Session, str]:
        return session, TOKEN

    def clock(self, seconds: float) -> None:
        """What is kept gets its time from the disk."""
        self.now = max(path.stat().st_mtime for path in self.kept.iterdir()) + seconds


async def test_a_stream_is_the_whole_archive_by_a_process_of_its_own(tmp_path: Path) -> None:
    house = House(tmp_path)
    (house.home / "work.txt").write_text("mine")
    async with house.archive.changed(f"binder-{SESSION.launch_id}") as stream:
        assert members(await stream.read()) == {"work.txt": b"mine"}
    with pytest.raises(NotFound):
        async with house.archive.changed("binder-x"):
            pass


async def test_slow_readers_do_not_pile_up_and_leave_no_process(tmp_path: Path) -> None:
    house = House(tmp_path)
    (house.home / "big").write_bytes(os.urandom(4_000_000))
    reading, leave = 0, asyncio.Event()

    async def slow() -> None:
        nonlocal reading
        async with house.archive.changed(f"binder-{SESSION.launch_id}") as stream:
            await stream.read(10)
            reading += 1
            await leave.wait()
            raise ConnectionError

    async def left() -> None:
        with pytest.raises(ConnectionError):
            await slow()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(left())
        while reading < 4:  # noqa: ASYNC110 - processes start
            await asyncio.sleep(0.05)
        with pytest.raises(Busy):
            async with house.archive.changed(f"binder-{SESSION.launch_id}"):
                pass
        leave.set()
    async with house.archive.changed(f"binder-{SESSION.launch_id}") as stream:
        assert len(await stream.read()) > 4_000_000


async def test_a_layer_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    house = House(tmp_path)
    (tmp_path / "layer").rename(tmp_path / "gone")
    with pytest.raises(NotFound):
        async with house.archive.changed(f"binder-{SESSION.launch_id}") as stream:
            assert await stream.read() == b""
    await house.archive.keep(SESSION)
    assert not list(house.kept.iterdir())


async def test_what_is_kept_is_for_its_token_and_its_time(tmp_path: Path) -> None:
    house = House(tmp_path, keep=100)
    (house.home / "work.txt").write_text("mine")
    await house.archive.keep(SESSION)
    house.clock(99)
    found = house.archive.kept(SESSION.name, TOKEN)
    assert found
    assert members(found[0].read_bytes()) == {"work.txt": b"mine"}
    assert found[0].stat().st_mode & 0o777 == 0o600
    assert house.archive.kept(SESSION.name, "x" * 43) is None
    assert house.archive.kept(f"../kept/{SESSION.name}", TOKEN) is None
    (house.kept / "killed.tar.gz.part").write_text("the daemon was killed while it wrote this")
    await house.archive.expire()
    assert list(house.kept.iterdir()) == [found[0]]
    house.clock(101)
    assert house.archive.kept(SESSION.name, TOKEN) is None
    await house.archive.expire()
    assert not list(house.kept.iterdir())


async def test_two_who_end_a_session_at_once_write_one_file_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house, writing, most = House(tmp_path), 0, 0
    (house.home / "work.txt").write_text("mine")
    keep = house.archive._keep

    async def watched(path: Path, container: str) -> None:
        nonlocal writing, most
        writing += 1
        most = max(most, writing)
        await keep(path, container)
        writing -= 1

    monkeypatch.setattr(house.archive, "_keep", watched)
    await asyncio.gather(house.archive.keep(SESSION), house.archive.keep(SESSION))
    assert most == 1
    (kept,) = house.kept.iterdir()
    assert members(kept.read_bytes()) == {"work.txt": b"mine"}


async def test_the_oldest_make_room(tmp_path: Path) -> None:
    house = House(tmp_path, total="1KiB")
    house.kept.mkdir()
    for number in range(3):
        (house.kept / f"s-{number}.x.tar.gz").write_bytes(bytes(500))
        os.utime(house.kept / f"s-{number}.x.tar.gz", (number + 1, number + 1))
    house.now = 10
    await house.archive.expire()
    assert sorted(path.name for path in house.kept.iterdir()) == ["s-1.x.tar.gz", "s-2.x.tar.gz"]


async def test_nothing_is_kept_where_the_site_does_not_want_it(tmp_path: Path) -> None:
    house = House(tmp_path, keep=0)
    await house.archive.keep(SESSION)
    assert not house.kept.exists()


async def test_where_nothing_was_changed_nothing_is_kept(tmp_path: Path) -> None:
    house = House(tmp_path)
    (house.home / "made by the start").mkdir()
    (house.home / ".cache").write_text("no work of anybody's")
    await house.archive.keep(SESSION)
    assert not list(house.kept.iterdir())
    async with house.archive.changed(f"binder-{SESSION.launch_id}") as stream:
        assert members(await stream.read()) == {"made by the start": None}
