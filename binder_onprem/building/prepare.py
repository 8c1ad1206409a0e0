"""From a commit to a plan: one throw-away container clones and examines the repository, the host copies out what it left.

Called by the builder. The container has no network but the egress gate's socket, no capabilities, a user namespace, a read-only root and one
writable file system whose size is the limit. The host itself runs neither git nor repo2docker, follows none of the repository's links, and
shows people sentences of ours only.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.building import lentkey
from binder_onprem.building.contents import Copy, regular
from binder_onprem.building.dockerfile import BYTES, screen
from binder_onprem.building.lentkey import lent, lent_credential
from binder_onprem.building.rendering import mirrors, on_tools, with_arguments
from binder_onprem.building.volume import remove, volume
from binder_onprem.engine.containers import Containers, Mount, Run
from binder_onprem.errors import (
    AddressRefused,
    BinderError,
    BuildFailed,
    BuildTimeout,
    DiskFull,
    EngineUnavailable,
    HostUnfit,
    LimitHit,
    NotFound,
    ProviderUnavailable,
    RefNotFound,
)
from binder_onprem.events import Phase
from binder_onprem.plan import Plan
from binder_onprem.sandbox.examine import BUILDING, FAILED, FAILURE, FETCHING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from binder_onprem.config import Config
    from binder_onprem.credential import Credential
    from binder_onprem.host.sources import Sources
    from binder_onprem.interfaces import BuildLog
    from binder_onprem.model import BuildRecord

logger = logging.getLogger(__name__)

FILES: Final = 250_000
"""Files and directories of a clone, its git objects included."""
SLACK: Final = 64 * 1024**2
"""Bytes for the file system itself and the plan, beyond the limit of a repository."""
CONTENT: Final = "content.json"
_PHASES: Final = {FETCHING: Phase.FETCHING, BUILDING: Phase.BUILDING}
_ERRORS: Final[dict[str, type[BinderError]]] = {kind.code: kind for kind in (AddressRefused, BuildFailed, LimitHit, ProviderUnavailable, RefNotFound)}
_PACKAGE: Final = Path(__file__).parents[1]


@dataclass(slots=True)
class _Voice:
    """What the container says: lines for the log, and at the end perhaps why it failed."""

    log: BuildLog
    failure: str = ""

    async def line(self, line: str) -> None:
        if line.startswith(FAILURE):
            self.failure = line[1:]
            return
        phase = _PHASES.get(line[:1])
        await self.log.write(phase or Phase.BUILDING, line[1:] if phase else line)


async def _none(_credential_id: str) -> None:
    """A site without credentials."""


class Sandbox:
    """Prepares builds, several at once if need be.

    Args:
        config: Limits and places.
        sources: The site's mirrors.
        containers: The engine.
        image: Id of the sandbox image.
        base: The base image as podman pulls it, ``host:port/binder-base@sha256:…``; default: what ``images.json`` says at the time.
        python: Version of the base image's Python, ``3.11``; default: the sandbox's own, which comes from the same distribution.
        credentials: Id → the credential that opens a private repository, None when it is gone. Raises `Unavailable`.
    """

    def __init__(  # noqa: PLR0913 - the last three have defaults
        self,
        config: Config,
        sources: Sources,
        containers: Containers,
        image: str,
        *,
        base: str | None = None,
        python: str = "",
        credentials: Callable[[str], Awaitable[Credential | None]] = _none,
    ) -> None:
        self._credentials = credentials
        self._config = config
        self._sources = sources
        self._containers = containers
        self._image = image
        self._base = base
        self._python = python

    async def prepare(self, build: BuildRecord, log: BuildLog, directory: Path) -> Plan:
        """Clone, examine, copy out.

        Cancelling it leaves no container, mount or file outside `directory`.

        Args:
            build: What to build.
            log: Gets what git and repo2docker say.
            directory: Afterwards holds ``plan.json``, ``src/`` and, for a Dockerfile, ``context/``; what was in it before is removed.

        Raises:
            RefNotFound: No such repository or commit, or it is private.
            ProviderUnavailable: The git server does not answer.
            AddressRefused: Its address is refused.
            LimitHit: Too many bytes or files, too much memory.
            BuildTimeout: Longer than a build may take.
            BuildFailed: The repository's files do not hold.
            EngineUnavailable: Podman does not answer, or this machine cannot do it.
        """
        seconds = self._config.build_of(build.repo.link).timeout
        try:
            async with asyncio.timeout(seconds):
                return await self._prepared(build, log, directory)
        except RefNotFound:
            raise
        except TimeoutError:
            message = f"Fetching and examining the repository took longer than {seconds / 60:.0f} min, which is the limit here."
            raise BuildTimeout(message) from None
        except NotFound:
            raise EngineUnavailable(
                "The image that repositories are examined in is not there. The administrator must run `binder-onprem up`."
            ) from None
        except HostUnfit as error:
            raise EngineUnavailable(error.message) from error
        except OSError as error:
            logger.exception("preparation failed", extra={"event": "prepare_failed", "build": build.id})
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            what = "The disk that builds are made on is full." if full else "The repository's files could not be kept."
            raise (DiskFull if full else EngineUnavailable)(f"{what} The administrator must look into it; then try again.") from error

    async def _prepared(self, build: BuildRecord, log: BuildLog, directory: Path) -> Plan:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        size = int(self._config.build.repository) + SLACK
        place = directory.parent / f"{directory.name}.sandbox"
        async with volume(place, size, FILES) as out:
            if build.repo.content:
                # As a file: a record with many files is more than an argument may hold.
                (out / CONTENT).write_text(json.dumps(build.repo.content.plain()), encoding="utf-8")
            credential = await self._credential(build)
            with lent(self._config, build.repo, directory) as key, lent_credential(credential, directory) as opens:
                await self._examined(build, log, out, key, opens)
            plan = await asyncio.to_thread(Plan.read, out / "plan.json")
            directory.mkdir(parents=True, mode=0o700)  # noqa: ASYNC240 - a moment
            await self._taken(plan, out, directory)
        await asyncio.to_thread(self._checked, plan, directory)
        plan.write(directory / "plan.json")
        return plan

    async def _credential(self, build: BuildRecord) -> Credential | None:
        """What opened the repository when the build was asked for, as it is now."""
        if not build.repo.private:
            return None
        found = await self._credentials(build.repo.access)
        if found is None:
            raise BuildFailed("The credential that this build was asked for with has been removed. Launch again, with one that opens the repository.")
        return found

    async def _examined(self, build: BuildRecord, log: BuildLog, out: Path, key: Mount | None, opens: Mount | None) -> None:
        voice = _Voice(log)
        ended = await self._containers.run(self._run(build, out, key, opens), voice.line)
        if ended.out_of_memory:
            memory = int(self._config.build_of(build.repo.link).memory) / 1024**2
            raise LimitHit(f"Fetching and examining the repository needed more memory than {memory:,.0f} MiB, which is the limit here.")
        if ended.out_of_processes:
            raise LimitHit("Fetching and examining the repository started too many processes.")
        if ended.code == FAILED:
            raise _failure(voice.failure)
        if ended.code != 0:
            logger.warning("sandbox ended", extra={"event": "sandbox_ended", "build": build.id, "code": ended.code})
            raise BuildFailed("The repository could not be examined: the examination broke off. See the log.")

    def _run(self, build: BuildRecord, out: Path, key: Mount | None, opens: Mount | None) -> Run:
        limits = self._config.build_of(build.repo.link)
        request = {
            "url": build.repo.url,
            "commit": build.repo.commit,
            "stall": self._config.resolve.timeout,
            "limit": int(limits.repository),
            "output": "/out",
            "python": self._python,
            "base": self._base_image(),
            "mirrors": mirrors(self._sources),
            "pypi": self._config.conda.names if self._config.conda.from_pypi and not self._sources.conda else None,
            "gate": "/build-gate/gate.sock",
            "ssh": key.target if key else "",
            "content": CONTENT if build.repo.content else "",
            "credential": opens.target if opens else "",
        }
        # Our own code as it is now, so that an update needs no new sandbox image.
        mounts = (
            Mount(str(_PACKAGE), "/srv/ours/binder_onprem"),
            Mount(str(self._config.clone_gate_socket), "/gate"),
            # Builds' own gate, to find out what they reach; where there is none, that is not asked.
            *([Mount(str(self._config.gate_socket), "/build-gate")] if self._config.gate_socket.is_dir() else []),
            Mount(str(out), "/out", writable=True),
            *(mount for mount in (key, opens) if mount),
        )
        examine = ("python3", "-m", "binder_onprem.sandbox.examine", json.dumps(request))
        return Run(
            name=f"build-{build.id}-prepare",
            image=self._image,
            command=("python3", "/srv/ours/binder_onprem/egress/forward.py", "/gate/gate.sock", "--", *examine),
            env=(("PYTHONPATH", "/srv/ours"), ("PYTHONDONTWRITEBYTECODE", "1"), ("HOME", "/tmp")),  # noqa: S108 - the sandbox's
            user="65534:65534",
            labels=(("io.binder-onprem.kind", "build"), ("io.binder-onprem.build", build.id)),
            mounts=mounts,
            memory=int(limits.memory),
            cpus=limits.cpus,
            pids=min(limits.pids, 256),
            network="none",
            read_only=True,
            tmpfs=(("/tmp", "size=16m,mode=1777"),),  # noqa: S108 - the sandbox's
        )

    def _base_image(self) -> str:
        if self._base is not None:
            return self._base
        try:
            return str(json.loads((self._config.home / "images.json").read_text(encoding="utf-8"))["base"])
        except (OSError, ValueError, KeyError):
            raise EngineUnavailable("The base image is not there. The administrator must run `binder-onprem up`.") from None

    async def _taken(self, plan: Plan, out: Path, directory: Path) -> None:
        copy = Copy(int(self._config.build.repository), threading.Event())
        trees = ("src", "context") if plan.kind == "dockerfile" else ("src",)
        task = asyncio.create_task(asyncio.to_thread(copy.trees, out, directory, trees))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            # The thread holds files of the mount: it must be gone before that can be.
            copy.stopped.set()
            await asyncio.wait([task])
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
            raise

    def _checked(self, plan: Plan, directory: Path) -> None:
        """What the sandbox claims, against what is there."""
        for name in (name for step in plan.steps for name in step.files):
            if not regular(directory / "src", name):
                raise BuildFailed(f"{name[:80]!r} is not a file of the repository.")
        if plan.kind == "dockerfile":
            self._screened(plan, directory / "context" / "Dockerfile")

    def _screened(self, plan: Plan, path: Path) -> None:
        if plan.buildpack == "Dockerfile" and not self._config.build.dockerfiles:
            raise BuildFailed("This site does not build repositories with a Dockerfile of their own. Use environment files such as requirements.txt.")
        if not regular(path.parent, path.name):
            raise BuildFailed("The Dockerfile is not a file of the repository.")
        if path.stat().st_size > BYTES:
            raise LimitHit(f"The Dockerfile is larger than {BYTES // 1024} KiB, which is the limit.")
        text = path.read_bytes().decode("utf-8", "replace")
        # One that repo2docker rendered is screened as well: it has words of the repository in it.
        checked = screen(text, self._config.build.from_allowed, self._base_image())
        checked = with_arguments(checked)
        if plan.buildpack != "Dockerfile":
            checked = on_tools(checked, self._base_image(), self._sources)
        path.unlink()  # perhaps a hard link to the one in src, which stays as it is
        path.write_text(checked, encoding="utf-8")


def _failure(line: str) -> BinderError:
    """The error that the sandbox tells of; what is not one of ours is not believed."""
    try:
        data: dict[str, Any] = json.loads(line)
        kind, message = _ERRORS[data["code"]], data["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        kind, message = BuildFailed, None
    if not isinstance(message, str):
        message = "The repository could not be examined. See the log."
    return kind("".join(character if character.isprintable() else " " for character in message)[:600])


async def sweep(directory: Path) -> None:
    """Remove what an interrupted `prepare` left for this directory, its mount included. Idempotent."""
    await remove(directory.parent / f"{directory.name}.sandbox")
    await asyncio.to_thread(shutil.rmtree, lentkey.place(directory), ignore_errors=True)
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
