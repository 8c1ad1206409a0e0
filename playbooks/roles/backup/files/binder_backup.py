#!/usr/bin/python3
"""One host's part of a backup: an encrypted archive of what cannot be made anew, and its way back.

``make SETTINGS`` writes one, ``verify ARCHIVE`` and ``restore ARCHIVE SETTINGS`` read one; those two take age's key from standard input.
Of the distribution it needs Python and age alone, so that a bare host can restore.
"""

from __future__ import annotations

import grp
import gzip
import hashlib
import io
import json
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MANIFEST = "manifest.json"
PIECE = 1 << 20
WHOLE = 64 * PIECE
"""Bytes up to which a file is read at once: what grows or is cut meanwhile is in the archive as it was at one moment."""
LEFT = ("-wal", "-shm", "-journal")
"""Beside a database of SQLite: its copy is made by SQLite itself, and these belong to another state."""


class Damaged(Exception):
    """What was read is no whole archive of ours."""


def skipped(path: Path) -> bool:
    """Whether a file is of no use after a restore: half done, mounted, or SQLite's own."""
    return path.name.endswith((*LEFT, ".new", ".gone", ".lock")) or path.name in ("_uploads", "mounted")


def found(root: Path) -> Iterator[Path]:
    """Directories and regular files below a path, itself first. A registry's links come before its blobs.

    A push writes blobs before the links to them, so what a link that is seen needs is there when blobs are read later.
    """
    if not root.exists() or root.is_symlink() or skipped(root):
        return
    yield root
    if root.is_dir():
        for path in sorted(root.iterdir(), key=lambda path: (path.name == "blobs", path.name)):
            if not path.is_symlink() and (path.is_dir() or path.is_file()):
                yield from found(path)


def copied(database: Path, copy: Path) -> None:
    """A copy of a database that is being written, by SQLite's own way."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as old, closing(sqlite3.connect(copy)) as new:
        old.backup(new)
        new.execute("PRAGMA journal_mode=DELETE")


class Hashed:
    """A file that is read once, with its checksum."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        data = self.file.read(size)
        self.digest.update(data)
        return data


def add(archive: tarfile.TarFile, path: Path, content: Path) -> str | None:
    """Add one file with the owner and rights of `path` and the bytes of `content`; its checksum, None for a directory or one that has gone."""
    try:
        about = archive.gettarinfo(str(path), arcname=str(path).lstrip("/"))
        file = None if about.isdir() else content.open("rb")
    except FileNotFoundError:
        return None
    if file is None:
        archive.addfile(about)
        return None
    with file:
        about.size = os.fstat(file.fileno()).st_size
        about.type, about.linkname = tarfile.REGTYPE, ""
        source = Hashed(file)
        if about.size <= WHOLE:
            data = file.read(WHOLE)
            about.size = len(data)
            source = Hashed(io.BytesIO(data))
        archive.addfile(about, source)
    return source.digest.hexdigest()


def is_database(path: Path) -> bool:
    """Whether this is one of SQLite."""
    with path.open("rb") as file:
        return path.is_file() and file.read(16) == b"SQLite format 3\0"


def filled(archive: tarfile.TarFile, roots: list[Path], staging: Path) -> dict[str, str]:
    """Put everything into the archive; checksums by path."""
    sums: dict[str, str] = {}
    for path in (path for root in roots for path in found(root)):
        content = path
        if path.suffix in (".sqlite", ".db") and path.is_file() and is_database(path):
            content = staging / "copy"
            content.unlink(missing_ok=True)
            copied(path, content)
        if digest := add(archive, path, content):
            sums[str(path)] = digest
    return sums


@contextmanager
def encrypted(recipient: str, place: Path) -> Iterator[IO[bytes]]:
    """What is written goes to a new file, encrypted to a public key of age."""
    command = ("age", "--encrypt", "--recipient", recipient)
    with place.open("xb") as file, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file) as age:
        yield cast("IO[bytes]", age.stdin)
        cast("IO[bytes]", age.stdin).close()
        if age.wait():
            raise OSError("age could not encrypt the archive.")
        os.fsync(file.fileno())


