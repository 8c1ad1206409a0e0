"""Whether this machine has what a profile or a data set names, and sessions can read it: looked up when a session starts, and by `check`.

Sessions run as nobody of this machine: podman 4.3 passes `idmap` on a mount on, but runc 1.1 ignores it, so what is read must be readable by
others. Directories above need not be traversable for runc, which opens the source before it enters the user namespace.
"""

from __future__ import annotations

import json
import os
import stat
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from binder_onprem.config.choice import Data, Profile

CDI_FOLDERS: Final = (Path("/etc/cdi"), Path("/var/run/cdi"))
CDI_BYTES: Final = 4 * 1024**2
DIRECTORY: Final = stat.S_IROTH | stat.S_IXOTH
ACL: Final = "system.posix_acl_access"
NOT_THERE: Final = "The data that this link asks for is not there now. Ask the administrator."
ENTRIES: Final = 2000
"""Entries of a data set that `check` looks at."""


def missing(profile: Profile, data: Iterable[Data]) -> str | None:
    """A sentence for people about the first thing that is not there or of no use, None when all is."""
    for name in profile.devices:
        if not _device(name):
            return f"This profile needs the device {name}, which this machine does not have now. Choose another one, or ask the administrator."
    for one in data:
        if not one.path.is_dir():
            return NOT_THERE
        if _closed(one.path):
            return "Sessions may not read the data that this link asks for. Ask the administrator, who finds what to do by `binder-onprem check`."
    return None


def unreadable(data: Data, *, parents: bool) -> str | None:
    """What stands against sessions reading a directory and all below it, None for nothing.

    Args:
        data: Which.
        parents: Whether the directories above must be traversable, as for other runtimes than runc.
    """
    try:
        if not data.path.is_dir():
            return "no directory" if data.path.exists() else "not there"
    except OSError as error:
        return error.strerror or "not there"
    if _closed(data.path):
        return f"not readable by others (chmod -R o+rX {data.path})"
    if parents and (above := next((path for path in data.path.resolve().parents if not path.stat().st_mode & stat.S_IXOTH), None)):
        return f"{above} is not traversable by others (chmod o+x {above})"
    inside = next((path for path in islice(_below(data.path), ENTRIES) if _closed(path)), None)
    return f"{inside.relative_to(data.path)} in it is not readable by others (chmod -R o+rX {data.path})" if inside else None


def _below(folder: Path) -> Iterator[Path]:
    """What is in a directory, no link followed; of those that cannot be read nothing."""
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *files))


def _closed(path: Path) -> bool:
    """Whether others may not read it, as far as its mode tells; an access list may say otherwise, and is believed."""
    try:
        mode = path.lstat().st_mode
        wanted = DIRECTORY if stat.S_ISDIR(mode) else stat.S_IROTH
        return not stat.S_ISLNK(mode) and mode & wanted != wanted and ACL not in os.listxattr(path, follow_symlinks=False)
    except FileNotFoundError:
        return False  # removed meanwhile
    except OSError:
        return True


def _device(name: str) -> bool:
    if name.startswith("/"):
        return Path(name).exists()
    kind, _, wanted = name.partition("=")
    files = next((devices[wanted] for found, devices in _described() if found == kind and wanted in devices), None)
    return files is not None and all(Path(file).exists() for file in files)


def _described() -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Kinds of CDI devices, their names and the device files that a container of each gets, as the host's description files say."""
    for folder in CDI_FOLDERS:
        for file in sorted(folder.glob("*.json")) + sorted(folder.glob("*.yaml")):
            try:
                text = file.read_bytes()[:CDI_BYTES]
                data: Any = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
                common = _files(data)
                yield str(data["kind"]), {str(device["name"]): common + _files(device) for device in data["devices"]}
            except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
                continue


def _files(described: Any) -> list[str]:
    """Of `containerEdits`. In a user namespace a device file is the host's own of the same path, so `hostPath` has no say."""
    edits = described.get("containerEdits") or {}
    return [str(node["path"]) for node in edits.get("deviceNodes") or ()]
