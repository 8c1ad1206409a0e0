#!/usr/bin/python
"""What a host is and has, for `preflight` to judge. Reads only; standard library only, because it runs on hosts that have nothing yet."""

from __future__ import annotations

import base64
import json
import os
import platform
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment

from ansible.module_utils.basic import AnsibleModule

CGROUP = Path("/sys/fs/cgroup")
OURS = Path("/usr/local/share/ca-certificates/binder-onprem-site.crt")
"""Is there after the first `site`."""
LISTEN = "0A"
"""State of a listening socket in /proc/net/tcp."""
OFFERED = {"br_netfilter": "/proc/sys/net/bridge", "nf_conntrack": "/proc/sys/net/netfilter", "ip_tables": "/proc/net/ip_tables_names"}
"""Where a driver shows that is built in and appears in no list."""
REFUSED = 407
"""A proxy's answer to whom it does not know."""
NOWHERE = "http://binder-onprem.invalid/"
"""Nobody has this name: a proxy says so at once, and nobody else is asked."""
UNITS = ("systemd-timesyncd", "chrony", "chronyd", "ntp", "ntpsec")


def read(path: Path | str) -> str:
    """The text of a file; "" where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def said(*command: str) -> str | None:
    """What a program prints; None where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def system() -> dict[str, Any]:
    """Distribution, kernel, processor, init."""
    release = dict(line.split("=", 1) for line in read("/etc/os-release").splitlines() if "=" in line)
    return {
        "id": release.get("ID", "").strip('"'),
        "version": release.get("VERSION_ID", "").strip('"'),
        "name": release.get("PRETTY_NAME", "").strip('"'),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "init": read("/proc/1/comm").strip(),
        "cpus": os.cpu_count() or 1,
        "hostname": socket.gethostname(),
        "machine_id": read("/etc/machine-id").strip(),
        "time": time.time(),
    }


def memory() -> dict[str, int]:
    """Bytes of memory and of swap."""
    lines = dict(line.split(":", 1) for line in read("/proc/meminfo").splitlines() if ":" in line)
    return {name: int(lines.get(key, "0").split()[0]) * 1024 for name, key in (("memory", "MemTotal"), ("swap", "SwapTotal"))}


def cgroups() -> dict[str, Any]:
    """Version and controllers of control groups."""
    if (CGROUP / "cgroup.controllers").exists():
        return {"version": 2, "controllers": sorted(read(CGROUP / "cgroup.controllers").split())}
    enabled = [line.split() for line in read("/proc/cgroups").splitlines() if not line.startswith("#")]
    return {"version": 1, "controllers": sorted(words[0] for words in enabled if len(words) > 3 and words[3] == "1")}  # noqa: PLR2004 - the column


def kernel_modules(names: list[str]) -> dict[str, str]:
    """Each module: loaded, built in, loadable or missing."""
    loaded = {line.split()[0] for line in read("/proc/modules").splitlines()}
    folder = Path("/lib/modules") / platform.release()
    builtin = {Path(line).name.split(".")[0].replace("-", "_") for line in read(folder / "modules.builtin").splitlines()}
    filesystems = set(read("/proc/filesystems").split())
    return {name: module_state(name, loaded, builtin, filesystems) for name in names}


def module_state(name: str, loaded: set[str], builtin: set[str], filesystems: set[str]) -> str:
    """One module's state; a driver that is built in and has no parameters shows in no list of modules, only by what it offers."""
    if name in loaded:
        return "loaded"
    offers = name in filesystems or Path(OFFERED.get(name, "/nonexistent")).exists()
    if offers or name in builtin or Path("/sys/module", name).exists():
        return "built in"
    return "loadable" if said("modprobe", "--dry-run", "--quiet", name) is not None else "missing"


def disks(paths: list[str]) -> dict[str, dict[str, Any]]:
    """Room and inodes below each path, or below the nearest directory that is there."""
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        place = Path(path)
        while not place.exists():
            place = place.parent
        room = os.statvfs(place)
        used = 1 - room.f_favail / room.f_files if room.f_files else 0.0
        found[path] = {"free": room.f_bavail * room.f_frsize, "size": room.f_blocks * room.f_frsize, "inodes_used": round(used, 3)}
    return found


