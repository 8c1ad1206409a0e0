"""A file system in a file: made, mounted by a loop device, unmounted. Its size is the limit of what can be written to it, in bytes and in files.

Used for the throw-away volumes of builds (`building.volume`) and for people's projects (`projectvolumes`). Never formats or mounts anything but the
file it was given.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from binder_onprem.errors import HostUnfit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

TRIES: Final = 50
"""Unmounting waits for the kernel to let go of an ended container: 50 ms each."""
_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")
"""For the same reason it ends with this process."""


async def make(file: Path, size: int, options: Sequence[str]) -> None:
    """Make a sparse file with an ext4 file system in it.

    Args:
        file: Absent or empty.
        size: Bytes.
        options: Of ``mkfs.ext4``.

    Raises:
        HostUnfit: This machine cannot.
    """
    await asyncio.to_thread(_sparse, file, size)
    await _run("mkfs.ext4", "-q", "-F", "-m", "0", *options, str(file))


async def mount(file: Path, target: Path, options: str) -> None:
    """Mount it. A file that another loop device still serves, as under a mount that is busy, keeps that device: never two for one file.

    Raises:
        HostUnfit: This machine cannot.
    """
    await _run("mount", "-o", f"loop,nodev,nosuid,{options}", str(file), str(target))


async def unmount(target: Path, *, lazy: bool = True) -> bool:
    """Unmount; not mounted is fine. The loop device goes with the mount.

    Args:
        target: Where it is mounted.
        lazy: What something still holds after a few seconds is detached, and gone when that lets go.

    Returns:
        Whether it is unmounted.
    """
    for _ in range(TRIES):
        if not await asyncio.to_thread(target.is_mount):
            return True
        if await status("umount", str(target)) != 0:
            await asyncio.sleep(0.05)
    if not lazy:
        return not await asyncio.to_thread(target.is_mount)
    logger.warning("volume detached while in use", extra={"event": "volume_busy"})
    return await status("umount", "--lazy", str(target)) == 0


async def status(*words: str) -> int:
    """A command's exit code; 127 where it is not installed."""
    try:
        process = await asyncio.create_subprocess_exec(*_WITH_US, *words, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
    except FileNotFoundError:
        return 127
    try:
        return await process.wait()
    except asyncio.CancelledError:
        await process.wait()  # what it mounts after whoever cancelled us has cleared up would stay
        raise


async def _run(*words: str) -> None:
    if await status(*words) != 0:
        raise HostUnfit(f"{words[0]} failed: this machine cannot make and mount a file system of limited size. Run `binder-onprem check`.")


def _sparse(file: Path, size: int) -> None:
    with file.open("wb") as opened:
        opened.truncate(size)
