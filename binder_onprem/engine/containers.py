"""Podman's containers behind awaitable calls: run one and read its output, find ours by label, remove.

Called by the sandbox (`prepare`), the builder, the reaper and reconcile. Short calls go through podman-py on threads, fast ones apart from slow
ones, so that a list never waits behind a start. Streams (attach, wait) are read on the event loop, so that cancelling needs no thread's consent.
Never kills podman's own processes: what must end is the container. Nothing of podman's words crosses the border but the classes of `errors`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.engine.cgroups import Hits
from binder_onprem.engine.libpod import Libpod
from binder_onprem.engine.output import Lines
from binder_onprem.errors import BinderError, EngineUnavailable, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

logger = logging.getLogger(__name__)

ATTACH: Final = {"stream": "true", "stdout": "true", "stderr": "true"}
SETTLE_SECONDS: Final = 5.0
"""Between the end of a container's output and the engine's knowing that it has exited."""
BUSY_TRIES: Final = 40
"""Removing retries while the kernel lets go of the mounts: 50 ms each."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory, file or socket of the host inside a container."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One confined run.

    Attributes:
        name: Of the container; an old one of the same name is replaced.
        image: Id or reference, must be local.
        command: Argument list; replaces entry point and command of the image.
        env: Added to the image's.
        user: As in the image: ``root``, ``jovyan``.
        labels: To find it again.
        mounts: Read-only unless said otherwise.
        memory: Bytes, swap included.
        cpus: Processors.
        pids: Processes and threads.
        network: ``none`` or the name of a network.
        read_only: Root file system cannot be written.
        capabilities: Kept (``CHOWN``); all others are dropped.
        workdir: Where the command starts.
        tmpfs: Path and mount options.
        userns: ``auto:size=65536``, ``from:N`` for 65536 ids from N on, or ``host`` for none.
    """

    name: str
    image: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    user: str
    labels: tuple[tuple[str, str], ...]
    mounts: tuple[Mount, ...]
    memory: int
    cpus: float
    pids: int
    network: str
    read_only: bool
    capabilities: tuple[str, ...] = ()
    workdir: str = "/"
    tmpfs: tuple[tuple[str, str], ...] = ()
    userns: str = "auto:size=65536"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended.

    Attributes:
        code: Exit status.
        out_of_memory: The memory limit killed something in it.
        out_of_processes: The limit of processes and threads refused one.
    """

    code: int
    out_of_memory: bool
    out_of_processes: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A container of ours, running or not. `created` is in Unix seconds, UTC."""

    id: str
    name: str
    labels: dict[str, str]
    running: bool
    created: float


class Containers:
    """Podman's containers.

    Args:
        socket: The engine's API.
    """

    def __init__(self, socket: Path) -> None:
        self._engine = Libpod(socket)
        self._endings: set[asyncio.Task[None]] = set()

    async def run(
        self,
        run: Run,
        line: Callable[[str], Awaitable[None]],
        watch: Callable[[Path], Awaitable[None]] | None = None,
        *,
        keep: bool = False,
    ) -> Exit:
        """Run a container to its end, handing over its output line by line while it runs.

        Args:
            run: What to run and how it is confined.
            line: Awaited for each line, without its line feed, cut at 8 KiB; slows the container down by taking its time.
            watch: Runs beside it with the directory the container's changes are written to; what it raises stops the container.
            keep: Leave the ended container, for `upper`. One that was cancelled or failed here is removed in any case.

        Raises:
            NotFound: The image is not on this machine.
            EngineUnavailable: Podman is gone or refuses; the container is removed now or, by its labels, later.
        """
        await self.remove(run.name)
        creating = asyncio.create_task(self._create(run))
        try:
            await asyncio.shield(creating)
            ended = await self._followed(run, line, watch)
        except BaseException as error:
            await self.dismiss(run.name, creating)
            if isinstance(error, BaseExceptionGroup):
                raise _first(error) from None
            raise
        if not keep:
            await self.remove(run.name)
        return ended

    async def _followed(self, run: Run, line: Callable[[str], Awaitable[None]], watch: Callable[[Path], Awaitable[None]] | None) -> Exit:
        async with self._engine.stream(f"/containers/{run.name}/attach", ATTACH) as chunks, asyncio.TaskGroup() as group:
            # Started only now: nothing it says is lost.
            await self._engine.call("post", f"/containers/{run.name}/start", slow=True)
            details = await self.inspect(run.name)
            hits = Hits(details["State"].get("CgroupPath", ""))
            beside = [group.create_task(hits.watch())]
            if watch:
                beside.append(group.create_task(_watched(watch, _upper(details))))
            await _pump(chunks, line)
            hits.look()
            code, killed = await self._ended(run.name)
            for task in beside:
                task.cancel()
        return Exit(code, killed or hits.memory, hits.processes)

    async def upper(self, name: str) -> Path:
        """The directory of the host that holds what the container changed.

        Raises:
            NotFound: No such container.
            EngineUnavailable: Podman does not answer.
        """
        return _upper(await self.inspect(name))

    @asynccontextmanager
    async def mounted(self, run: Run) -> AsyncIterator[Path]:
        """The files of an image on this host, for as long as the block lasts; a container of it is made and never started.

        Raises:
            NotFound: The image is not on this machine.
            EngineUnavailable: Podman does not answer.
        """
        await self.remove(run.name)
        creating = asyncio.create_task(self._create(run))
        try:
            await asyncio.shield(creating)
            await self._engine.call("post", f"/containers/{run.name}/mount", slow=True)
            yield Path((await self.inspect(run.name))["GraphDriver"]["Data"]["MergedDir"])
        finally:
            await self.dismiss(run.name, creating)

    async def inspect(self, name: str) -> dict[str, Any]:
        """Everything podman knows about a container. Raises as `upper` does."""
        answer = await self._engine.call("get", f"/containers/{name}/json")
        return dict(answer)

    async def remove(self, name: str) -> None:
        """Stop it without grace and remove it with its volumes; absent is fine. Raises `EngineUnavailable`."""
        for attempt in range(BUSY_TRIES):
            try:
                # `rm --force` of a running container trips over its own mounts; stop, then remove, does not.
                await self._engine.call("post", f"/containers/{name}/stop", params={"timeout": "0"}, slow=True)
                await self._engine.call("delete", f"/containers/{name}", params={"force": "true", "v": "true"}, slow=True)
            except NotFound:
                return
            except EngineUnavailable:
                if attempt == BUSY_TRIES - 1:
                    raise
                await self.ping()
                await asyncio.sleep(0.05)
            else:
                return

    async def dismiss(self, name: str, creating: asyncio.Task[None] | None = None) -> None:
        """Remove even though the task is being cancelled, perhaps again; never raises: what fails is found by its labels later.

        Args:
            name: The container's.
            creating: What may still be making it: removed before that is done, it would appear afterwards.
        """
        task = asyncio.create_task(self._removed_quietly(name, creating))
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        await asyncio.shield(task)

    async def labelled(self, labels: Mapping[str, str]) -> list[Found]:
        """Containers that carry all of these labels, ended ones too. Raises `EngineUnavailable`."""
        filters = json.dumps({"label": [f"{key}={value}" for key, value in labels.items()]})
        answer = await self._engine.call("get", "/containers/json", params={"all": "true", "filters": filters})
        return [_found(entry) for entry in answer]

    async def ping(self) -> None:
        """Ask whether podman answers. Raises `EngineUnavailable`."""
        await self._engine.call("get", "/_ping")

    async def _create(self, run: Run) -> None:
        await self._engine.call("post", "/containers/create", data=json.dumps(_specification(run)), slow=True)

    async def _ended(self, name: str) -> tuple[int, bool]:
        """Wait for the end of a container whose output has ended."""
        for _ in range(round(SETTLE_SECONDS / 0.02)):
            state = (await self.inspect(name))["State"]
            if state["Status"] in ("exited", "stopped"):
                return int(state["ExitCode"]), bool(state["OOMKilled"])
            await asyncio.sleep(0.02)
        # The container lives but its output ended: the service that carried it was replaced, and lines are missing.
        raise EngineUnavailable("The container engine (podman) was restarted in the middle. Trying again may help.")

    async def _removed_quietly(self, name: str, creating: asyncio.Task[None] | None) -> None:
        if creating:
            await asyncio.wait([creating])
        try:
            await self.remove(name)
        except BinderError as error:
            logger.warning("container not removed", extra={"container": name, "error": error.code})


def _upper(details: dict[str, Any]) -> Path:
    return Path(details["GraphDriver"]["Data"]["UpperDir"])


async def _watched(watch: Callable[[Path], Awaitable[None]], upper: Path) -> None:
    await watch(upper)


async def _pump(chunks: AsyncIterator[bytes], line: Callable[[str], Awaitable[None]]) -> None:
    lines = Lines()
    async for chunk in chunks:
        for text in lines.feed(chunk):
            await line(text)
    for text in lines.end():
        await line(text)


def _first(error: BaseException) -> BaseException:
    """The error inside a task group's; the first of several."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _found(entry: dict[str, Any]) -> Found:
    created = datetime.fromisoformat(entry["Created"]).timestamp()
    return Found(entry["Id"], entry["Names"][0], dict(entry["Labels"] or {}), entry["State"] == "running", created)


