"""Whether the cluster takes sessions: its API server, the ServiceAccount's rights and nothing beyond, the namespace's objects, a pod tried dry.

Asked by `check`. Nothing is made: the API server judges the pod (rights, quotas, limits, Pod Security, priority class) and forgets it.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from binder_onprem.errors import HostUnfit
from binder_onprem.host.finding import Finding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kubernetes_asyncio.client import ApiClient

    from binder_onprem.config import Config
    from binder_onprem.config.sessions import KubernetesSessions

SECONDS: Final = 15.0
SUBJECT: Final = "cluster"
CHART: Final = "Install the chart of playbooks/roles/namespace in the namespace anew: helm upgrade --install."
WANTED: Final = (("", "pods", "create"), ("", "pods", "delete"), ("", "pods", "list"), ("", "pods", "watch"))
"""What hub and daemon do: API group, resource, verb."""
TOO_MUCH: Final = (
    ("", "secrets", "get"), ("", "secrets", "list"), ("", "pods/exec", "create"), ("apps", "deployments", "create"),
    ("rbac.authorization.k8s.io", "rolebindings", "create"), ("networking.k8s.io", "networkpolicies", "delete"),
    ("", "serviceaccounts/token", "create"),
)  # fmt: skip
"""What whoever takes over the hub must not be able to do."""
EVERYWHERE: Final = (("", "pods", "list"), ("", "pods", "create"), ("", "nodes", "list"))
"""The same outside the namespace."""


def findings(config: Config) -> Iterator[Finding]:
    """One finding for each thing that was looked at; none where sessions run here."""
    if config.cluster is None:
        return
    yield from asyncio.run(_all(config, config.cluster))
    text = "sessions' changed files cannot be had from outside them; how many processes one may have is each node's setting (podPidsLimit)"
    yield Finding("ok", "sessions", f"run as pods in {config.cluster.namespace}: {text}")


async def _all(config: Config, cluster: KubernetesSessions) -> list[Finding]:
    from binder_onprem.kube import api  # noqa: PLC0415 - seconds that nobody needs whose sessions run here

    try:
        async with asyncio.timeout(3 * SECONDS), api.opened(cluster) as client:
            return [finding async for finding in _looked(config, cluster, client)]
    except HostUnfit as error:
        return [Finding("fail", SUBJECT, error.message, "The chart's notes say how to write one.")]
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        certificate = isinstance(error, aiohttp.ClientConnectorCertificateError)
        text = "shows a certificate that the kubeconfig does not vouch for" if certificate else "does not answer"
        return [Finding("fail", SUBJECT, f"the API server of {cluster.kubeconfig_file} {text}", "Look at its address, and at the servers.")]


async def _looked(config: Config, cluster: KubernetesSessions, client: ApiClient) -> AsyncIterator[Finding]:
    from kubernetes_asyncio.client.exceptions import ApiException  # noqa: PLC0415 - as above

    try:
        lacking = [_said(*one) for one in WANTED if not await _may(client, cluster.namespace, *one)]
        beyond = [_said(*one) for one in TOO_MUCH if await _may(client, cluster.namespace, *one)]
        beyond += [f"{_said(*one)} everywhere" for one in EVERYWHERE if await _may(client, "", *one)]
    except ApiException as error:
        refused = error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
        text = "refuses the kubeconfig's account" if refused else f"answers with HTTP status {error.status}"
        yield Finding("fail", SUBJECT, f"the API server {text}", "Write the ServiceAccount's token into the kubeconfig anew.")
        return
    if lacking:
        yield Finding("fail", SUBJECT, f"the ServiceAccount may not {', '.join(lacking)}", CHART)
    if beyond:
        yield Finding("warn", SUBJECT, f"the account of the kubeconfig may more than sessions need: {', '.join(beyond)}", CHART)
    async for finding in _objects(cluster, client):
        yield finding
    if not lacking:
        yield await _tried(config, cluster, client)


async def _may(client: ApiClient, namespace: str, group: str, resource: str, verb: str) -> bool:
    """Whether the API server would let us; "" for all namespaces."""
    from kubernetes_asyncio.client import AuthorizationV1Api  # noqa: PLC0415 - as above

    kind, _, inner = resource.partition("/")
    attributes = {"namespace": namespace, "group": group, "resource": kind, "subresource": inner, "verb": verb}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}}
    review = await AuthorizationV1Api(client).create_self_subject_access_review(body)
    return bool(review.status.allowed)


def _said(group: str, resource: str, verb: str) -> str:
    return f"{verb} {resource}{f'.{group}' if group else ''}"


async def _objects(cluster: KubernetesSessions, client: ApiClient) -> AsyncIterator[Finding]:
    """What has to be in the namespace beside the pods."""
    from kubernetes_asyncio.client import CoreV1Api, NetworkingV1Api  # noqa: PLC0415 - as above

    core, name = CoreV1Api(client), cluster.namespace
    listed = (
        (
            "fail",
            "NetworkPolicy",
            NetworkingV1Api(client).list_namespaced_network_policy(name),
            "sessions reach campus, cluster and each other",
        ),
        ("warn", "ResourceQuota", core.list_namespaced_resource_quota(name), "sessions may take all of the cluster"),
        ("warn", "LimitRange", core.list_namespaced_limit_range(name), "a pod without limits takes its whole node"),
    )
    for level, kind, request, otherwise in listed:
        found = await _items(request)
        if found is None:
            yield Finding("warn", SUBJECT, f"whether the namespace {name} has a {kind} cannot be seen", CHART)
        elif not found:
            yield Finding("fail" if level == "fail" else "warn", SUBJECT, f"the namespace {name} has no {kind}: {otherwise}", CHART)
    enforced = await _labels(core.read_namespace(name))
    if enforced is not None and enforced.get("pod-security.kubernetes.io/enforce") != "restricted":
        text = f"the namespace {name} does not enforce the Pod Security Standard restricted"
        yield Finding("warn", SUBJECT, text, f"kubectl label namespace {name} pod-security.kubernetes.io/enforce=restricted")


async def _items(request: Any) -> list[Any] | None:
    from kubernetes_asyncio.client.exceptions import ApiException  # noqa: PLC0415 - as above

    try:
        return list((await request).items)
    except ApiException:
        return None


async def _labels(request: Any) -> dict[str, str] | None:
    from kubernetes_asyncio.client.exceptions import ApiException  # noqa: PLC0415 - as above

    try:
        return dict((await request).metadata.labels or {})
    except ApiException:
        return None


async def _tried(config: Config, cluster: KubernetesSessions, client: ApiClient) -> Finding:
    """A pod like a session's, judged by the API server and not made."""
    from kubernetes_asyncio.client import CoreV1Api  # noqa: PLC0415 - as above
    from kubernetes_asyncio.client.exceptions import ApiException  # noqa: PLC0415 - as above

    from binder_onprem.kube.pod import Run, manifest  # noqa: PLC0415 - as above

    run = Run(
        name="binder-check",
        image=f"{config.image_prefix}/check@sha256:{'0' * 64}",
        args=(),
        env={},
        labels={"io.binder-onprem.kind": "check"},
        memory=int(config.session.memory),
        disk=int(config.session.disk),
        cpus=config.session.cpus,
        port=8888,
    )
    try:
        await CoreV1Api(client).create_namespaced_pod(cluster.namespace, manifest(run, cluster), dry_run="All")
    except ApiException as error:
        return Finding("fail", SUBJECT, f"the API server would not take a session: {_words(error)}", CHART)
    return Finding("ok", SUBJECT, f"the API server takes sessions in {cluster.namespace}")


def _words(error: Any) -> str:
    try:
        said = str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        said = str(error.reason)
    return "".join(filter(str.isprintable, said))[:300]
