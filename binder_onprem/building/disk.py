"""How much a build writes, and whether the host's disk has room: looked at while it runs, by `layerbuild` and `dockerbuild`."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from binder_onprem.building.overlay import written
from binder_onprem.errors import DiskFull, LimitHit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

RESERVE_BYTES: Final = 1024**3
RESERVE_PART: Final = 20
"""One part in twenty of a small disk is enough to keep."""
INODES: Final = 10_000
PAUSE: Final = 1.0


AHEAD: Final = 4
"""Times what a build needs at the least: with less than that free, images that nobody uses go before builds have to fail."""


def short(path: Path) -> int:
    """Bytes that should come free below `path` so that builds go on; 0 if there is room."""
    free, needed = _figures(os.statvfs(path))
    return max(0, AHEAD * needed - free)


def _figures(disk: os.statvfs_result) -> tuple[int, int]:
    """Bytes that are free, bytes that a build needs at the least."""
    return disk.f_bavail * disk.f_frsize, min(RESERVE_BYTES, disk.f_blocks * disk.f_frsize // RESERVE_PART)


def room(path: Path) -> None:
    """Whether a build may go on writing below `path`.

    Raises:
        DiskFull: The disk is full, or nearly; says what is free and what is needed.
    """
    disk = os.statvfs(path)
    free, needed = _figures(disk)
    if free < needed:
        raise DiskFull(f"disk full: {free // 1_000_000} MB free, needs {needed // 1_000_000}. The administrator must free space.")
    if disk.f_files > 0 and disk.f_favail < INODES:
        raise DiskFull(f"disk full: {disk.f_favail} files can still be made, needs {INODES}. The administrator must free space.")


def too_much(limit: int) -> LimitHit:
    """The words for a build that wrote more than `limit` bytes."""
    return LimitHit(f"The build wrote more than {limit / 1024**3:.3g} GiB. Install less, or remove what is not needed at the end of the step.")


def watcher(limit: int) -> Callable[[Path], Awaitable[None]]:
    """What `Containers.run` is given to watch: raises when more than `limit` bytes are written, or the disk has no room."""

    async def watch(upper: Path) -> None:
        loop = asyncio.get_running_loop()
        while True:
            room(upper)
            begun = loop.time()
            if await asyncio.to_thread(written, upper) > limit:
                raise too_much(limit)
            # A tree of a million files takes seconds to walk: most of the time is the build's.
            await asyncio.sleep(max(PAUSE, 5 * (loop.time() - begun)))

    return watch
