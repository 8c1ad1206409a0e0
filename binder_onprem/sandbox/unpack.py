"""Take a stranger's archive apart: zip, or tar with any of its compressions. Nothing outside the target, nothing but files, directories and links.

Called by `fetch` in the sandbox. What is inflated is counted as it is written, whatever the archive says of itself; the whole archive is refused for
one name that leads out of it. Links are made last, so that nothing is ever written through one.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Final

from binder_onprem.content import place
from binder_onprem.errors import BuildFailed, LimitHit
from binder_onprem.sandbox.download import Budget

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


ENTRIES: Final = 100_000
"""Files, directories and links of an archive."""
DIRECTORY_BYTES: Final = 32 * 1024**2
"""A zip's table of contents; it is read into memory."""
HEADERS: Final = ENTRIES * 1536
"""Bytes of a tar besides its files' own."""
LINK_BYTES: Final = 4096
CHUNK: Final = 1024**2
LEADS_OUT: Final = "The archive has a name or a link that leads out of it, which is refused as an attack. Nothing of it was kept."
BROKEN: Final = "The archive is damaged, encrypted, or compressed in a way that is not known here."
_SKIPPED: Final = ("__MACOSX",)
_MAGIC: Final[tuple[tuple[bytes, str], ...]] = ((b"\x1f\x8b", "gz"), (b"BZh", "bz2"), (b"\xfd7zXZ\x00", "xz"))
_DAMAGED: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    OverflowError,
)
_TWICE: Final = (FileExistsError, IsADirectoryError, NotADirectoryError)
"""One name for a file and for a directory."""


def is_archive(file: Path) -> bool:
    """Whether it is one that `unpack` takes."""
    if zipfile.is_zipfile(file):
        return True
    with file.open("rb") as stream, _inflated(stream) as inner:
        try:
            head = inner.read(512)
        except (OSError, *_DAMAGED):
            return False
    return head[257:262] == b"ustar" or (len(head) == 512 and _old_tar(head))  # noqa: PLR2004 - a tar's block


