"""What is dear to make and the same for every run, in the user's cache directory under keys of its content."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEPT: Final = 3
"""Directories of each kind that stay; the ones used last."""


def directory() -> Path:
    """``$XDG_CACHE_HOME/binder-onprem/cluster``, made if absent."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "binder-onprem" / "cluster"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def kept(kind: str, key: str, make: Callable[[Path], None], said: str) -> Path:
    """The directory of that kind and key; made under a lock if the cache does not have it, and whole as soon as it has its name."""
    folder = directory()
    target = folder / f"{kind}-{key[:16]}"
    if not target.exists():
        with _locked(folder):
            if not target.exists():
                _make(folder, target, make, said)
    os.utime(target)
    for old in sorted(folder.glob(f"{kind}-*"), key=lambda item: item.stat().st_mtime, reverse=True)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for half in folder.glob(".half-*"):
            shutil.rmtree(half, ignore_errors=True)
        yield


def _make(folder: Path, target: Path, make: Callable[[Path], None], said: str) -> None:
    half = folder / f".half-{target.name}"
    half.mkdir()
    start = time.monotonic()
    sys.stderr.write(said + "\n")
    make(half)
    half.replace(target)
    sys.stderr.write(f"… {time.monotonic() - start:.0f} s\n")
