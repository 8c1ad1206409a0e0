"""A session as a pod: what it is confined by, what follows from terms and profiles, and what a pod's status says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.hub.pod import same, session, standing
from binder_onprem.hub.session import Confinement, options
from binder_onprem.kube.pods import quantity
from tests.unit.test_remote_settings import CLUSTER, config

if TYPE_CHECKING:
    from binder_onprem.config import Config

LAUNCH = "0123456789abcdef"
TOKEN = "t" * 43
GOOD: dict[str, Any] = {
    "image": f"registry.uni.example:5000/binder/x-0123456789ab@sha256:{'0' * 64}",
    "token": TOKEN,
    "launch_id": LAUNCH,
    "repo_url": "https://git.uni.example/a/b",
}
GPU = {"resources": {"nvidia.com/gpu": 2}, "node_selector": {"gpu": "a100"}, "tolerations": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}


def made(site: Config | None = None, **options_: Any) -> dict[str, Any]:
    site = site or config()
    confinement = Confinement.of(site, None)
    assert site.cluster
    return session("/jupyter/user/x/", options(f"x-{LAUNCH}", GOOD | options_, confinement), confinement, site.cluster)


def container(pod: dict[str, Any]) -> dict[str, Any]:
    assert len(pod["spec"]["containers"]) == 1
    only: dict[str, Any] = pod["spec"]["containers"][0]
    return only


def test_it_may_do_nothing_but_compute() -> None:
    pod = made()
    spec, only = pod["spec"], container(pod)
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert only["securityContext"] == {"privileged": False, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"], spec["restartPolicy"]) == (False, False, "Never")
    assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName", "initContainers"} & spec.keys()
    assert [volume["name"] for volume in spec["volumes"]] == ["shm"]
    assert only["image"] == GOOD["image"]
    assert "command" not in only  # the image's entry point stays


def test_it_is_found_by_its_launch_and_told_nothing_of_the_hub() -> None:
    pod = made()
    assert pod["metadata"]["name"] == f"binder-{LAUNCH}"
    assert pod["metadata"]["labels"] == {
        "io.binder-onprem.kind": "session",
        "io.binder-onprem.launch": LAUNCH,
        "component": "binder-session",
        "app.kubernetes.io/managed-by": "binder-onprem",
    }
    assert pod["metadata"]["annotations"] == {"io.binder-onprem.image": GOOD["image"]}
    env = {one["name"]: one["value"] for one in container(pod)["env"]}
    assert env["JUPYTER_TOKEN"] == TOKEN
    assert env["BINDER_REPO_URL"] == "https://git.uni.example/a/b"
    assert not [name for name in env if name.startswith("JUPYTERHUB")]
    assert TOKEN not in str(container(pod)["args"])


def test_nothing_in_a_link_is_replaced_by_another_variable() -> None:
    site = config(choice={"environment": ["COURSE"]})
    env = {one["name"]: one["value"] for one in container(made(site, env={"COURSE": "$(JUPYTER_TOKEN) $$"}))["env"]}
    assert env["COURSE"] == "$$(JUPYTER_TOKEN) $$$$"


def test_limits_are_those_of_the_site_and_requests_a_part_of_them() -> None:
    site = config(session={"memory": "1GiB", "cpus": 1.5, "disk": "2GiB"})
    assert container(made(site))["resources"] == {
        "limits": {"memory": str(2**30), "cpu": "1500m", "ephemeral-storage": str(2**31)},
        "requests": {"memory": str(2**29), "cpu": "150m", "ephemeral-storage": "0"},
    }
    assert made(site)["spec"]["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": str(2**28)}
    asked = config(sessions=CLUSTER | {"memory_request": 1, "cpu_request": 1, "disk_request": "1GiB"}, session={"disk": "500MB"})
    assert container(made(asked))["resources"]["requests"]["ephemeral-storage"] == str(500 * 1000**2)


def test_terms_come_before_the_profile_and_that_before_the_site() -> None:
    site = config(choice={"profiles": {"large": {"memory": "8GiB", "cpus": 4}}})
    large = container(made(site, profile="large"))["resources"]["limits"]
    assert (large["memory"], large["cpu"]) == (str(8 * 2**30), "4000m")
    own = container(made(site, profile="large", memory=2**28, cpus=0.5))["resources"]["limits"]
    assert (own["memory"], own["cpu"]) == (str(2**28), "500m")


def test_a_profile_with_a_gpu() -> None:
    node = {"node_selector": {"sessions": "yes"}, "tolerations": [{"key": "sessions"}], "priority_class": "usual", "pull_secret": "pull"}
    profiles = {"gpu": GPU | {"priority_class": "high"}}
    site = config(choice={"profiles": {"small": {}, "gpu": {}}}, sessions=CLUSTER | node | {"profiles": profiles})
    small, gpu = made(site, profile="small"), made(site, profile="gpu")
    assert small["spec"]["nodeSelector"] == {"sessions": "yes"}
    assert small["spec"]["tolerations"] == [{"key": "sessions", "operator": "Exists"}]
    assert (small["spec"]["priorityClassName"], gpu["spec"]["priorityClassName"]) == ("usual", "high")
    assert small["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    assert gpu["spec"]["nodeSelector"] == {"sessions": "yes", "gpu": "a100"}
    assert gpu["spec"]["tolerations"][1] == {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}
    for part in ("limits", "requests"):
        assert container(gpu)["resources"][part]["nvidia.com/gpu"] == "2"
        assert "nvidia.com/gpu" not in container(small)["resources"][part]


def test_data_come_from_claims_and_are_read_only() -> None:
    site = config(choice={"data": {"census": {"path": "/unused"}}}, sessions=CLUSTER | {"claims": {"census": "census-2021"}})
    pod = made(site, data=["census"])
    assert pod["spec"]["volumes"][1] == {"name": "data-0", "persistentVolumeClaim": {"claimName": "census-2021", "readOnly": True}}
    assert container(pod)["volumeMounts"][1] == {"name": "data-0", "mountPath": "/data/census", "readOnly": True}
    assert len(made(site)["spec"]["volumes"]) == 1


def test_the_same_launch_makes_the_same_pod_and_another_image_another() -> None:
    assert same(made(), made())
    assert not same(made(image=GOOD["image"].replace("0" * 64, "1" * 64)), made())
    assert not same({"metadata": {"name": f"binder-{LAUNCH}"}}, made())


def test_a_request_that_is_more_than_the_limit_is_cut() -> None:
    site = config(sessions=CLUSTER | {"disk_request": "1TiB"})
    limits = container(made(site))["resources"]
    assert limits["requests"]["ephemeral-storage"] == limits["limits"]["ephemeral-storage"]


def status(state: dict[str, Any] | None = None, **others: Any) -> dict[str, Any]:
    containers = [] if state is None else [{"name": "notebook", "state": state}]
    return {"metadata": {}, "status": {"phase": "Pending", "containerStatuses": containers} | others}


UNSCHEDULABLE = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]


@pytest.mark.parametrize(
    ("pod", "state", "reason"),
    [
        ({"metadata": {}}, "waiting", ""),
        (status(conditions=UNSCHEDULABLE), "waiting", "Unschedulable"),
        (status({"waiting": {"reason": "ContainerCreating"}}), "waiting", "ContainerCreating"),
        (status({"waiting": {"reason": "ErrImagePull", "message": "x509"}}), "unpulled", "ErrImagePull"),
        (status({"waiting": {"reason": "ImagePullBackOff"}}), "unpulled", "ImagePullBackOff"),
        (status({"waiting": {"reason": "CreateContainerConfigError"}}), "unstarted", "CreateContainerConfigError"),
        (status({"running": {}}, podIP="10.42.0.7", phase="Running"), "running", ""),
        (status({"running": {}}, phase="Running"), "waiting", ""),
        (status({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, phase="Failed"), "ended", "OOMKilled"),
        (status({"terminated": {"exitCode": 137, "reason": "Error"}}, phase="Failed", reason="Evicted"), "ended", "Evicted"),
        (status(phase="Failed", reason="Evicted"), "ended", "Evicted"),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running"}}, "ended", "Deleted"),
    ],
)
def test_what_a_status_says(pod: dict[str, Any], state: str, reason: str) -> None:
    found = standing(pod)
    assert (found.state, found.reason) == (state, reason)


def test_details_of_a_status() -> None:
    assert standing(status({"running": {}}, podIP="10.42.0.7", phase="Running")).address == "10.42.0.7"
    ended = standing(status({"terminated": {"exitCode": 127, "message": "no jupyter"}}))
    assert (ended.code, ended.said) == (127, "no jupyter")
    assert standing(status({"waiting": {"reason": "ErrImagePull", "message": "r/x@sha256:0: not found"}})).absent
    assert not standing(status({"waiting": {"reason": "ErrImagePull", "message": "connection refused"}})).absent


@pytest.mark.parametrize(
    ("text", "number"),
    [("250m", 0.25), ("1500000n", 0.0015), ("3", 3), ("64Ki", 65536), ("1Gi", 2**30), ("5M", 5e6), ("", None), ("1x", None), ("Ki", None)],
)
def test_quantities(text: str, number: float | None) -> None:
    found = quantity(text)
    assert found is None if number is None else float(found or 0) == pytest.approx(number)
