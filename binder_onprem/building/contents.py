"""Taking a directory out of a sandbox: copied by the host, which believes nothing about it.

Called by `prepare` in a thread. Follows no link, opens nothing but regular files, keeps hard links, drops everything else: devices, sockets,
FIFOs, setuid bits, foreign owners.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from binder_onprem.errors import BuildFailed, LimitHit

if TYPE_CHECKING:
    import threading
    from pathlib import Path

DEPTH: Final = 200
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK: Final = 16 * 1024**2


@dataclass(slots=True)
class Copy:
    """One copy.

    Attributes:
        limit: Bytes at the most.
        stopped: Set by the caller to end it early.
        bytes, files: What has been copied.
    """

    limit: int
    stopped: threading.Event
    bytes: int = 0
    files: int = 0
    _links: dict[int, str] = field(default_factory=dict)

    def trees(self, source: Path, target: Path, names: tuple[str, ...]) -> None:
        """Copy several directories of one file system; what they share stays shared."""
        for name in names:
            self.tree(source / name, target / name)

    def tree(self, source: Path, target: Path) -> None:
        """Copy a directory.

        Args:
            source: Below a directory that only we can rename.
            target: Does not exist yet.

        Raises:
            BuildFailed: It is no directory, or nests deeper than 200 levels.
            LimitHit: More bytes than the limit.
        """
        target.mkdir()
        try:
            descriptor = os.open(source, _DIRECTORY)
        except OSError:
            raise BuildFailed("The repository could not be examined: its files are not there. See the log.") from None
        try:
            self._directory(descriptor, str(target), 0)
        finally:
            os.close(descriptor)

    def _directory(self, source: int, target: str, depth: int) -> None:
        if depth > DEPTH:
            raise BuildFailed(f"The repository's directories nest deeper than {DEPTH} levels, which is the limit.")
        with os.scandir(source) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            if self.stopped.is_set():
                return
            self._entry(source, name, f"{target}/{name}", depth)

    def _entry(self, parent: int, name: str, target: str, depth: int) -> None:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            os.mkdir(target, 0o755)  # noqa: PTH102 - strings: 100,000 of them
            descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
            try:
                self._directory(descriptor, target, depth + 1)
            finally:
                os.close(descriptor)
        elif stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=parent), target)  # noqa: PTH211 - relative to a descriptor
        elif stat.S_ISREG(found.st_mode):
            self._regular(parent, name, target)

    def _regular(self, parent: int, name: str, target: str) -> None:
        descriptor = os.open(name, _READ, dir_fd=parent)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return
            self.files += 1
            if found.st_nlink > 1 and found.st_ino in self._links:
                os.link(self._links[found.st_ino], target)
                return
            if found.st_nlink > 1:
                self._links[found.st_ino] = target
            self._content(descriptor, target, found)
        finally:
            os.close(descriptor)

    def _content(self, source: int, target: str, found: os.stat_result) -> None:
        mode = 0o755 if found.st_mode & 0o111 else 0o644
        descriptor = os.open(target, _WRITE, mode)
        try:
            while not self.stopped.is_set():
                count = os.sendfile(descriptor, source, None, _CHUNK)
                if count == 0:
                    break
                self.bytes += count
                if self.bytes > self.limit:
                    raise LimitHit(f"The repository is larger than {self.limit / 1024**2:,.0f} MiB, which is the limit here (build.repository).")
            os.utime(descriptor, ns=(found.st_mtime_ns, found.st_mtime_ns))
        finally:
            os.close(descriptor)


def regular(top: Path, path: str) -> bool:
    """Whether a path below a directory is a regular file that no link leads to.

    Args:
        top: The directory.
        path: Relative, as a stranger gave it.
    """
    descriptor = os.open(top, _DIRECTORY)
    try:
        for name in path.split("/")[:-1]:
            inner = os.open(name, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        return stat.S_ISREG(os.stat(path.rsplit("/", 1)[-1], dir_fd=descriptor, follow_symlinks=False).st_mode)
    except OSError:
        return False
    finally:
        os.close(descriptor)
