"""Layers of our own making: a container's changes or a repository's files as one compressed tar, produced while it is being pushed.

Called by `builder`. The tree is read in a thread and never lies on disk a second time; digests of the plain and the compressed form come out
of the same pass. Ids are mapped back through the container's user namespace; devices, sockets and extended attributes stay behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import zstandard

from binder_onprem.building.blobs import Blob
from binder_onprem.building.disk import too_much
from binder_onprem.building.overlay import OPAQUE, WHITEOUT, Entry, walk
from binder_onprem.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

MEDIA_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
LEVEL: Final = 1
CHUNK: Final = 1024 * 1024
OVERFLOW_ID: Final = 65534
HOME: Final = "home/jovyan"
JOVYAN: Final = 1000
INJECTED: Final = (
    "binder",
    "binder-gate",
    "binder-forward.py",
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "var/tmp",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/mtab",
)
"""What the engine or we put there, and what nobody misses: never part of a layer."""


@dataclass(frozen=True, slots=True)
class Ids:
    """A user namespace: (first id inside, first id outside, count) each; empty means the same inside and outside."""

    users: tuple[tuple[int, int, int], ...] = ()
    groups: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def of(cls, details: dict[str, Any]) -> Ids:
        """From podman's description of a container."""
        maps = details.get("HostConfig", {}).get("IDMappings") or {}
        return cls(_ranges(maps.get("UidMap")), _ranges(maps.get("GidMap")))

    def inside(self, status: os.stat_result) -> tuple[int, int]:
        """Owner and group as the container saw them."""
        return _back(status.st_uid, self.users), _back(status.st_gid, self.groups)


@dataclass(slots=True)
class Layer:
    """A layer that can be streamed, more than once if a push has to be repeated.

    Args:
        write: Adds the entries to a tar; runs in a thread.
        limit: Bytes of the plain tar at the most.
    """

    write: Callable[[tarfile.TarFile], None]
    limit: int
    size: int = field(default=0, init=False)
    digest: str = field(default="", init=False)
    diff_id: str = field(default="", init=False)

    @property
    def blob(self) -> Blob:
        """What it is called in a manifest; after streaming."""
        return Blob(self.digest, self.size, MEDIA_TYPE, self.diff_id)

    async def stream(self) -> AsyncIterator[bytes]:
        """The compressed bytes. Leaving early ends the thread by its broken pipe.

        Raises:
            LimitHit: Larger than allowed.
        """
        async for chunk in piped(self._produce):
            yield chunk

    def _produce(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "wb", CHUNK) as pipe:
            sink = _Sink(pipe, self.limit)
            with tarfile.open(fileobj=cast("BinaryIO", sink), mode="w|", format=tarfile.GNU_FORMAT, bufsize=CHUNK) as tar:
                tar.copybufsize = CHUNK  # type: ignore[attr-defined]  # a public parameter of its constructor
                self.write(tar)
            sink.close()
            self.size, self.digest, self.diff_id = sink.size, f"sha256:{sink.packed.hexdigest()}", f"sha256:{sink.plain.hexdigest()}"


async def piped(produce: Callable[[int], None]) -> AsyncIterator[bytes]:
    """What `produce` writes to the descriptor it is given (and closes), in a thread that never runs ahead by more than a pipe holds."""
    reading, writing = os.pipe()
    producer = asyncio.create_task(asyncio.to_thread(produce, writing))
    reader = asyncio.StreamReader(CHUNK)
    try:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", 0))
        try:
            while chunk := await reader.read(CHUNK):
                yield chunk
        finally:
            transport.close()
    finally:
        # The thread notices the closed pipe at its next write; the file it reads is on a local disk.
        await asyncio.wait([producer])
        failure = producer.exception()
    if failure:
        raise failure


class _Sink:
    """Hashes, compresses, hashes, passes on."""

    def __init__(self, pipe: BinaryIO, limit: int) -> None:
        self._pipe = pipe
        self._limit = limit
        self._compressor = zstandard.ZstdCompressor(LEVEL).compressobj()
        self.plain = hashlib.sha256()
        self.packed = hashlib.sha256()
        self.size = 0
        self._written = 0

    def write(self, data: bytes) -> int:
        self._written += len(data)
        if self._written > self._limit:
            raise too_much(self._limit)
        self.plain.update(data)
        self._pass(self._compressor.compress(data))
        return len(data)

    def close(self) -> None:
        self._pass(self._compressor.flush())

    def _pass(self, data: bytes) -> None:
        self.packed.update(data)
        self.size += len(data)
        self._pipe.write(data)


