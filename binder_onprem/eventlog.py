"""The durable log of a build: an append-only file of JSON lines that one build writes and many people read.

`builds` opens it, the builder writes through it. A line is in the file before anyone is shown it, its number is its place in the file, so every
reader, however late and however often it comes back, sees the same lines under the same numbers. Readers hold a number and nothing else: the
newest lines are shared in memory, older ones are read from the file; a slow reader costs nothing. Never interprets what it stores.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from binder_onprem.errors import StoreUnavailable
from binder_onprem.events import Phase
from binder_onprem.text import clean, cut

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

TAIL_LINES: Final = 1024
"""Lines kept in memory for all readers together (at most `line` bytes each)."""
STRIDE: Final = 256
"""Every such line's offset in the file is remembered."""
READ_BYTES: Final = 256 * 1024
READ_LINES: Final = 512
WAKE_SECONDS: Final = 0.05
"""Readers are woken this often at the most, however fast lines come."""
YIELD_LINES: Final = 64
RESERVE_BYTES: Final = 64 * 1024
"""Beyond the cap, for the lines that say how the build ended."""
LIMITED: Final = b'"limited":true'
"""In the marker's line only: in a message its quotes are escaped."""

FULL: Final = "The build's log cannot be written; the disk may be full. Tell the administrator."


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `number` counts from 1, `time` is in Unix seconds, `message` ends with a line feed."""

    number: int
    phase: Phase
    message: str
    time: float


class Bell:
    """Wakes everybody who waits, once per ring; hear it *before* looking, and no ring is lost in between."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def hear(self) -> asyncio.Event:
        """The event that the next ring sets."""
        return self._event

    def ring(self) -> None:
        """Wake them."""
        self._event.set()
        self._event = asyncio.Event()


