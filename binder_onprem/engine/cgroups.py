"""Which limits a container ran into, asked of its control group while that is there.

Used by `containers`. Engines learn of a kill for lack of memory by a notice that comes too late where the container's first process is the
victim, and the control group is gone with the container: so it is read from time to time, and at the very moment that the output ends.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Final

MEMORY: Final = ((Path("/sys/fs/cgroup/memory"), "memory.oom_control"), (Path("/sys/fs/cgroup"), "memory.events"))
PROCESSES: Final = ((Path("/sys/fs/cgroup/pids"), "pids.events"), (Path("/sys/fs/cgroup"), "pids.events"))
"""Control groups of version 1 and 2."""


class Hits:
    """What the kernel counted in one control group; what was seen once stays seen.

    Args:
        cgroup: Its path as podman gives it, ``/libpod_parent/libpod-…``.
    """

    def __init__(self, cgroup: str) -> None:
        self._path = cgroup.strip("/")
        self.memory = False
        self.processes = False

    def look(self) -> None:
        """Read the counts now."""
        self.memory = self.memory or self._counted(MEMORY, r"^oom_kill [1-9]")
        self.processes = self.processes or self._counted(PROCESSES, r"^max [1-9]")

    async def watch(self) -> None:
        """Look five times a second until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(0.2)

    def _counted(self, files: tuple[tuple[Path, str], ...], pattern: str) -> bool:
        for mount, name in files if self._path else ():
            try:
                counts = (mount / self._path / name).read_text(encoding="ascii")
            except OSError:
                continue
            if re.search(pattern, counts, re.MULTILINE):
                return True
        return False
