"""The volumes of people's projects: each a file with a file system, below a directory of its own, mounted while a session has it.

Satisfies `interfaces.Volumes`. What the disk says is the truth: ``ID/`` is a whole volume, ``ID.new/`` one that was being made and ``ID.gone/`` one
that was being removed when the process ended; the two latter are cleared away by `sweep`, the first is only ever removed by `remove`. Files in it
have the ids of the project's own user namespace, the same at every start, so nothing is ever chowned again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from binder_onprem.doors import Doors
from binder_onprem.engine import loopfile
from binder_onprem.engine.containers import Containers, Mount, Run
from binder_onprem.errors import HostUnfit, LimitHit, NotFound
from binder_onprem.project import FILES, first_id, home_of, on_disk

if TYPE_CHECKING:
    from pathlib import Path

    from binder_onprem.engine.images import Images

logger = logging.getLogger(__name__)

FILE: Final = "volume.img"
MOUNTED: Final = FILES.partition("/")[0]
NEW: Final = ".new"
GONE: Final = ".gone"
INSIDE: Final = "/project"
LABELS: Final = (("io.binder-onprem.kind", "project"),)
MEMORY: Final = 256 * 1024**2
COPY_SECONDS: Final = 600.0
SPARE: Final = 16
"""Blocks, or files, that are left in a volume which is full."""
_ID: Final = re.compile(r"[0-9a-f]{16}")
_FORMAT: Final = ("-T", "default", "-E", "lazy_itable_init=1,nodiscard,root_owner=0:0")
# Nothing of the image runs but its shell and its cp, without network, in the ids and the confinement that its session has.
_COPY: Final = '[ ! -d "$1" ] || exec cp -a "$1/." "$2/"'


class ProjectVolumes:
    """The volumes.

    Args:
        folder: Where they lie; made when it is needed, for root alone.
        containers: Runs what copies an image's files.
        images: Has the image here.
    """

    def __init__(self, folder: Path, containers: Containers, images: Images) -> None:
        self._folder = folder
        self._containers = containers
        self._images = images
        self._at_work: set[Path] = set()
        self._doors = Doors()

    async def home(self, image: str) -> str:
        """Path in sessions of an image that a project takes the place of. Raises `InvalidSpec`, `EngineUnavailable`."""
        await self._images.fetch(image)
        return home_of(await self._images.configuration(image))

    def there(self, volume: str) -> bool:
        """Whether a whole one is there."""
        return (self._at(volume) / FILE).is_file()

    async def make(self, volume: str, slot: int, size: int, image: str) -> None:
        """Make one, with the files that sessions of an image begin with; it has its name once it is whole and on the disk.

        Args:
            volume: Its id.
            slot: Which ids its files have.
            size: Bytes that it is to hold.
            image: ``…@sha256:…``.

        Raises:
            LimitHit: The files do not fit, or take too long.
            HostUnfit: This machine cannot write or mount it.
            EngineUnavailable: Podman does not answer.
        """
        place = self._at(volume).with_suffix(NEW)
        async with self._door(volume):  # a sweep that has begun to clear away what was left here is waited for
            self._at_work.add(place)
            try:
                await self._filled(place, slot, size, image)
                await _whole(place, self._at(volume))
            except BaseException as error:
                await asyncio.shield(self._cleared(place))
                if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                    logger.warning("project not made", extra={"project": volume, "error": str(error)[:200]})
                    raise HostUnfit("The new project could not be written to the disk. Tell the administrator, who finds why in the log.") from None
                raise
            finally:
                self._at_work.discard(place)

    async def _filled(self, place: Path, slot: int, size: int, image: str) -> None:
        home = await self.home(image)
        await self._cleared(place)
        await asyncio.to_thread(_placed, place)
        await loopfile.make(place / FILE, on_disk(size), _FORMAT)
        await loopfile.mount(place / FILE, place / MOUNTED, "noatime")
        await asyncio.to_thread(_owned, place / FILES, first_id(slot))
        await self._copied(place.stem, slot, image, home, place / FILES)
        if not await loopfile.unmount(place / MOUNTED, lazy=False):
            raise HostUnfit("The new project's volume is held by something on this machine. Try again.")

    async def mount(self, volume: str) -> Path:
        """Have it mounted; the directory that is the session's home. Raises `NotFound`, `HostUnfit`."""
        if not self.there(volume):
            raise NotFound("This project's volume is gone from the disk. Ask the administrator, who may have a copy; nothing was put in its place.")
        place = self._at(volume)
        async with self._door(volume):
            if not await asyncio.to_thread((place / MOUNTED).is_mount):
                await asyncio.to_thread(_closed, place)
                await loopfile.mount(place / FILE, place / MOUNTED, "noatime,discard,errors=remount-ro")
        return place / FILES

    async def unmount(self, volume: str) -> bool:
        """Whether it is not mounted now; what something still uses stays. Absent is fine."""
        async with self._door(volume):
            return await loopfile.unmount(self._at(volume) / MOUNTED, lazy=False)

    def _door(self, volume: str) -> asyncio.Lock:
        """Who reads a project and who starts its session must not both mount it."""
        return self._doors.of(volume)

    async def mounted(self) -> frozenset[str]:
        """Ids of those that are mounted."""
        return await asyncio.to_thread(self._mounted)

    def _mounted(self) -> frozenset[str]:
        return frozenset(path.name for path in self._found() if _ID.fullmatch(path.name) and (path / MOUNTED).is_mount())

    async def used(self, volume: str) -> int | None:
        """Bytes in use in it; None when it is not mounted."""
        return await asyncio.to_thread(_used, self._at(volume) / MOUNTED)

    async def free(self, volume: str) -> int:
        """Bytes that can still be written to it, while it is mounted; 0 when no file can be made."""
        disk = await asyncio.to_thread(os.statvfs, self._at(volume) / FILES)
        return disk.f_bavail * disk.f_frsize if disk.f_favail >= SPARE else 0

    async def remove(self, volume: str) -> bool:
        """Remove it; absent is fine. False when something still uses it."""
        place = self._at(volume)
        if not await self.unmount(volume):
            return False
        gone = place.with_suffix(GONE)
        self._at_work.add(gone)
        try:
            if place.exists():
                await self._cleared(gone)
                place.rename(gone)  # from here on it is none, whatever happens
            await self._cleared(gone)
        finally:
            self._at_work.discard(gone)
        return True

    async def sweep(self) -> None:
        """Clear away what was being made or removed when an earlier process ended."""
        for path in await asyncio.to_thread(self._found):
            if path.suffix in (NEW, GONE) and _ID.fullmatch(path.stem) and path not in self._at_work:
                async with self._door(path.stem):
                    if path not in self._at_work:
                        await self._cleared(path)

    def _found(self) -> list[Path]:
        return sorted(self._folder.iterdir()) if self._folder.is_dir() else []

    def _at(self, volume: str) -> Path:
        if not _ID.fullmatch(volume):
            raise ValueError("not the id of a volume")
        return self._folder / volume

    async def _copied(self, volume: str, slot: int, image: str, home: str, target: Path) -> None:
        said: list[str] = []

        async def line(text: str) -> None:
            said[:] = [*said[-2:], text]

        run = Run(
            name=f"binder-project-{volume}",
            image=image,
            command=("/bin/sh", "-c", _COPY, "project", home, INSIDE),
            env=(),
            user="0:0",
            labels=(*LABELS, ("io.binder-onprem.project", volume)),
            mounts=(Mount(str(target), INSIDE, writable=True),),
            memory=MEMORY,
            cpus=1,
            pids=64,
            network="none",
            read_only=True,
            capabilities=("CHOWN", "DAC_OVERRIDE", "FOWNER"),
            userns=f"from:{first_id(slot)}",
        )
        try:
            async with asyncio.timeout(COPY_SECONDS):
                ended = await self._containers.run(run, line)
        except TimeoutError:
            raise LimitHit("Copying the repository's files into the new project takes too long. Try again, or ask the administrator.") from None
        if not ended.code:
            return
        disk = os.statvfs(target)
        if min(disk.f_bavail, disk.f_favail) < SPARE:
            raise LimitHit("The files of this repository do not fit into a project of this site. Ask the administrator for a larger quota.")
        logger.warning("project not filled", extra={"project": volume, "code": ended.code, "said": " | ".join(said)[-500:]})
        raise HostUnfit("The repository's files could not be copied into the new project. Tell the administrator, who finds why in the log.")

    async def _cleared(self, place: Path) -> None:
        with suppress(ValueError):
            await self._containers.remove(f"binder-project-{place.stem}")
        await loopfile.unmount(place / MOUNTED)
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)


def _placed(place: Path) -> None:
    (place / MOUNTED).mkdir(parents=True)
    place.parent.chmod(0o700)


def _closed(place: Path) -> None:
    """What came back from a backup is a file, maybe in a directory that is open to everybody on this host."""
    (place / MOUNTED).mkdir(exist_ok=True)
    place.parent.chmod(0o700)


def _owned(directory: Path, owner: int) -> None:
    directory.mkdir()
    os.chown(directory, owner, owner)


async def _whole(place: Path, name: Path) -> None:
    """Give it its name. Whoever leaves meanwhile waits for the thread: it would rename what the next launch has begun to fill."""
    naming = asyncio.ensure_future(asyncio.to_thread(_named, place, name))
    try:
        await asyncio.shield(naming)
    finally:
        await asyncio.wait({naming})


def _named(place: Path, name: Path) -> None:
    """Give it its name once everything in it is on the disk; the name, too, when this returns."""
    _synced(place / FILE)
    _synced(place)
    place.rename(name)
    _synced(name.parent)


def _synced(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _used(mounted: Path) -> int | None:
    if not mounted.is_mount():
        return None
    disk = os.statvfs(mounted)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize
