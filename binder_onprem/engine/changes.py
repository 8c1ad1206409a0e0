"""A program of its own: what a session changed or made below its home, as a tar.gz on standard output.

Run by `sessionarchive` for one session each, so that whoever reads slowly, or not at all, holds nothing but one process that can be killed. The tree
is hostile and still being written to: it is walked by directory descriptors, no link is followed, nothing but regular files is opened, and the
memory is limited. Standard library only, which keeps its start short.
"""

from __future__ import annotations

import gzip
import io
import os
import resource
import stat
import sys
import tarfile
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER: Final = "changed-files"
"""What everything in the archive lies in."""
NOTE: Final = "LEFT-OUT.txt"
OWN: Final = frozenset({".cache", ".conda", ".ipython", ".jupyter", ".local", ".npm"})
"""Directories of the home that programs write for themselves: the server's own among them, with its secrets."""
MADE: Final = frozenset({"__pycache__", ".ipynb_checkpoints"})
DEPTH: Final = 100
ENTRIES: Final = 200_000
EMPTY: Final = 3
"""Exit code: the archive is whole, and no file or link is in it."""
NAMED: Final = 1000
"""Lines of the note."""
MEMORY: Final = 1024**3
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Whole(io.RawIOBase):
    """A file as long as it was when it was looked at: cut when it grows, filled with zeros when it shrinks."""

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__()
        self._descriptor, self._left = descriptor, size

    def read(self, count: int = -1, /) -> bytes:
        """Never fewer bytes than asked for, up to the end."""
        wanted = self._left if count < 0 else min(count, self._left)
        parts, missing = [], wanted
        while missing and (part := os.read(self._descriptor, missing)):
            parts.append(part)
            missing -= len(part)
        self._left -= wanted
        return b"".join(parts) + bytes(missing)


class Archive:
    """The archive while it is written.

    Args:
        out: Where to.
        limit: Bytes of files at the most; a file that does not fit is named in a note at the end.
    """

    def __init__(self, out: IO[bytes], limit: int) -> None:
        self._zip = gzip.GzipFile("", "wb", 1, out, mtime=0)
        self._tar = tarfile.open(mode="w|", fileobj=self._zip, format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        self._left = limit
        self._missing: list[str] = []
        self._missed = 0
        self._added = 0

    @property
    def empty(self) -> bool:
        """Whether nothing was changed."""
        return not self._added and not self._missed

    def add(self, path: str, name: str, directory: int) -> None:
        """One entry; what is neither file, link nor directory is nothing to keep."""
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                self._file(path, name, directory)
            elif stat.S_ISLNK(status.st_mode):
                self._tar.addfile(_entry(path, status, tarfile.SYMTYPE, os.readlink(name, dir_fd=directory)))
                self._added += 1
            elif stat.S_ISDIR(status.st_mode):
                self._tar.addfile(_entry(path, status, tarfile.DIRTYPE))
        except FileNotFoundError:
            pass  # the session removed or replaced it meanwhile
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            self.missing(path)

    def _file(self, path: str, name: str, directory: int) -> None:
        descriptor = os.open(name, _FILE, dir_fd=directory)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or _unchanged(descriptor):
                return
            # By its length, not by what it takes on disk: a file of holes is read and written out like any other.
            if status.st_size > self._left:
                self.missing(path)
                return
            self._left -= status.st_size
            self._tar.addfile(_entry(path, status, tarfile.REGTYPE), Whole(descriptor, status.st_size))
            self._added += 1
        finally:
            os.close(descriptor)

    def missing(self, path: str) -> None:
        """Remember what is not there."""
        self._missed += 1
        if len(self._missing) < NAMED:
            self._missing.append(path.encode(errors="backslashreplace").decode().replace("\n", "\\n"))

    def close(self) -> None:
        """Write the note and the end."""
        if self._missed:
            said = ["Not in this archive, because it would have become too large, or they could not be read:", *self._missing]
            said += [f"... and {self._missed - len(self._missing)} more"] if self._missed > len(self._missing) else []
            text = "".join(f"{line}\n" for line in said).encode()
            note = tarfile.TarInfo(f"{FOLDER}/{NOTE}")
            note.size = len(text)
            self._tar.addfile(note, io.BytesIO(text))
        self._tar.close()
        self._zip.close()


def _entry(path: str, status: os.stat_result, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(f"{FOLDER}/{path}")
    entry.type, entry.linkname = kind, target
    entry.size = status.st_size if kind == tarfile.REGTYPE else 0
    entry.mode = (0o755 if status.st_mode & 0o100 else 0o644) if kind != tarfile.DIRTYPE else 0o755
    entry.mtime = min(max(0, int(status.st_mtime)), 2**33)
    return entry


def _unchanged(descriptor: int) -> bool:
    """Whether the layer has only the file's metadata, its data being the image's."""
    try:
        os.getxattr(descriptor, "trusted.overlay.metacopy")
    except OSError:
        return False
    return True


def write(root: int, archive: Archive) -> None:
    """Everything below the directory `root` (a descriptor)."""
    for number, (path, name, directory) in enumerate(_below(root)):
        if number >= ENTRIES:
            archive.missing("everything after the first 200000 files")
            return
        archive.add(path, name, directory)


def _below(root: int) -> Iterator[tuple[str, str, int]]:
    for folder, folders, files, directory in os.fwalk(".", dir_fd=root, follow_symlinks=False):
        prefix = "" if folder == "." else folder.removeprefix("./") + "/"
        own = OWN if not prefix else frozenset()
        folders[:] = sorted(name for name in folders if name not in own | MADE) if prefix.count("/") < DEPTH else []
        for name in (*folders, *sorted(files)):
            if name not in own:
                yield prefix + name, name, directory


def opened(layer: str, home: str) -> int | None:
    """Descriptor of the home in the layer, reached without following a link; None where nothing below it was touched."""
    directory = os.open(layer, _DIRECTORY)
    for name in filter(None, home.split("/")):
        try:
            inner = os.open(name, _DIRECTORY, dir_fd=directory)
        except (FileNotFoundError, NotADirectoryError):
            return None
        finally:
            os.close(directory)
        directory = inner
    return directory


def main(layer: str, home: str, limit: str) -> int:
    """Write the archive; returns the exit code.

    Args:
        layer: The writable layer's directory.
        home: Absolute path in the container.
        limit: Bytes of files.
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    root = opened(layer, home)
    archive = Archive(sys.stdout.buffer, int(limit))
    try:
        if root is not None:
            write(root, archive)
        archive.close()
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(1)  # nobody reads any more
    return EMPTY if archive.empty else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