def digest_of(path: Path) -> str:
    """The checksum of a file as it is on the disk."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def written(recipient: str, host: str, roots: list[Path], place: Path) -> None:
    """Write the archive; it is there under its name as a whole or not at all."""
    new = place.with_name(place.name + ".new")
    new.unlink(missing_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=place.parent, prefix=".staging-") as staging,
        encrypted(recipient, new) as out,
        gzip.open(out, "wb", compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        sums = filled(archive, roots, Path(staging))
        about = tarfile.TarInfo(MANIFEST)
        text = json.dumps({"host": host, "made": int(time.time()), "files": sums}).encode()
        about.size = len(text)
        archive.addfile(about, io.BytesIO(text))
    digest = digest_of(new)
    place.with_name(place.name + ".sha256").write_text(f"{digest}  {place.name}\n", encoding="ascii")
    new.replace(place)


def kept(names: list[str], keep: int) -> tuple[list[str], list[str]]:
    """Of archives' names, which have their time in them: those that stay, those that go."""
    names = sorted(names)
    return names[-keep:], names[:-keep]


def pruned(place: Path, host: str, keep: int) -> None:
    """Remove a host's oldest archives, and what an interrupted run has left."""
    _, gone = kept([path.name for path in place.glob(f"{host}.*.age")], keep)
    for name in gone:
        (place / name).unlink()
        (place / f"{name}.sha256").unlink(missing_ok=True)
    for path in place.glob(".staging-*"):
        shutil.rmtree(path)


def own(path: Path) -> bool:
    """Whether it is on the disk that this host itself lies on, as a directory is that nothing has been mounted on."""
    return path.stat().st_dev == Path("/").stat().st_dev


def sent(archive: Path, target: Path) -> None:
    """Copy it to a directory that is mounted from elsewhere, under another name until it is whole there."""
    if not target.is_dir():
        raise OSError(f"{target} is no directory. Mount the backups' place there, and make it.")
    if own(target):
        raise OSError(f"{target} is on this host's own disk, with which it would be lost. Mount the backups' place there.")
    new = target / f"{archive.name}.new"
    shutil.copyfile(archive, new)
    if digest_of(new) != archive.with_name(archive.name + ".sha256").read_text(encoding="ascii").split()[0]:
        raise OSError(f"What was written to {target} is not what was read back from it. Look after that disk.")
    shutil.copyfile(archive.with_name(archive.name + ".sha256"), target / f"{archive.name}.sha256")
    new.replace(target / archive.name)


def collecting() -> bool:
    """Whether the registry deletes blobs just now."""
    unit = ("systemctl", "is-active", "--quiet", "binder-registry-collect.service")
    return subprocess.run(unit, check=False).returncode == 0


def snapshot(etcd: Path, folder: Path) -> None:
    """A snapshot of etcd where k3s has that."""
    if etcd.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        subprocess.run(("/usr/local/bin/k3s", "etcd-snapshot", "save", "--name", "binder", "--dir", str(folder)), check=True, stdout=sys.stderr)


@contextmanager
def dumped(cluster: str, name: str, folder: Path) -> Iterator[None]:
    """While this lasts, a directory has a consistent copy of the Binder's PostgreSQL, made while it is written, where this host has that."""
    shutil.rmtree(folder, ignore_errors=True)
    if not cluster:
        yield
        return
    folder.mkdir(mode=0o700)
    versions = sorted((path.parts[3] for path in Path("/etc/postgresql").glob(f"*/{cluster}")), key=float)
    if not versions:
        raise OSError(f"There is no cluster {cluster} of PostgreSQL. Run site.")
    command = ("runuser", "-u", "postgres", "--", "pg_dump", f"--cluster={versions[-1]}/{cluster}", "--format=custom", name)
    try:
        with (folder / "binder.dump").open("xb") as file:
            subprocess.run(command, check=True, stdout=file, cwd="/")
        yield
    finally:
        shutil.rmtree(folder)


def make(settings: dict[str, Any]) -> None:
    """Write an archive, send it, remove old ones; prints its path."""
    place = Path(settings["place"])
    if collecting():
        raise OSError("The registry collects deleted images just now. Wait until binder-registry-collect.service is done, and begin again.")
    pruned(place, settings["host"], settings["keep"] + 1)
    snapshot(Path(settings["etcd"]), place / "etcd")
    archive = place / f"{settings['host']}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.age"
    with dumped(settings["cluster"], settings["database"], place / "database"):
        written(settings["recipient"], settings["host"], [Path(root) for root in settings["roots"]], archive)
    shutil.chown(archive, settings["reader"])
    if settings["target"]:
        sent(archive, Path(settings["target"]))
        pruned(Path(settings["target"]), settings["host"], settings["keep"])
    pruned(place, settings["host"], settings["keep"])
    tell(Path(settings["metrics"]))
    sys.stdout.write(f"{archive}\n")


