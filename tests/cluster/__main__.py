"""A cluster to try things on: ``python -m tests.cluster up``, ``… down``."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Final

from tests.cluster import artefacts, kube
from tests.cluster.hosts import Hosts

HOME: Final = Path("/var/tmp/binder-cluster")  # noqa: S108 - root's own machine; made here with the rights of this process


def main() -> int:
    """Do what the command line says; 0 if it was done."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("verb", choices=("up", "down", "build"), help="up: hosts with Kubernetes; down: take them away; build: only fill the cache")
    parser.add_argument("--home", type=Path, default=HOME, help=f"where everything about the hosts lies (default: {HOME})")
    parser.add_argument("--hosts", default="server,agent1,agent2", help="their names, the server first")
    parser.add_argument("--suite", default="bookworm", help="Debian's release")
    parser.add_argument("--bare", action="store_true", help="hosts only: playbooks are to install the rest")
    asked = parser.parse_args()
    if asked.verb == "down":
        Hosts.at(asked.home).destroy()
        return 0
    if reason := artefacts.needed():
        print(f"✗ {reason}", file=sys.stderr)  # noqa: T201 - a command
        return 11
    folder = artefacts.directory()
    if asked.verb == "build":
        artefacts.helm()
        artefacts.following()
        print(folder)  # noqa: T201 - a command
        return 0
    hosts = Hosts.new(asked.home, {folder: kube.MOUNTED})
    names = asked.hosts.split(",")
    hosts.start(*names, suite=asked.suite)
    if not asked.bare:
        kube.up(hosts, *names)
    _say(hosts, names, folder)
    return 0


def _say(hosts: Hosts, names: list[str], folder: Path) -> None:
    inventory = hosts.home / "inventory.json"
    inventory.write_text(json.dumps(hosts.inventory({"k3s_server": (names[0],), "k3s_agent": tuple(names[1:])}), indent=1))
    print(  # noqa: T201 - a command
        f"export KUBECONFIG={hosts.home / 'kubeconfig'}\n"
        f"kubectl: {artefacts.kubectl()}\nartefacts: {folder}, on the hosts {kube.MOUNTED}\ninventory: {inventory}\n"
        + "".join(f"ssh {shlex.join(hosts.ssh_options)} root@{hosts.address(name)}  # {name}\n" for name in names)
        + f"python -m tests.cluster down --home {hosts.home}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
