"""What of a host belongs into a report, and where its secrets lie. Pure but for the names of files that are there."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PATTERNS: Final = ("binder-*", "k3s*", "postgresql@*-binder*")
"""Units of ours."""
K3S: Final = "/usr/local/bin/k3s"
PACKAGES: Final = (
    *("podman", "conmon", "crun", "runc", "netavark", "aardvark-dns", "nginx-light", "nginx", "docker-registry", "nodejs", "systemd"),
    *("iptables", "nftables", "postgresql", "age", "lego", "python3", "containerd"),
)
PROPERTIES: Final = (
    *(
        "Id",
        "LoadState",
        "ActiveState",
        "SubState",
        "Result",
        "UnitFileState",
        "NRestarts",
        "MainPID",
        "ExecMainCode",
        "ExecMainStatus",
        "StatusText",
    ),
    *("StateChangeTimestamp", "ActiveEnterTimestamp", "InactiveEnterTimestamp", "NextElapseUSecRealtime", "LastTriggerUSec", "NeedDaemonReload"),
    *("MemoryCurrent", "MemoryPeak", "CPUUsageNSec", "TasksCurrent", "FragmentPath", "DropInPaths", "User"),
)
"""Of a unit; not its environment."""
_FILES: Final = re.compile(r"(?:secret|token|password|account|key|kubeconfig|environment)[_-]?file\"?\s*[:=]\s*[\"'-]?(/[^\s\"',}]+)", re.IGNORECASE)
"""Files with secrets, as settings and units name them."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of a host.

    Attributes:
        groups: Groups of the inventory that it is in.
        home: Directory of the Binder's state.
        config: File of the Binder's settings; "" for that below `home`.
        program: The Binder's own command; empty for that below `home`.
        namespace: Of the sessions, in the cluster.
        lines: Of each journal and log.
        since: From when on, as journalctl has it; "" for all.
        seconds: For all of it.
        room: Bytes of all of it.
        key: By which people get pseudonyms; empty where their names stay.
    """

    groups: tuple[str, ...] = ()
    home: str = "/var/lib/binder-onprem"
    config: str = ""
    program: tuple[str, ...] = ()
    namespace: str = "binder"
    lines: int = 2000
    since: str = ""
    seconds: float = 180
    room: int = 32 * 1024**2
    key: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Order:
        """From JSON."""
        return cls(**{**given, "groups": tuple(given.get("groups", ())), "key": bytes.fromhex(given.get("key", ""))})


@dataclass(frozen=True, slots=True)
class Ask:
    """A command of which the output belongs into the report.

    Attributes:
        name: Of the report's file; those of the same name follow each other in it.
        words: Program and arguments.
        seconds: That it may take.
        env: Beyond the usual environment.
    """

    name: str
    words: tuple[str, ...]
    seconds: float = 20
    env: tuple[tuple[str, str], ...] = ()


def asks(order: Order, units: tuple[str, ...]) -> Iterator[Ask]:
    """In order of worth: what comes last is missing where time runs out.

    Args:
        order: What is asked.
        units: Names of those of ours that the host has.
    """
    yield from _versions(order)
    yield from _machine()
    if units:
        yield Ask("units.txt", ("systemctl", "status", "--no-pager", "--full", "--lines=0", *units))
        yield Ask("units-show.txt", ("systemctl", "show", f"--property={','.join(PROPERTIES)}", *units))
    since = (f"--since={order.since}",) if order.since else ()
    for unit in units:
        yield Ask(
            f"journal/{unit}.log", ("journalctl", "--quiet", "--no-pager", "--output=short-iso", f"--lines={order.lines}", *since, f"--unit={unit}")
        )
    if "k3s_server" in order.groups:
        yield from _cluster(order)
    if "control" in order.groups:
        yield from _binder(order)
    yield Ask(
        "journal/kernel.log", ("journalctl", "--quiet", "--no-pager", "--output=short-iso", "--dmesg", "--priority=warning", "--lines=300", *since)
    )


def _versions(order: Order) -> Iterator[Ask]:
    commands: tuple[tuple[str, ...], ...] = (
        ("cat", "/etc/os-release"),
        ("uname", "-srvm"),
        ("podman", "--version"),
        (K3S, "--version"),
        ("dpkg-query", "--show", "--showformat=${Package} ${Version} ${db:Status-Abbrev}\n", *PACKAGES),
    )
    yield from (Ask("versions.txt", words) for words in commands if words[0] != K3S or Path(K3S).exists())
    if "control" in order.groups and not order.program:
        yield Ask("versions.txt", (*_program(order), "--version"))
        yield Ask("versions.txt", ("ls", "-l", "--time-style=long-iso", "/opt/binder-onprem"))


def _machine() -> Iterator[Ask]:
    for words in (
        ("date", "--utc", "--iso-8601=seconds"),
        ("uptime",),
        ("nproc",),
        ("df", "-hPT"),
        ("df", "-iP"),
        ("free", "-m"),
        ("stat", "--file-system", "--format=cgroup: %T", "/sys/fs/cgroup"),
        ("head", "-n", "9", "/proc/pressure/cpu", "/proc/pressure/io", "/proc/pressure/memory"),
        ("ip", "-brief", "address"),
        ("systemd-detect-virt",),
        ("systemctl", "--failed", "--no-pager", "--plain", "--no-legend"),
    ):
        yield Ask("machine.txt", words)


def _binder(order: Order) -> Iterator[Ask]:
    program = (*_program(order), "--home", order.home, *(("--config", order.config) if order.config else ()))
    yield Ask("binder-status.json", (*program, "status", "--json"), 60)
    yield Ask("binder-check.json", (*program, "check", "--json"), 120)
    etc = Path(order.home, "etc")
    if (etc / "storage.conf").exists():
        names = {"CONTAINERS_CONF": "containers.conf", "CONTAINERS_STORAGE_CONF": "storage.conf", "CONTAINERS_REGISTRIES_CONF": "registries.conf"}
        env = tuple((name, str(etc / file)) for name, file in names.items())
        shown = "{{.Names}}\t{{.Image}}\t{{.Status}}\t{{.CreatedAt}}"
        yield Ask("podman.txt", ("podman", "ps", "--all", "--format", shown), env=env)
        yield Ask("podman.txt", ("podman", "images", "--all", "--format", "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.Size}}\t{{.CreatedAt}}"), env=env)
        yield Ask(
            "podman.txt", ("podman", "info", "--format", "{{.Host.OCIRuntime.Name}} {{.Host.NetworkBackend}} {{.Store.GraphDriverName}}"), env=env
        )


def _program(order: Order) -> tuple[str, ...]:
    return order.program or (f"{order.home}/venv/bin/binder-onprem",)


def _cluster(order: Order) -> Iterator[Ask]:
    kubectl, here = (K3S, "kubectl", "--request-timeout=15s"), ("--namespace", order.namespace)
    yield Ask("cluster.txt", (*kubectl, "get", "nodes", "--output=wide"))
    yield Ask("cluster.txt", (*kubectl, "get", "pods", "--output=wide", *here))
    yield Ask("cluster.txt", (*kubectl, "get", "pods", "--output=wide", "--namespace", "kube-system"))
    yield Ask("cluster.txt", (*kubectl, "get", "resourcequota,limitrange,networkpolicy,daemonset,serviceaccount", *here))
    yield Ask("events.txt", (*kubectl, "get", "events", "--sort-by=.lastTimestamp", "--output=wide", *here))


def settings(order: Order) -> tuple[Path, ...]:
    """Files of settings that are there."""
    return _there(
        order.config or f"{order.home}/config.yaml",
        f"{order.home}/etc/*.conf",
        f"{order.home}/etc/standing.json",
        f"{order.home}/images.json",
        "/etc/binder-registry/*.yml",
        "/etc/binder-registry/*.conf",
        "/etc/binder-front/*.conf",
        "/etc/binder-backup/settings.json",
        "/etc/postgresql/*/binder/conf.d/binder.conf",
        "/etc/postgresql/*/binder/pg_hba.conf",
        "/etc/rancher/k3s/config.yaml",
        "/etc/rancher/k3s/registries.yaml",
        *(f"/etc/systemd/system/{pattern}{end}" for pattern in PATTERNS for end in (".service", ".timer", ".target", ".d/*.conf")),
    )


def logs(order: Order) -> tuple[Path, ...]:
    """Files that programs log to."""
    return _there(f"{order.home}/logs/parts/*", "/var/lib/rancher/k3s/agent/containerd/containerd.log")


def secrets(order: Order) -> tuple[Path, ...]:
    """Files that hold secrets and nothing that a report needs; none of them comes into it."""
    server = "/var/lib/rancher/k3s/server"
    return _there(
        f"{order.home}/secrets/*",
        f"{order.home}/hub/cookie-secret",
        "/etc/binder-onprem/*",
        "/etc/binder-registry/*.htpasswd",
        "/etc/binder-registry/*.key",
        "/var/lib/binder-front/*.pem",
        "/etc/postgresql/*/binder/certificate.key",
        "/etc/rancher/k3s/k3s.yaml",
        "/etc/rancher/k3s/*-token",
        "/etc/rancher/node/password",
        *(f"{server}/{name}" for name in ("token", "agent-token", "node-token", "cred/passwd", "cred/ipsec.psk", "cred/encryption-config.json")),
    )


def named(texts: Mapping[Path, str]) -> tuple[Path, ...]:
    """Files with secrets that settings name."""
    return tuple(sorted({Path(name) for text in texts.values() for name in _FILES.findall(text)}))


def _there(*patterns: str) -> tuple[Path, ...]:
    found = (path for pattern in patterns for path in sorted(Path("/").glob(pattern.lstrip("/"))))
    return tuple(dict.fromkeys(path for path in found if path.is_file()))
