"""Whether this machine can keep people's projects: loop devices, ids of their own, and room for what is promised. `check` tells it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from binder_onprem.host.finding import Finding
from binder_onprem.project import FIRST_ID, SLOTS, first_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from binder_onprem.config import Config

LOOP: Final = Path("/dev/loop-control")
SUBIDS: Final = (Path("/etc/subuid"), Path("/etc/subgid"))
BLOCK: Final = 512
"""Bytes of what `st_blocks` counts."""
MIB: Final = 1024**2


def findings(config: Config, free: int, loop: Path = LOOP, subids: Iterable[Path] = SUBIDS) -> Iterator[Finding]:
    """Look at the settings `projects`.

    Args:
        config: The site.
        free: Bytes that are free where `home` is.
        loop: What gives out loop devices.
        subids: Say who has which ids for user namespaces of his own.
    """
    if not config.projects.enabled:
        return
    if not loop.exists():
        fix = "modprobe loop; in a container, give it the host's loop devices. Or set projects.enabled: false."
        yield Finding("fail", "projects", "this machine has no loop devices, which projects are mounted by", fix)
        return
    for who in sorted({who for file in subids for who in _sharing(file)}):
        text = f"{who} has ids in /etc/subuid or /etc/subgid that those of projects are among ({FIRST_ID} to {first_id(SLOTS) - 1})"
        yield Finding("warn", "projects", text, f"Give {who} others: whoever has the same ids can stop and look into sessions of projects.")
    taken, most = _taken(config.project_volumes), int(config.projects.total)
    if most > free + taken:
        text = f"projects.total promises {most // MIB} MiB, and {(free + taken) // MIB} MiB are there for them"
        yield Finding("warn", "projects", text, "Lower projects.total, or give home more room: where the disk is full, projects become read-only.")
        return
    yield Finding("ok", "projects", f"they take {taken // MIB} MiB of at most {most // MIB} MiB")


def _sharing(file: Path) -> Iterator[str]:
    """Who has some of the projects' ids."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for who, start, count in (line.split(":") for line in lines if line.count(":") == 2):  # noqa: PLR2004 - name:start:count
        if start.isdecimal() and count.isdecimal() and int(start) < first_id(SLOTS) and int(start) + int(count) > FIRST_ID:
            yield who


def _taken(folder: Path) -> int:
    """Bytes on the disk of all volumes; 0 for who may not look."""
    try:
        return sum(file.stat().st_blocks * BLOCK for file in folder.glob("*/volume.img"))
    except OSError:
        return 0
