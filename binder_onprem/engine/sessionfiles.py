"""What sessions have written: to their containers' writable layers, and to files that they have deleted and hold open.

Layers are counted by `du`, which no depth, name or link in them confuses. Satisfies `interfaces.SessionFiles`; the `quota` pass asks.
One count at a time, at low priority, each bounded. Reads only.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

SECONDS: Final = 60.0
"""One count's limit: a million files that nobody has looked at lately."""
COUNT: Final = ("nice", "-n", "10", "du", "--summarize", "--one-file-system", "--block-size=1", "--")


class Inspecting(Protocol):
    """The engine, as far as this needs it."""

    async def inspect(self, name: str) -> Mapping[str, Any]:
        """What podman knows of the container. Raises `NotFound`, `EngineUnavailable`."""
        ...


class Layers:
    """The writable layers.

    Args:
        containers: Knows where they lie.
        storage: The engine's directory.
    """

    def __init__(self, containers: Inspecting, storage: Path) -> None:
        self._containers = containers
        self._storage = storage

    async def used(self) -> int:
        """Bytes in use of the file system that holds them all."""
        disk = await asyncio.to_thread(os.statvfs, self._storage)
        return (disk.f_blocks - disk.f_bfree) * disk.f_frsize

    async def written(self, container: str) -> int:
        """Bytes on disk in a container's layer; 0, with a word in the log, when they cannot be counted in time.

        Raises:
            NotFound: No such container.
            EngineUnavailable: Podman does not answer.
        """
        found = await self._containers.inspect(container)
        held = await asyncio.to_thread(unlinked, int(found["State"].get("Pid") or 0))
        return held + await self._counted(container, found["GraphDriver"]["Data"]["UpperDir"])

    async def _counted(self, container: str, upper: str) -> int:
        process = await asyncio.create_subprocess_exec(
            *COUNT, upper, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(SECONDS):
                printed, _ = await process.communicate()
        except TimeoutError:
            logger.warning("session's files not counted", extra={"container": container, "seconds": SECONDS})
            return 0
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        # It complains of what vanishes while it counts, and counts the rest.
        size = printed.split(b"\t")[0]
        return int(size) if size.isdigit() else 0


def unlinked(pid: int) -> int:
    """Bytes on disk of deleted files that are still open in a container, given its first process; 0 when it does not run.

    Only files on the container's own root: what lies in memory counts as memory.
    """
    try:
        space, device = os.readlink(f"/proc/{pid}/ns/pid"), os.stat(f"/proc/{pid}/root/").st_dev  # noqa: PTH115, PTH116 - the kernel's names
    except OSError:
        return 0
    sizes = {
        status.st_ino: status.st_blocks * 512
        for process in _processes(space)
        for status in _open_files(process)
        if status.st_dev == device and status.st_nlink == 0 and stat.S_ISREG(status.st_mode)
    }
    return sum(sizes.values())


def _processes(space: str) -> Iterator[str]:
    for name in os.listdir("/proc"):  # noqa: PTH208 - thousands of names, no objects
        if name.isdecimal():
            with suppress(OSError):
                if os.readlink(f"/proc/{name}/ns/pid") == space:  # noqa: PTH115
                    yield name


def _open_files(process: str) -> Iterator[os.stat_result]:
    with suppress(OSError), os.scandir(f"/proc/{process}/fd") as descriptors:
        for descriptor in descriptors:
            with suppress(OSError):
                yield os.stat(descriptor.path)  # noqa: PTH116
