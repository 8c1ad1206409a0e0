"""This machine as the administrator's page shows it: room on the disks, memory, load, parts, versions, findings of `check`.

Called by the daemon, on a thread: some of it starts processes. Each part of the picture is as old as its price allows.
"""

from __future__ import annotations

import contextlib
import os
import platform
import ssl
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from binder_onprem import __version__
from binder_onprem.host import check, parts, probes
from binder_onprem.host import machine as host
from binder_onprem.host.supervision import Status, supervision

if TYPE_CHECKING:
    from collections.abc import Callable

    from binder_onprem.config import Config

PARTS_SECONDS: Final = 15.0
FINDINGS_SECONDS: Final = 120.0
DAY: Final = 86400.0


class View:
    """The picture.

    Args:
        config: Whose machine.
        clock: Monotonic seconds.
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._kept: dict[str, tuple[float, Any]] = {}

    def now(self) -> dict[str, Any]:
        """Everything, as JSON; takes a second or two where something is to be looked at anew."""
        return {
            "storage": storage(self._config),
            "memory": memory(),
            "load": [round(value, 2) for value in os.getloadavg()],
            "processors": os.cpu_count() or 1,
            "parts": self._within("parts", PARTS_SECONDS, lambda: part_states(self._config)),
            "findings": self._within("findings", FINDINGS_SECONDS, lambda: [asdict(one) for one in check.findings(self._config)]),
            "certificates": self._within("certificates", FINDINGS_SECONDS, lambda: certificates(self._config)),
            "versions": self._within("versions", DAY, versions),
        }

    def _within(self, name: str, seconds: float, look: Callable[[], Any]) -> Any:
        at, value = self._kept.get(name, (float("-inf"), None))
        if self._clock() - at >= seconds:
            value = look()
            self._kept[name] = self._clock(), value
        return value


def storage(config: Config) -> list[dict[str, Any]]:
    """Room where the site's data lies: bytes and inodes, in all and free; places on one file system share it."""
    places = {"home": config.home, "images": config.home / "storage", "registry": config.home / "registry", "logs": config.logs}
    found = []
    for name, path in places.items():
        with contextlib.suppress(OSError):
            room = os.statvfs(path)
            found.append(
                {
                    "place": name,
                    "bytes": room.f_blocks * room.f_frsize,
                    "free": room.f_bavail * room.f_frsize,
                    "inodes": room.f_files,
                    "inodes_free": room.f_favail,
                    "device": f"{os.stat(path).st_dev:x}",  # noqa: PTH116 - the kernel's number
                }
            )
    return found


def memory() -> dict[str, int]:
    """Bytes of memory: in all, and what programs can still get."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (line.split() for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        found = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 1}
        return {"bytes": found["MemTotal"], "available": found["MemAvailable"]}
    return {"bytes": 0, "available": 0}


def part_states(config: Config) -> list[dict[str, Any]]:
    """Each part: what its supervisor says, and whether it answers."""
    states = supervision(config, host.look(config.home)).states()
    rows = []
    for part in parts.parts(config):
        found = states.get(part.name, Status("stopped", 0))
        rows.append({"name": part.name, "state": found.state, "pid": found.pid, "answers": probes.answers(part)})
    return rows


def certificates(config: Config) -> list[dict[str, Any]]:
    """The site's own PEM bundle, if it has one: subject and end (Unix seconds) of those that end first."""
    file = config.network.ca_file
    if not file:
        return []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with contextlib.suppress(OSError, ssl.SSLError):
        context.load_verify_locations(cafile=str(file))
    rows: list[dict[str, Any]] = [
        {"subject": _name(one), "ends": ssl.cert_time_to_seconds(str(one["notAfter"]))} for one in context.get_ca_certs() if "notAfter" in one
    ]
    return sorted(rows, key=lambda row: row["ends"])[:20]


def _name(certificate: dict[str, Any]) -> str:
    pairs = {key: value for group in certificate.get("subject", ()) for key, value in group}
    return str(pairs.get("commonName") or pairs.get("organizationName") or "?")


def versions() -> dict[str, str]:
    """Of this software and of what it stands on."""
    facts = host.look(Path("/"))
    return {
        "binder-onprem": __version__,
        "python": platform.python_version(),
        "podman": ".".join(map(str, facts.podman)),
        "kernel": platform.release(),
        "system": _system(),
    }


def _system() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    return platform.system()
