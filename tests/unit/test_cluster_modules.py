"""What the playbooks' modules do where a cluster, or a node of it, does not answer: a sentence with what to do, and no wait for nobody."""

from __future__ import annotations

import json
import socket
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.plugins import answer, plugin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
def api(node: dict[str, Any], asked: list[str]) -> Iterator[int]:
    """An API server on loopback that knows one node, and takes whatever is done to it."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path.partition('?')[0]}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            text = json.dumps(node).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_PATCH = do_GET  # noqa: N815 - the name that the server looks for

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
