"""What sessions use of this machine now: processor and memory, read from the kernel's control groups; no call that waits for podman's statistics.

Satisfies `interfaces.Usage`. Podman is asked once which containers there are and once for each new one where its group lies.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from binder_onprem.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from binder_onprem.interfaces import EngineContainer

SESSIONS: Final = {"io.binder-onprem.kind": "session"}
ROOT: Final = Path("/sys/fs/cgroup")
WINDOW: Final = 0.5
"""Seconds; two readings closer together tell nothing of a processor's use."""


class Looking(Protocol):
    """The engine, as far as this needs it."""

    async def labelled(self, labels: Mapping[str, str]) -> Sequence[EngineContainer]:
        """Containers with these labels. Raises `EngineUnavailable`."""
        ...

    async def inspect(self, name: str) -> Mapping[str, Any]:
        """What podman knows of the container. Raises `NotFound`, `EngineUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class Used:
    """What a session uses.

    Attributes:
        cpu: Processors, 1.5 is one and a half; None at the first look.
        memory: Bytes, without what the kernel keeps of files and would give back.
    """

    cpu: float | None
    memory: int | None


@dataclass(frozen=True, slots=True)
class _Reading:
    at: float
    seconds: float
    cpu: float | None = None


class Usage:
    """Reads it.

    Args:
        containers: Knows the sessions' containers.
        root: Where control groups are mounted.
        clock: Monotonic seconds.
    """

    def __init__(self, containers: Looking, root: Path = ROOT, clock: Callable[[], float] = time.monotonic) -> None:
        self._containers = containers
        self._root = root
        self._clock = clock
        self._groups: dict[str, str] = {}
        self._last: dict[str, _Reading] = {}
        self._one = asyncio.Lock()

    async def now(self) -> dict[str, Used]:
        """Launch → what its session uses. Raises `EngineUnavailable`."""
        async with self._one:
            found = {one.name: one.labels.get("io.binder-onprem.launch", "") for one in await self._containers.labelled(SESSIONS)}
            for gone in self._groups.keys() - found.keys():
                del self._groups[gone]
                self._last.pop(gone, None)
            for name in found.keys() - self._groups.keys():
                if group := await self._group(name):
                    self._groups[name] = group
            used = await asyncio.to_thread(lambda: {name: self._read(name, group) for name, group in self._groups.items()})
            return {found[name]: one for name, one in used.items()}

    async def _group(self, name: str) -> str:
        try:
            state = (await self._containers.inspect(name))["State"]
        except NotFound:
            return ""
        return str(state.get("CgroupPath") or "").strip("/")

    def _read(self, name: str, group: str) -> Used:
        seconds, last, at = processor_seconds(self._root, group), self._last.get(name), self._clock()
        if seconds is None:
            return Used(None, memory(self._root, group))
        if last is None:
            self._last[name] = _Reading(at, seconds)
        elif at - last.at >= WINDOW:
            last = self._last[name] = _Reading(at, seconds, round(max(0.0, seconds - last.seconds) / (at - last.at), 3))
        return Used(last.cpu if last else None, memory(self._root, group))


def processor_seconds(root: Path, group: str) -> float | None:
    """Seconds of processors that a group has used so far; None when it is gone."""
    text = _text(root / group / "cpu.stat")
    if text and (found := re.search(r"^usage_usec (\d+)", text, re.MULTILINE)):
        return int(found[1]) / 1e6
    for hierarchy in ("cpuacct", "cpu,cpuacct"):  # version 1
        text = _text(root / hierarchy / group / "cpuacct.usage")
        if text:
            return int(text) / 1e9
    return None


def memory(root: Path, group: str) -> int | None:
    """Bytes that a group uses, without what the kernel keeps of files and would give back; None when it is gone."""
    for folder, name, kept in ((root, "memory.current", "inactive_file"), (root / "memory", "memory.usage_in_bytes", "total_inactive_file")):
        text = _text(folder / group / name)
        if text:
            found = re.search(rf"^{kept} (\d+)", _text(folder / group / "memory.stat"), re.MULTILINE)
            return max(0, int(text) - (int(found[1]) if found else 0))
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
