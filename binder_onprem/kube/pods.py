"""The namespace's pods as the passes see them: find ours by label, remove, what they use, until when their nodes let them run.

Satisfies `interfaces.Engine`, `interfaces.Usage`, `interfaces.Machines`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from kubernetes_asyncio.client import CoreV1Api, CustomObjectsApi, V1DeleteOptions

from binder_onprem.errors import EngineUnavailable, NotFound
from binder_onprem.kube.api import call
from binder_onprem.kube.pod import COMPONENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kubernetes_asyncio.client import ApiClient

LAUNCH: Final = "io.binder-onprem.launch"
UNTIL: Final = "io.binder-onprem/drain-until"
"""Annotation of a pod whose node is being drained, by the playbooks; the account may not read nodes."""
PAGE: Final = 500
SUFFIXES: Final = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6),
    "G": Decimal(10**9), "T": Decimal(10**12), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip
"""Of Kubernetes' quantities."""


@dataclass(frozen=True, slots=True)
class Pod:
    """One of ours. `created`, and `until` when a drain of its node ends it, are in Unix seconds, UTC."""

    name: str
    labels: dict[str, str]
    created: float
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Used:
    """What a session uses.

    Attributes:
        cpu: Processors.
        memory: Bytes.
    """

    cpu: float | None
    memory: int | None


class Pods:
    """The pods.

    Args:
        client: The connection.
        namespace: Where they are; everything in it that has our labels is this site's.
    """

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._core = CoreV1Api(client)
        self._custom = CustomObjectsApi(client)
        self._namespace = namespace

    async def labelled(self, labels: Mapping[str, str]) -> Sequence[Pod]:
        """Pods that have all these labels, ended ones too. Raises `EngineUnavailable`."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        found: list[Pod] = []
        further: str | None = None
        while True:
            request = self._core.list_namespaced_pod(
                self._namespace, label_selector=selector, limit=PAGE, **({"_continue": further} if further else {})
            )
            page = await call(request)
            found += [_pod(one.metadata) for one in page.items]
            further = page.metadata._continue  # noqa: SLF001 - the client's name for ``continue``
            if not further:
                return found

    async def remove(self, name: str) -> None:
        """Delete it, without grace; absent is fine. Raises `EngineUnavailable`."""
        try:
            await call(self._core.delete_namespaced_pod(name, self._namespace, body=V1DeleteOptions(grace_period_seconds=0)))
        except NotFound:
            return

    async def drains(self) -> dict[str, float | None]:
        """Launch → when a drain of its node ends its session at the latest; None: there is none. Raises `EngineUnavailable`."""
        return {pod.labels[LAUNCH]: pod.until for pod in await self.labelled({"component": COMPONENT}) if LAUNCH in pod.labels}

    async def ping(self) -> None:
        """Ask whether the API server answers and takes our account. Raises `EngineUnavailable`."""
        await call(self._core.list_namespaced_pod(self._namespace, label_selector=f"component={COMPONENT}", limit=1))

    async def now(self) -> dict[str, Used]:
        """Launch → what its session uses, as the cluster's metrics server says; nothing where there is none. Raises `EngineUnavailable`."""
        pods = {pod.name: pod.labels.get(LAUNCH, "") for pod in await self.labelled({"component": COMPONENT})}
        try:
            request = self._custom.list_namespaced_custom_object(
                "metrics.k8s.io", "v1beta1", self._namespace, "pods", label_selector=f"component={COMPONENT}"
            )
            answer = await call(request)
        except (NotFound, EngineUnavailable):
            # A cluster may have no metrics server, or one that is being restarted: then the sessions are shown without it.
            answer = {"items": []}
        used = {one["metadata"]["name"]: _used(one.get("containers") or []) for one in answer["items"]}
        return {launch: used.get(name, Used(None, None)) for name, launch in pods.items() if launch}


def _pod(about: Any) -> Pod:
    return Pod(about.name, dict(about.labels), about.creation_timestamp.timestamp(), moment((about.annotations or {}).get(UNTIL, "")))


def moment(text: str) -> float | None:
    """RFC 3339 as Unix seconds; None for what is none."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def _used(containers: Sequence[Mapping[str, Any]]) -> Used:
    cpu = [quantity(str(one["usage"].get("cpu", ""))) for one in containers]
    memory = [quantity(str(one["usage"].get("memory", ""))) for one in containers]
    return Used(
        round(float(sum(number for number in cpu if number is not None)), 3) if any(number is not None for number in cpu) else None,
        int(sum(number for number in memory if number is not None)) if any(number is not None for number in memory) else None,
    )


def quantity(text: str) -> Decimal | None:
    """A quantity of Kubernetes' (``250m``, ``64Ki``) as a number; None for what is none."""
    number = text.rstrip("numkKMGTi")
    factor = SUFFIXES.get(text[len(number) :])
    try:
        return Decimal(number) * factor if factor is not None else None
    except InvalidOperation:
        return None
