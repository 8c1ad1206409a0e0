from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from binder_onprem import eventlog
from binder_onprem.errors import StoreUnavailable
from binder_onprem.eventlog import EventLog, Line, Logs
from binder_onprem.events import Phase
from tests.unit.virtual import virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def logs(path: Path, line: int = 8192, total: int = 1 << 24) -> Logs:
    return Logs(path, line_limit=line, total_limit=total, now=lambda: 5.0)


async def read(log: EventLog, after: int = 0) -> list[Line]:
    found: list[Line] = []
    while more := await log.read(after):
        found += more
        after = more[-1].number
    return found


async def test_written_before_shown_and_read_back(tmp_path: Path) -> None:
    async with logs(tmp_path).hold("a") as log:
        await log.write(Phase.FETCHING, "one\ntwo\n")
        on_disk = [json.loads(line) for line in log.path.read_bytes().splitlines()]
        assert on_disk == [{"n": n + 1, "t": 5.0, "phase": "fetching", "message": f"{word}\n"} for n, word in enumerate(("one", "two"))]
        assert await read(log, 1) == [Line(2, Phase.FETCHING, "two\n", 5.0)]
        assert log.path.stat().st_mode & 0o777 == 0o600


async def test_only_the_owner_says_how_a_build_ends(tmp_path: Path) -> None:
    async with logs(tmp_path).hold("a") as log:
        for phase in (Phase.FAILED, Phase.BUILT, Phase.READY):
            await log.write(phase, "x")
        assert {line.phase for line in await read(log)} == {Phase.BUILDING}


@pytest.mark.parametrize("torn", [b'{"n":3,"t":5.0,"pha', b'{"n":3', b"\0\0\0\0", b"\0\0\0\n", b'ilding","message":"x"}\n', b"\n"])
async def test_a_torn_end_is_cut_and_numbering_goes_on(tmp_path: Path, torn: bytes) -> None:
    async with logs(tmp_path).hold("a") as log:
        await log.write(Phase.BUILDING, "1\n2")
    with log.path.open("ab") as file:
        file.write(torn)
    async with logs(tmp_path).hold("a") as log:
        await log.write(Phase.BUILDING, "3")
        assert [(line.number, line.message) for line in await read(log)] == [(1, "1\n"), (2, "2\n"), (3, "3\n")]


async def test_nothing_but_a_torn_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"x" * 600_000)
    async with logs(tmp_path).hold("a") as log:
        assert log.count == 0
        assert log.path.stat().st_size == 0


async def test_a_broken_line_in_the_middle_keeps_the_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"n":1}\nnonsense\n{"n":3,"t":1,"phase":"building","message":"x\\n"}\n')
    async with logs(tmp_path).hold("a") as log:
        assert [(line.number, line.phase) for line in await read(log)] == [(1, Phase.UNKNOWN), (2, Phase.UNKNOWN), (3, Phase.BUILDING)]


async def test_from_any_number_in_memory_or_on_disk(tmp_path: Path) -> None:
    async with logs(tmp_path).hold("a") as log:
        for number in range(1, 5001):
            log.add(Phase.BUILDING, f"{number}")
        for after in (0, 1, 255, 256, 257, 3000, 3975, 3976, 3977, 4999, 5000, 6000):
            assert [line.number for line in await read(log, after)] == list(range(after + 1, 5001))
            assert [line.message for line in await read(log, after)] == [f"{number}\n" for number in range(after + 1, 5001)]
    async with logs(tmp_path).hold("a") as log:
        assert [line.number for line in await read(log, 4000)] == list(range(4001, 5001))


async def test_the_whole_is_capped_with_one_marker_and_the_end_is_still_told(tmp_path: Path) -> None:
    async with logs(tmp_path, total=20_000).hold("a") as log:
        for number in range(2000):
            await log.write(Phase.BUILDING, f"line {number} " + "x" * 50)
    async with logs(tmp_path, total=20_000).hold("a") as log:
        await log.write(Phase.BUILDING, "y")
        await log.write(Phase.FAILED, "important")
        log.add(Phase.FAILED, "the end", essential=True)
        lines = await read(log)
    assert [line.message for line in lines[-2:]] == ["important\n", "the end\n"]
    assert [line.message for line in lines if "output limited" in line.message] == [lines[-3].message]
    assert log.path.stat().st_size < 21_000
    async with logs(tmp_path, total=20_000).hold("a") as log:
        for _ in range(10_000):
            log.add(Phase.BUILDING, "essential " + "x" * 50, essential=True)
    assert log.path.stat().st_size < 20_000 + 70_000


