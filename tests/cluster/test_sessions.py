"""Sessions as pods, before a real API server: the chart's rights and policies, the pod it takes, the spawner, the passes, what `check` finds.

There are no nodes: what a kubelet would say of a pod is said by the test.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

import pytest
import pytest_asyncio
import yaml

from binder_onprem.config import Config
from binder_onprem.errors import EngineUnavailable, NotFound
from binder_onprem.host import clustercheck
from binder_onprem.hub.session import Confinement
from binder_onprem.kube import api
from binder_onprem.kube.pods import Pods
from tests.cluster import controlplane, gobuild
from tests.unit.plugins import plugin
from tests.unit.test_pod import GOOD, LAUNCH, made
from tests.unit.test_remote_settings import CLUSTER, REMOTE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from binder_onprem.hub.pod_spawner import PodSpawner
    from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.real

CHART = str(clustercheck.__file__).partition("/binder_onprem/")[0] + "/playbooks/roles/namespace/files/chart"
NAMESPACE = "sessions"
VALUES = {"control": ["127.0.0.1/32"], "pull": {"registry": "registry.uni.example:5000", "username": "nodes", "password": "planted-pull-password"}}
ADDRESS = "127.77.0.5"


def helm(*words: str) -> str:
    release = f"--kube-version={gobuild.KUBERNETES}"
    return subprocess.run([str(gobuild.program("helm")), *words, release], capture_output=True, text=True, check=True, timeout=60).stdout


def rendered(folder: Path, values: dict[str, Any] | None = None, name: str = "binder") -> list[dict[str, Any]]:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values or VALUES))
    text = helm("template", name, CHART, "--namespace", NAMESPACE, "--values", str(file))
    return [one for one in yaml.safe_load_all(text) if one]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with controlplane.running() as plane:
        yield plane


@pytest.fixture(scope="module")
def kubeconfig(plane: ControlPlane) -> Path:
    """The namespace as the chart makes it, and the account's kubeconfig."""
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    plane.ask("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE, "labels": label}})
    for one in rendered(plane.folder):
        plane.ask("POST", place(one), one)
    return plane.kubeconfig(token(plane))


PLURALS = {"NetworkPolicy": "networkpolicies", "PriorityClass": "priorityclasses"}


def place(one: dict[str, Any]) -> str:
    """Where an object of this kind is made."""
    version, plural = one["apiVersion"], PLURALS.get(one["kind"], one["kind"].lower() + "s")
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{root}/{plural}" if one["kind"] == "PriorityClass" else f"{root}/namespaces/{NAMESPACE}/{plural}"


def token(plane: ControlPlane) -> str:
    path = f"/api/v1/namespaces/{NAMESPACE}/secrets/binder-token"
    return until(lambda: base64.b64decode(plane.ask("GET", path)["data"]["token"]).decode())


def until(found: Callable[[], Any], seconds: int = 30) -> Any:
    end = time.monotonic() + seconds
    while True:
        with suppress(KeyError, HTTPError):
            if value := found():
                return value
        assert time.monotonic() < end
        time.sleep(0.1)


def site(kubeconfig: Path, **settings: Any) -> Config:
    cluster = CLUSTER | {
        "kubeconfig_file": str(kubeconfig),
        "namespace": NAMESPACE,
        "priority_class": "binder-sessions",
        "pull_secret": "binder-pull",
    }
    return Config.model_validate({"registry": REMOTE, "sessions": cluster, "session": {"start_timeout": 8}} | settings)


# --- the chart ---------------------------------------------------------------------------------------------------------------------


def test_the_chart_is_sound_and_refuses_values_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(VALUES))
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, "--values", str(file))
    for wrong in ({}, {"control": []}, {"control": ["10.0.0.1"]}, VALUES | {"privileged": True}, VALUES | {"prepull": {"images": ["debian:12"]}}):
        with pytest.raises(subprocess.CalledProcessError) as error:
            rendered(tmp_path, wrong or {"quota": {}})
        assert "schema" in error.value.stderr


