"""A site of hosts, and our own command that brings it to what its inventory says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.cluster.hosts import Hosts

ROOT: Final = Path(__file__).parents[2]

LOOK: Final = """
import hashlib, json, os, pwd, grp, stat, subprocess
OFTEN = ("/var/lib/apt", "/var/lib/dpkg", "/var/lib/systemd", "/var/lib/ucf", "/var/lib/pam", "/var/lib/private")
OFTEN += ("/home/it/.ansible", "/root/.ansible")
BACKUPS = ("/etc/passwd-", "/etc/shadow-", "/etc/group-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-", "/etc/ld.so.cache", "/etc/.pwd.lock")
found = {}
for top in ("/etc", "/usr/local", "/usr/lib/systemd", "/opt", "/srv", "/root", "/home", "/var/lib", "/run/systemd/system"):
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if not os.path.join(folder, name).startswith(OFTEN) and name != "__pycache__"]
        for path in [folder, *(os.path.join(folder, name) for name in files)]:
            if path in BACKUPS:
                continue
            about = os.lstat(path)
            kind = os.readlink(path) if stat.S_ISLNK(about.st_mode) else ""
            if stat.S_ISREG(about.st_mode) and top == "/etc":
                kind = hashlib.sha256(open(path, "rb").read()).hexdigest()
            found[path] = [oct(about.st_mode), about.st_uid, about.st_gid, kind]
def said(*words):
    return subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
for package in said("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\\n"):
    found["package " + package] = []
for entry in pwd.getpwall():
    found["user " + entry.pw_name] = []
for line in said("ip", "-oneline", "link"):
    found["interface " + line.split(": ")[1].split("@")[0]] = []
for line in said("ip", "route"):
    found["route " + line.strip()] = []
for line in open("/proc/self/mounts"):
    found["mount " + line.split()[1]] = []
for line in said("ss", "-Hltn"):
    found["port " + line.split()[3]] = []
print(json.dumps(found))
"""
"""What a host has, as JSON: all that configures it or is kept on it; not what merely using it changes."""


@dataclass(frozen=True)
class Site:
    """Hosts with an inventory; secrets lie beside it."""

    hosts: Hosts
    folder: Path

    @property
    def inventory(self) -> Path:
        """The inventory's file."""
        return self.folder / "inventory.json"

    @property
    def secrets(self) -> Path:
        """Where the playbooks keep accounts, keys and tokens on this machine."""
        return self.folder / "secrets"

    def describe(self, groups: dict[str, tuple[str, ...]], each: dict[str, dict[str, Any]] | None = None, **variables: Any) -> None:
        """Write the inventory; `each` has variables of single hosts."""
        inventory: Any = self.hosts.inventory(groups, **variables)
        for group in inventory["all"]["children"].values():
            for name, own in group["hosts"].items():
                own.update((each or {}).get(name, {}))
        self.inventory.write_text(json.dumps(inventory, indent=1), encoding="utf-8")

    def deploy(self, verb: str, *words: str) -> tuple[int, dict[str, Any]]:
        """Run a verb; its exit code and what it tells with ``--json``."""
        command = [sys.executable, "-c", "from binder_onprem.cli import main; main()", "deploy", verb, "--json", "-i", str(self.inventory), *words]
        env = {**os.environ, "XDG_STATE_HOME": str(self.folder / "state"), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200, env=env, cwd=ROOT)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def done(self, verb: str, *words: str) -> dict[str, Any]:
        """Run a verb, which must work."""
        code, told = self.deploy(verb, *words)
        assert code == 0, (told.get("failures") or told, Path(told.get("log") or os.devnull).read_text(encoding="utf-8")[-6000:])
        return told

    def look(self, name: str) -> dict[str, Any]:
        """What a host has now."""
        found: dict[str, Any] = json.loads(self.hosts.run(name, "python3 -", given=LOOK.encode()).stdout)
        return found
