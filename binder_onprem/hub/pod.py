"""A session as a pod: pure, from the checked options to the manifest, and from a pod's status to what became of it. The spawner calls it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from binder_onprem.hub.session import PORT, command, environment, labels, memory, profile
from binder_onprem.kube.pod import CONTAINER, IMAGE, Run, manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from binder_onprem.config.sessions import KubernetesSessions
    from binder_onprem.hub.session import Confinement, Options

GRACE: Final = 2
"""Seconds a session has to save what it does before it is killed."""
NO_PULL: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "ImageInspectError", "InvalidImageName", "RegistryUnavailable"})
NO_START: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
ABSENT: Final = ("not found", "manifest unknown", "MANIFEST_UNKNOWN")


def session(base_url: str, chosen: Options, site: Confinement, cluster: KubernetesSessions) -> dict[str, Any]:
    """The manifest of a session's pod."""
    wanted, own = profile(chosen, site), labels(chosen, site)
    run = Run(
        name=chosen.container,
        image=chosen.image,
        args=tuple(command(base_url, site)),
        env=environment(chosen, site),
        labels={key: value for key, value in own.items() if key != IMAGE},
        memory=memory(chosen, site),
        disk=site.disk,
        cpus=chosen.cpus or wanted.cpus or site.cpus,
        port=PORT,
        profile=chosen.profile,
        claims=tuple((cluster.claims[name], site.choices.place(name)) for name in chosen.data),
        grace=GRACE,
    )
    return manifest(run, cluster)


def same(pod: Mapping[str, Any], made: Mapping[str, Any]) -> bool:
    """Whether a pod that is there is the one that we would make."""
    there, wanted = pod["metadata"], made["metadata"]
    same_labels = wanted["labels"].items() <= (there.get("labels") or {}).items()
    return bool(same_labels and wanted["annotations"].items() <= (there.get("annotations") or {}).items())


@dataclass(frozen=True, slots=True)
class Standing:
    """How a pod stands.

    Attributes:
        state: ``waiting``: it may still come up; ``running``; ``unpulled``, ``unstarted``: not as it is; ``ended``.
        address: Of the pod, while it runs.
        code: Exit code, when it has ended.
        reason: The cluster's word: ``OOMKilled``, ``Evicted``, ``ErrImagePull``, …
        said: What the cluster, or at its end the container, said; not cleaned.
    """

    state: Literal["waiting", "running", "unpulled", "unstarted", "ended"]
    address: str = ""
    code: int = 0
    reason: str = ""
    said: str = ""

    @property
    def absent(self) -> bool:
        """Whether the registry said that there is no such image."""
        return self.state == "unpulled" and any(word in self.said for word in ABSENT)


def standing(pod: Mapping[str, Any]) -> Standing:
    """Read it from a pod as the API server has it."""
    status = pod.get("status") or {}
    container: dict[str, Any] = next((one for one in status.get("containerStatuses") or () if one.get("name") == CONTAINER), {})
    state = container.get("state") or {}
    if ended := state.get("terminated"):
        evicted = str(status.get("reason") or "")
        return Standing("ended", "", int(ended.get("exitCode") or 0), evicted or str(ended.get("reason") or ""), str(ended.get("message") or ""))
    if status.get("phase") in ("Failed", "Succeeded"):
        return Standing("ended", "", 1, str(status.get("reason") or ""), str(status.get("message") or ""))
    if "deletionTimestamp" in pod["metadata"]:
        return Standing("ended", "", 0, "Deleted")
    if "running" in state and status.get("podIP"):
        return Standing("running", str(status["podIP"]))
    return _waiting(state.get("waiting") or {}, status)


def _waiting(waiting: Mapping[str, Any], status: Mapping[str, Any]) -> Standing:
    reason, said = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason in NO_PULL:
        return Standing("unpulled", reason=reason, said=said)
    if reason in NO_START:
        return Standing("unstarted", reason=reason, said=said)
    unscheduled = (one for one in status.get("conditions") or () if one.get("type") == "PodScheduled" and one.get("status") == "False")
    condition: dict[str, Any] = next(unscheduled, {})
    return Standing("waiting", reason=str(condition.get("reason") or reason), said=str(condition.get("message") or said))
