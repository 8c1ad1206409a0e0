"""The question that a pod asks around with: whom a session must not reach, and that it is a session's pod that asks."""

from __future__ import annotations

import json

import pytest

from binder_onprem.host import podreach, sources
from tests.unit.test_remote_settings import CLUSTER, config

API = "https://10.9.8.7:6443"


@pytest.fixture(autouse=True)
def _no_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "read", lambda _: sources.Sources(b"", None, "", None, None, None, None, (), frozenset()))


def test_whom_a_session_must_not_reach() -> None:
    there = podreach.targets(config(listen={"host": "10.1.2.3"}), API)
    assert ("the registry", "registry.uni.example", 5000) in there
    assert ("the API server", "10.9.8.7", 6443) in there
    assert ("the cloud's metadata", "169.254.169.254", 80) in there
    assert ("this machine's Binder", "10.1.2.3", 8585) in there


def test_an_address_that_only_this_machine_has_is_not_asked_for() -> None:
    assert all(what != "this machine's Binder" for what, _, _ in podreach.targets(config(), API))


def test_the_pod_is_one_that_a_session_would_be() -> None:
    site = config(sessions=CLUSTER | {"priority_class": "p", "node_selector": {"a": "b"}})
    assert site.cluster
    pod = podreach.pod(site, site.cluster, API, "registry.uni.example:5000/binder-base@sha256:" + "0" * 64)
    assert pod["metadata"]["labels"]["io.binder-onprem.kind"] == "session"
    assert (pod["spec"]["priorityClassName"], pod["spec"]["nodeSelector"]) == ("p", {"a": "b"})
    only = pod["spec"]["containers"][0]
    assert json.loads(only["args"][3])[0][0] == "the registry"
    compile(only["args"][2].replace("$$", "$"), "script", "exec")
    assert only["env"] == [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]


def test_where_sessions_run_here_there_is_nothing_to_ask() -> None:
    assert not list(podreach.findings(config(sessions={"kind": "podman"}, registry={"kind": "local"})))
