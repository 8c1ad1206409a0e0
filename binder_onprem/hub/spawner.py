"""PodmanSpawner: JupyterHub's way to a session's container. It runs inside the hub and knows nothing of the daemon.

Containers are children of conmon and outlive hub, proxy, podman's service and daemon: whatever of those restarts, this class finds the
container again by its name and its labels. Sessions get no token, no address and no environment of the hub's.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Final

from jupyterhub.spawner import Spawner

from binder_onprem.engine.offered import NOT_THERE, missing
from binder_onprem.hub.podman_session import EngineDown, Found, NoImage, Podman, born
from binder_onprem.hub.session import Options, labels, memory, profile, specification
from binder_onprem.hub.starting import PULL_SECONDS, Launched, NotStarted, exited

GRACE: Final = 2
"""Seconds a session has to save what it does before it is killed."""
LOOK_SECONDS: Final = 10.0
"""Until what a profile or a data set names must have been looked at."""
PAUSE: Final = 0.012
SETTLE_TRIES: Final = 400
"""Looks at an ended container until podman knows how it ended: some seconds at `PAUSE`."""
_GONE: Final = 0
_PORT_TRIES: Final = 3


class PodmanSpawner(Launched, Spawner):  # type: ignore[misc]
    """One session, one container named after its launch."""

    podman: ClassVar[Podman]
    """The connection, shared by all servers of the hub. Set by `config_file`; not traits, because traitlets copies what is configured."""

    _lookers: ClassVar[ThreadPoolExecutor] = ThreadPoolExecutor(4, "offered")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._pid = 0
        self._born: int | None = None
        self._address, self._port = "", 0

    # What the hub keeps in its database for a restart; the name is in the options already.
    def get_state(self) -> dict[str, Any]:
        """Which process, which port."""
        state: dict[str, Any] = super().get_state()
        if self._pid:
            state |= {"pid": self._pid, "born": self._born, "address": self._address, "port": self._port}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `get_state` wrote."""
        super().load_state(state)
        self._pid, self._born = state.get("pid", 0), state.get("born")
        self._address, self._port = state.get("address", ""), state.get("port", 0)

    def clear_state(self) -> None:
        """Forget the process; the container's name stays derivable from the options."""
        super().clear_state()
        self._pid, self._born, self._address, self._port = 0, None, "", 0

    async def start(self) -> tuple[str, int]:
        """Bring the launch's container up, or adopt it, and return when its server answers.

        Raises:
            NotStarted: With the sentence for the person; status 504 when it does not answer in time, 503 when it is podman's fault.
        """
        chosen = self._begun()
        try:
            async with asyncio.timeout(PULL_SECONDS + self.answer_timeout):
                found = await self._adopt(chosen) or await self._create(chosen)
                self._remember(found)
                await self._answer(chosen)
        except BaseException as error:
            await self._discard(chosen)
            if isinstance(error, EngineDown):
                raise self._engine_down(error) from None
            raise
        return self._address, self._port

    async def poll(self) -> int | None:
        """None while it runs, else the exit code.

        The process itself is looked at: that costs microseconds, and a session lives on while podman's service is away. Podman is asked only when the
        process is gone or not known, as after a restart of the hub in the middle of a start.
        """
        if self._pid and born(self._pid) == self._born:
            return None
        try:
            found = await self.podman.find(self.chosen.container)
        except ValueError:
            return _GONE
        except EngineDown as error:
            self.log.warning("cannot tell whether %s runs: %s", self._log_name, error)
            return None
        if found and found.running and found.port:
            self._remember(found)
            return None
        if found and found.out_of_memory:
            self.log.warning("%s ended: it went over its memory limit", self._log_name)
        return found.code if found else _GONE

    async def get_url(self) -> str:
        """Where it listens; the hub asks after its own restart."""
        return f"http://{self._address}:{self._port}{self.server.base_url}" if self._port and self._address else str(self.server.url)

    async def stop(self, now: bool = False) -> None:  # noqa: FBT001, FBT002 - JupyterHub's signature
        """Stop and remove the container; absent is fine. Not called for one that ended by itself: the daemon keeps its files, then removes it."""
        await self.podman.remove(self.chosen.container, 0 if now else GRACE)

    def _remember(self, found: Found) -> None:
        self._pid, self._born, self._address, self._port = found.pid, born(found.pid), found.address, found.port

    async def _adopt(self, chosen: Options) -> Found | None:
        """The container that an earlier attempt of the same launch left running, if it is the one we would make."""
        found = await self.podman.find(chosen.container)
        if found is None:
            return None
        same = labels(chosen, self.site).items() <= found.labels.items()
        if same and found.running and found.port:
            return found
        await self.podman.remove(chosen.container, 0)
        return None

    async def _create(self, chosen: Options) -> Found:
        if lacking := await self._lacking(chosen):
            raise NotStarted(lacking, reason="choice", status=502)
        body = specification(self.server.base_url, chosen, self.site)
        self._say("Starting the session")
        try:
            await self.podman.create(body)
        except NoImage:
            await self._pull(chosen)
            await self.podman.create(body)
        for left in reversed(range(_PORT_TRIES)):
            try:
                await self.podman.start(chosen.container)
                break
            except EngineDown as error:
                # Podman chooses the port at create and binds it at start: in between somebody else may take it.
                if "address already in use" not in str(error) or not left:
                    raise
                await self.podman.remove(chosen.container, 0)
                await self.podman.create(body)
        found = await self.podman.find(chosen.container)
        if found is None:
            raise EngineDown("the container is gone right after its start")
        return found

    async def _lacking(self, chosen: Options) -> str | None:
        """What this machine lacks. Data may lie on a file server that does not answer: then a thread of ours waits for it, not everybody's hub."""
        data = [self.site.choices.data[name] for name in chosen.data]
        looking = asyncio.get_running_loop().run_in_executor(self._lookers, missing, profile(chosen, self.site), data)
        try:
            return await asyncio.wait_for(looking, LOOK_SECONDS)
        except TimeoutError:
            return NOT_THERE

    async def _pull(self, chosen: Options) -> None:
        self._say("Fetching the image from the registry")
        prebuilt = chosen.image in {listed.image for listed in self.site.choices.images.values()}
        try:
            ours = chosen.image.startswith(self.site.prefix.partition("/")[0] + "/")
            await self.podman.pull(chosen.image, PULL_SECONDS, ours=ours)
        except NoImage:
            gone = "The image of this repository is gone. Open the link again: it is built anew."
            unknown = "The image that this link asks for is not in its registry. Tell the administrator."
            raise NotStarted(unknown if prebuilt else gone, reason="image", status=410) from None
        except EngineDown as error:
            if not prebuilt:
                raise
            self.log.warning("%s: %s cannot be fetched: %s", self._log_name, chosen.image, error)
            away = "The image that this link asks for cannot be fetched from its registry now. Try again in a moment, or tell the administrator."
            raise NotStarted(away, reason="image", status=503) from None

    async def _answer(self, chosen: Options) -> None:
        async def ended() -> NotStarted | None:
            return await self._ended(chosen) if born(self._pid) != self._born or self._born is None else None

        await self._answered(self._address, self._port, ended, PAUSE)

    async def _ended(self, chosen: Options) -> NotStarted:
        found = await self._settled(chosen)
        tail = (await self.podman.tail(chosen.container)).replace(chosen.token, "[token]")
        if found and found.out_of_memory:
            why = f"it went over its memory limit of {memory(chosen, self.site) // 1024**2} MiB"
        elif found and found.code == 127:  # noqa: PLR2004 - the shell's "not found"
            why = "its image has no Jupyter server in PATH"
        else:
            why = f"its server ended with exit code {found.code}" if found else "its container was removed"
        return exited(why, tail, advised=bool(found and not found.out_of_memory))

    async def _settled(self, chosen: Options) -> Found | None:
        """The container as podman has it once it knows of the end; the process is gone before conmon has written down how."""
        for _ in range(SETTLE_TRIES):
            found = await self.podman.find(chosen.container)
            if not (found and found.running and born(found.pid) is None):
                return found
            await asyncio.sleep(PAUSE)
        return await self.podman.find(chosen.container)

    async def _discard(self, chosen: Options) -> None:
        """Leave nothing behind after a start that failed or was cancelled."""
        try:
            await asyncio.shield(self.podman.remove(chosen.container, 0))
        except EngineDown as error:
            self.log.warning("%s stays behind for the reconcile pass: %s", chosen.container, error)

    def _engine_down(self, error: EngineDown) -> NotStarted:
        self.log.error("%s: podman: %s", self._log_name, error)
        return NotStarted("The container engine does not answer as it should. Try again in a moment.", reason="engine", status=503)
