"""Files that settings name: a part that needs one and has none stops at its start. Asked by `check`, before that."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel

from binder_onprem.errors import ConfigError
from binder_onprem.host.finding import Finding
from binder_onprem.webhooks import secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binder_onprem.config import Config

SUFFIX: Final = "_file"
PUBLIC: Final = ("ca_file", "known_hosts_file")
"""Whoever reads these learns no secret."""


def findings(config: Config) -> Iterator[Finding]:
    """One finding for each fault; one in all if there is none; none where no setting names a file."""
    files = list(named(config))
    faults = [fault for setting, file in files if (fault := _fault(setting, file))]
    known = {fault.subject for fault in faults}
    shared = {f"events.webhooks.{name}.secret_file": hook.secret_file for name, hook in config.events.webhooks.items()}
    shared |= {f"hooks.{name}.secret_file": hook.secret_file for name, hook in config.hooks.items()}
    faults += [fault for setting, file in shared.items() if setting not in known and (fault := _short(setting, file))]
    yield from faults
    if files and not faults:
        yield Finding("ok", "files of settings", f"{len(files)} are there")


def named(value: object, setting: str = "") -> Iterator[tuple[str, Path]]:
    """Settings that name a file, dotted, with what they name."""
    match value:
        case BaseModel():
            inner = [(name, getattr(value, name)) for name in type(value).model_fields]
        case dict():
            inner = list(value.items())
        case tuple() | list():
            inner = [(str(number), entry) for number, entry in enumerate(value)]
        case Path() if setting.endswith(SUFFIX):
            yield setting, value
            return
        case _:
            return
    for name, entry in inner:
        yield from named(entry, f"{setting}.{name}" if setting else str(name))


def _fault(setting: str, file: Path) -> Finding | None:
    try:
        found = file.stat()
    except PermissionError:
        return Finding("warn", setting, f"only root can see {file}", "Run it with sudo.")
    except OSError:
        return Finding("fail", setting, f"{file} is missing", "Write it, or take the setting away.")
    if not stat.S_ISREG(found.st_mode):
        return Finding("fail", setting, f"{file} is not a file", "Name the file itself.")
    if not found.st_size:
        return Finding("fail", setting, f"{file} is empty", "Write it, or take the setting away.")
    if not setting.endswith(PUBLIC) and found.st_mode & stat.S_IROTH:
        return Finding("warn", setting, f"everybody on this machine can read {file}", f"chmod o-rwx {file}")
    return None


def _short(setting: str, file: Path) -> Finding | None:
    """What the daemon would say of a shared secret."""
    try:
        secret(file, setting)
    except ConfigError as error:
        return Finding("fail", setting, error.message.removeprefix(f"{setting}: "), "openssl rand -hex 32 makes one; the other side needs the same.")
    return None
