"""What is installed in an image whose files lie below a directory: Python distributions, Debian, conda and R packages; printed as lines of JSON.

Started in a sandbox as ``python -m binder_onprem.sandbox.inventory DIRECTORY`` with the image's files mounted read-only. Runs nothing of the image,
follows no link. The files are hostile: what is read is bounded in size and number, and who reads these lines (`building.supply`) believes nothing.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_BYTES: Final = 256 * 1024
STATUS_BYTES: Final = 16 * 1024**2
PARTS: Final = 8000
DEPTH: Final = 40
SKIPPED: Final = frozenset({"__pycache__", "node_modules", ".git", "pkgs", "include", "share", "man", "doc", "locale"})
SKIPPED_PATHS: Final = frozenset({"proc", "sys", "dev", "run", "tmp", "boot", "var/cache", "var/log", "var/tmp"})


def main(words: list[str]) -> int:
    """Print one line for each part, ``{"type", "name", "version"}`` and perhaps ``arch``; the first tells the distribution."""
    top = words[0].rstrip("/")
    _say({"type": "os", **_release(top)})
    for number, part in enumerate(parts(top)):
        if number >= PARTS:
            break
        _say(part)
    sys.stdout.flush()
    return 0


def _say(part: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(part) + "\n")


def parts(top: str) -> Iterator[dict[str, str]]:
    """Everything that is found below `top`."""
    yield from _debian(f"{top}/var/lib/dpkg/status")
    waiting = [(top, 0)]
    while waiting:
        folder, depth = waiting.pop()
        name = folder.rsplit("/", 1)[-1]
        if name in ("site-packages", "dist-packages"):
            yield from _python(folder)
        elif name == "conda-meta":
            yield from _conda(folder)
        elif found := _r(folder):
            yield found
        elif depth < DEPTH:
            waiting += [(path, depth + 1) for path in sorted(_folders(folder)) if path[len(top) + 1 :] not in SKIPPED_PATHS]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


def _folders(folder: str) -> list[str]:
    return [entry.path for entry in _entries(folder) if entry.is_dir(follow_symlinks=False) and entry.name not in SKIPPED]


def _read(path: str, limit: int = FILE_BYTES) -> str:
    """The beginning of a regular file, "" for anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return ""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(limit).decode("utf-8", "replace")


def _fields(text: str) -> dict[str, str]:
    """The headers of a stanza, in lower case, without their continuations."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        if not line.strip():
            break
        key, colon, value = line.partition(":")
        if colon and not key[:1].isspace():
            found.setdefault(key.lower(), value.strip())
    return found


def _debian(status: str) -> Iterator[dict[str, str]]:
    for stanza in _read(status, STATUS_BYTES).split("\n\n"):
        fields = _fields(stanza)
        if fields.get("status", "").endswith(" installed") and "package" in fields:
            yield {"type": "deb", "name": fields["package"], "version": fields.get("version", ""), "arch": fields.get("architecture", "")}


def _python(folder: str) -> Iterator[dict[str, str]]:
    for entry in sorted(_entries(folder), key=lambda entry: entry.name):
        kind = entry.name.rpartition(".")[2]
        inner = {"dist-info": "METADATA", "egg-info": "PKG-INFO"}.get(kind)
        if inner is None:
            continue
        fields = _fields(_read(f"{entry.path}/{inner}" if entry.is_dir(follow_symlinks=False) else entry.path))
        if "name" in fields:
            yield {"type": "pypi", "name": fields["name"], "version": fields.get("version", "")}


def _conda(folder: str) -> Iterator[dict[str, str]]:
    for entry in sorted(_entries(folder), key=lambda entry: entry.name):
        if entry.name.endswith(".json"):
            # The name of the file is name-version-build; what it says at length may be large.
            name, version, _build = (["", "", *entry.name[: -len(".json")].rsplit("-", 2)])[-3:]
            if name:
                yield {"type": "conda", "name": name, "version": version}


def _r(folder: str) -> dict[str, str] | None:
    """An installed R package. Libraries are called as their installers like (`site-library`, `rlibs`, `4.2`); `Built` tells it from its source."""
    fields = _fields(_read(f"{folder}/DESCRIPTION"))
    if not fields.keys() >= {"package", "built"}:
        return None
    return {"type": "cran", "name": fields["package"], "version": fields.get("version", "")}


def _release(top: str) -> dict[str, str]:
    lines = (_read(f"{top}/etc/os-release") or _read(f"{top}/usr/lib/os-release")).split("\n")
    said: dict[str, Any] = {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines)}
    return {"name": said.get("ID", ""), "version": said.get("VERSION_ID", "")}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
