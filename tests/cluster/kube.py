"""A cluster put up by hand, without our playbooks: one server and agents from the artefacts, as the vendor's manual has it.

For tests of what runs on Kubernetes, and for whoever wants one to try things on; the playbooks' own tests start from bare hosts.
"""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.cluster import artefacts

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.hosts import Hosts

MOUNTED: Final = "/srv/k3s"
"""Where hosts see the artefacts."""

UNIT: Final = """\
[Unit]
Description=Lightweight Kubernetes
After=network-online.target
Wants=network-online.target
[Install]
WantedBy=multi-user.target
[Service]
Type=notify
KillMode=process
Delegate=yes
LimitNOFILE=infinity
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s
ExecStart=/usr/local/bin/k3s {verb}
"""


@dataclass(frozen=True)
class Cluster:
    """A running one; `server` is the host with the API, `kubeconfig` the administrator's file, which works on this machine."""

    hosts: Hosts
    server: str
    kubeconfig: Path

    def kubectl(self, *words: str, given: str | None = None, check: bool = True, seconds: float = 120) -> str:
        """Ask the API from this machine; standard output."""
        command = [str(artefacts.kubectl()), "--kubeconfig", str(self.kubeconfig), *words]
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds, check=False)
        assert not check or done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr[-3000:]}"
        return done.stdout if done.returncode == 0 else done.stderr

    def get(self, *words: str) -> Any:
        """Objects, decoded."""
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        """Make or change objects."""
        self.kubectl("apply", "--filename=-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def ready(self, *nodes: str, seconds: float = 180) -> None:
        """Wait until these nodes are Ready."""
        end = time.monotonic() + seconds
        state: dict[str, str] = {}
        while time.monotonic() < end:
            # A server that systemd starts again does not answer for a while.
            with suppress(AssertionError):
                state = {node["metadata"]["name"]: _condition(node) for node in self.get("nodes")["items"]}
            if all(state.get(node) == "True" for node in nodes):
                return
            time.sleep(0.5)
        raise TimeoutError(f"not Ready: {state}\n{self._logs(*(node for node in nodes if state.get(node) != 'True'))}")

    def running(self, pod: str, *, namespace: str = "default", seconds: float = 90) -> dict[str, Any]:
        """Wait until a pod is Ready; the object."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found: dict[str, Any] = self.get("pod", pod, f"--namespace={namespace}")
            if _condition(found) == "True":
                return found
            time.sleep(0.3)
        raise TimeoutError(self.kubectl("describe", "pod", pod, f"--namespace={namespace}")[-3000:])

    def _logs(self, *nodes: str) -> str:
        return "\n".join(self.hosts.run(node, "journalctl --no-pager --unit 'k3s*' --lines 40", check=False).stdout for node in nodes)


def up(hosts: Hosts, server: str, *agents: str, **config: Any) -> Cluster:
    """Install a server and agents on hosts that run.

    Args:
        hosts: They see the artefacts at `MOUNTED`.
        server: Name of the host with the API.
        agents: Names of the others.
        config: Further keys of every node's ``config.yaml``; ``_`` for ``-``.
    """
    settings = {name.replace("_", "-"): value for name, value in config.items()}
    _install(hosts, server, "server", "k3s", settings)
    token = hosts.run(server, "cat /var/lib/rancher/k3s/server/node-token").stdout
    file = hosts.home / "kubeconfig"
    file.touch(mode=0o600)
    file.write_text(hosts.run(server, "cat /etc/rancher/k3s/k3s.yaml").stdout.replace("127.0.0.1", hosts.address(server)))
    for agent in agents:
        hosts.write(agent, "/etc/rancher/k3s/token", token)
        _install(hosts, agent, "agent", "k3s-agent", settings | {"server": f"https://{server}:6443", "token-file": "/etc/rancher/k3s/token"})
    cluster = Cluster(hosts, server, file)
    cluster.ready(server, *agents)
    return cluster


def _install(hosts: Hosts, name: str, verb: str, unit: str, settings: dict[str, Any]) -> None:
    images = "/var/lib/rancher/k3s/agent/images"
    hosts.run(name, f"install -m 755 {MOUNTED}/k3s /usr/local/bin/k3s && mkdir -p {images} && cp {MOUNTED}/{artefacts.IMAGES} {images}/")
    hosts.write(name, "/etc/rancher/k3s/config.yaml", json.dumps(settings))
    hosts.write(name, f"/etc/systemd/system/{unit}.service", UNIT.format(verb=verb), "644")
    started = hosts.run(name, f"systemctl daemon-reload && systemctl enable --now {unit}", check=False)
    assert started.returncode == 0, hosts.run(name, f"journalctl --no-pager --unit {unit} --lines 60").stdout


def _condition(thing: dict[str, Any]) -> str:
    conditions = thing.get("status", {}).get("conditions", [])
    return next((str(condition["status"]) for condition in conditions if condition["type"] == "Ready"), "Unknown")
