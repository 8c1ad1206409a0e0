"""What a session reaches, tried from inside one: a pod of the base image that asks around, tells, and is deleted. Run by ``check --reach``.

Network policies are objects that any cluster takes, and that hold only where its network enforces them: nothing but a try tells. The pod has a
session's label and manifest, so that the same policies hold; what it has found comes with its status, which needs no right to read logs.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from binder_onprem.errors import EngineUnavailable, HostUnfit
from binder_onprem.host import baseimage, sources
from binder_onprem.host.clustercheck import CHART, SUBJECT
from binder_onprem.host.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubernetes_asyncio.client import ApiClient

    from binder_onprem.config import Config
    from binder_onprem.config.sessions import KubernetesSessions

SECONDS: Final = 180.0
"""A node may have to fetch the image first."""
METADATA: Final = "169.254.169.254"
SCRIPT: Final = """
import json, os, socket, sys, time
time.sleep(5)  # policies are enforced seconds after a pod's start
def reaches(host, port):
    for _ in range(2):
        try:
            with socket.create_connection((host, int(port)), 3):
                return True
        except OSError:
            pass
    return False
targets = json.loads(sys.argv[1]) + [
    ["the cluster's API", os.environ.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc"), 443],
    ["its node's kubelet", os.environ["NODE"], 10250],
]
try:
    socket.getaddrinfo(sys.argv[2], 443)
    names = True
except OSError:
    names = False
found = [[what, f"{host}:{port}"] for what, host, port in targets if reaches(host, port)]
print(json.dumps({"reached": found, "names": names}), file=sys.stderr)
sys.exit(1)  # of a pod that has failed the end of its output is kept
"""


def findings(config: Config) -> Iterator[Finding]:
    """One finding for each thing that is reached and must not be, and for names; none where sessions run here."""
    if config.cluster is None:
        return
    try:
        told = asyncio.run(_tried(config, config.cluster))
    except (HostUnfit, EngineUnavailable) as error:
        yield Finding("fail", SUBJECT, f"what sessions reach cannot be tried: {error.message}", "Look at the findings above.")
        return
    for what, address in told["reached"]:
        text = f"a session reaches {what} ({address})"
        yield Finding(
            "fail", SUBJECT, text, "Have the cluster's network enforce NetworkPolicies (k3s does), and look at egress in the chart's values."
        )
    if not told["names"]:
        yield Finding("warn", SUBJECT, "sessions cannot look up names", CHART)
    if not told["reached"]:
        yield Finding("ok", SUBJECT, "a session reaches none of: the cluster's API, its node, the registry, this machine, the cloud's metadata")


def targets(config: Config, api: str) -> list[tuple[str, str, int]]:
    """What a session must not reach: in words, host, port. `api` is the API server's URL."""
    registry, _, port = config.registry_host.rpartition(":")
    server = urlsplit(api)
    return [
        ("the registry", registry, int(port)),
        ("the API server", server.hostname or "", server.port or 443),
        ("the cloud's metadata", METADATA, 80),
        *(
            [("this machine's Binder", config.listen.host, config.listen.port)]
            if not config.listen.host.startswith(("127.", "0.", ":", "localhost"))
            else []
        ),
    ]


def pod(config: Config, cluster: KubernetesSessions, api: str, image: str) -> dict[str, Any]:
    """The manifest: that of a session, with the question for a command."""
    from binder_onprem.kube.pod import Run, manifest  # noqa: PLC0415 - seconds that nobody needs whose sessions run here

    asked = next((url for url in (sources.read(config).pypi,) if url), None)
    run = Run(
        name=f"binder-reach-{secrets.token_hex(4)}",
        image=image,
        args=("python3", "-c", SCRIPT, json.dumps(targets(config, api)), urlsplit(asked or config.public_url).hostname or "localhost"),
        env={},
        labels={"io.binder-onprem.kind": "session"},
        memory=int(config.session.memory),
        disk=int(config.session.disk),
        cpus=config.session.cpus,
        port=8888,
    )
    made = manifest(run, cluster)
    made["spec"]["containers"][0]["env"].append({"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}})
    return made


async def _tried(config: Config, cluster: KubernetesSessions) -> dict[str, Any]:
    from binder_onprem.kube import api  # noqa: PLC0415 - as above

    image = baseimage.made(config).base
    async with api.opened(cluster) as client:
        made = await asyncio.to_thread(pod, config, cluster, client.configuration.host, image)
        return await _asked(client, cluster.namespace, made)


async def _asked(client: ApiClient, namespace: str, made: dict[str, Any]) -> dict[str, Any]:
    """Make the pod, wait for its end, delete it; what it told. Raises `HostUnfit`, `EngineUnavailable`."""
    from kubernetes_asyncio.client import CoreV1Api  # noqa: PLC0415 - as above

    from binder_onprem.kube.api import call  # noqa: PLC0415 - as above
    from binder_onprem.kube.pods import Pods  # noqa: PLC0415 - as above

    core, name = CoreV1Api(client), made["metadata"]["name"]
    try:
        await call(core.create_namespaced_pod(namespace, made))  # may be made though the answer is lost
        async with asyncio.timeout(SECONDS):
            while (said := _end(await call(core.list_namespaced_pod(namespace, field_selector=f"metadata.name={name}")))) is None:  # noqa: ASYNC110 - short
                await asyncio.sleep(1)
        return dict(json.loads(said.strip().splitlines()[-1]))
    except (TimeoutError, ValueError, IndexError):
        raise HostUnfit("the pod that was to try it did not come to its end. Look at it with kubectl describe while this runs.") from None
    finally:
        await Pods(client, namespace).remove(name)


def _end(listed: Any) -> str | None:
    """What the pod's container said at its end; None before."""
    for one in listed.items:
        for container in one.status.container_statuses or ():
            if container.state.terminated:
                return str(container.state.terminated.message or "")
    return None
