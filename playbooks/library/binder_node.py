#!/usr/bin/python
"""A node of Kubernetes, seen from the controller: wait until it is Ready, cordon, drain, uncordon or delete it.

Draining lets sessions end by themselves for `patience` seconds; what then still runs is evicted. When that is stands on their pods, where the Binder,
which may not read nodes, finds it and tells their people. Pods of DaemonSets and static ones stay. A node that is not Ready is cordoned only: nobody
there would end anything, however long one waits.
"""

from __future__ import annotations

import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DRAINED = "io.binder-onprem/drained"
"""Annotation of a node that a drain of ours has cordoned: one that somebody else has cordoned stays so."""
UNTIL = "io.binder-onprem/drain-until"
"""Annotation of a session's pod: when a drain ends it at the latest, RFC 3339."""
GONE = 404
BUDGET = 429
"""A disruption budget says: not now."""
STALE = 120
"""Seconds after which the cluster itself has seen that a node says nothing any more: it waits 40 to 50 for that."""


class Nodes:
    """The cluster as a kubeconfig names it."""

    def __init__(self, module: AnsibleModule) -> None:
        try:
            from kubernetes import client, config  # noqa: PLC0415 - the sentence is for who runs the playbooks with another Python
        except ImportError:
            module.fail_json(msg="Python's kubernetes is missing on the controller: pip install kubernetes, or use the Python of binder-onprem.")
        config.load_kube_config(module.params["kubeconfig"])
        self.client = client
        self.core = client.CoreV1Api()

    def find(self, name: str) -> Any:
        """The node; None if there is none."""
        try:
            return self.core.read_node(name, _request_timeout=10)
        except self.client.ApiException as error:
            if error.status == GONE:
                return None
            raise

    def cordon(self, name: str, *, cordoned: bool) -> None:
        """Let nothing new run there, with a note that it was us, or let it again."""
        note = {"annotations": {DRAINED: "true" if cordoned else None}}
        self.core.patch_node(name, {"metadata": note, "spec": {"unschedulable": cordoned or None}}, _request_timeout=10)

    def pods(self, name: str) -> list[Any]:
        """Those that a drain ends."""
        found = self.core.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={name}", _request_timeout=10).items
        return [pod for pod in found if pod.status.phase not in ("Succeeded", "Failed") and not stays(pod)]

    def clock(self, name: str) -> float:
        """Unix seconds by the API server's clock, to the second: that of a controller may be anything."""
        _, _, headers = self.core.read_node_with_http_info(name, _request_timeout=10)
        return parsedate_to_datetime(headers["Date"]).timestamp()

    def tell(self, pods: list[Any], until: str | None) -> bool:
        """Write on sessions' pods when they end at the latest, None: it is called off; whether that was news to any."""
        news = [pod for pod in pods if session(pod) and (pod.metadata.annotations or {}).get(UNTIL) != until]
        for pod in news:
            try:
                self.core.patch_namespaced_pod(
                    pod.metadata.name, pod.metadata.namespace, {"metadata": {"annotations": {UNTIL: until}}}, _request_timeout=10
                )
            except self.client.ApiException as error:
                if error.status != GONE:
                    raise
        return bool(news)

    def evict(self, pod: Any) -> None:
        """Ask for its end; a budget's no is asked again later."""
        meta = self.client.V1ObjectMeta(name=pod.metadata.name, namespace=pod.metadata.namespace)
        try:
            self.core.create_namespaced_pod_eviction(meta.name, meta.namespace, self.client.V1Eviction(metadata=meta), _request_timeout=10)
        except self.client.ApiException as error:
            if error.status not in (GONE, BUDGET):
                raise

    def delete(self, name: str) -> None:
        """The node, and the password by which k3s knows its machine."""
        for call in (
            lambda: self.core.delete_node(name, _request_timeout=10),
            lambda: self.core.delete_namespaced_secret(f"{name}.node-password.k3s", "kube-system", _request_timeout=10),
        ):
            try:
                call()
            except self.client.ApiException as error:
                if error.status != GONE:
                    raise