def test_nothing_comes_in_but_from_the_control_host_and_nothing_private_goes_out(tmp_path: Path) -> None:
    values = VALUES | {"egress": {"allow": [{"cidr": "10.1.2.3/32", "ports": [443]}, {"cidr": "10.9.0.0/16"}], "own": ["192.0.2.0/24"]}}
    policies = {one["metadata"]["name"]: one["spec"] for one in rendered(tmp_path, values) if one["kind"] == "NetworkPolicy"}
    assert policies["binder-nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert policies["binder-from-control"]["ingress"] == [
        {"from": [{"ipBlock": {"cidr": "127.0.0.1/32"}}], "ports": [{"port": 8888, "protocol": "TCP"}]}
    ]
    outside = policies["binder-outside"]["egress"]
    public = outside[0]["to"][0]["ipBlock"]
    assert public["cidr"] == "0.0.0.0/0"
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "192.0.2.0/24"} <= set(public["except"])
    assert outside[1] == {"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "ports": [{"port": 443, "protocol": "TCP"}]}
    assert outside[2] == {"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}
    closed = {one["metadata"]["name"] for one in rendered(tmp_path, VALUES | {"egress": {"public": False}}) if one["kind"] == "NetworkPolicy"}
    assert closed == {"binder-nothing", "binder-from-control", "binder-names"}


def test_nodes_have_the_account_and_the_images_before(tmp_path: Path, plane: ControlPlane, kubeconfig: Path) -> None:
    images = [f"registry.uni.example:5000/binder-base@sha256:{number * 64}" for number in "ab"]
    all_ = rendered(tmp_path, VALUES | {"prepull": {"images": images, "nodeSelector": {"sessions": "yes"}}}, "prepulls")
    secret = next(one for one in all_ if one["metadata"]["name"] == "binder-pull")
    account = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
    assert account == {"auths": {"registry.uni.example:5000": {"auth": base64.b64encode(b"nodes:planted-pull-password").decode()}}}
    daemons = next(one for one in all_ if one["kind"] == "DaemonSet")
    template = daemons["spec"]["template"]["spec"]
    assert [one["image"] for one in (*template["initContainers"], *template["containers"])] == [images[1], images[0]]
    plane.ask("POST", place(daemons) + "?dryRun=All", daemons)
    # Its pods hold to what the namespace asks of all.
    pod = {"metadata": {"name": "x", "labels": daemons["spec"]["template"]["metadata"]["labels"]}, "spec": template}
    plane.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All", pod)
    assert kubeconfig.exists()


# --- check -------------------------------------------------------------------------------------------------------------------------


async def found(config: Config) -> list[tuple[str, str]]:
    return [(one.level, one.text) for one in await asyncio.to_thread(lambda: list(clustercheck.findings(config)))]


async def test_check_finds_nothing_wrong_with_what_the_chart_has_made(kubeconfig: Path) -> None:
    said = await found(site(kubeconfig))
    assert [level for level, _ in said] == ["ok", "ok"], said
    assert said[0][1] == "the API server takes sessions in sessions"
    assert not [one async for one in nothing_made(kubeconfig)]


async def nothing_made(kubeconfig: Path) -> AsyncIterator[str]:
    cluster = site(kubeconfig).cluster
    assert cluster
    async with api.opened(cluster) as client:
        for pod in await Pods(client, NAMESPACE).labelled({"component": "binder-session"}):
            yield pod.name


async def test_check_names_what_stands_against_sessions(plane: ControlPlane, kubeconfig: Path) -> None:
    wrong = await found(site(kubeconfig, sessions=site(kubeconfig).sessions.model_dump() | {"priority_class": "none"}))
    assert wrong[0][0] == "fail"
    assert "PriorityClass" in wrong[0][1]
    elsewhere = await found(site(kubeconfig, sessions=site(kubeconfig).sessions.model_dump() | {"namespace": "default"}))
    assert elsewhere[0] == ("fail", "the ServiceAccount may not create pods, delete pods, list pods, watch pods")
    stranger = await found(site(plane.kubeconfig("x" * 20, "stranger")))
    assert stranger[0] == ("fail", "the API server refuses the kubeconfig's account")
    silent = await found(site(plane.kubeconfig("x", "silent", "https://127.0.0.1:9")))
    assert "does not answer" in silent[0][1]
    none = plane.folder / "none"
    for text in ("hello: [", "hello", "clusters: []", ""):
        none.write_text(text)
        assert "is no kubeconfig" in (await found(site(none)))[0][1]


async def test_check_tells_of_an_account_that_may_too_much_and_of_a_namespace_without_policies(plane: ControlPlane) -> None:
    admin = site(plane.kubeconfig(plane.token, "admin-of-tests"))
    plane.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "bare"}})
    said = await found(admin.model_copy(update={"sessions": admin.sessions.model_copy(update={"namespace": "bare"})}))
    texts = " | ".join(f"{level}: {text}" for level, text in said)
    assert "warn: the account of the kubeconfig may more than sessions need: get secrets" in texts
    assert "fail: the namespace bare has no NetworkPolicy" in texts
    assert "warn: the namespace bare has no ResourceQuota" in texts
    assert "does not enforce the Pod Security Standard restricted" in texts


