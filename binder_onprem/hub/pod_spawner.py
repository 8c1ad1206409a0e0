"""PodSpawner: JupyterHub's way to a session's pod, on KubeSpawner's watching, deleting and state. It runs inside the hub, apart from the daemon.

What a pod is made of is `pod`'s, not KubeSpawner's settings: nothing of the hub's gets into a session. Pods outlive the hub and the whole control
host; they are found again by their names. A session needs no route to the hub: the hub's proxy connects to the pod.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Final

import aiohttp
from kubernetes_asyncio.client.exceptions import ApiException
from kubespawner import KubeSpawner

from binder_onprem.hub.pod import Standing, same, session, standing
from binder_onprem.hub.session import PORT, Options, memory
from binder_onprem.hub.starting import PULL_SECONDS, Launched, NotStarted, exited, readable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from binder_onprem.config.sessions import KubernetesSessions

PULL_TRIES: Final = 60.0
"""Seconds of failing pulls, each repeated by the node: a registry that is being restarted costs no session."""
CALL_SECONDS: Final = 15.0
PAUSE: Final = 0.05
RESPITE: Final = 5.0
_GONE: Final = 0
_CREATES: Final = 3


class PodSpawner(Launched, KubeSpawner):  # type: ignore[misc]
    """One session, one pod named after its launch."""

    cluster: ClassVar[KubernetesSessions]
    """Where pods run. Set by `config_file`."""

    _again: ClassVar[float] = 0.0
    """Monotonic seconds; before, a cluster that did not answer is not asked for its pods again."""
    _watching: ClassVar[asyncio.Lock] = asyncio.Lock()

    async def get_pod_manifest(self) -> dict[str, Any]:
        """The session's pod."""
        return session(self.server.base_url, self.chosen, self.site, self.cluster)

    async def start(self) -> tuple[str, int]:
        """Bring the launch's pod up, or adopt it, and return when its server answers.

        Raises:
            NotStarted: With the sentence for the person; status 504 when it does not answer in time, 503 when it is the cluster's fault.
        """
        chosen = self._begun()
        self.pod_name = chosen.container
        try:
            async with asyncio.timeout(PULL_SECONDS + self.answer_timeout):
                await self._create()
                address = await self._scheduled(chosen)
                await self._answer(chosen, address)
        except BaseException as error:
            await self._discard()
            if isinstance(error, TimeoutError):
                message = "The cluster has had no room for this session for ten minutes, or could not fetch its image. Try again later."
                raise NotStarted(message, reason="room", status=503) from None
            if isinstance(error, ApiException | aiohttp.ClientError | OSError):
                raise self._cluster_down(error) from None
            raise
        return address, PORT

    async def poll(self) -> int | None:
        """None while it runs, else the exit code. A cluster that does not answer ends no session."""
        try:
            self.pod_name = self.chosen.container
            pod = (await self._pods(sparing=True)).get(self._key)
        except ValueError:
            return _GONE
        except (ApiException, aiohttp.ClientError, OSError) as error:
            self.log.warning("cannot tell whether %s runs: %s", self._log_name, type(error).__name__)
            return None
        if pod is None:
            return _GONE
        found = standing(pod)
        if found.state != "ended":
            return None
        self.log.warning("%s ended: %s", self._log_name, found.reason or f"exit code {found.code}")
        return found.code

    async def stop(self, now: bool = False) -> None:  # noqa: FBT001, FBT002 - JupyterHub's signature
        """Delete the pod and wait until it is gone; absent is fine."""
        self.pod_name = self.chosen.container
        await self._pods()
        await super().stop(now)

    async def run_post_stop_hook(self) -> None:
        """Delete what is left: the hub does not call `stop` for a server that ended by itself."""
        await super().run_post_stop_hook() if self.post_stop_hook else None
        try:
            await self.stop(now=True)
        except ValueError:
            return
        except (ApiException, aiohttp.ClientError, OSError) as error:
            self.log.warning("%s stays behind for the reconcile pass: %s", self.pod_name, type(error).__name__)

    @property
    def _key(self) -> str:
        return f"{self.namespace}/{self.pod_name}"

    async def _pods(self, *, sparing: bool = False) -> Mapping[str, Mapping[str, Any]]:
        """The namespace's pods as they are watched. A watch that has given up, or never began, knows nothing and is begun anew.

        Args:
            sparing: Do not ask a cluster that has not answered a moment ago.
        """
        clock = asyncio.get_running_loop().time
        async with self._watching:
            if sparing and clock() < PodSpawner._again:
                raise ConnectionError("the cluster did not answer a moment ago")
            watched = self.pod_reflector
            idle = watched is not None and (watched.watch_task is None or watched.watch_task.done())
            try:
                await self._start_watching_pods(replace=idle)
            except (ApiException, aiohttp.ClientError, OSError):
                # Every session's poll comes here, and each attempt is a page of log.
                PodSpawner._again = clock() + RESPITE
                self.pod_reflector.first_load_future.exception()  # seen; asyncio would report it as lost
                raise
            PodSpawner._again = 0.0
        found: Mapping[str, Mapping[str, Any]] = self.pod_reflector.pods
        return found

    async def _create(self) -> None:
        """Have the API server take the pod, or adopt the one that an earlier attempt of this launch has left."""
        await self._pods()
        self._say("Starting the session")
        wanted = await self.get_pod_manifest()
        for _ in range(_CREATES):
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    await self.api.create_namespaced_pod(self.namespace, wanted)
            except ApiException as error:
                if error.status != HTTPStatus.CONFLICT:
                    raise self._refused(error) from None
                # The watch may not have it yet.
                there = (await self._pods()).get(self._key)
                if there and same(there, wanted) and standing(there).state in ("waiting", "running"):
                    return
                if there:
                    await super().stop(now=True)
                else:
                    await asyncio.sleep(1)
            except TimeoutError:
                continue  # it may have been made: the next attempt tells
            else:
                return
        raise NotStarted("The cluster does not take the session. Try again in a moment.", reason="cluster", status=503)

    def _refused(self, error: ApiException) -> BaseException:
        said = readable(str(error.body or ""))[:500]
        self.log.error("%s: the cluster refuses its pod: %s %s", self._log_name, error.status, said)
        if error.status == HTTPStatus.FORBIDDEN and "exceeded quota" in said:
            return NotStarted("The cluster's quota for sessions is used up. Try again later.", reason="quota", status=503)
        if error.status in (HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.BAD_REQUEST):
            message = "The cluster refuses sessions of this kind. The administrator should run `binder-onprem check`."
            return NotStarted(message, reason="cluster", status=502, log_message=said)
        return error

    async def _scheduled(self, chosen: Options) -> str:
        """Wait until the pod's container runs; its address."""
        clock, failing, seen = asyncio.get_running_loop().time, None, False
        while True:
            pod = (await self._pods()).get(self._key)
            if pod is None and seen:
                raise NotStarted("The session did not start: its pod was deleted.", reason="exited", status=502)
            if pod is not None:
                seen, found = True, standing(pod)
                if found.state == "running":
                    return found.address
                failing = (failing or clock()) if found.state == "unpulled" else None
                self._judge(chosen, found, clock() - failing if failing else 0.0)
            await asyncio.sleep(PAUSE)

    def _judge(self, chosen: Options, found: Standing, failing: float) -> None:
        """Tell how it stands, or raise why it will not come up."""
        if found.state == "ended":
            raise self._ended(chosen, found)
        if found.absent:
            message = "The image of this repository is gone. Open the link again: it is built anew."
            raise NotStarted(message, reason="image", status=410, log_message=found.said)
        if failing > PULL_TRIES:
            message = "The cluster's nodes cannot fetch the image from the registry. Try again later."
            raise NotStarted(message, reason="image", status=503, log_message=found.said)
        if found.state == "unstarted":
            self.log.error("%s: %s: %s", self._log_name, found.reason, readable(found.said)[:500])
            message = "The session did not start: the cluster cannot run its image, or lacks something that it asks for."
            raise NotStarted(message, reason="unstarted", status=502, log_message=found.reason)
        if found.state == "unpulled":
            self._say("Fetching the image from the registry")
        elif found.reason == "Unschedulable":
            self._say("Waiting for a node of the cluster with room for this session")
        elif found.reason == "ContainerCreating":
            self._say("Preparing the session on a node of the cluster")

    async def _answer(self, chosen: Options, address: str) -> None:
        async def ended() -> NotStarted | None:
            pod = (await self._pods()).get(self._key)
            found = standing(pod) if pod else Standing("ended", reason="Deleted")
            return self._ended(chosen, found) if found.state == "ended" else None

        await self._answered(address, PORT, ended, PAUSE)

    def _ended(self, chosen: Options, found: Standing) -> NotStarted:
        tail = readable(found.said).replace(chosen.token, "[token]") if found.reason not in ("Evicted", "Deleted") else ""
        if found.reason == "OOMKilled":
            why = f"it went over its memory limit of {memory(chosen, self.site) // 1024**2} MiB"
        elif found.reason == "Evicted":
            why = "its node had to give back disk or memory"
        elif found.code == 127:  # noqa: PLR2004 - the shell's "not found"
            why = "its image has no Jupyter server in PATH"
        else:
            why = f"its server ended with exit code {found.code}" if found.reason != "Deleted" else "its container was removed"
        return exited(why, tail, advised=bool(tail))

    async def _discard(self) -> None:
        """Leave nothing behind after a start that failed or was cancelled."""
        try:
            await asyncio.shield(self.stop(now=True))
        except (ApiException, aiohttp.ClientError, OSError) as error:
            self.log.warning("%s stays behind for the reconcile pass: %s", self.pod_name, type(error).__name__)

    def _cluster_down(self, error: Exception) -> NotStarted:
        self.log.error("%s: the cluster: %s", self._log_name, f"{type(error).__name__}: {getattr(error, 'reason', error)}"[:300])
        return NotStarted("The cluster that sessions run in does not answer as it should. Try again in a moment.", reason="engine", status=503)
