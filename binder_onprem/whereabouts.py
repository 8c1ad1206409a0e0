"""Where sessions run, as the daemon's passes need it: podman on this machine, or a cluster's namespace. Made by the daemon alone.

What a session has written, and which files it has changed, is read from podman's layers on this machine. In a cluster the node itself ends a pod
that writes more than its limit, and files leave a session only through its own server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from binder_onprem import interfaces
from binder_onprem.drains import Drains
from binder_onprem.ends import Ends
from binder_onprem.engine.sessionarchive import SessionArchive
from binder_onprem.engine.sessionfiles import Layers
from binder_onprem.engine.usage import Usage
from binder_onprem.quota import Quota

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AsyncExitStack

    from binder_onprem.config import Config
    from binder_onprem.engine.containers import Containers
    from binder_onprem.hub.rest import JupyterHub
    from binder_onprem.model import Session


class Engine(interfaces.Engine, Protocol):
    """What runs them."""

    async def ping(self) -> None:
        """Raises `EngineUnavailable` when it does not answer."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """The place.

    Attributes:
        name: As ``/health`` calls it.
        engine: What runs sessions.
        ends: Ends them.
        usage: What they use.
        quota: Ends what has written too much; None where the engine does.
        archive: Their changed files; None where these are out of reach.
        drains: Which are about to end because their machine is maintained; None where there is only this one.
    """

    name: str
    engine: Engine
    ends: Ends
    usage: interfaces.Usage
    quota: Quota | None = None
    archive: SessionArchive | None = None
    drains: Drains | None = None


async def opened(
    config: Config, containers: Containers, hub: JupyterHub, told: Callable[[Session, str], Awaitable[None]], stack: AsyncExitStack
) -> Place:
    """What the settings name; `told` is called of each session that has ended, `stack` closes what is open.

    Raises:
        HostUnfit: A kubeconfig is none.
    """
    if config.cluster:
        # Seconds of processor time, and tens of megabytes, that nobody needs whose sessions run here.
        from binder_onprem.kube import api, pods  # noqa: PLC0415

        found = pods.Pods(await stack.enter_async_context(api.opened(config.cluster)), config.cluster.namespace)
        return Place("Cluster", found, Ends(hub, told=told), found, drains=Drains(found))
    archive = SessionArchive(containers, config.kept, config.ending, hub.current)
    ends = Ends(hub, keep=archive.keep, remove=containers.remove, told=told)
    quota = Quota(containers, Layers(containers, config.home / "storage"), hub, int(config.session.disk), ends=ends)
    return Place("Container engine", containers, ends, Usage(containers), quota, archive)
