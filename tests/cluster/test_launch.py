"""From a click to a notebook in a pod: built with podman on this machine, pushed over TLS, pulled by a node of a real Kubernetes."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.cluster import artefacts, kube
from tests.cluster import hosts as servers
from tests.cluster.test_sessions import CHART
from tests.e2e.kernel import kernel
from tests.e2e.stand import Stand, git_spec, launch, ready
from tests.real import tlsregistry
from tests.repos import BUILDERS, GitServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.hosts import Hosts
    from tests.cluster.kube import Cluster

pytestmark = pytest.mark.real

NODES = ("pods-server", "pods-agent")
NAMESPACE = "binder"
SESSION = {"memory": "600MiB", "cpus": 1, "start_timeout": 120}


@dataclass(frozen=True)
class Site:
    """A Binder whose sessions are pods, and the cluster that they are in."""

    stand: Stand
    cluster: Cluster
    registry: tlsregistry.TlsRegistry
    origin: GitServer
    folder: Path

    def spec(self, name: str) -> str:
        if not (self.folder / "git" / name).exists():
            BUILDERS[name](self.folder / "git")
        return git_spec(self.origin.url(name))

    def pods(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.cluster.get("pods", f"--namespace={NAMESPACE}", "--selector=io.binder-onprem.kind=session")["items"]
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("launch")
    (folder / "git").mkdir()
    with ExitStack() as stack:
        hosts = stack.enter_context(servers.running({artefacts.directory(): kube.MOUNTED}))
        registry = stack.enter_context(tlsregistry.running(folder / "registry", hosts.gateway, address="0.0.0.0"))  # noqa: S104 - nodes are on a bridge
        cluster = _cluster(hosts, f"{hosts.gateway}:{registry.port}", registry)
        stack.enter_context(_routes(hosts, cluster))
        origin = stack.enter_context(GitServer(folder / "git"))
        stand = Stand.new(samples=False, **_settings(cluster, hosts, registry, folder))
        stack.callback(stand.destroy)
        stand.up()
        yield Site(stand, cluster, registry, origin, folder)


def _cluster(hosts: Hosts, place: str, registry: tlsregistry.TlsRegistry) -> Cluster:
    """Nodes that trust the registry's certificate; its account they get from the namespace."""
    hosts.start(*NODES)
    for name in NODES:
        hosts.write(name, "/etc/rancher/k3s/tls/site-ca.pem", registry.ca.read_bytes())
        trusted = {
            "mirrors": {place: {}},
            "configs": {place: {"tls": {"ca_file": "/etc/rancher/k3s/tls/site-ca.pem"}}},
        }
        hosts.write(name, "/etc/rancher/k3s/registries.yaml", yaml.safe_dump(trusted))
    return kube.up(hosts, *NODES)


def _routes(hosts: Hosts, cluster: Cluster) -> ExitStack:
    """What a control host that is a node of the cluster has by itself."""
    stack = ExitStack()
    for node in cluster.get("nodes")["items"]:
        route = (node["spec"]["podCIDR"], "via", hosts.address(node["metadata"]["name"]))
        subprocess.run(["ip", "route", "add", *route], check=True)
        stack.callback(subprocess.run, ["ip", "route", "del", *route], check=False)
    return stack


def _settings(cluster: Cluster, hosts: Hosts, registry: tlsregistry.TlsRegistry, folder: Path) -> dict[str, Any]:
    place, (user, _, password) = f"{hosts.gateway}:{registry.port}", tlsregistry.ACCOUNT.partition(":")
    values = {"control": [f"{hosts.gateway}/32"], "pull": {"registry": place, "username": user, "password": password}}
    (folder / "values.yaml").touch(mode=0o600)
    (folder / "values.yaml").write_text(yaml.safe_dump(values))
    where = ("--namespace", NAMESPACE, "--kubeconfig", str(cluster.kubeconfig))
    words = ("upgrade", "--install", "binder", CHART, *where, "--create-namespace", "--values", str(folder / "values.yaml"))
    subprocess.run([str(artefacts.helm()), *words], check=True, capture_output=True, timeout=120)
    cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    kubeconfig = _kubeconfig(cluster, folder)
    return {
        "registry": {
            "kind": "remote",
            "address": place,
            "ca_file": str(registry.ca),
            "push_account_file": str(registry.account),
            "pull_account_file": str(registry.account),
        },
        "sessions": {
            "kind": "kubernetes",
            "kubeconfig_file": str(kubeconfig),
            "namespace": NAMESPACE,
            "pull_secret": "binder-pull",
            "priority_class": "binder-sessions",
        },
        "session": SESSION,
        "choice": {"profiles": {"small": {}, "large": {"memory": "700MiB"}}},
    }


