"""Gives the bytes of images that the registry has forgotten back to the disk, by the registry's own garbage collection.

The prune calls `collect` after it removed something; the daemon calls `heal` when it starts. A push beside a collection can lose its blobs, so the
registry is restarted read-only for the time: what is there is still pulled, a push that comes meanwhile is repeated by its caller. Afterwards it is
restarted once more, because it remembers blobs that are gone. Killed at any moment, the mark in ``run/`` has the next start put it right. Untagged
manifests are left alone: builds and sessions name images by digest.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from binder_onprem.errors import BinderError, RegistryUnavailable
from binder_onprem.host import probes, site_files
from binder_onprem.host.parts import USER, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from binder_onprem.config import Config

logger = logging.getLogger(__name__)

COLLECT_SECONDS: Final = 300.0
"""A collection is broken off after it, which does no harm: the next one goes on."""
ANSWER_SECONDS: Final = 30.0
"""Until a registry that was restarted answers."""


class Collection:
    """The registry's garbage collection.

    Args:
        config: Where the registry is and what it reads at its start.
        restart: Stops the registry and starts it anew; blocks.
        busy: Whether a build runs, which may have pushed what no manifest names yet.
    """

    def __init__(self, config: Config, restart: Callable[[], None], busy: Callable[[], bool]) -> None:
        self._config = config
        self._restart = restart
        self._busy = busy
        self._mark = config.run / "collecting"
        # A thread cannot be cancelled: the switch back waits for the switch that was begun.
        self._switching = threading.Lock()

    async def collect(self) -> bool:
        """Collect; False when it has to wait for another time."""
        if self._busy():
            return False
        with self._alone() as alone:
            return alone and await self._collected()

    async def heal(self) -> None:
        """Make a registry writable that was left read-only; does nothing where none was.

        Raises:
            RegistryUnavailable: It does not come back; may be called again.
        """
        if self._mark.exists():
            logger.warning("a collection was interrupted")
            await asyncio.to_thread(self._switch, read_only=False)

    async def _collected(self) -> bool:
        began = time.monotonic()
        try:
            async with asyncio.timeout(COLLECT_SECONDS):
                await asyncio.to_thread(self._switch, read_only=True)
                # A build may have begun since the first look; one that begins from here on can push nothing.
                done = not self._busy() and await self._swept()
        except (BinderError, OSError, TimeoutError) as error:
            logger.warning("collection broken off", extra={"error": str(error)[:200]})
            done = False
        finally:
            await asyncio.shield(self._normal())
        logger.info("collection", extra={"done": done, "seconds": round(time.monotonic() - began, 1)})
        return done

    async def _normal(self) -> None:
        try:
            await asyncio.to_thread(self._switch, read_only=False)
        except (BinderError, OSError):
            logger.exception("registry is still read-only")  # the mark stays, `heal` comes back

    def _switch(self, *, read_only: bool) -> None:
        """Restart the registry in the one way or the other, and wait until it answers."""
        with self._switching:
            if read_only:
                self._mark.touch()
            site_files.put_registry(self._config, read_only=read_only)
            self._restart()
            registry = [part for part in parts(self._config) if part.name == "registry"]
            if probes.silent(registry, ANSWER_SECONDS):
                raise RegistryUnavailable("The image registry does not start again. The administrator should look at its log.")
            if not read_only:
                self._mark.unlink(missing_ok=True)

    async def _swept(self) -> bool:
        """Run the collection as the registry's own user; it ends with us, however we end."""
        words = ["docker-registry", "garbage-collect", str(self._config.home / "etc" / "registry.yml")]
        drop = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--pdeathsig=KILL", "--"]
        program = shutil.which("setpriv") or "/usr/bin/setpriv"
        quiet = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(program, *drop, *words, stdin=quiet, stdout=quiet, stderr=quiet)
        try:
            code = await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if code:
            logger.warning("garbage-collect", extra={"code": code})
        return code == 0

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Not beside `up` or `down`, which restart the registry or push to it, too."""
        self._config.run.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._config.run / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            yield False
            return
        try:
            yield True
        finally:
            os.close(lock)
