"""A pod that may do nothing but compute: pure, from what is to run to the manifest. It holds to the Pod Security Standard "restricted".

The hub's spawner makes sessions of it, `check` has the API server try one without making it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from binder_onprem.config.sessions import KubernetesSessions, Nodes, Toleration

JOVYAN: Final = 1000
"""User and group of sessions; files of repositories are theirs."""
PORT_NAME: Final = "notebook-port"
CONTAINER: Final = "notebook"
"""The names that KubeSpawner looks for."""
COMPONENT: Final = "binder-session"
"""Value of the label ``component``, by which KubeSpawner watches."""
IMAGE: Final = "io.binder-onprem.image"
"""An annotation, because a label holds no ``/`` and no more than 63 characters."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is to run.

    Attributes:
        name: Of the pod.
        image: By digest.
        args: For the image's entry point.
        env: Variables.
        labels: To find it again.
        memory, disk: Bytes at the most.
        cpus: Processors at the most.
        port: Where it listens.
        profile: Name in `sessions.profiles`, "" for none.
        claims: PersistentVolumeClaim and where it is to be read.
        grace: Seconds to save what it does before it is killed.
    """

    name: str
    image: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    labels: Mapping[str, str]
    memory: int
    disk: int
    cpus: float
    port: int
    profile: str = ""
    claims: tuple[tuple[str, str], ...] = ()
    grace: int = 2


def manifest(run: Run, cluster: KubernetesSessions) -> dict[str, Any]:
    """The body of ``POST …/pods``."""
    profile = cluster.profile(run.profile)
    priority = profile.priority_class or cluster.priority_class
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": run.name,
            "labels": {**run.labels, "component": COMPONENT, "app.kubernetes.io/managed-by": "binder-onprem"},
            "annotations": {IMAGE: run.image},
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "hostname": "binder",
            # The pause container is the first process then, and takes in what a server without an init of its own leaves behind.
            "shareProcessNamespace": True,
            "terminationGracePeriodSeconds": run.grace,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": JOVYAN,
                "runAsGroup": JOVYAN,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **({"priorityClassName": priority} if priority else {}),
            **({"imagePullSecrets": [{"name": cluster.pull_secret}]} if cluster.pull_secret else {}),
            **_nodes(cluster, profile),
            "containers": [_container(run, cluster)],
            "volumes": [
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(run.memory // 4)}},
                *({"name": f"data-{number}", "persistentVolumeClaim": {"claimName": name, "readOnly": True}} for number, (name, _) in _claims(run)),
            ],
        },
    }


def _container(run: Run, cluster: KubernetesSessions) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": run.image,
        "imagePullPolicy": "IfNotPresent",
        "args": [_plain(word) for word in run.args],
        "env": [{"name": name, "value": _plain(value)} for name, value in sorted(run.env.items())],
        "ports": [{"name": PORT_NAME, "containerPort": run.port}],
        "resources": resources(run, cluster),
        "securityContext": {
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        # The end of what it said comes with its state, which needs no right to read logs.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - in the pod
            *({"name": f"data-{number}", "mountPath": path, "readOnly": True} for number, (_, path) in _claims(run)),
        ],
    }


def resources(run: Run, cluster: KubernetesSessions) -> dict[str, dict[str, str]]:
    """Requests and limits; what a device plugin gives out is both."""
    devices = {name: str(count) for name, count in cluster.profile(run.profile).resources.items()}
    limits = {"memory": str(run.memory), "cpu": _processors(run.cpus), "ephemeral-storage": str(run.disk)}
    requests = {
        "memory": str(int(run.memory * cluster.memory_request)),
        "cpu": _processors(run.cpus * cluster.cpu_request),
        "ephemeral-storage": str(min(int(cluster.disk_request), run.disk)),
    }
    return {"limits": limits | devices, "requests": requests | devices}


def _nodes(cluster: Nodes, profile: Nodes) -> dict[str, Any]:
    selector = {**cluster.node_selector, **profile.node_selector}
    tolerations = [_toleration(one) for one in (*cluster.tolerations, *profile.tolerations)]
    return {**({"nodeSelector": selector} if selector else {}), **({"tolerations": tolerations} if tolerations else {})}


def _toleration(one: Toleration) -> dict[str, str]:
    value = {"operator": "Exists"} if one.value is None else {"operator": "Equal", "value": one.value}
    return {"key": one.key, **value, **({"effect": one.effect} if one.effect else {})}


def _claims(run: Run) -> enumerate[tuple[str, str]]:
    return enumerate(run.claims)


def _processors(number: float) -> str:
    return f"{max(1, round(number * 1000))}m"


def _plain(text: str) -> str:
    """Kubernetes replaces ``$(NAME)`` in arguments and variables by other variables, and links choose some of these."""
    return text.replace("$", "$$")