def listeners(ports: list[int]) -> dict[str, str]:
    """Each port that is taken: the unit or program that listens on it."""
    inodes: dict[str, int] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read(table).splitlines()[1:]:
            words = line.split()
            port = int(words[1].rsplit(":", 1)[1], 16)
            if words[3] == LISTEN and port in ports:
                inodes[f"socket:[{words[9]}]"] = port
    taken = {str(port): "an unknown program" for port in inodes.values()}
    if inodes:
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                for descriptor in (process / "fd").iterdir():
                    port = inodes.get(str(descriptor.readlink()))
                    if port:
                        taken[str(port)] = owner(process)
    return taken


def owner(process: Path) -> str:
    """The systemd unit of a process, or its name where it has none."""
    units = [part for line in read(process / "cgroup").splitlines() for part in line.split("/") if part.endswith(".service")]
    return units[0] if units else read(process / "comm").strip()


def network(names: list[str]) -> dict[str, Any]:
    """Default route, MTU of its interface, and what names resolve to."""
    routes = [line.split() for line in read("/proc/net/route").splitlines()[1:]]
    default = next((words[0] for words in routes if words[1] == "00000000" and words[7] == "00000000"), "")
    return {
        "default_interface": default,
        "mtu": int(read(f"/sys/class/net/{default}/mtu").strip() or 0) if default else 0,
        "names": {name: addresses(name) for name in names},
    }


def addresses(name: str) -> list[str]:
    """What a name resolves to; [] where it does not."""
    try:
        return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, None)})
    except OSError:
        return []


def clock() -> dict[str, Any]:
    """Whether something keeps the clock right."""
    active = [unit for unit in UNITS if said("systemctl", "is-active", unit) == "active"]
    return {"service": active[0] if active else "", "synchronised": said("timedatectl", "show", "--property=NTPSynchronized", "--value") == "yes"}


def confinement() -> dict[str, Any]:
    """SELinux, AppArmor, firewalls."""
    enforce = read("/sys/fs/selinux/enforce").strip()
    active = {unit for unit in ("firewalld", "nftables") if said("systemctl", "is-active", unit) == "active"}
    # Its unit says little: active where ufw is off, and not where it was turned on after the boot.
    active |= {"ufw"} if "Status: active" in (said("ufw", "status") or "") else set()
    return {
        "selinux": {"1": "enforcing", "0": "permissive"}.get(enforce, "absent"),
        "policies": [line.split()[0] for line in (said("semodule", "-l") or "").splitlines() if line.strip()] if enforce else [],
        "apparmor": read("/sys/module/apparmor/parameters/enabled").strip() == "Y",
        "firewall": sorted(active),
        "dropping": dropping(),
    }


def dropping() -> list[str]:
    """Chains that refuse by default what comes to the host: rules that somebody has written."""
    try:
        listed = json.loads(said("nft", "--json", "list", "chains") or "{}").get("nftables", [])
    except ValueError:
        return []
    chains = [entry["chain"] for entry in listed if "chain" in entry]
    return [f"{one['family']} {one['table']} {one['name']}" for one in chains if one.get("hook") == "input" and one.get("policy") == "drop"]


def podman() -> str:
    """Version; "" where there is none."""
    if not shutil.which("podman"):
        return ""
    words = (said("podman", "--version") or "").split()
    return words[-1] if words else ""


