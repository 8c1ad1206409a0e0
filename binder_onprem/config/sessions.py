"""Where sessions run: in podman on this machine, or as pods of a Kubernetes (k3s, any other) that this machine's hub speaks to."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Literal

from pydantic import ByteSize, Field, PositiveInt, StringConstraints, model_validator

from binder_onprem.config.frozen import Frozen

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_DOMAIN = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
Label = Annotated[str, StringConstraints(pattern=rf"^(?:{_DOMAIN}/)?{_PART}$")]
"""A label's or taint's key."""
Value = Annotated[str, StringConstraints(pattern=rf"^(?:{_PART})?$")]
Name = Annotated[str, StringConstraints(pattern=rf"^{_DOMAIN}$")]
"""Of an object in Kubernetes."""
Namespace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
Resource = Annotated[str, StringConstraints(pattern=rf"^{_DOMAIN}/{_PART}$")]
"""Of a device plugin, as ``nvidia.com/gpu``."""
Share = Annotated[float, Field(gt=0, le=1)]


class PodmanSessions(Frozen):
    """On this machine."""

    kind: Literal["podman"] = Field(default="podman", description="podman: on this machine; kubernetes: as pods of a cluster, such as k3s")


class Toleration(Frozen):
    """A taint that sessions may run in spite of."""

    key: Label
    value: Value | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Nodes(Frozen):
    """Which nodes, and what of them."""

    node_selector: dict[Label, Value] = Field(default_factory=dict, description="map of label: value; nodes that sessions run on")
    tolerations: tuple[Toleration, ...] = Field(default=(), description="list of key, value, effect: taints that sessions run in spite of")
    priority_class: Name | None = Field(default=None, description="PriorityClass of sessions; default: the cluster's")


class PodProfile(Nodes):
    """What a profile of `choice.profiles` means in the cluster; added to what all sessions have."""

    resources: dict[Resource, PositiveInt] = Field(default_factory=dict)


class KubernetesSessions(Nodes):
    """As pods of one namespace."""

    kind: Literal["kubernetes"]
    kubeconfig_file: Path = Field(description="kubeconfig of the namespace's ServiceAccount, which hub and daemon use")
    namespace: Namespace = Field(default="binder", description="where the pods are; the Helm chart in playbooks/roles/namespace makes what it needs")
    pull_secret: Name | None = Field(default=None, description="Secret of the namespace that nodes pull with; default: as nodes are set up")
    memory_request: Share = Field(default=0.5, description="part of a session's memory that is set aside for it on its node, 0 to 1")
    cpu_request: Share = Field(default=0.1, description="part of a session's processors that is set aside for it on its node, 0 to 1")
    disk_request: ByteSize = Field(default=ByteSize(0), description="bytes of its node's disk set aside for a session; the limit is `session.disk`")
    claims: dict[str, Name] = Field(
        default_factory=dict, description="map of a name of `choice.data`: PersistentVolumeClaim with it, which sessions read; `path` is not used"
    )
    profiles: dict[str, PodProfile] = Field(
        default_factory=dict,
        description="map of a name of `choice.profiles`: resources (as `nvidia.com/gpu: 1`), node_selector, tolerations, priority_class, on top",
    )

    @model_validator(mode="after")
    def _absolute(self) -> KubernetesSessions:
        if not self.kubeconfig_file.is_absolute():
            message = "kubeconfig_file must be an absolute path"
            raise ValueError(message)
        return self

    def profile(self, name: str) -> PodProfile:
        """Of a chosen profile; an empty one for none."""
        return self.profiles.get(name) or PodProfile()


Sessions = Annotated[PodmanSessions | KubernetesSessions, Field(discriminator="kind")]


def disagreement(
    sessions: KubernetesSessions, *, local: bool, projects: bool, profiles: dict[str, tuple[str, ...]], data: tuple[str, ...]
) -> str | None:
    """Why these settings cannot work with the rest of the configuration; None if they can.

    Args:
        sessions: The settings.
        local: Images are in the registry on loopback.
        projects: People may have projects.
        profiles: Name of each of `choice.profiles`, with its devices.
        data: Names of `choice.data`.
    """
    if local:
        return "registry.kind must be remote: nodes of a cluster cannot pull from this machine's loopback"
    if projects:
        return "projects are volumes of this machine, which a cluster's nodes do not have; set projects.enabled: false"
    if unknown := sorted(sessions.profiles.keys() - profiles.keys()):
        return f"sessions.profiles.{unknown[0]}: choice.profiles has no such profile"
    if devices := [name for name, listed in profiles.items() if listed]:
        return f"choice.profiles.{devices[0]}.devices are this machine's; give sessions.profiles.{devices[0]}.resources"
    if homeless := [name for name in data if name not in sessions.claims]:
        return f"choice.data.{homeless[0]} is a directory of this machine; give sessions.claims.{homeless[0]}"
    return None