class EventLog:
    """One build's log, open for reading and, by one writer, for writing.

    Args:
        path: The file; made when the first line is written.
        line_limit: Bytes of a line at the most.
        total_limit: Bytes of the file at the most, apart from a last few essential lines.
        now: Unix seconds.
    """

    def __init__(self, path: Path, *, line_limit: int, total_limit: int, now: Callable[[], float] = time.time) -> None:
        self.path = path
        self.bell = Bell()
        self.count = 0
        self._line_limit = line_limit
        self._total_limit = total_limit
        self._now = now
        self._file: int | None = None
        self._size = 0
        self._limited = False
        self._marks = [0]
        self._tail: deque[Line] = deque(maxlen=TAIL_LINES)
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Read what is there; a last line torn by a crash is cut off, and numbering goes on behind it. Raises OSError."""
        await asyncio.to_thread(self._scan)

    def _scan(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = whole(self._file)
        os.ftruncate(self._file, end)
        offset = 0
        while offset < end:
            data = os.pread(self._file, READ_BYTES, offset)
            self._limited = self._limited or LIMITED in data
            self._count(offset, data)
            offset += len(data)
        self._size = end

    def _count(self, offset: int, data: bytes) -> None:
        place = data.find(b"\n")
        while place >= 0:
            self.count += 1
            if self.count % STRIDE == 0:
                self._marks.append(offset + place + 1)
            place = data.find(b"\n", place + 1)

    def close(self) -> None:
        """Let go of the file; readers of this object must be gone."""
        if self._timer:
            self._timer.cancel()
        if self._file is not None:
            os.close(self._file)
        self._file = None

    async def write(self, phase: Phase, message: str) -> None:
        """Add lines; how a build ends is not the writer's to say, so `FAILED` and the like become essential `BUILDING` lines."""
        inner = phase in (Phase.WAITING, Phase.FETCHING, Phase.BUILDING)
        self.add(phase if inner else Phase.BUILDING, message, essential=not inner)
        if self.count % YIELD_LINES == 0:
            await asyncio.sleep(0)

    def add(self, phase: Phase, message: str, *, essential: bool = False) -> None:
        """Add lines at once.

        Args:
            phase: Of all of them.
            message: Split at line feeds, cleaned, each line cut.
            essential: Kept even where the log is full.
        """
        for text in clean(message, self._line_limit):
            line = Line(self.count + 1, phase, cut(text, self._line_limit) + "\n", round(self._now(), 3))
            data = encode(line)
            if self._room(len(data), essential=essential):
                self._store(line, data)

    def _room(self, size: int, *, essential: bool) -> bool:
        if essential:
            return self._size + size <= self._total_limit + RESERVE_BYTES
        if self._limited or self._size + size <= self._total_limit:
            return not self._limited
        self._limited = True
        words = f"[output limited: the log has reached {self._total_limit / 1024**2:g} MiB; what follows is not kept]\n"
        marker = Line(self.count + 1, Phase.BUILDING, words, round(self._now(), 3))
        self._store(marker, encode(marker, limited=True))
        return False

    def _store(self, line: Line, data: bytes) -> None:
        if self._file is None:
            raise ValueError("log is not open")
        try:
            # At our own idea of the end: what a failed or short write left behind is overwritten by the next line, or cut at the next opening.
            written = os.pwrite(self._file, data, self._size)
        except OSError as error:
            raise StoreUnavailable(FULL) from error
        if written != len(data):
            raise StoreUnavailable(FULL)
        self._size += len(data)
        self.count += 1
        if self.count % STRIDE == 0:
            self._marks.append(self._size)
        self._tail.append(line)
        self._wake()

    def _wake(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WAKE_SECONDS, self.ring)

    def ring(self) -> None:
        """Wake the readers now."""
        if self._timer:
            self._timer.cancel()
        self._timer = None
        self.bell.ring()

    async def read(self, after: int) -> list[Line]:
        """Some lines behind number `after`, in order; none when there are none yet."""
        if after >= self.count:
            return []
        if self._tail and after + 1 >= self._tail[0].number:
            start = after + 1 - self._tail[0].number
            return [self._tail[place] for place in range(start, min(start + READ_LINES, len(self._tail)))]
        return await asyncio.to_thread(self._read, after)

    def _read(self, after: int) -> list[Line]:
        if self._file is None:
            return []
        mark = min(after // STRIDE, len(self._marks) - 1)
        skip, offset, end = after - mark * STRIDE, self._marks[mark], self._size
        lines: list[bytes] = []
        rest = b""
        while offset < end and len(lines) < skip + READ_LINES:
            data = os.pread(self._file, min(READ_BYTES, end - offset), offset)
            offset += len(data)
            *whole_lines, rest = (rest + data).split(b"\n")
            lines += whole_lines
        return [decode(line, after + 1 + place) for place, line in enumerate(lines[skip : skip + READ_LINES])]


def encode(line: Line, *, limited: bool = False) -> bytes:
    """A line as it stands in the file."""
    fields = {"n": line.number, "t": line.time, "phase": line.phase.value, "message": line.message}
    return json.dumps(fields | {"limited": True} if limited else fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def decode(data: bytes, number: int) -> Line:
    """Read it back; a line that a broken disk has changed is said to be so."""
    try:
        fields = json.loads(data)
        return Line(number, Phase(fields["phase"]), str(fields["message"]), float(fields["t"]))
    except (ValueError, KeyError, TypeError):
        return Line(number, Phase.UNKNOWN, "[this line of the log cannot be read]\n", 0.0)


def whole(file: int) -> int:
    """Where the file's last whole line ends, in bytes."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - READ_BYTES)
        data = os.pread(file, end - start, start)
        last = data.rfind(b"\n")
        if last < 0:
            end = start
            continue
        line = data[data.rfind(b"\n", 0, last) + 1 : last]
        # After a power cut a file may end in zeros, or in a line of which only the end is there.
        if line.startswith(b"{") and line.endswith(b"}"):
            return start + last + 1
        end = start + last
    return 0


@dataclass(slots=True)
class _Held:
    log: EventLog
    holders: int = 0


class Logs:
    """All builds' logs: each is open once, however many hold it.

    Args:
        directory: Where they lie.
        line_limit, total_limit: Bytes, of each line and each log.
        now: Unix seconds.
    """

    def __init__(self, directory: Path, *, line_limit: int, total_limit: int, now: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self._limits = (line_limit, total_limit)
        self._now = now
        self._held: dict[str, _Held] = {}
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def hold(self, build_id: str) -> AsyncIterator[EventLog]:
        """The log of a build, open as long as anybody holds it."""
        held = await self._take(build_id)
        try:
            yield held.log
        finally:
            held.holders -= 1
            if not held.holders:
                del self._held[build_id]
                held.log.close()

    async def _take(self, build_id: str) -> _Held:
        # The lock: two who open the same log at once must get one object, or numbers would be given twice.
        async with self._opening:
            held = self._held.get(build_id)
            if held is None:
                line_limit, total_limit = self._limits
                log = EventLog(self.directory / f"{build_id}.jsonl", line_limit=line_limit, total_limit=total_limit, now=self._now)
                await log.open()
                held = self._held[build_id] = _Held(log)
            held.holders += 1
            return held

    async def remove(self, build_ids: Iterable[str]) -> None:
        """Delete logs that nobody holds; absent is fine."""
        for path in [self.directory / f"{build_id}.jsonl" for build_id in build_ids if build_id not in self._held]:
            await asyncio.to_thread(path.unlink, missing_ok=True)
