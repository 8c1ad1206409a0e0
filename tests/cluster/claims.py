"""What sets of hosts on one machine share: ranges of addresses, the kernel's settings, control groups. The last one to go puts all back as it was."""

from __future__ import annotations

import fcntl
import json
import subprocess
from contextlib import contextmanager, suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binder_onprem.host import engine_files

if TYPE_CHECKING:
    from collections.abc import Iterator

CLAIMS: Final = engine_files.VOLATILE / "cluster"
"""A file for each range in use, and `SAVED`."""

SAVED: Final = "kernel"
"""The kernel's settings from before the first set of hosts."""

RANGE: Final = IPv4Network("10.204.0.0/16")

KERNEL: Final = (
    "fs/inotify/max_user_instances",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
"""What a kubelet or these tests set for the whole machine: put back at the end."""

INSTANCES: Final = 8192
"""Watchers of files that root may have. All hosts share this machine's limit, and where it is reached no systemd and no kubelet starts."""

SETTINGS: Final = Path("/proc/sys")


def take(home: Path) -> IPv4Network:
    """A /24 of `RANGE` that no route and no other test on this machine uses; the kernel is set for hosts.

    Args:
        home: Of the hosts; once that is gone the claim counts no more.

    Raises:
        RuntimeError: All are in use.
    """
    with _alone():
        if not _others():
            (CLAIMS / SAVED).write_text(json.dumps({name: (SETTINGS / name).read_text() for name in KERNEL}))
        watchers = SETTINGS / KERNEL[0]
        if int(watchers.read_text()) < INSTANCES:
            watchers.write_text(str(INSTANCES))
        used = _routes() | set(_others())
        for subnet in RANGE.subnets(new_prefix=24):
            if not any(subnet.overlaps(other) for other in used):
                _claim(subnet).write_text(str(home))
                return subnet
    raise RuntimeError("no free range for the hosts' network")


def give_back(subnet: IPv4Network) -> None:
    """Forget a claim; after the last one the kernel and its control groups are as they were.

    Others may still run: a setting put back under them would take from their kubelets and systemds what these need.
    """
    with _alone():
        _claim(subnet).unlink(missing_ok=True)
        saved = CLAIMS / SAVED
        if _others() or not saved.exists():
            return
        for name, value in json.loads(saved.read_text()).items():
            if (SETTINGS / name).read_text() != value:
                (SETTINGS / name).write_text(value)
        saved.unlink()
        _sweep()


@contextmanager
def _alone() -> Iterator[None]:
    """No other process takes or gives back meanwhile."""
    CLAIMS.mkdir(parents=True, exist_ok=True)
    with CLAIMS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _claim(subnet: IPv4Network) -> Path:
    return CLAIMS / str(subnet.network_address)


def _others() -> list[IPv4Network]:
    """Ranges of hosts that there are; what killed runs have left is forgotten."""
    found = []
    for claim in CLAIMS.glob("*.*.*.*"):
        home = claim.read_text()
        if home and Path(home).exists():
            found.append(IPv4Network(f"{claim.name}/24"))
        else:
            claim.unlink()
    return found


def _routes() -> set[IPv4Network]:
    routes = json.loads(subprocess.run(["ip", "-4", "-json", "route"], capture_output=True, text=True, check=True).stdout)
    return {IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"}


def _sweep() -> None:
    """Empty control groups of pods that have got out of their host: systemd's own hierarchy has no namespace where control groups are hybrid."""
    for top in Path("/sys/fs/cgroup").glob("*/kubepods"):
        for folder in sorted((path for path in top.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts)):
            with suppress(OSError):
                folder.rmdir()
        with suppress(OSError):
            top.rmdir()