# --- the passes ----------------------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def pods(kubeconfig: Path) -> AsyncIterator[Pods]:
    cluster = site(kubeconfig).cluster
    assert cluster
    async with api.opened(cluster) as client:
        yield Pods(client, NAMESPACE)


async def test_pods_are_found_by_label_and_removed(plane: ControlPlane, kubeconfig: Path, pods: Pods) -> None:
    body = made(site(kubeconfig))
    plane.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", body)
    listed = await pods.labelled({"io.binder-onprem.kind": "session"})
    assert [(one.name, one.labels["io.binder-onprem.launch"]) for one in listed] == [(f"binder-{LAUNCH}", LAUNCH)]
    assert listed[0].created > 1e9
    assert await pods.now() == {LAUNCH: SimpleNamespace(cpu=None, memory=None)} or (await pods.now())[LAUNCH].cpu is None
    await pods.ping()
    await pods.remove(listed[0].name)
    await pods.remove(listed[0].name)
    assert not await pods.labelled({"io.binder-onprem.kind": "session"})


async def test_a_drain_stands_on_pods_because_the_account_reads_no_nodes(plane: ControlPlane, kubeconfig: Path, pods: Pods) -> None:
    draining = plugin("library/binder_node.py")
    body = made(site(kubeconfig))
    body["spec"]["nodeName"] = "node1"
    plane.ask("POST", "/api/v1/nodes", {"metadata": {"name": "node1"}})
    plane.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", body)
    nodes = draining.Nodes(SimpleNamespace(params={"kubeconfig": str(plane.kubeconfig(plane.token, "drains"))}))
    until = draining.rfc3339(nodes.clock("node1") + 3600)
    assert (nodes.tell(nodes.pods("node1"), until), nodes.tell(nodes.pods("node1"), until)) == (True, False)
    assert await pods.drains() == {LAUNCH: pytest.approx(time.time() + 3600, abs=10)}
    assert nodes.tell(nodes.pods("node1"), None)
    assert await pods.drains() == {LAUNCH: None}
    await pods.remove(f"binder-{LAUNCH}")
    plane.ask("DELETE", "/api/v1/nodes/node1")


async def test_what_the_cluster_refuses_is_an_error_of_ours(plane: ControlPlane) -> None:
    for name, url in (("refused", ""), ("down", "https://127.0.0.1:9")):
        cluster = site(plane.kubeconfig("y" * 20, name, url)).cluster
        assert cluster
        async with api.opened(cluster) as client:
            with pytest.raises(EngineUnavailable):
                await Pods(client, NAMESPACE).ping()
    cluster = site(plane.kubeconfig(token(plane), "right")).cluster
    assert cluster
    async with api.opened(cluster) as client:
        from kubernetes_asyncio.client import CoreV1Api  # noqa: PLC0415 - here only

        with pytest.raises(NotFound):
            await api.call(CoreV1Api(client).delete_namespaced_pod("none", NAMESPACE))