def changes(upper: Path, ids: Ids, *, setuid: bool, limit: int) -> Layer:
    """The layer that a stopped container's changes make.

    Args:
        upper: Upper directory of its overlay.
        ids: Its user namespace.
        setuid: Keep the set-user-id and set-group-id bits; for steps that install the distribution's packages.
        limit: Bytes at the most.
    """

    def write(tar: tarfile.TarFile) -> None:
        links: dict[int, str] = {}
        for entry in walk(upper):
            if _left_out(entry.path):
                continue
            for member in _members(entry, links):
                member.uid, member.gid = ids.inside(entry.status)
                member.mode = stat.S_IMODE(entry.status.st_mode) & (0o7777 if setuid else 0o1777)
                _add(tar, member, entry)

    return Layer(write, limit)


def content(source: Path, limit: int) -> Layer:
    """The layer that a repository's files make in the home directory, without any container.

    Args:
        source: Directory with the files.
        limit: Bytes at the most.
    """

    def write(tar: tarfile.TarFile) -> None:
        links: dict[int, str] = {}
        # Unpacking makes a directory that a layer does not name root's own, even over one that is there below.
        for path, owner in (("home", 0), (HOME, JOVYAN)):
            tar.addfile(_directory(path, owner))
        for entry in walk(source):
            for member in _members(entry, links, f"{HOME}/"):
                member.uid = member.gid = JOVYAN
                member.mode = _sane(entry.status.st_mode)
                _add(tar, member, entry)

    return Layer(write, limit)


def context(source: Path) -> Callable[[int], None]:
    """What writes a build context's plain tar to a descriptor, for `piped`: files as they are, links as links, no special bits."""

    def produce(descriptor: int) -> None:
        with os.fdopen(descriptor, "wb", CHUNK) as pipe, tarfile.open(fileobj=pipe, mode="w|", format=tarfile.GNU_FORMAT, bufsize=CHUNK) as tar:
            links: dict[int, str] = {}
            for entry in walk(source):
                for member in _members(entry, links):
                    member.mode = stat.S_IMODE(entry.status.st_mode) & 0o777
                    _add(tar, member, entry)

    return produce


def _members(entry: Entry, links: dict[int, str], prefix: str = "") -> Iterable[tarfile.TarInfo]:
    """The tar headers that say this entry; none for what a layer must not hold."""
    parent = prefix + entry.path[: -len(entry.name)]
    if entry.whiteout:
        yield _member(parent + WHITEOUT + entry.name, entry, tarfile.REGTYPE)
    elif entry.name.startswith(WHITEOUT):
        return  # would be taken for a whiteout when the layer is unpacked
    elif stat.S_ISDIR(entry.status.st_mode):
        yield _member(prefix + entry.path, entry, tarfile.DIRTYPE)
        if entry.opaque:
            yield _member(f"{prefix}{entry.path}/{OPAQUE}", entry, tarfile.REGTYPE)
    elif stat.S_ISLNK(entry.status.st_mode):
        yield _member(prefix + entry.path, entry, tarfile.SYMTYPE, entry.link())
    elif stat.S_ISREG(entry.status.st_mode):
        first = links.setdefault(entry.status.st_ino, prefix + entry.path) if entry.status.st_nlink > 1 else ""
        if first and first != prefix + entry.path:
            yield _member(prefix + entry.path, entry, tarfile.LNKTYPE, first)
        else:
            member = _member(prefix + entry.path, entry, tarfile.REGTYPE)
            member.size = entry.status.st_size
            yield member


def _member(name: str, entry: Entry, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    member.mtime = max(0, int(entry.status.st_mtime))
    return member


def _directory(path: str, owner: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, 0o755, owner, owner
    return member


def _add(tar: tarfile.TarFile, member: tarfile.TarInfo, entry: Entry) -> None:
    tar.members.clear()  # type: ignore[attr-defined]  # it would remember every one
    if not member.size:
        tar.addfile(member)
        return
    try:
        with entry.opened() as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
            tar.addfile(member, file)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BuildFailed("A file that the build wrote cannot be read back. See the log, then try again.") from error


def _left_out(path: str) -> bool:
    return any(path == name or path.startswith(name + "/") for name in INJECTED)


def _sane(mode: int) -> int:
    """Everybody may read what is in a repository, its owner may write; executable stays executable; no special bits."""
    return 0o755 if stat.S_ISDIR(mode) or mode & 0o111 else 0o644


def _ranges(lines: list[str] | None) -> tuple[tuple[int, int, int], ...]:
    found = (line.split(":") for line in lines or ())
    return tuple((int(inside), int(outside), int(count)) for inside, outside, count in found)


def _back(outside: int, ranges: tuple[tuple[int, int, int], ...]) -> int:
    if not ranges:
        return outside
    return next((first + outside - start for first, start, count in ranges if start <= outside < start + count), OVERFLOW_ID)