async def test_a_message_cannot_pose_as_the_marker(tmp_path: Path) -> None:
    async with logs(tmp_path).hold("a") as log:
        await log.write(Phase.BUILDING, '"limited":true}')
    async with logs(tmp_path).hold("a") as log:
        await log.write(Phase.BUILDING, "goes on")
        assert len(await read(log)) == 2


async def test_a_full_disk_is_ours_and_leaves_no_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with logs(tmp_path).hold("a") as log:
        await log.write(Phase.BUILDING, "1")
        pwrite = os.pwrite

        def short(file: int, data: bytes, offset: int) -> int:
            return pwrite(file, data[:7], offset)

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "full")

        for broken in (short, full):
            monkeypatch.setattr(os, "pwrite", broken)
            with pytest.raises(StoreUnavailable):
                await log.write(Phase.BUILDING, "lost")
        monkeypatch.setattr(os, "pwrite", pwrite)
        await log.write(Phase.BUILDING, "2")
        assert [line.message for line in await read(log)] == ["1\n", "2\n"]
    with pytest.raises(ValueError, match="not open"):
        log.add(Phase.BUILDING, "x")
    assert log._read(0) == []


async def test_opened_twice_it_is_one(tmp_path: Path) -> None:
    house = logs(tmp_path)
    async with house.hold("a") as first, house.hold("a") as second:
        assert first is second
        await house.remove(["a", "b"])
        assert first.path.exists()
    await house.remove(["a", "b"])
    assert not first.path.exists()


async def follow(log: EventLog, until: int) -> AsyncIterator[Line]:
    after = 0
    while after < until:
        bell = log.bell.hear()
        for line in await log.read(after):
            after = line.number
            yield line
        if after == log.count < until:
            await bell.wait()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_five_hundred_readers_of_a_fast_writer_lose_and_repeat_nothing(tmp_path: Path) -> None:
    async with logs(tmp_path).hold("a") as log:

        async def reader(delay: float) -> list[int]:
            await asyncio.sleep(delay)
            return [line.number async for line in follow(log, 2000)]

        async def stalled() -> int:
            async for _ in follow(log, 2000):
                await asyncio.sleep(0.4)
                return 1
            return 0

        async def writer() -> None:
            for number in range(2000):
                await log.write(Phase.BUILDING, f"line {number}")
                if number % 100 == 0:
                    await asyncio.sleep(0.01)

        fds = open_files()
        tasks = [asyncio.create_task(reader(n / 1000)) for n in range(450)] + [asyncio.create_task(stalled()) for _ in range(50)]
        await writer()
        assert open_files() <= fds + 10
        results = await asyncio.gather(*tasks)
    assert all(result in (list(range(1, 2001)), 1) for result in results)


@virtual
async def test_readers_are_woken_in_batches(tmp_path: Path) -> None:
    async with logs(tmp_path).hold("a") as log:
        rings = 0
        bell = log.bell.hear()
        for number in range(1000):
            log.add(Phase.BUILDING, str(number))
            await asyncio.sleep(0.0005)
            if bell.is_set():
                rings, bell = rings + 1, log.bell.hear()
        assert 5 <= rings <= 11


async def test_ten_thousand_lines_cost_little(tmp_path: Path) -> None:
    async with logs(tmp_path).hold("a") as log:
        began = time.process_time()
        for number in range(10_000):
            await log.write(Phase.BUILDING, f"Collecting package-{number} from a mirror, \x1b[32mand so on\x1b[0m")
        assert time.process_time() - began < 2
    assert eventlog.TAIL_LINES * 8192 < 10 * 1024**2


async def test_offsets_are_remembered_across_openings(tmp_path: Path) -> None:
    async with logs(tmp_path).hold("a") as log:
        for number in range(1000):
            log.add(Phase.BUILDING, f"{number}")
        marks = log._marks
    async with logs(tmp_path).hold("a") as log:
        assert log._marks == marks
        log.ring()
        log.add(Phase.BUILDING, "x")
        log.ring()