def test_the_account_reads_no_secret_and_enters_no_pod(plane: ControlPlane, kubeconfig: Path) -> None:
    own = controlplane.ControlPlane(plane.url, plane.ca, token(plane), plane.folder)
    for method, path in (
        ("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets"),
        ("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/binder-pull"),
        ("POST", f"/api/v1/namespaces/{NAMESPACE}/pods/x/exec"),
        ("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/x/log"),
        ("GET", "/api/v1/pods"),
        ("GET", "/api/v1/nodes"),
        ("DELETE", f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies/binder-nothing"),
    ):
        with pytest.raises(HTTPError) as error:
            own.ask(method, path)
        assert error.value.code == 403, path
    assert kubeconfig.exists()


def test_a_pod_that_is_less_confined_is_not_taken(plane: ControlPlane, kubeconfig: Path) -> None:
    body = made(site(kubeconfig))
    body["metadata"]["name"] = "loose"
    body["spec"]["containers"][0]["securityContext"] |= {"allowPrivilegeEscalation": True}
    with pytest.raises(HTTPError) as error:
        plane.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", body)
    assert error.value.code == 403
    assert b"restricted" in error.value.read()


# --- the spawner ---------------------------------------------------------------------------------------------------------------------


class Node:
    """Says of a pod what a kubelet would, and has a server in its place."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    async def says(self, state: dict[str, Any], name: str = f"binder-{LAUNCH}", **status: Any) -> None:
        containers = [{"name": "notebook", "image": "x", "imageID": "", "ready": "running" in state, "restartCount": 0, "state": state}]
        body = {"phase": "Pending", "containerStatuses": containers} | status
        for _ in range(200):
            with suppress(HTTPError):
                await asyncio.to_thread(lambda: self.plane.status(NAMESPACE, name, **body))
                return
            await asyncio.sleep(0.05)
        raise TimeoutError

    async def runs(self) -> None:
        await self.says({"running": {}}, phase="Running", podIP=ADDRESS, podIPs=[{"ip": ADDRESS}])


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    await writer.drain()
    writer.close()


@pytest.fixture
def node(plane: ControlPlane) -> Node:
    return Node(plane)


@pytest_asyncio.fixture
async def spawner(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PodSpawner]:
    from kubernetes_asyncio.config import kube_config  # noqa: PLC0415 - slow, and of these tests alone
    from kubespawner.clients import load_config  # noqa: PLC0415 - same

    from binder_onprem.hub.pod_spawner import PodSpawner  # noqa: PLC0415 - same

    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    load_config.cache_clear()
    config = site(kubeconfig)
    assert config.cluster
    PodSpawner.cluster, PodSpawner.site = config.cluster, Confinement.of(config, None)
    PodSpawner.answer_timeout = 4
    one = PodSpawner(_mock=True, component_label="binder-session", namespace=NAMESPACE, events_enabled=False, delete_grace_period=2)
    one.user_options = dict(GOOD)
    one.user.name = f"x-{LAUNCH}"
    one._server = SimpleNamespace(base_url="/jupyter/user/x/")
    yield one
    await one.stop(now=True)
    await PodSpawner._stop_all_reflectors()


def sentence(error: pytest.ExceptionInfo[BaseException]) -> tuple[str, str]:
    return error.value.jupyterhub_html_message, error.value.jupyterhub_message  # type: ignore[attr-defined]


async def test_a_start_returns_when_the_server_answers(spawner: PodSpawner, node: Node, pods: Pods) -> None:
    start = asyncio.ensure_future(spawner.start())
    await node.says({"waiting": {"reason": "ContainerCreating"}})
    await asyncio.sleep(0.3)
    await node.runs()
    await asyncio.sleep(0.5)
    assert not start.done()
    server = await asyncio.start_server(answer, ADDRESS, 8888)
    async with server:
        assert await asyncio.wait_for(start, 10) == (ADDRESS, 8888)
    told = [event["message"] async for event in first(spawner.progress(), 2)]
    assert told == ["Starting the session", "Preparing the session on a node of the cluster"]
    assert await spawner.poll() is None
    assert [one.name for one in await pods.labelled({"io.binder-onprem.launch": LAUNCH})] == [f"binder-{LAUNCH}"]
    await node.says({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, phase="Failed")
    await becomes(spawner, 137)
    await spawner.run_post_stop_hook()
    assert not await pods.labelled({"io.binder-onprem.launch": LAUNCH})
    assert await spawner.poll() == 0


async def first(events: Any, count: int) -> AsyncIterator[dict[str, Any]]:
    for _ in range(count):
        yield await asyncio.wait_for(anext(events), 2)


async def becomes(spawner: PodSpawner, code: int | None) -> None:
    async with asyncio.timeout(10):
        while await spawner.poll() != code:  # noqa: ASYNC110 - what is tested is a poll
            await asyncio.sleep(0.05)


async def test_a_second_attempt_of_a_launch_adopts_its_pod_and_another_image_replaces_it(
    spawner: PodSpawner, node: Node, plane: ControlPlane
) -> None:
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    there = await asyncio.to_thread(lambda: plane.ask("POST", path, made(site(spawner.cluster.kubeconfig_file))))
    await node.runs()
    async with await asyncio.start_server(answer, ADDRESS, 8888):
        assert await asyncio.wait_for(spawner.start(), 10) == (ADDRESS, 8888)
        assert (await asyncio.to_thread(lambda: plane.ask("GET", f"{path}/binder-{LAUNCH}")))["metadata"]["uid"] == there["metadata"]["uid"]
        spawner.user_options |= {"image": GOOD["image"].replace("0" * 64, "1" * 64)}
        start = asyncio.ensure_future(spawner.start())
        for _ in range(100):
            with suppress(HTTPError):
                now = await asyncio.to_thread(lambda: plane.ask("GET", f"{path}/binder-{LAUNCH}"))
                if now["metadata"]["uid"] != there["metadata"]["uid"]:
                    break
            await asyncio.sleep(0.1)
        await node.runs()
        await asyncio.wait_for(start, 10)


FAILURES: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({"waiting": {"reason": "ErrImagePull", "message": "rpc error: registry/x: not found"}}, {}, "410", "is gone"),
    ({"waiting": {"reason": "CreateContainerConfigError", "message": "image will run as root"}}, {}, "502", "cannot run its image"),
    ({"terminated": {"exitCode": 127, "message": "no jupyter in PATH\n"}}, {"phase": "Failed"}, "502", "no Jupyter server in PATH"),
    ({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, {"phase": "Failed"}, "502", "memory limit of 2048 MiB"),
    ({"terminated": {"exitCode": 1, "message": f"\x1b[31mtoken {GOOD['token']}\x00"}}, {"phase": "Failed"}, "502", "token [token]"),
]


@pytest.mark.parametrize(("state", "status", "code", "said"), FAILURES)
async def test_a_start_that_fails_says_why_and_leaves_nothing(  # noqa: PLR0913, PLR0917 - fixtures and parameters
    spawner: PodSpawner, node: Node, pods: Pods, state: dict[str, Any], status: dict[str, Any], code: str, said: str
) -> None:
    start = asyncio.ensure_future(spawner.start())
    await node.says(state, **status)
    with pytest.raises(Exception) as error:  # noqa: PT011 - the hub's own class
        await asyncio.wait_for(start, 15)
    assert sentence(error)[0] == code
    assert said in sentence(error)[1]
    assert "\x1b" not in sentence(error)[1]
    assert not await pods.labelled({"io.binder-onprem.launch": LAUNCH})


async def test_a_server_that_does_not_answer_is_ended(spawner: PodSpawner, node: Node, pods: Pods) -> None:
    start = asyncio.ensure_future(spawner.start())
    await node.runs()
    with pytest.raises(Exception) as error:  # noqa: PT011 - the hub's own class
        await asyncio.wait_for(start, 30)
    assert sentence(error)[0] == "504"
    assert not await pods.labelled({"io.binder-onprem.launch": LAUNCH})


async def test_a_used_up_quota_is_told_as_that(spawner: PodSpawner, plane: ControlPlane) -> None:
    path = f"/api/v1/namespaces/{NAMESPACE}/resourcequotas"
    quota = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": "0"}}}
    await asyncio.to_thread(lambda: plane.ask("POST", path, quota))
    try:
        await asyncio.to_thread(lambda: until(lambda: plane.ask("GET", f"{path}/full").get("status", {}).get("hard")))
        with pytest.raises(Exception) as error:  # noqa: PT011 - the hub's own class
            await spawner.start()
        assert sentence(error) == ("503", "The cluster's quota for sessions is used up. Try again later.")
    finally:
        await asyncio.to_thread(lambda: plane.ask("DELETE", f"{path}/full"))


async def test_options_of_others_reach_no_cluster(spawner: PodSpawner, pods: Pods) -> None:
    spawner.user_options |= {"image": "docker.io/library/debian:12"}
    with pytest.raises(Exception) as error:  # noqa: PT011 - the hub's own class
        await spawner.start()
    assert sentence(error)[0] == "400"
    assert not await pods.labelled({"io.binder-onprem.launch": LAUNCH})
    spawner.user_options = dict(GOOD)


async def test_a_start_that_is_cancelled_leaves_nothing(spawner: PodSpawner, node: Node, pods: Pods) -> None:
    start = asyncio.ensure_future(spawner.start())
    await node.says({"waiting": {"reason": "ContainerCreating"}})
    start.cancel()
    with suppress(asyncio.CancelledError):
        await start
    assert not await pods.labelled({"io.binder-onprem.launch": LAUNCH})


async def test_a_cluster_that_does_not_answer_ends_no_session(spawner: PodSpawner, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    start = asyncio.ensure_future(spawner.start())
    await node.runs()
    async with await asyncio.start_server(answer, ADDRESS, 8888):
        await asyncio.wait_for(start, 10)
    # As after a restart of the hub: the first list fails, and an empty watch stays behind.
    await type(spawner)._stop_all_reflectors()
    right = spawner.api.api_client.configuration.host
    monkeypatch.setattr(spawner.api.api_client.configuration, "host", "https://127.0.0.1:9")
    assert await spawner.poll() is None
    assert await spawner.poll() is None
    monkeypatch.setattr(spawner.api.api_client.configuration, "host", right)
    assert await spawner.poll() is None
    await spawner.stop()
    assert await spawner.poll() == 0
