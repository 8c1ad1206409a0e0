"""A control group around everything that one build by podman runs: limits over all its steps, a list of its processes, an end to them.

Used by `dockerbuild`. Podman's build knows no limit of processes and no way to stop a step; its parts make a control group of their own below
this one.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path
from typing import Final

from binder_onprem.engine.cgroups import Hits

ROOT: Final = Path("/sys/fs/cgroup")
PREFIX: Final = "binder-build-"
PERIOD: Final = 100_000
NEEDED: Final = ("memory.max", "pids.max")
"""Files of version 2 without which there is no limit."""


def unified() -> bool:
    """Whether this host has control groups of version 2 only."""
    return (ROOT / "cgroup.controllers").exists()


class Enclosure:
    """One build's control group.

    Args:
        site: Tells sites of one machine apart: each sweeps its own only.
        build_id: The build's.
        memory: Bytes, swap included.
        cpus: Processors.
        pids: Processes and threads.
    """

    def __init__(self, site: int, build_id: str, memory: int, cpus: float, pids: int) -> None:
        self.name = f"{PREFIX}{site}-{build_id}"
        # Builds by podman's API start their steps without --systemd-cgroup, whatever manager containers have: this is a path to the runtime. It
        # removes the group when a step ends, so each step has one of its own below that with the limits.
        self.inner = f"/{self.name}/run"
        self._notice = -1
        quota = round(cpus * PERIOD)
        if unified():
            self._files = {"memory.max": memory, "memory.swap.max": 0, "pids.max": pids, "cpu.max": f"{quota} {PERIOD}"}
        else:
            # memsw after limit: it may not be below it.
            self._files = {"memory.limit_in_bytes": memory, "memory.memsw.limit_in_bytes": memory, "pids.max": pids, "cpu.cfs_quota_us": quota}
        self._hits = Hits(self.inner)

    def make(self) -> bool:
        """Make it and set its limits; False where the host does not let us."""
        try:
            if unified():
                _hand_down()
            for directory in [ROOT / self.name] if unified() else [ROOT / name / self.name for name in ("memory", "pids", "cpu")]:
                directory.mkdir(exist_ok=True)
                for file, value in self._files.items():
                    # Without swap, or a processor's bandwidth, there is no file; without memory and pids there is no enclosure.
                    if (directory / file).exists() or (unified() and file in NEEDED):
                        (directory / file).write_text(str(value), encoding="ascii")
            if not unified():
                self._register()
        except OSError:
            self.remove()
            return False
        return True

    def look(self) -> None:
        """Read the counters; to be called while steps run."""
        self._hits.look()

    @property
    def out_of_memory(self) -> bool:
        """Whether the limit of memory killed something; to be asked before `remove`, which looks like it."""
        outer = Hits(self.name)
        outer.look()
        return self._hits.memory or outer.memory or self._noticed()

    @property
    def out_of_processes(self) -> bool:
        """Whether the limit of processes refused one."""
        outer = Hits(self.name)
        outer.look()
        return self._hits.processes or outer.processes

    def processes(self) -> list[int]:
        """Everything that runs in it now."""
        found: set[int] = set()
        for directory in self._all():
            with contextlib.suppress(OSError):
                found.update(map(int, (directory / "cgroup.procs").read_text(encoding="ascii").split()))
        return sorted(found)

    def uppers(self) -> set[Path]:
        """Where the running steps write: the upper directories of their processes' root file systems."""
        return {upper for process in self.processes() if (upper := _upper(process))}

    def kill(self) -> None:
        """End what runs in it; podman then tidies up as after a step that failed."""
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def remove(self) -> bool:
        """Remove it, in every hierarchy the engine's parts have made it in; False when something still runs, or dies, in it."""
        for directory in reversed(self._all()):
            with contextlib.suppress(OSError):
                directory.rmdir()
        if self._notice >= 0 and not self._directories():
            os.close(self._notice)
            self._notice = -1
        return not self._directories()

    def _directories(self) -> list[Path]:
        return [path for path in (ROOT / self.name, *ROOT.glob(f"*/{self.name}")) if path.is_dir()]

    def _all(self) -> list[Path]:
        """Its directories and those of steps below, outer ones first. A walk, not a glob: a step's may go while one looks."""
        return [Path(path) for outer in self._directories() for path, _, _ in os.walk(outer)]

    def _register(self) -> None:
        """Version 1 tells of a lack of memory only to who asked before: by a number in a file that outlives the step's own group."""
        group = ROOT / "memory" / self.name
        self._notice = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        control = os.open(group / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            (group / "cgroup.event_control").write_text(f"{self._notice} {control}", encoding="ascii")
        finally:
            os.close(control)

    def _noticed(self) -> bool:
        if self._notice < 0:
            return False
        try:
            return os.eventfd_read(self._notice) > 0
        except BlockingIOError:
            return False


def left(site: int) -> set[str]:
    """Ids of a site's builds that have a control group."""
    prefix = f"{PREFIX}{site}-"
    return {path.name.removeprefix(prefix) for pattern in (f"{prefix}*", f"*/{prefix}*") for path in ROOT.glob(pattern)}


def _hand_down() -> None:
    """Version 2: the root gives controllers to the groups below it only when told so, and systemd tells it of those that its units use."""
    for name in ("memory", "pids", "cpu"):
        with contextlib.suppress(OSError):
            (ROOT / "cgroup.subtree_control").write_text(f"+{name}", encoding="ascii")


def _upper(process: int) -> Path | None:
    try:
        mounts = Path(f"/proc/{process}/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if fields[4] == "/" and (found := re.search(r"[ ,]upperdir=([^, ]+)", line)):
            return Path(found[1])
    return None
