"""A small file system in a file: the only place a sandbox can write, and its size is the limit.

Called by `prepare`. A full file system stops any writer at once, in bytes and in number of files, whatever it does; nothing has to watch.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from binder_onprem.engine import loopfile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_FORMAT: Final = ("-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard")


@asynccontextmanager
async def volume(place: Path, size: int, files: int) -> AsyncIterator[Path]:
    """Make, mount and in the end remove a file system.

    Args:
        place: Directory of its own; what an earlier process left there is removed first.
        size: Bytes; the file is sparse.
        files: Files and directories it can hold.

    Yields:
        The mounted directory, writable for everyone.

    Raises:
        HostUnfit: This machine cannot mount it.
    """
    mounted = place / "volume"
    await remove(place)
    try:
        image = await asyncio.to_thread(_placed, place)
        await loopfile.make(image, size, (*_FORMAT, "-N", str(files)))
        # No barriers: nothing here outlives the machine, so nothing needs to reach the disk.
        await loopfile.mount(image, mounted, "noexec,noatime,barrier=0")
        await asyncio.to_thread(_opened, mounted / "out")
        yield mounted / "out"
    finally:
        await asyncio.shield(remove(place))


async def remove(place: Path) -> None:
    """Unmount and delete; absent is fine."""
    await loopfile.unmount(place / "volume")
    await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)


def _placed(place: Path) -> Path:
    (place / "volume").mkdir(parents=True)
    place.chmod(0o700)
    return place / "volume.img"


def _opened(directory: Path) -> None:
    directory.mkdir()
    # Mapped ids of a user namespace are not known before it exists.
    directory.chmod(0o777)