def _specification(run: Run) -> dict[str, Any]:
    """Podman's own form of a `Run`; every default that opens something is closed here."""
    mode, _, value = run.userns.partition(":")
    return {
        "name": run.name,
        "image": run.image,
        "entrypoint": [],
        "command": list(run.command),
        "env": dict(run.env),
        "httpproxy": False,
        "user": run.user,
        "labels": dict(run.labels),
        "mounts": [_mount(mount) for mount in run.mounts] + [_tmpfs(target, options) for target, options in run.tmpfs],
        "image_volume_mode": "ignore",
        "resource_limits": {
            "memory": {"limit": run.memory, "swap": run.memory},
            "cpu": {"quota": round(run.cpus * 100_000), "period": 100_000},
            "pids": {"limit": run.pids},
        },
        "netns": {"nsmode": run.network} if run.network == "none" else {"nsmode": "bridge"},
        **({} if run.network == "none" else {"networks": {run.network: {}}}),
        "read_only_filesystem": run.read_only,
        "cap_drop": ["all"],
        "cap_add": [f"CAP_{name}" for name in run.capabilities],
        "no_new_privileges": True,
        "r_limits": [
            _limit("NOFILE", resource.RLIMIT_NOFILE, 65536),
            _limit("NPROC", resource.RLIMIT_NPROC, 8192),
            _limit("CORE", resource.RLIMIT_CORE, 0),
        ],
        "work_dir": run.workdir,
        "cgroupns": {"nsmode": "private"},  # podman shares the host's on control groups of version 1, where a nested host's mounts mislead runc
        **_userns(mode, value),
        # Nothing of the output is kept by podman: what is said is what `line` gets, and a flood of it fills no disk.
        "log_configuration": {"driver": "none"},
        # What it writes is read once and thrown away: no flush to the disk.
        "volatile": True,
        "systemd": "false",
        "umask": "0022",
    }