def tell(file: Path) -> None:
    """Have Prometheus know when it was, by the node exporter's textfile collector, where there is one."""
    if file.parent.is_dir():
        new = file.with_suffix(".new")
        new.write_text(f"binder_backup_last_success_timestamp_seconds {time.time():.0f}\n", encoding="ascii")
        new.chmod(0o644)
        new.replace(file)


def each(place: Path, key: bytes, seen: Callable[[tarfile.TarInfo, IO[bytes] | None], None]) -> None:
    """Decrypt an archive and show each member.

    Raises:
        Damaged: It is not whole, or the key is another one's.
    """
    broken, command = "", ("age", "--decrypt", "--identity", "-", str(place))
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said) as age:
        given, out = cast("IO[bytes]", age.stdin), cast("IO[bytes]", age.stdout)
        given.write(key)
        given.close()
        try:
            with gzip.open(out) as packed, tarfile.open(fileobj=packed, mode="r|") as archive:
                for member in archive:
                    seen(member, archive.extractfile(member) if member.isfile() else None)
                while packed.read(PIECE):
                    pass
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            broken = str(error)
        out.close()
        code = age.wait()
        said.seek(0)
        words = said.read().decode(errors="replace")
    if "no identity matched" in words:
        raise Damaged(
            f"The key does not open {place}: it was made for another one. Nothing was changed. Give the secrets directory of the site it is of."
        )
    if code or broken:
        raise Damaged(f"{place} is damaged, nothing was changed. Take an older archive, or another copy of it.")


def verified(place: Path, key: bytes) -> dict[str, Any]:
    """Read all of an archive; its manifest.

    Raises:
        Damaged: Something is missing, changed, or more than was put in.
    """
    sums: dict[str, str] = {}
    manifests: list[dict[str, Any]] = []

    def seen(member: tarfile.TarInfo, file: IO[bytes] | None) -> None:
        if file and member.name == MANIFEST:
            manifests.append(json.load(file))
        elif file:
            sums["/" + member.name] = hashlib.file_digest(file, "sha256").hexdigest()

    each(place, key, seen)
    if len(manifests) != 1 or manifests[0]["files"] != sums:
        raise Damaged(
            f"{place} is damaged, nothing was changed: its contents are not those of its list. Take an older archive, or another copy of it."
        )
    return manifests[0]


def allowed(name: str, roots: list[str]) -> bool:
    """Whether a member's name is one below what a backup takes."""
    path = Path("/") / name
    return ".." not in path.parts and any(path == Path(root) or Path(root) in path.parents for root in roots)


def owned(member: tarfile.TarInfo, kind: str, known: Callable[[str], int]) -> int:
    """The number of a member's owner or group on this host: by its name where that is known here."""
    try:
        return known(getattr(member, f"{kind}name"))
    except KeyError:
        return int(getattr(member, f"{kind}id"))


def put(member: tarfile.TarInfo, file: IO[bytes] | None) -> None:
    """Write one member to its place, with its owner and rights."""
    path = Path("/") / member.name
    if file is None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = path
    else:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = path.with_name(path.name + ".restored")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            while piece := file.read(PIECE):
                # Zeros become holes: volumes of projects are mostly such.
                out.seek(len(piece), os.SEEK_CUR) if not any(piece) else out.write(piece)
            out.truncate(member.size)
        for end in LEFT:
            path.with_name(path.name + end).unlink(missing_ok=True)
    os.chown(new, owned(member, "u", lambda name: pwd.getpwnam(name).pw_uid), owned(member, "g", lambda name: grp.getgrnam(name).gr_gid))
    new.chmod(member.mode)
    if file is not None:
        new.replace(path)


def restore(place: Path, key: bytes, settings: dict[str, Any]) -> None:
    """Check all of an archive, then write everything to its place."""
    verified(place, key)

    def seen(member: tarfile.TarInfo, file: IO[bytes] | None) -> None:
        if member.name == MANIFEST:
            return
        if not allowed(member.name, settings["roots"]):
            raise Damaged(f"{place} has /{member.name}, which no backup of this host takes.")
        put(member, file)

    each(place, key, seen)


def main() -> None:
    """Do what the command line says; a sentence and code 1 where it cannot be done."""
    os.umask(0o077)
    try:
        if sys.argv[1] == "make":
            make(json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
        elif sys.argv[1] == "verify":
            verified(Path(sys.argv[2]), sys.stdin.buffer.read())
        else:
            restore(Path(sys.argv[2]), sys.stdin.buffer.read(), json.loads(Path(sys.argv[3]).read_text(encoding="utf-8")))
    except (Damaged, OSError, sqlite3.Error, subprocess.CalledProcessError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
