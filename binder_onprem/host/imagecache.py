"""Finished images and roots as archives in the user's cache directory, so that a second home or a repeated set-up takes seconds.

Used by `baseimage` only. A name holds the digest of the recipe part that made the archive; a file appears under its name when it is whole.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEPT: Final = 3
"""Archives of each kind that stay; the ones used last."""


def directory() -> Path:
    """``$XDG_CACHE_HOME/binder-onprem/images``, made if absent."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "binder-onprem" / "images"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


@contextmanager
def locked(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the cache for one process; another one waits. What a killed process left half made is swept."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another set-up on this machine is making the images; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for half in folder.glob(".half-*"):
            shutil.rmtree(half, ignore_errors=True)
        yield


@contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """A directory beside the archives that goes away at the end, and at the next `locked` if the process is killed."""
    half = folder / f".half-{os.getpid()}"
    half.mkdir(mode=0o700)
    try:
        yield half
    finally:
        shutil.rmtree(half, ignore_errors=True)


def find(folder: Path, kind: str, key: str) -> Path | None:
    """The archive of that kind and key, marked as used now; None if there is none."""
    file = folder / f"{kind}-{key}.tar"
    try:
        os.utime(file)
    except FileNotFoundError:
        return None
    return file


def keep(folder: Path, kind: str, key: str, archive: Path) -> Path:
    """Move a whole archive to its name and drop the oldest ones beyond `KEPT`; needs `locked`."""
    file = folder / f"{kind}-{key}.tar"
    with archive.open("rb") as data:
        os.fsync(data.fileno())
    archive.replace(file)
    for old in sorted(folder.glob(f"{kind}-*.tar"), key=lambda item: item.stat().st_mtime, reverse=True)[KEPT:]:
        with suppress(OSError):
            old.unlink()
    return file
