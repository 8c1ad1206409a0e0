"""The tests' own Kubernetes: what the playbooks' and the sessions' tests may count on."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import artefacts
from tests.cluster.conftest import REGISTRY
from tests.real import tlsregistry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.hosts import Hosts
    from tests.cluster.kube import Cluster

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

NODES = ("server", "agent1", "agent2")
BUSYBOX = "rancher/mirrored-library-busybox:1.36.1"
WGET = ("timeout", "5", "wget", "-q", "-O-")
ANSWER = "mkdir /srv && hostname > /srv/name && exec httpd -f -p 8080 -h /srv"


def pod(name: str, node: str, image: str = BUSYBOX, command: str = ANSWER) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": image,
        "command": ["/bin/sh", "-c", command],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "answer"}},
        "spec": {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0},
    }


@pytest.fixture(scope="module")
def pods(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """One on each node, by the node's name."""
    cluster.apply(*(pod(f"on-{node}", node) for node in NODES))
    return {node: cluster.running(f"on-{node}") for node in NODES}


def test_every_node_is_ready_and_knows_what_it_is(cluster: Cluster) -> None:
    nodes = {node["metadata"]["name"]: node for node in cluster.get("nodes")["items"]}
    assert sorted(nodes) == sorted(NODES)
    servers = [name for name, node in nodes.items() if "node-role.kubernetes.io/control-plane" in node["metadata"]["labels"]]
    assert servers == ["server"]
    assert {node["status"]["addresses"][0]["address"] for node in nodes.values()} == {cluster.hosts.address(name) for name in NODES}


def test_pods_of_one_node_reach_those_of_every_other(cluster: Cluster, pods: dict[str, dict[str, Any]]) -> None:
    for source in NODES:
        for target in NODES:
            url = f"http://{pods[target]['status']['podIP']}:8080/name"
            assert cluster.kubectl("exec", f"on-{source}", "--", *WGET, url).strip() == f"on-{target}"


def test_names_and_services_work_inside(cluster: Cluster, pods: dict[str, dict[str, Any]]) -> None:
    assert pods
    cluster.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "answer"}, "spec": {"selector": {"app": "answer"}, "ports": [{"port": 8080}]}}
    )
    cluster.kubectl("rollout", "status", "deployment/coredns", "--namespace=kube-system", "--timeout=90s")
    end = time.monotonic() + 30
    while not (said := cluster.kubectl("exec", "on-agent1", "--", *WGET, "http://answer:8080/name", check=False)).startswith("on-"):
        assert time.monotonic() < end, said
        time.sleep(0.5)


def test_logs_and_commands_reach_a_pod(cluster: Cluster) -> None:
    cluster.apply(pod("speaks", "agent2", command=f"echo a word from inside; {ANSWER}"))
    cluster.running("speaks")
    assert cluster.kubectl("logs", "speaks") == "a word from inside\n"
    assert cluster.kubectl("exec", "speaks", "--", "hostname").strip() == "speaks"


def test_an_image_is_pulled_by_digest_over_tls_with_an_account(cluster: Cluster, registry: tlsregistry.TlsRegistry, tmp_path: Path) -> None:
    name = published(registry, tmp_path)
    cluster.apply(pod("pulled", "agent1", image=name))
    assert cluster.running("pulled")["status"]["containerStatuses"][0]["imageID"].endswith(name.partition("@")[2])
    kept = cluster.hosts.run(
        "agent1", "su eyes -c 'cat /etc/rancher/k3s/registries.yaml /var/lib/rancher/k3s/agent/etc/containerd/config.toml'", check=False
    )
    assert kept.returncode != 0
    assert "planted-push-password" not in kept.stdout


def published(registry: tlsregistry.TlsRegistry, folder: Path) -> str:
    """An image in the registry that no node has; its name by digest."""
    archive, digest = folder / "image.tar", folder / "digest"
    archive.write_bytes(artefacts.archive_of({"test/shell:1": artefacts.busybox() | {"etc/test": str(folder)}}))
    place = f"127.0.0.1:{registry.port}/shared/shell"
    options = ("--insecure-policy", "copy", "--quiet", f"--dest-cert-dir={registry.ca.parent}", f"--dest-creds={tlsregistry.ACCOUNT}")
    subprocess.run(["skopeo", *options, f"--digestfile={digest}", f"docker-archive:{archive}", f"docker://{place}:1"], check=True, timeout=60)
    return f"{REGISTRY}:{registry.port}/shared/shell@{digest.read_text()}"


def test_pods_outlive_a_restart_of_k3s(cluster: Cluster, pods: dict[str, dict[str, Any]]) -> None:
    cluster.hosts.run("agent1", "systemctl restart k3s-agent")
    cluster.ready(*NODES)
    now = cluster.running("on-agent1")
    assert now["status"]["containerStatuses"] == pods["agent1"]["status"]["containerStatuses"]


def test_the_commands_of_k3s(hosts: Hosts, cluster: Cluster) -> None:
    assert cluster.server == "server"
    nodes = json.loads(hosts.run("server", "k3s kubectl get nodes -o json").stdout)["items"]
    assert len(nodes) == len(NODES)
    assert hosts.run("server", "k3s --version").stdout.startswith("k3s version v")
    assert "mirrored-pause" in hosts.run("server", "k3s ctr images list --quiet").stdout
    assert "OK" in hosts.run("server", "k3s certificate check --output table").stdout
    assert hosts.run("server", "stat -c %a /etc/rancher/k3s/k3s.yaml").stdout.strip() == "600"


def test_a_second_machine_cannot_take_a_nodes_name(cluster: Cluster) -> None:
    hosts = cluster.hosts
    hosts.run("agent2", "systemctl stop k3s-agent && mv /etc/rancher/node/password /root/password")
    hosts.run("agent2", "systemctl start --no-block k3s-agent")
    end = time.monotonic() + 30
    while "Node password rejected" not in hosts.run("agent2", "journalctl --no-pager --unit k3s-agent --lines 20").stdout:
        assert time.monotonic() < end
        time.sleep(0.5)
    hosts.run("agent2", "systemctl stop k3s-agent; mv /root/password /etc/rancher/node/password; systemctl start k3s-agent")
    cluster.ready(*NODES)