def _kubeconfig(cluster: Cluster, folder: Path) -> Path:
    """As the chart's notes say."""
    end = time.monotonic() + 30
    while not (data := cluster.get("secret", "binder-token", f"--namespace={NAMESPACE}").get("data", {})).get("token"):
        assert time.monotonic() < end
    text: dict[str, Any] = yaml.safe_load(cluster.kubeconfig.read_text())
    text["users"] = [{"name": text["contexts"][0]["context"]["user"], "user": {"token": base64.b64decode(data["token"]).decode()}}]
    file = folder / "kubeconfig"
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(text))
    return file


def test_check_finds_the_cluster_and_the_registry_fit(site: Site) -> None:
    found = {(one["subject"], one["level"], one["text"]) for one in json.loads(site.stand.command("check", "--json").stdout)["findings"]}
    said = {(subject, level) for subject, level, _ in found if subject in ("cluster", "registry", "sessions")}
    # One account pushes and pulls here, which is told.
    assert said == {("cluster", "ok"), ("registry", "ok"), ("registry", "warn"), ("sessions", "ok")}, found


def test_check_tells_from_inside_a_pod_whether_policies_hold(site: Site) -> None:
    rows = json.loads(site.stand.command("check", "--reach", "--json").stdout)["findings"]
    told = [(one["level"], one["text"]) for one in rows if "session reaches" in one["text"]]
    if artefacts.real():
        assert told == [("ok", "a session reaches none of: the cluster's API, its node, the registry, this machine, the cloud's metadata")]
    else:
        # The stand-in has the policies as objects and nothing that enforces them, which is what this is there to find out.
        reached = {text.partition(" (")[0].removeprefix("a session reaches ") for level, text in told if level == "fail"}
        assert {"the registry", "the API server", "the cluster's API", "its node's kubelet"} <= reached
    assert not [one for one in rows if one["text"] == "sessions cannot look up names"]
    assert not site.pods()


async def test_a_click_ends_in_a_notebook_in_a_pod(site: Site) -> None:
    end, before = await launch(site.stand, site.spec("bare"))
    assert end["phase"] == "ready", (end, before[-20:])
    assert any(event["phase"] == "building" for event in before)
    (pod,) = site.pods()
    assert pod["spec"]["containers"][0]["image"] == end["image"]
    assert end["image"].startswith(f"{site.stand.settings['registry']['address']}/binder/")
    async with kernel(end) as session:
        assert "hello.ipynb" in await session.run("import os; print(6 * 7, sorted(os.listdir()))")
        assert "uid=1000" in await session.run("import subprocess; print(subprocess.check_output('id', text=True))")
        status = await session.run("print(open('/proc/self/status').read())")
        assert "CapBnd:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        variables = await session.run("import os; print(sorted(os.environ))")
        assert "JUPYTERHUB" not in variables
        assert "no account" in await session.run("import os; print('account' if os.path.exists('/var/run/secrets/kubernetes.io') else 'no account')")
    again, events = await launch(site.stand, site.spec("bare"))
    assert again["phase"] == "ready"
    assert not any(event["phase"] == "building" for event in events)
    for one in site.stand.json("servers", "list"):
        assert site.stand.command("servers", "stop", one["name"]).returncode == 0
    assert not site.pods()


async def test_what_is_without_an_owner_goes_and_what_has_one_outlives_the_hub(site: Site) -> None:
    end = await ready(site.stand, site.spec("bare"))
    stray = site.pods()[0]
    stray = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "binder-stray", "namespace": NAMESPACE, "labels": stray["metadata"]["labels"] | {"io.binder-onprem.launch": "f" * 16}},
        "spec": {key: value for key, value in stray["spec"].items() if key not in ("nodeName", "priority", "preemptionPolicy", "tolerations")},
    }
    site.cluster.apply(stray)
    site.stand.kill("hub", "daemon")
    site.stand.configure(session=SESSION | {"start_timeout": 2}, passes={"reconcile": 2})
    site.stand.up()
    end_of = time.monotonic() + 120
    while "binder-stray" in {pod["metadata"]["name"] for pod in site.pods()}:
        assert time.monotonic() < end_of
        await asyncio.sleep(0.5)
    async with kernel(end) as session:
        assert "42" in await session.run("print(6 * 7)")
    site.stand.configure(session=SESSION | {"idle": 1}, passes={"reap": 1})
    site.stand.up()
    end_of = time.monotonic() + 120
    while site.pods():
        assert time.monotonic() < end_of
        await asyncio.sleep(0.5)


def test_secrets_are_in_no_process_list_and_no_log(site: Site) -> None:
    secrets = [yaml.safe_load((site.folder / "kubeconfig").read_text())["users"][0]["user"]["token"], tlsregistry.ACCOUNT.partition(":")[2]]
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    logs = "".join(file.read_text(errors="replace") for file in (site.stand.home / "logs").rglob("*") if file.is_file())
    assert os.geteuid() == 0
    for secret in secrets:
        assert secret not in listed
        assert secret not in logs