def postgresql() -> dict[str, Any]:
    """Version of the programs, clusters with theirs, and which of these are ours; {} where there are none."""
    lines = (said("pg_lsclusters", "--no-header") or "").splitlines()
    programs = sorted((path.parts[4] for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")), key=float)
    ours = json.loads(read("/var/lib/binder-deploy/postgresql.json") or "[]")
    return {"programs": programs, "clusters": [line.split()[:2] for line in lines], "ours": ours} if programs or lines else {}


def registry(place: str) -> dict[str, Any]:
    """Whether something answers at ``host:port`` and whether this host trusts it; {} without a place."""
    if not place:
        return {}
    host, _, port = place.rpartition(":")
    try:
        with (
            socket.create_connection((host, int(port)), timeout=5) as plain,
            ssl.create_default_context().wrap_socket(plain, server_hostname=host) as tls,
        ):
            return {"place": place, "state": "trusted", "expires": ssl.cert_time_to_seconds(str((tls.getpeercert() or {})["notAfter"]))}
    except ssl.SSLError as error:
        return {"place": place, "state": "untrusted", "why": str(error.reason or error)}
    except (OSError, ValueError) as error:
        return {"place": place, "state": "silent", "why": str(error)}


def proxy(url: str) -> dict[str, Any]:
    """Whether the site's proxy answers, and takes our account; {} without one. No part of the account is told."""
    if not url:
        return {}
    parts = urlsplit(url)
    place = f"{parts.hostname}:{parts.port}"
    account = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    authorization = f"Proxy-Authorization: Basic {base64.b64encode(account.encode()).decode()}\r\n" if account else ""
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5) as plain:
            spoken = ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname) if parts.scheme == "https" else plain
            spoken.settimeout(10)
            spoken.sendall(f"GET {NOWHERE} HTTP/1.1\r\nHost: binder-onprem.invalid\r\n{authorization}Connection: close\r\n\r\n".encode())
            words = spoken.recv(64).split()
    except ssl.SSLError as error:
        return {"place": place, "state": "untrusted", "why": str(error.reason or error)}
    except OSError as error:
        return {"place": place, "state": "silent", "why": str(error)}
    if not words or not words[0].startswith(b"HTTP/") or not words[1:] or not words[1].isdigit():
        return {"place": place, "state": "silent", "why": "what it says is no HTTP"}
    return {"place": place, "state": "refuses" if int(words[1]) == REFUSED else "answers"}


def proxied(place: str) -> list[str]:
    """Where this host's own settings send what is for the registry at ``host:port`` to a proxy."""
    if not place:
        return []
    settings = {
        "/etc/environment": read("/etc/environment"),
        "systemd's environment (systemctl show-environment)": said("systemctl", "show-environment") or "",
    }
    return [name for name, text in settings.items() if through_proxy(text, place)]


def through_proxy(text: str, place: str) -> bool:
    """Whether variables, one a line, make a client ask ``host:port`` by HTTPS through a proxy."""
    pairs = (line.removeprefix("export ").partition("=") for line in text.splitlines())
    known = {name.strip().lower(): value.strip().strip("'\"") for name, _, value in pairs}
    used = known.get("https_proxy") or known.get("all_proxy")
    return bool(used) and not proxy_bypass_environment(place, {"no": known.get("no_proxy", "")})


def main() -> None:
    """Read, answer. `asked`: the controller's clock at that moment."""
    spec = {
        "modules": {"type": "list", "elements": "str", "default": []},
        "paths": {"type": "list", "elements": "str", "default": []},
        "ports": {"type": "list", "elements": "int", "default": []},
        "names": {"type": "list", "elements": "str", "default": []},
        "registry": {"type": "str", "default": ""},
        "proxy": {"type": "str", "default": "", "no_log": True},
        "asked": {"type": "float", "required": True},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    asked = module.params
    found = {
        "system": {**system(), "asked": asked["asked"]},
        **memory(),
        "watchers": int(read("/proc/sys/fs/inotify/max_user_instances").strip() or 0),
        "cgroup": cgroups(),
        "modules": kernel_modules(asked["modules"]),
        "disks": disks(asked["paths"]),
        "taken": listeners(asked["ports"]),
        "network": network(asked["names"]),
        "clock": clock(),
        "confinement": confinement(),
        "podman": podman(),
        "postgresql": postgresql(),
        "registry": registry(asked["registry"]),
        "proxy": proxy(asked["proxy"]),
        "proxied": proxied(asked["registry"]),
        "root": os.geteuid() == 0,
        "ours": OURS.exists(),
    }
    module.exit_json(changed=False, host=found)


if __name__ == "__main__":
    main()
