#!/usr/bin/python
"""What runs on a host of a site and how it does: units, disks, certificates. Reads only; standard library and openssl."""

from __future__ import annotations

import calendar
import json
import os
import subprocess
import time
from glob import glob
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

PATTERNS = ("binder-*", "k3s*")
SQL = """SELECT current_setting('server_version'), pg_size_pretty(pg_database_size('{name}')),
(SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}')"""


def said(*command: str, failing: bool = False) -> str:
    """What a program prints; "" where it is missing, or fails unless that is an answer, too."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if failing or done.returncode == 0 else ""


def binder(command: list[str]) -> dict[str, Any]:
    """What the Binder's own `status` tells, which fails when a part does not answer."""
    try:
        told = json.loads(said(*command, failing=True))
    except ValueError:
        told = {}
    return told if "parts" in told else {"up": False, "url": "", "parts": []}


def units() -> list[dict[str, str]]:
    """Units of ours: name, active, result."""
    listed = json.loads(said("systemctl", "list-units", "--all", "--output=json", "--type=service,timer", *PATTERNS) or "[]")
    return [{"name": one["unit"], "active": one["active"], "sub": one["sub"]} for one in listed if one["load"] == "loaded"]


def expires(path: str) -> float | None:
    """When a certificate ends, in Unix seconds; None for what is none."""
    text = said("openssl", "x509", "-noout", "-enddate", "-in", path).strip().removeprefix("notAfter=")
    try:
        return calendar.timegm(time.strptime(text, "%b %d %H:%M:%S %Y GMT"))
    except ValueError:
        return None


def certificates(patterns: list[str]) -> dict[str, float]:
    """Each certificate that is there: its end."""
    found = {path: expires(path) for pattern in patterns for path in sorted(glob(pattern))}  # noqa: PTH207 - patterns are absolute
    return {path: end for path, end in found.items() if end is not None}


def disk(path: str) -> dict[str, float]:
    """Part of room and of inodes that is used, and bytes that are free."""
    room = os.statvfs(path)
    inodes = 1 - room.f_favail / room.f_files if room.f_files else 0.0
    return {"used": 1 - room.f_bavail / room.f_blocks, "inodes": inodes, "free": room.f_bavail * room.f_frsize}


def database(cluster: str, name: str) -> dict[str, Any] | None:
    """Version, size and connections of the Binder's PostgreSQL, empty where it does not answer; None where there is none."""
    versions = sorted((path.parts[3] for path in Path("/etc/postgresql").glob(f"*/{cluster}")), key=float)
    if not versions:
        return None
    server = f"{versions[-1]}/{cluster}"
    command = ("psql", f"--cluster={server}", "--no-psqlrc", "--tuples-only", "--no-align", f"--command={SQL.format(name=name)}", "postgres")
    words = said("runuser", "-u", "postgres", "--", *command).strip().split("|")
    answers = len(words) == 3  # noqa: PLR2004 - what is asked
    return {"cluster": server, "told": dict(zip(("version", "size", "connections"), words, strict=True)) if answers else {}}


def main() -> None:
    """Read, answer."""
    spec = {
        "paths": {"type": "list", "elements": "path", "default": []},
        "certificates": {"type": "list", "elements": "str", "default": []},
        "command": {"type": "list", "elements": "str", "default": []},
        "cluster": {"type": "str", "default": ""},
        "database": {"type": "str", "default": "binder"},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    asked = module.params
    there = asked["command"] and Path(asked["command"][0]).exists()
    module.exit_json(
        changed=False,
        status={
            "units": units(),
            "disks": {path: disk(path) for path in asked["paths"] if Path(path).exists()},
            "certificates": certificates(asked["certificates"]),
            "database": database(asked["cluster"], asked["database"]) if asked["cluster"] else None,
            "binder": binder(asked["command"]) if there else None,
            "now": time.time(),
        },
    )


if __name__ == "__main__":
    main()
