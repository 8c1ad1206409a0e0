"""The files that sessions have changed: streamed while a session runs, and kept for a while when it has ended.

Satisfies `interfaces.ChangedFiles`. What is kept is one file each, named after the session and a digest of its token, so there is no record that
could disagree with it; it has its name once it is complete. `expire` removes what is old, too much, or was being written when the daemon was killed.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import re
import shutil
import sys
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from binder_onprem.doors import Doors
from binder_onprem.engine.changes import EMPTY
from binder_onprem.errors import BinderError, Busy, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from binder_onprem import config
    from binder_onprem.engine.sessionfiles import Inspecting
    from binder_onprem.model import Session

logger = logging.getLogger(__name__)

AT_ONCE: Final = 4
"""Downloads from running sessions at once."""
STREAM_SECONDS: Final = 900.0
KEEP_SECONDS: Final = 60.0
"""A session waits so long for its end at the most, because its files are being kept."""
PART: Final = ".part"
SUFFIX: Final = ".tar.gz"
NAME: Final = re.compile(r"[a-z0-9-]{1,60}")
NOTHING: Final = "The files of this session cannot be had here."
MANY: Final = "Many people download their files just now. Try again in a minute."


class SessionArchive:
    """Streams and keeps.

    Args:
        containers: Knows where their layers lie.
        folder: Where files are kept.
        limits: Bytes and seconds.
        current: A session as it is this moment, with its token.
        wall: Unix seconds.
    """

    def __init__(
        self,
        containers: Inspecting,
        folder: Path,
        limits: config.Ending,
        current: Callable[[Session], Awaitable[tuple[Session, str] | None]],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._containers = containers
        self._folder = folder
        self._limits = limits
        self._current = current
        self._wall = wall
        self._streams = 0
        self._writing: set[Path] = set()
        self._doors = Doors()

    @asynccontextmanager
    async def changed(self, container: str) -> AsyncIterator[asyncio.StreamReader]:
        """The archive of a running session's changed files; the end of the stream is that of the archive only if leaving raises nothing.

        Raises:
            Busy: Too many are being read.
            NotFound: No such container, or its layer cannot be read.
            EngineUnavailable: Podman does not answer; or the archive broke off.
            TimeoutError: The reader took longer than fifteen minutes.
        """
        async with self._slot():
            words = await self._words(container, int(self._limits.download))
            async with _streamed(words) as archive:
                yield archive

    @asynccontextmanager
    async def folder(self, path: Path, limit: int) -> AsyncIterator[asyncio.StreamReader]:
        """The same of a project's directory.

        Args:
            path: On this host; nothing in it is trusted.
            limit: Bytes of files at the most.

        Raises:
            Busy: Too many are being read.
            NotFound: The archive broke off.
            TimeoutError: The reader took longer than fifteen minutes.
        """
        async with self._slot(), _streamed(_program(str(path), "/", limit)) as archive:
            yield archive

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._streams >= AT_ONCE:
            raise Busy(MANY, retry_after=60)
        self._streams += 1
        try:
            async with asyncio.timeout(STREAM_SECONDS):
                yield
        finally:
            self._streams -= 1

    async def keep(self, session: Session) -> None:
        """Keep a session's changed files, as far as there is room and time; what stands against it is logged, nothing is raised."""
        if not self._limits.keep or not NAME.fullmatch(session.name) or session.project:
            return  # a project keeps its own
        try:
            # Two who end it at once must not write into one file, nor may the second end it while the first still reads.
            async with asyncio.timeout(KEEP_SECONDS), self._doors.of(session.name):
                if now := await self._current(session):
                    await self._keep(self._folder / f"{session.name}.{_digest(now[1])}{SUFFIX}", f"binder-{session.launch_id}")
        except (BinderError, TimeoutError, OSError) as error:
            logger.warning("session's files not kept", extra={"session": session.name, "error": str(error)[:200]})

    async def _keep(self, path: Path, container: str) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if shutil.disk_usage(self._folder).free < 4 * self._limits.bytes:
            raise OSError(errno.ENOSPC, "nearly full")
        part = path.with_name(path.name + PART)
        self._writing.add(part)
        try:
            words = await self._words(container, int(self._limits.bytes))
            with open(part, "wb", opener=_private) as file:  # noqa: ASYNC230 - an empty file; the child writes it
                process = await asyncio.create_subprocess_exec(
                    *words, stdin=asyncio.subprocess.DEVNULL, stdout=file, stderr=asyncio.subprocess.DEVNULL
                )
            try:
                changed = await _ended(process)
            finally:
                await _killed(process)
            if changed:
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)
            self._writing.discard(part)
        await self.expire()

    def kept(self, session: str, token: str) -> tuple[Path, float] | None:
        """What is kept of a session for the holder of its token, and until when (Unix seconds)."""
        path = self._folder / f"{session}.{_digest(token)}{SUFFIX}"
        if not NAME.fullmatch(session):
            return None
        with suppress(OSError):
            until = path.stat().st_mtime + self._limits.keep
            return (path, until) if until > self._wall() else None
        return None

    async def expire(self) -> None:
        """Remove what is past its time, what is over the total, and what nobody writes any more."""
        await asyncio.to_thread(self._expire)

    def _expire(self) -> None:
        found, room, now = [], int(self._limits.total), self._wall()
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            with suppress(FileNotFoundError):
                if path.name.endswith(SUFFIX):
                    status = path.stat()
                    # A clock that was set back must not keep it for years.
                    found.append((status.st_mtime if status.st_mtime <= now + 60 else 0.0, status.st_size, path))
                elif path not in self._writing:
                    path.unlink()
        for kept, size, path in sorted(found, reverse=True):
            room -= size
            if kept + self._limits.keep <= now or room < 0:
                path.unlink(missing_ok=True)

    async def _words(self, container: str, limit: int) -> tuple[str, ...]:
        found = await self._containers.inspect(container)
        layer = ((found.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")
        home = str((found.get("Config") or {}).get("WorkingDir") or "")
        if not layer or not home.strip("/") or ".." in home.split("/"):
            raise NotFound(NOTHING)
        project = next((str(mount["Source"]) for mount in found.get("Mounts") or () if mount.get("Destination") == home and mount.get("RW")), None)
        return _program(project, "/", limit) if project else _program(layer, home, limit)


def _program(layer: str, home: str, limit: int) -> tuple[str, ...]:
    return ("nice", "-n", "10", sys.executable, "-I", "-m", "binder_onprem.engine.changes", layer, home, str(limit))


@asynccontextmanager
async def _streamed(words: tuple[str, ...]) -> AsyncIterator[asyncio.StreamReader]:
    process = await asyncio.create_subprocess_exec(
        *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert process.stdout  # noqa: S101 - asked for above
        yield process.stdout
        await _ended(process)
    finally:
        await _killed(process)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


async def _ended(process: asyncio.subprocess.Process) -> bool:
    """Whether anything is in the archive, once it is whole. Raises `NotFound`."""
    code = await process.wait()
    if code not in (0, EMPTY):
        raise NotFound("The files of this session could not be read to their end.")
    return code == 0


async def _killed(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()  # what the pipe still holds, or it stays open
