"""What a container changed, read from its overlay's upper directory; and a repository's files, read from disk. Both are hostile.

Used by `layers`, in threads. Walks by directory descriptors and never follows a link, so no name can lead out of the tree. Reads only.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from binder_onprem.errors import EngineUnavailable, LimitHit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEPTH: Final = 200
ENTRIES: Final = 2_000_000
WHITEOUT: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in the tree.

    Attributes:
        path: From the tree's root, without a leading slash.
        status: As `os.lstat` gives it.
        directory: Descriptor of the directory it lies in; valid until the walk goes on.
        name: In that directory.
        opaque: A directory that hides what lower layers have in it.
    """

    path: str
    status: os.stat_result
    directory: int
    name: str
    opaque: bool = False

    @property
    def whiteout(self) -> bool:
        """Whether it says that a lower layer's file of this name is gone."""
        return stat.S_ISCHR(self.status.st_mode) and self.status.st_rdev == 0

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor for reading the regular file."""
        descriptor = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.directory)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def link(self) -> str:
        """Where the symbolic link points."""
        return os.readlink(self.name, dir_fd=self.directory)


def walk(root: Path) -> Iterator[Entry]:
    """Every entry below `root`, each directory before what is in it, sorted by name.

    Raises:
        LimitHit: Nested deeper than 200, or more than two million entries.
        EngineUnavailable: The storage driver moves directories in a way that a layer cannot say.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for number, entry in enumerate(_below(descriptor, "", 0)):
            if number >= ENTRIES:
                raise LimitHit(f"The build made more than {ENTRIES:,} files. Make fewer, or remove what is not needed at the end of the step.")
            yield entry
    finally:
        os.close(descriptor)


def _below(directory: int, prefix: str, depth: int) -> Iterator[Entry]:
    if depth > DEPTH:
        raise LimitHit(f"The build made directories nested deeper than {DEPTH}.")
    with os.scandir(directory) as found:
        names = sorted(entry.name for entry in found)
    for name in names:
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue  # a running container removed it meanwhile
        if not stat.S_ISDIR(status.st_mode):
            yield Entry(prefix + name, status, directory, name)
            continue
        yield from _directory(Entry(prefix + name, status, directory, name), depth)


def _directory(entry: Entry, depth: int) -> Iterator[Entry]:
    try:
        descriptor = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry.directory)
    except (FileNotFoundError, NotADirectoryError):
        return  # replaced meanwhile
    except OSError as error:
        if error.errno == errno.ELOOP:
            return
        raise
    try:
        if _attribute(descriptor, "redirect"):
            raise EngineUnavailable("The container storage renames directories by reference (redirect_dir), from which no layer can be made.")
        yield Entry(entry.path, entry.status, entry.directory, entry.name, _attribute(descriptor, "opaque") == b"y")
        yield from _below(descriptor, entry.path + "/", depth + 1)
    finally:
        os.close(descriptor)


def _attribute(descriptor: int, name: str) -> bytes:
    try:
        return os.getxattr(descriptor, f"trusted.overlay.{name}")
    except OSError:
        return b""


def written(root: Path) -> int:
    """Bytes on disk below `root` now; the container may still be writing."""
    seen: set[int] = set()
    total = 0
    for entry in walk(root):
        if entry.status.st_nlink > 1 and not stat.S_ISDIR(entry.status.st_mode):
            if entry.status.st_ino in seen:
                continue
            seen.add(entry.status.st_ino)
        total += entry.status.st_blocks * 512
    return total
