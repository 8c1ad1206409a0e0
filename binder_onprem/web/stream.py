"""Writing a stream of events to one viewer: keep-alives, a bounded backlog, a limit of streams for each client.

A pump takes from the generator, a writer sends what has gathered, at most every `PAUSE` seconds: a hundred viewers of a chatty build cost a
hundred writes, not a hundred for each line. Nothing is ever cancelled in the middle of an ``anext`` except when the viewer is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from binder_onprem import metrics
from binder_onprem.errors import RateLimited
from binder_onprem.events import KEEPALIVE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from aiohttp import web

logger = logging.getLogger(__name__)

BACKLOG: Final = 256 * 1024
"""Bytes that wait for one viewer; with the kernel's and the transport's buffers it stays below a mebibyte."""
PAUSE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Patience:
    """Times in seconds.

    Attributes:
        keepalive: Between two comments on a quiet stream.
        look: Between two looks whether the viewer is still there.
        stall: Until a viewer that does not read is dropped.
    """

    keepalive: float = 20.0
    look: float = 2.0
    stall: float = 30.0


@dataclass(slots=True)
class Streams:
    """The open streams of the process.

    Attributes:
        total: Streams at once.
        each: Streams of one address at once.
    """

    total: int
    each: int
    counts: Counter[str] = field(default_factory=Counter)
    tasks: set[asyncio.Task[object]] = field(default_factory=set)

    @contextmanager
    def entered(self, address: str) -> Iterator[None]:
        """Count a stream while it is open.

        Raises:
            RateLimited: Too many of this address, or in all.
        """
        if self.counts[address] >= self.each or self.counts.total() >= self.total:
            raise RateLimited("Too many launches are being followed from your address. Close some of the pages, then try again.", retry_after=10)
        self.counts[address] += 1
        metrics.STREAMS.inc()
        task = asyncio.current_task()
        if task is not None:
            self.tasks.add(task)
        try:
            yield
        finally:
            self._left(address)
            if task is not None:
                self.tasks.discard(task)

    def _left(self, address: str) -> None:
        metrics.STREAMS.dec()
        self.counts[address] -= 1
        if not self.counts[address]:
            del self.counts[address]

    def close(self) -> None:
        """Break all streams, without a terminal event: their viewers come back after the restart."""
        for task in list(self.tasks):
            task.cancel()


class _Backlog:
    """What waits for the viewer; wakes the writer at once after a quiet time and at the end, else every `PAUSE` seconds."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting = bytearray()
        self._room = asyncio.Event()
        self._room.set()
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0.0
        self.filled = asyncio.Event()
        self.ended = False

    async def put(self, chunk: bytes) -> None:
        await self._room.wait()
        self._waiting += chunk
        if len(self._waiting) >= BACKLOG:
            self._room.clear()
        if self._loop.time() >= self._next:
            self.filled.set()
        elif self._timer is None:
            self._timer = self._loop.call_at(self._next, self.wake)

    def wake(self) -> None:
        self._timer = None
        self.filled.set()

    def take(self) -> bytes:
        taken = bytes(self._waiting)
        self._waiting.clear()
        self._next = self._loop.time() + PAUSE
        if not self.ended:
            self.filled.clear()
        self._room.set()
        return taken

    def end(self) -> None:
        self.ended = True
        self.filled.set()


async def send(
    request: web.Request, response: web.StreamResponse, chunks: AsyncGenerator[bytes], patience: Patience | None, *, comments: bool = True
) -> web.StreamResponse:
    """Send all chunks, then end the response; ends early, closing the generator, when the viewer has left or does not read.

    Args:
        request: The viewer's.
        response: Not yet prepared.
        chunks: What to send; must not raise.
        patience: None for the usual times.
        comments: Whether keep-alive comments may be sent (an event stream).
    """
    patience = patience or Patience()
    backlog = _Backlog()
    response.force_close()
    await response.prepare(request)
    pump = asyncio.create_task(_pump(chunks, backlog))
    try:
        await _write(request, response, backlog, patience, comments=comments)
    except TimeoutError:
        logger.info("viewer dropped, it does not read")
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:
        pass  # the viewer left; what it watched goes on
    finally:
        pump.cancel()
        with suppress(asyncio.CancelledError):
            await pump
    return response


async def _pump(chunks: AsyncGenerator[bytes], backlog: _Backlog) -> None:
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                await backlog.put(chunk)
    finally:
        backlog.end()


async def _write(request: web.Request, response: web.StreamResponse, backlog: _Backlog, patience: Patience, *, comments: bool) -> None:
    clock = asyncio.get_running_loop().time
    written = clock()
    while request.transport is not None and not request.transport.is_closing():
        if not backlog.filled.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(min(patience.look, patience.keepalive)):
                    await backlog.filled.wait()
        data = backlog.take()
        if not data and backlog.ended:
            await response.write_eof()
            return
        if not data and comments and clock() - written >= patience.keepalive:
            data = KEEPALIVE
        if data:
            async with asyncio.timeout(patience.stall):
                await response.write(data)
            written = clock()
