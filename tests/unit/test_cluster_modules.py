"""What the playbooks' modules do where a cluster, or a node of it, does not answer: a sentence with what to do, and no wait for nobody."""

from __future__ import annotations

import json
import socket
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.plugins import answer, plugin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIELDS = "architecture bootID containerRuntimeVersion kernelVersion kubeProxyVersion kubeletVersion machineID operatingSystem osImage systemUUID"
INFO = dict.fromkeys(FIELDS.split(), "v1.34.3")
node, kubeconfig = (plugin(f"library/binder_{name}.py") for name in ("node", "kubeconfig"))


@pytest.fixture
def admin(tmp_path: Path) -> str:
    """A kubeconfig of a cluster that is away."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    return written(tmp_path / "kubeconfig", port)


def written(file: Path, port: int) -> str:
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    users = [{"name": "u", "user": {"token": "canary"}}]
    known = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "users": users, "current-context": "c"}
    file.write_text(json.dumps(known))
    return str(file)


@pytest.mark.parametrize("state", ["drained", "uncordoned", "absent"])
def test_a_node_of_a_cluster_that_is_away(state: str, admin: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = answer(node, capsys, kubeconfig=admin, name="node1", state=state)
    assert told["failed"]
    assert "node1" in told["msg"]
    assert "journalctl -u k3s" in told["msg"]


@pytest.mark.parametrize("broken", [False, True])
def test_an_account_of_a_cluster_that_is_away(admin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, broken: bool) -> None:
    if broken:
        (tmp_path / "kubeconfig").write_text("nonsense")
    asked: dict[str, Any] = {"admin": admin, "namespace": "binder", "account": "binder"}
    told = answer(kubeconfig, capsys, **asked, told=False)
    assert told["failed"]
    assert f"kubectl --kubeconfig {admin}" in told["msg"]
    assert "canary" not in json.dumps(told)


@contextmanager
def api(node: dict[str, Any], asked: list[str], pods: dict[str, dict[str, Any]] | None = None) -> Iterator[int]:
    """An API server on loopback that knows one node and its pods, and takes whatever is done to them."""
    running = {} if pods is None else pods

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path.partition('?')[0]}")
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            place = self.path.partition("?")[0].split("/")
            said: dict[str, Any] = {"kind": "PodList", "items": [*running.values()]} if place[-1] == "pods" else node
            if self.command == "POST":
                said = running.pop(place[-2])
            elif self.command == "PATCH" and place[-2] == "pods":
                said = running[place[-1]]
                notes = said["metadata"]["annotations"] | body["metadata"]["annotations"]
                said["metadata"]["annotations"] = {name: value for name, value in notes.items() if value is not None}
            text = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_PATCH = do_POST = do_GET  # noqa: N815 - the names that the server looks for

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("check", [False, True])
def test_nobody_waits_for_the_sessions_of_a_node_that_is_away(tmp_path: Path, capsys: pytest.CaptureFixture[str], *, check: bool) -> None:
    status = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
    asked: list[str] = []
    with api({"kind": "Node", "metadata": {"name": "node1"}, "spec": {}, "status": status}, asked) as port:
        config = written(tmp_path / "kubeconfig", port)
        told = answer(node, capsys, kubeconfig=config, name="node1", state="drained", patience=3600, _ansible_check_mode=check)
    assert (told["changed"], told["evicted"]) == (True, [])
    assert asked == ["GET /api/v1/nodes/node1", *([] if check else ["PATCH /api/v1/nodes/node1"])]


@pytest.mark.parametrize("ours", [False, True])
def test_what_somebody_else_has_cordoned_stays_so(tmp_path: Path, capsys: pytest.CaptureFixture[str], *, ours: bool) -> None:
    about = {"name": "node1", "annotations": {node.DRAINED: "true"} if ours else {}}
    asked: list[str] = []
    with api({"kind": "Node", "metadata": about, "spec": {"unschedulable": True}, "status": {}}, asked) as port:
        told = answer(node, capsys, kubeconfig=written(tmp_path / "kubeconfig", port), name="node1", state="uncordoned")
    assert told["changed"] is ours
    assert ("PATCH /api/v1/nodes/node1" in asked) is ours


def pod(name: str, kind: str, until: str | None = None) -> dict[str, Any]:
    annotations = {node.UNTIL: until} if until else {}
    about = {"name": name, "namespace": "binder", "labels": {"io.binder-onprem.kind": kind}, "annotations": annotations}
    return {"kind": "Pod", "metadata": about, "spec": {"containers": []}, "status": {"phase": "Running"}}


def test_sessions_on_a_node_are_told_when_its_drain_ends_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pods = {"one": pod("one", "session"), "other": pod("other", "prepull")}
    seen, clock = list[dict[str, Any]](), [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        seen.append({name: dict(one["metadata"]["annotations"]) for name, one in pods.items()})
        if clock[0] == 2:
            pods["late"] = pod("late", "session")  # it was on its way when the node was cordoned

    monkeypatch.setattr(node, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    status, asked = {"conditions": [{"type": "Ready", "status": "True"}]}, list[str]()
    before = datetime.now(UTC).timestamp()
    with api({"kind": "Node", "metadata": {"name": "node1"}, "spec": {}, "status": status}, asked, pods) as port:
        told = answer(node, capsys, kubeconfig=written(tmp_path / "kubeconfig", port), name="node1", state="drained", patience=600)
    until = seen[0]["one"][node.UNTIL]
    assert 599 <= datetime.fromisoformat(until).timestamp() - before <= 610, "by the API server's clock, which is this one"
    assert (seen[0]["other"], seen[1]["late"]) == ({}, {node.UNTIL: until})
    assert asked.count("PATCH /api/v1/namespaces/binder/pods/one") == 1
    assert (clock[0] >= 600, told["evicted"], pods) == (True, ["binder/late", "binder/one", "binder/other"], {})


def test_a_drain_that_is_called_off_is_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pods = {"one": pod("one", "session", "2026-01-01T00:00:00Z"), "two": pod("two", "session")}
    about, asked = {"name": "node1", "annotations": {node.DRAINED: "true"}}, list[str]()
    with api({"kind": "Node", "metadata": about, "spec": {"unschedulable": True}, "status": {}}, asked, pods) as port:
        told = answer(node, capsys, kubeconfig=written(tmp_path / "kubeconfig", port), name="node1", state="uncordoned")
    assert told["changed"]
    assert pods["one"]["metadata"]["annotations"] == {}
    assert "PATCH /api/v1/namespaces/binder/pods/two" not in asked


def waited(tmp_path: Path, capsys: pytest.CaptureFixture[str], heartbeat: float, begun: float, **more: Any) -> dict[str, Any]:
    """What is answered for a node that said Ready at a moment, and whose process began at another."""
    said = datetime.fromtimestamp(heartbeat, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [{"type": "Ready", "status": "True", "lastHeartbeatTime": said}]
    status = {"conditions": conditions, "nodeInfo": INFO}
    with api({"kind": "Node", "metadata": {"name": "node1"}, "spec": {"podCIDR": "10.42.0.0/24"}, "status": status}, []) as port:
        config = written(tmp_path / "kubeconfig", port)
        return answer(node, capsys, kubeconfig=config, name="node1", state="ready", seconds=0, since=begun, **more)


@pytest.mark.parametrize(("heartbeat", "begun", "good"), [(-30, -10, False), (-5, -10, True), (-400, -200, True), (-30, None, True)])
def test_what_a_node_said_before_its_process_began_counts_for_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], heartbeat: float, begun: float | None, *, good: bool
) -> None:
    now = time.time()
    told = waited(tmp_path, capsys, now + heartbeat, 0 if begun is None else now + begun)
    assert told.get("failed", False) is not good
    assert good or "has said nothing since it was started" in told["msg"]


def test_a_look_ahead_waits_for_no_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = waited(tmp_path, capsys, time.time() - 30, time.time(), _ansible_check_mode=True)
    assert (told.get("failed", False), told["changed"], told["pod_cidr"]) == (False, False, "10.42.0.0/24")


@pytest.mark.parametrize(
    ("kubelet", "wanted", "same"),
    [
        ("v1.34.4+k3s1", "v1.34.4+k3s1", True),
        ("v1.34.4+k3s1", "v1.34.4+k3s2", False),
        ("v1.34.10+k3s1", "v1.34.1+k3s1", False),
        ("v1.34.4", "v1.34.4+k3s1", True),
        ("v1.34.3", "", True),
    ],
)
def test_a_kubelets_version_is_the_wanted_one_or_is_not(kubelet: str, wanted: str, same: bool) -> None:  # noqa: FBT001
    assert node.runs(kubelet, wanted) is same