def stays(pod: Any) -> bool:
    """Whether a drain leaves it: its owner would start it again at once, or it is the node's own file."""
    owners = pod.metadata.owner_references or []
    mirror = "kubernetes.io/config.mirror" in (pod.metadata.annotations or {})
    return mirror or any(owner.kind in ("DaemonSet", "Node") for owner in owners)


def session(pod: Any) -> bool:
    """Whether somebody works in it."""
    return (pod.metadata.labels or {}).get("io.binder-onprem.kind") == "session"


def rfc3339(seconds: float) -> str:
    """Unix seconds as the annotation has them."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: UP017 - the controller's Python may be older


def theirs(node: Any) -> bool:
    """Whether somebody else has cordoned it."""
    return bool(node.spec.unschedulable) and DRAINED not in (node.metadata.annotations or {})


def ready(node: Any, since: float = 0) -> bool:
    """Whether the node says so, and has said it since a moment (Unix seconds): the API tells whole seconds."""
    said = [one for one in (node.status.conditions or [] if node is not None else []) if one.type == "Ready" and one.status == "True"]
    return any(not since or (one.last_heartbeat_time is not None and one.last_heartbeat_time.timestamp() >= int(since)) for one in said)


def runs(kubelet: str, wanted: str) -> bool:
    """Whether a kubelet's version is the wanted one; one that tells no build of k3s is compared without."""
    return not wanted or kubelet == (wanted if "+" in kubelet else wanted.partition("+")[0])


def wait_ready(module: AnsibleModule, nodes: Nodes, name: str) -> None:
    """Until it is Ready, by a kubelet of the version where one is given, and by what it has said since its process began (`since`)."""
    begun = module.params["since"]
    end = time.monotonic() + module.params["seconds"]
    why, node = "it has not joined", None
    while True:
        # The API itself may be restarting: that is not an answer.
        try:
            node = nodes.find(name)
        except Exception as error:  # noqa: BLE001 - urllib3's and the client's own; each means "not now"
            why = str(error).splitlines()[0][:300]
        else:
            other = node is not None and not runs(node.status.node_info.kubelet_version, module.params["version"])
            fresh = ready(node, begun if time.time() < begun + STALE else 0)
            if fresh and not other:
                module.exit_json(changed=False, version=node.status.node_info.kubelet_version, pod_cidr=node.spec.pod_cidr or "")
            if node is not None:
                why = next((one.message for one in node.status.conditions or [] if one.type == "Ready"), "it says nothing")
                why = "its kubelet has said nothing since it was started" if ready(node) else why
            if other:
                why = f"its kubelet is {node.status.node_info.kubelet_version} and not {module.params['version']}"
        if module.check_mode:
            # What a site that was cut off has not come to is what a run would do, and nothing to wait for.
            module.exit_json(changed=False, version="", pod_cidr=(node.spec.pod_cidr or "") if node is not None else "", why=why)
        if time.monotonic() > end:
            break
        time.sleep(1)
    unit = "journalctl -u 'k3s*'"
    module.fail_json(msg=f"The node {name} is not Ready after {module.params['seconds']} s: {why}. See on that host: {unit}")


def look(module: AnsibleModule, nodes: Nodes, name: str) -> None:
    """What the cluster says of it, at once."""
    try:
        node = nodes.find(name)
        sessions = sum(session(pod) for pod in nodes.pods(name))
    except Exception as error:  # noqa: BLE001 - urllib3's and the client's own
        module.exit_json(changed=False, node={"ready": False, "why": f"the API does not answer: {str(error).splitlines()[0][:200]}"})
    if node is None:
        module.exit_json(changed=False, node={"ready": False, "why": "the cluster does not know it"})
    why = next((one.message for one in node.status.conditions or [] if one.type == "Ready" and one.status != "True"), "")
    version, cordoned = node.status.node_info.kubelet_version, bool(node.spec.unschedulable)
    module.exit_json(changed=False, node={"ready": ready(node), "why": why, "version": version, "cordoned": cordoned, "sessions": sessions})


