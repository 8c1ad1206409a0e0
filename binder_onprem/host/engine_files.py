"""The files that podman's service and its command line read here: an engine of our own beside whatever else runs on the machine.

Own storage, networks, locks and registries; nothing below /etc/containers is read but the image policy. Pure text from facts and
configuration; `up` writes it, `parts` points the processes at it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from binder_onprem.config import Config
    from binder_onprem.host.machine import Host

VOLATILE: Final = Path("/run/binder-onprem")
"""Lost at a reboot, which is how podman notices one; short, for the sockets below it."""
LOCAL: Final = ("localhost", "127.0.0.1", "::1")
OPEN_FILES: Final = 65536
PROCESSES: Final = 8192
LOG_BYTES: Final = 8 * 1024**2
CERTIFICATES: Final = Path(".config/containers/certs.d")
"""What podman looks into below its own home, before it looks below /etc/containers, which is for all engines of a machine."""


def volatile(config: Config) -> Path:
    """This site's directory on the volatile file system. The home tells sites apart: podman remembers this path, and a port may change."""
    return VOLATILE / hashlib.sha256(str(config.home).encode()).hexdigest()[:8]


def environment(config: Config) -> Mapping[str, str]:
    """Environment in which any podman command works on this site's engine."""
    etc = config.home / "etc"
    return {
        "CONTAINERS_CONF": str(etc / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(etc / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(etc / "registries.conf"),
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "TMPDIR": str(config.home / "tmp"),
    }


def proxied(proxy: str | None, no_proxy: Sequence[str]) -> Mapping[str, str]:
    """Environment of a program that reaches registries, and what lies outside, through the site's proxy, if there is one."""
    return {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": ",".join((*LOCAL, *no_proxy))} if proxy else {}


def files(config: Config, host: Host) -> Mapping[str, str]:
    """Name below ``home/etc`` to contents."""
    return {
        "containers.conf": _toml(_containers(config, host)),
        "storage.conf": _toml(_storage(config)),
        "registries.conf": _toml({"": {"unqualified-search-registries": []}}) + ("" if config.remote else _without_tls(config.registry_host)),
    }


def trust(config: Config) -> Path | None:
    """The home directory of podman's service where a remote registry is trusted by a bundle: it looks for one there, below `CERTIFICATES`."""
    return config.home / "etc" / "trust" if config.remote and config.registry_ca else None


def certificate(config: Config) -> Path | None:
    """Where that bundle has to be."""
    home = trust(config)
    return home / CERTIFICATES / config.registry_host / "ca.crt" if home else None


def _without_tls(registry: str) -> str:
    return f'\n[[registry]]\nlocation = "{registry}"\ninsecure = true\n'


def _containers(config: Config, host: Host) -> dict[str, dict[str, Any]]:
    files = min(host.open_files, OPEN_FILES)
    processes = min(host.processes, PROCESSES)
    return {
        "containers": {
            # Above the hard limit a container does not start at all where the engine lacks CAP_SYS_RESOURCE.
            "default_ulimits": [f"nofile={files}:{files}", f"nproc={processes}:{processes}"],
            # Neighbours on a bridge would reach each other by link-local addresses.
            "default_sysctls": [*(f"net.ipv6.conf.{name}.disable_ipv6=1" for name in ("all", "default")), "net.ipv4.ping_group_range=0 0"],
            "http_proxy": False,  # the host's proxy variables may hold an account; who needs them gives them
            "log_driver": "k8s-file",
            "log_size_max": LOG_BYTES,
        },
        "engine": {
            "runtime": host.runtime,
            "cgroup_manager": host.cgroup_manager,
            "events_logger": "file",
            "lock_type": "file",  # locks in shared memory are one set for all engines of a machine
            "tmp_dir": str(volatile(config) / "libpod"),
        },
        "network": {
            "network_backend": "netavark",
            "network_config_dir": str(config.home / "etc" / "networks"),
        },
    }


def _storage(config: Config) -> dict[str, dict[str, Any]]:
    return {
        "storage": {"driver": "overlay", "graphroot": str(config.home / "storage"), "runroot": str(volatile(config) / "storage")},
        "storage.options": {"root-auto-userns-user": "containers"},
    }


def _toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["# Written by `binder-onprem up`; changes are lost."]
    for name, values in tables.items():
        lines += ["", f"[{name}]"] if name else []
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