def _userns(mode: str, value: str) -> dict[str, Any]:
    if mode == "from":
        return {"userns": {"nsmode": "private"}, "idmappings": mapped(int(value))}
    auto = {"idmappings": {"AutoUserNs": True, "AutoUserNsOpts": {"Size": int(value.removeprefix("size=") or 0)}}}
    return {"userns": {"nsmode": mode, "value": value}, **(auto if mode == "auto" else {})}


def mapped(first: int, count: int = 65536) -> dict[str, Any]:
    """Ids of a user namespace that are the same at every start, in podman's form.

    Args:
        first: The host's id of user and group 0.
        count: Ids.
    """
    ids = [{"container_id": 0, "host_id": first, "size": count}]
    return {"UIDMap": ids, "GIDMap": ids, "HostUIDMapping": False, "HostGIDMapping": False}


def _limit(name: str, which: int, wanted: int) -> dict[str, Any]:
    """Podman's own defaults may lie above what this host allows, and then nothing starts."""
    hard = resource.getrlimit(which)[1]
    value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    return {"type": name, "soft": value, "hard": value}


def _mount(mount: Mount) -> dict[str, Any]:
    options = ["rbind", "nosuid", "nodev", "rw" if mount.writable else "ro"]
    return {"type": "bind", "source": mount.source, "destination": mount.target, "options": options}


def _tmpfs(target: str, options: str) -> dict[str, Any]:
    return {"type": "tmpfs", "source": "tmpfs", "destination": target, "options": [*options.split(","), "nosuid", "nodev"]}