def drain(module: AnsibleModule, nodes: Nodes, name: str) -> None:
    """Cordon, wait for sessions, evict what is left."""
    node = nodes.find(name)
    if node is None:
        module.exit_json(changed=False, evicted=[])
    alive = ready(node)
    due = not node.spec.unschedulable or (alive and bool(nodes.pods(name)))
    if not module.check_mode and not theirs(node):
        nodes.cordon(name, cordoned=True)
    if module.check_mode or not alive:
        module.exit_json(changed=due, evicted=[])
    patience = time.monotonic() + module.params["patience"]
    until = rfc3339(nodes.clock(name) + module.params["patience"])
    while time.monotonic() < patience and any(map(session, left := nodes.pods(name))):
        nodes.tell(left, until)  # each time: one may have been on its way here before the node was cordoned
        time.sleep(2)
    evicted = {f"{pod.metadata.namespace}/{pod.metadata.name}" for pod in nodes.pods(name)}
    end = time.monotonic() + module.params["seconds"]
    while left := nodes.pods(name):
        if time.monotonic() > end:
            names = ", ".join(f"{pod.metadata.namespace}/{pod.metadata.name}" for pod in left)
            if not node.spec.unschedulable:
                nodes.cordon(name, cordoned=False)
            nodes.tell(left, None)
            module.fail_json(msg=f"{name} could not be drained, these pods do not end: {names}. Look at them, then run this again.")
        for pod in left:
            nodes.evict(pod)
        time.sleep(1)
    module.exit_json(changed=True, evicted=sorted(evicted))


def uncordon(module: AnsibleModule, nodes: Nodes, name: str) -> None:
    """Let pods run there again, unless somebody else has cordoned it; nobody's session ends there any more."""
    node = nodes.find(name)
    changed = node is not None and bool(node.spec.unschedulable) and not theirs(node)
    if changed and not module.check_mode:
        nodes.cordon(name, cordoned=False)
    if node is not None and not module.check_mode:
        changed |= nodes.tell(nodes.pods(name), None)
    module.exit_json(changed=changed)


def absent(module: AnsibleModule, nodes: Nodes, name: str) -> None:
    """Out of the cluster."""
    changed = nodes.find(name) is not None
    if not module.check_mode:
        nodes.delete(name)
    module.exit_json(changed=changed)


def main() -> None:
    """Do what `state` says."""
    spec = {
        "kubeconfig": {"type": "path", "required": True},
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["ready", "known", "drained", "uncordoned", "absent"], "required": True},
        "seconds": {"type": "int", "default": 300},
        "patience": {"type": "int", "default": 0},
        "version": {"type": "str", "default": ""},
        "since": {"type": "float", "default": 0},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    if not Path(module.params["kubeconfig"]).exists():
        if module.check_mode or module.params["state"] == "known":
            module.exit_json(changed=False, node={"ready": False, "why": "there is no kubeconfig on this controller; run site from it"})
        module.fail_json(msg=f"{module.params['kubeconfig']} is missing. `site` puts it there; give site_secrets, or run site from this controller.")
    do = {"ready": wait_ready, "known": look, "drained": drain, "uncordoned": uncordon, "absent": absent}[module.params["state"]]
    try:
        do(module, Nodes(module), module.params["name"])
    except Exception as error:  # noqa: BLE001 - urllib3's and the client's own, and those of the file
        why = (str(error).splitlines() or [type(error).__name__])[0][:300]
        module.fail_json(
            msg=f"The cluster was asked about {module.params['name']} with {module.params['kubeconfig']}, and that failed: {why}. Does a server of "
            "k3s run (journalctl -u k3s -n 50 there), and is its API reached from this controller?"
        )


if __name__ == "__main__":
    main()