def _old_tar(head: bytes) -> bool:
    try:
        return bool(tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape").name)
    except tarfile.TarError:
        return False


def unpack(file: Path, target: Path, budget: Budget) -> None:
    """Unpack.

    Args:
        file: The archive.
        target: Directory to make.
        budget: Bytes that may come out of it.

    Raises:
        LimitHit: Too many bytes, entries, or too long a table of contents.
        BuildFailed: A name or link leads out of it, it holds devices, or it is damaged.
    """
    tree = _Tree(target, budget)
    try:
        if zipfile.is_zipfile(file):
            _from_zip(file, tree)
        else:
            _from_tar(file, tree, budget.left)
        tree.link()
    except _Outside:
        raise BuildFailed(LEADS_OUT) from None
    except (*_DAMAGED, *_TWICE):
        raise BuildFailed(BROKEN) from None
    except OSError as error:
        if error.errno is None:  # bz2's and gzip's way to say it
            raise BuildFailed(BROKEN) from None
        raise


class _Outside(Exception):
    """A name or link leads out."""


class _Tree:
    """What comes out."""

    def __init__(self, top: Path, budget: Budget) -> None:
        self._top = top
        self._budget = budget
        self._count = 0
        self._links: dict[str, str] = {}
        top.mkdir()

    def path(self, name: str) -> str | None:
        """Where an entry goes, below the top; None for what is left out. Counts it."""
        self._count += 1
        if self._count > ENTRIES:
            raise LimitHit(f"The archive has more than {ENTRIES:,} entries, which is the limit.")
        if name.strip("/") in ("", "."):
            return None
        try:
            found = place(name.replace("\\", "/"))
        except ValueError:
            raise _Outside from None
        if found in self._links or any(f"{found}/".startswith(f"{link}/") for link in self._above(found)):
            raise _Outside
        return None if found.split("/", 1)[0] in _SKIPPED else found

    def _above(self, path: str) -> Iterator[str]:
        """Links among the directories above a path."""
        parts = path.split("/")
        return (above for above in ("/".join(parts[:length]) for length in range(1, len(parts))) if above in self._links)

    def directory(self, path: str) -> None:
        (self._top / path).mkdir(parents=True, exist_ok=True)

    def file(self, path: str, source: IO[bytes], *, executable: bool) -> None:
        there = self._top / path
        there.parent.mkdir(parents=True, exist_ok=True)
        there.unlink(missing_ok=True)
        with there.open("xb") as stream:
            while chunk := source.read(CHUNK):
                self._budget.spend(len(chunk))
                stream.write(chunk)
        there.chmod(0o755 if executable else 0o644)

    def copy(self, path: str, of: str) -> None:
        """A hard link of a tar's, as a file of its own."""
        source = self._top / of
        if not source.is_file() or source.is_symlink():
            raise _Outside
        with source.open("rb") as stream:
            self.file(path, stream, executable=bool(source.stat().st_mode & 0o100))

    def later(self, path: str, target: str) -> None:
        if not target or target.startswith("/") or "\0" in target or len(target) > LINK_BYTES or (self._top / path).exists():
            raise _Outside
        self._links[path] = target

    def link(self) -> None:
        """Make the links; each must end inside, whatever it goes through."""
        top = os.path.realpath(self._top)
        for path, target in self._links.items():
            there = self._top / path
            there.parent.mkdir(parents=True, exist_ok=True)
            there.symlink_to(target)
        for path in self._links:
            if not f"{os.path.realpath(self._top / path)}/".startswith(f"{top}/"):
                raise _Outside


def _from_zip(file: Path, tree: _Tree) -> None:
    if _contents_bytes(file) > DIRECTORY_BYTES:
        raise LimitHit(f"The archive has more than {ENTRIES:,} entries, which is the limit.")
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            path, mode = tree.path(entry.filename), entry.external_attr >> 16
            if path is None:
                continue
            if entry.is_dir():
                tree.directory(path)
            elif stat.S_ISLNK(mode):
                with archive.open(entry) as source:
                    tree.later(path, source.read(LINK_BYTES + 1).decode("utf-8"))
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise BuildFailed("The archive holds something that is neither a file nor a directory nor a link.")
            else:
                with archive.open(entry) as source:
                    tree.file(path, source, executable=bool(mode & 0o111))


def _contents_bytes(file: Path) -> int:
    """Bytes of a zip's table of contents, as its end says; zipfile reads no more than that of it."""
    with file.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 66_000))
        tail = stream.read()
    end = tail.rfind(b"PK\x05\x06")
    large = tail[max(0, end - 76) : end]
    if large[-20:].startswith(b"PK\x06\x07") and large.startswith(b"PK\x06\x06"):  # zip64: what the small one says does not count
        return int.from_bytes(large[40:48], "little")
    return int.from_bytes(tail[end + 12 : end + 16], "little")


class _Counted:
    """What is inflated, headers and what is left out included."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream = stream
        self._budget = Budget(limit + HEADERS, limit)

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(min(size, CHUNK) if size >= 0 else CHUNK)
        self._budget.spend(len(data))
        return data


def _from_tar(file: Path, tree: _Tree, limit: int) -> None:
    with file.open("rb") as stream, _inflated(stream) as inner, tarfile.open(fileobj=_Counted(inner, limit), mode="r|") as archive:  # type: ignore[call-overload]
        for entry in archive:
            path = tree.path(entry.name)
            if path is None:
                continue
            if entry.isdir():
                tree.directory(path)
            elif entry.issym():
                tree.later(path, entry.linkname)
            elif entry.islnk():
                tree.copy(path, tree.path(entry.linkname) or "")
            elif not entry.isreg():
                raise BuildFailed("The archive holds something that is neither a file nor a directory nor a link.")
            elif source := archive.extractfile(entry):
                tree.file(path, source, executable=bool(entry.mode & 0o111))


def _inflated(stream: IO[bytes]) -> IO[bytes]:
    head = stream.read(8)
    stream.seek(0)
    kind = next((kind for magic, kind in _MAGIC if head.startswith(magic)), "")
    opened = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}.get(kind)
    return opened(stream, "rb") if opened else stream  # type: ignore[operator]


def settle(found: Path, inside: str, target: Path) -> None:
    """Move what was unpacked or fetched to where it belongs, without a single directory around it, as repo2docker does.

    Args:
        found: Directory that is given up.
        inside: Directory within that counts, "" for all of it.
        target: Does not exist.

    Raises:
        BuildFailed: The archive has no such directory.
    """
    top = found / inside
    if inside and (top.is_symlink() or not top.is_dir()):
        raise BuildFailed("The archive does not have the directory that its host puts the files into.")
    entries = list(top.iterdir())
    if not inside and len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink():
        top = entries[0]
    top.rename(target)
    shutil.rmtree(found, ignore_errors=True)
