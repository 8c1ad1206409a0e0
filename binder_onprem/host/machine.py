"""What this machine can do, as one frozen value. Looked at by `up`, `check` and what they configure; never changes anything.

Choices follow from facts: the OCI runtime from the kind of control groups, limits from the hard limits, the supervisor from what PID 1 is.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from binder_onprem.host import clients

if TYPE_CHECKING:
    from binder_onprem.config import Config

Cgroups = Literal["v2", "hybrid", "v1"]
TOOLS: Final = (
    "podman",
    "conmon",
    "iptables",
    "nft",
    "ip",
    "newuidmap",
    "docker-registry",
    "git",
    "mmdebstrap",
    "node",
    "mkfs.ext4",
    "mount",
    "setpriv",
)
"""Programs that are started; each is in the distribution package that `PACKAGES` names, or of its own name."""
PACKAGES: Final = {"nft": "nftables", "ip": "iproute2", "newuidmap": "uidmap", "node": "nodejs", "mkfs.ext4": "e2fsprogs", "setpriv": "util-linux"}
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HELPERS: Final = ("netavark", "aardvark-dns", "catatonit")
"""Programs that podman starts from directories of its own."""
HELPERS_AT: Final = (Path("/usr/lib/podman"), Path("/usr/libexec/podman"), Path("/usr/local/libexec/podman"), Path("/usr/local/lib/podman"))
IDMAPPED_OVERLAY: Final = (5, 19)
"""Kernel from which on an overlay's lower layers can be mapped into a user namespace without copying them."""


@dataclass(frozen=True, slots=True)
class Host:
    """Facts.

    Attributes:
        distribution: Name for people.
        kernel: Major and minor version.
        cgroups: Unified (``v2``), legacy with a unified branch (``hybrid``), legacy (``v1``).
        systemd: PID 1 is systemd.
        root: This process is root.
        podman: Version; empty if it is not there or does not answer.
        runtimes: OCI runtimes that are there.
        missing: Programs of `TOOLS` and `HELPERS` that are not there.
        open_files, processes: Hard limits that nothing started here can exceed.
        subids: Ids that /etc/subuid and /etc/subgid both give to ``containers``; 0: no ranges.
        memory: Bytes of RAM.
        disk: Bytes free where the state lies.
        filesystem: Type of the file system there.
    """

    distribution: str
    kernel: tuple[int, int]
    cgroups: Cgroups
    systemd: bool
    root: bool
    podman: tuple[int, ...]
    runtimes: tuple[str, ...]
    missing: tuple[str, ...]
    open_files: int
    processes: int
    subids: int
    memory: int
    disk: int
    filesystem: str

    @property
    def runtime(self) -> str:
        """The OCI runtime to use: crun refuses hybrid control groups; "" if there is none."""
        order = ("crun", "runc") if self.cgroups == "v2" else ("runc", "crun")
        return next((name for name in order if name in self.runtimes), "")

    @property
    def cgroup_manager(self) -> Literal["systemd", "cgroupfs"]:
        """Who makes containers' control groups."""
        return "systemd" if self.systemd and self.cgroups == "v2" else "cgroupfs"

    @property
    def maps_layers(self) -> bool:
        """Whether an image's layers serve any user namespace without being copied."""
        return self.kernel >= IDMAPPED_OVERLAY


def look(home: Path) -> Host:
    """Look at this machine.

    Args:
        home: Where the state lies or will lie.
    """
    place = next(path for path in (home, *home.parents) if path.exists())
    return Host(
        distribution=clients.release().get("PRETTY_NAME", "unknown"),
        kernel=_kernel(os.uname().release),
        cgroups=_cgroups(),
        systemd=Path("/run/systemd/system").is_dir(),
        root=os.geteuid() == 0,
        podman=_podman(),
        runtimes=tuple(name for name in ("crun", "runc") if shutil.which(name, path=PATH)),
        missing=_missing(),
        open_files=_hard(resource.RLIMIT_NOFILE),
        processes=_hard(resource.RLIMIT_NPROC),
        subids=min(_subids(Path("/etc/subuid")), _subids(Path("/etc/subgid"))),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        disk=shutil.disk_usage(place).free,
        filesystem=_filesystem(place),
    )


def _kernel(release: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _cgroups() -> Cgroups:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return "v2"
    return "hybrid" if Path("/sys/fs/cgroup/unified/cgroup.controllers").exists() else "v1"


def _podman() -> tuple[int, ...]:
    try:
        answer = subprocess.run(("podman", "--version"), capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(int(number) for number in found.groups()) if found else ()


def lacking(*programs: str) -> tuple[str, ...]:
    """Those that are not on this machine."""
    return tuple(name for name in programs if not shutil.which(name, path=PATH))


def wanted(config: Config) -> tuple[str, ...]:
    """Programs that only some settings need, and that are not there."""
    return lacking("skopeo") if config.publish.registry else ()


def _missing() -> tuple[str, ...]:
    return (*lacking(*TOOLS), *(name for name in HELPERS if not any((place / name).exists() for place in HELPERS_AT)))


def _hard(limit: int) -> int:
    value = resource.getrlimit(limit)[1]
    return 2**31 - 1 if value == resource.RLIM_INFINITY else value


def _subids(file: Path) -> int:
    try:
        ranges = [line.split(":") for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("containers:")]
        return sum(int(entry[2]) for entry in ranges)
    except (OSError, ValueError, IndexError):
        return 0


def _filesystem(place: Path) -> str:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    under = [
        (entry[1], entry[2])
        for entry in mounts
        if place == Path(entry[1]) or Path(entry[1]) in place.resolve().parents or entry[1] == str(place.resolve())
    ]
    return max(under, key=lambda entry: len(entry[0]))[1] if under else "unknown"
