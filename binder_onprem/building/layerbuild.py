"""The fast path: a plan's steps become layers on the base image, each made once per environment, and the image never passes through a build.

Called by `builder`. A step runs in one confined container of the layers so far; what it changed is pushed while it is read. A layer is kept in the
registry under the fingerprint of all that went into it, computed here and not by the sandbox, so no repository can plant one for another.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binder_onprem.building.advice import Advice
from binder_onprem.building.disk import room, watcher
from binder_onprem.building.layers import Ids, Layer, changes, content
from binder_onprem.building.oci import Stack, digest, labels
from binder_onprem.building.registry import ENVIRONMENTS
from binder_onprem.doors import Doors
from binder_onprem.egress import forward
from binder_onprem.engine.containers import Exit, Mount, Run
from binder_onprem.errors import BuildFailed, LimitHit, RegistryUnavailable
from binder_onprem.events import Phase
from binder_onprem.host.engine_files import LOCAL
from binder_onprem.model import fingerprint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from binder_onprem.building.pushing import Pushing
    from binder_onprem.building.registry import DistributionRegistry
    from binder_onprem.config import Build, Config
    from binder_onprem.engine.containers import Containers
    from binder_onprem.engine.images import Images
    from binder_onprem.interfaces import BuildLog
    from binder_onprem.model import BuildRecord
    from binder_onprem.plan import Plan, Step

FORMAT: Final = "layers-1"
"""Changes when the same step would give another layer."""
GATE: Final = "/binder-gate"
FORWARD: Final = "/binder-forward.py"
FILES: Final = "/binder"
FILE_BYTES: Final = 16 * 1024**2
HOME: Final = "/home/jovyan"
FORGET_SECONDS: Final = 3.0
ROOT_CAPABILITIES: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")
"""What apt and dpkg need inside a user namespace, and no more."""


@dataclass(frozen=True, slots=True)
class Height:
    """How far an image has grown.

    Attributes:
        stack: Its layers.
        path: Repository in our registry that has every one of them.
        key: Fingerprint of everything below, "" once something unrepeatable is in it.
        reference: ``host:port/…@sha256:…`` where it is an image already.
    """

    stack: Stack
    path: str
    key: str
    reference: str | None


class LayerBuild:
    """Builds plans of kind ``layers``.

    Args:
        config: Limits and names.
        containers: Runs the steps.
        images: Makes what was pushed local.
        registry: Keeps layers and images.
        base: ``host:port/binder-base@sha256:…``.
        used: Told of each layer of an environment that a build stands on.
        direct: `Sources.direct`.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the builder names them
        self,
        config: Config,
        containers: Containers,
        images: Images,
        registry: DistributionRegistry,
        base: str,
        used: Callable[[str], Awaitable[None]] | None = None,
        direct: str = ",".join(LOCAL),
    ) -> None:
        self._direct = direct
        self._config = config
        self._containers = containers
        self._images = images
        self._registry = registry
        self._base = base
        self._used = used
        self._doors = Doors()

    async def build(self, build: BuildRecord, plan: Plan, directory: Path, log: BuildLog, pushing: Pushing) -> str:
        """Make the image of a plan, push it, have it local; returns the digest that the registry confirmed. Raises as `interfaces.Builder`."""
        async with AsyncExitStack() as ended:
            work = _Work(build, plan, directory, log, self._registry.path(build.image.repository), self._config.build_of(build.repo.link), ended)
            height = await self._ground()
            for number, step in enumerate(plan.steps):
                room(directory)
                height = await self._raised(work, height, step, number)
            return await self._finished(work, height, pushing)

    async def _finished(self, work: _Work, height: Height, pushing: Pushing) -> str:
        build, log = work.build, work.log
        await pushing.begins()
        await log.write(Phase.BUILDING, "Pushing the image to the registry …")
        stack = height.stack.configured(work.plan.env, work.plan.entrypoint)
        said = labels(build.repo.commit, work.plan.buildpack)
        top = replace(height, stack=stack)
        found = await self._push(top, work.path, None, build.created, said)
        reference = build.image.at(found)
        try:
            await self._images.fetch(reference)
            await pushing.attest(found)
        except BaseException:
            await asyncio.shield(self._forgotten(reference, papers=True))
            raise
        return await self._push(top, work.path, build.image.tag, build.created, said)

    async def _ground(self) -> Height:
        repository, _, base = self._base.partition("@")
        found = await self._read(self._registry.path(repository), base, fingerprint(FORMAT, base))
        if found is None:
            raise RegistryUnavailable("The base image is not in the registry. The administrator should run the set-up again.")
        return found

    async def _read(self, path: str, reference: str, key: str) -> Height | None:
        """An image in the registry as a height."""
        found = await self._registry.manifest(path, reference)
        if found is None:
            return None
        name, manifest = found
        configuration = await self._registry.configuration(path, str(manifest["config"]["digest"]))
        return Height(Stack.of(manifest, configuration), path, key, f"{self._config.registry_host}/{path}@{name}")

    async def _raised(self, work: _Work, height: Height, step: Step, number: int) -> Height:
        if step.kind == "content":
            await work.log.write(Phase.BUILDING, "Adding the repository's files …")
            layer = content(work.directory / "src", work.limits.disk)
            return await self._topped(height, layer, work.path, step.name)
        files = await asyncio.to_thread(_copied, step, work.directory, number)
        key = fingerprint(height.key, step.user, step.script, *files) if step.key and height.key else ""
        if not key:
            return await self._ran(work, replace(height, key=""), step, number, work.path)
        async with self._doors.of(key):
            known = await self._read(ENVIRONMENTS, key, key)
            if known and not work.build.fresh:
                await self._kept(known.reference)
                await work.log.write(Phase.BUILDING, f"{_capital(step.name)}: already made for this environment, used again.")
                return known
            made = replace(await self._ran(work, height, step, number, ENVIRONMENTS), key=key)
            name = await self._push(made, ENVIRONMENTS, key, work.build.created, {})
            reference = f"{self._config.registry_host}/{ENVIRONMENTS}@{name}"
            if known and known.reference and known.reference != reference:
                # Images that stand on it have its layers as their own.
                await self._registry.delete(known.reference)
            await self._kept(reference)
            return replace(made, reference=reference)

    async def _kept(self, reference: str | None) -> None:
        if self._used and reference:
            await self._used(reference)

    async def _ran(self, work: _Work, height: Height, step: Step, number: int, path: str) -> Height:
        """Run a step and put what it changed on top."""
        reference = height.reference or await self._intermediate(height, work)
        await self._images.fetch(reference)
        await work.log.write(Phase.BUILDING, f"Installing {step.name} …" if step.key else f"Running {step.name} …")
        run, advice = self._run(work, step, number, reference), Advice()

        async def line(text: str) -> None:
            advice.hear(text)
            await work.log.write(Phase.BUILDING, text)

        # Removed when all is local: ext4 looks at each name deleted in the last minute before it gives a new file its place.
        work.ended.push_async_callback(self._containers.dismiss, run.name)
        try:
            ended = await self._containers.run(run, line, watcher(work.limits.disk), keep=True)
            _check(ended, step, advice, work.limits)
            details = await self._containers.inspect(run.name)
            upper = Path(details["GraphDriver"]["Data"]["UpperDir"])
            layer = changes(upper, Ids.of(details), setuid=step.user == "root", limit=work.limits.disk)
            return await self._topped(height, layer, path, step.name)
        finally:
            if not height.reference:
                await self._forgotten(reference)

    def _run(self, work: _Work, step: Step, number: int, reference: str) -> Run:
        limits, build = work.limits, work.build
        # What a layer that others may use is made of is in its key; the repository's own variables are not.
        own = () if step.key else work.plan.env
        return Run(
            name=f"build-{build.id}-{number}",
            image=reference,
            command=("/usr/bin/python3", FORWARD, f"{GATE}/gate.sock", "--", "bash", "-e", "-o", "pipefail", "-c", step.script),
            env=(*own, ("HOME", "/root" if step.user == "root" else HOME), ("USER", step.user), (forward.DIRECT_VARIABLE, self._direct)),
            user=step.user,
            labels=(("io.binder-onprem.kind", "build"), ("io.binder-onprem.build", build.id)),
            mounts=(
                Mount(str(self._config.gate_socket), GATE),
                Mount(str(Path(forward.__file__).resolve()), FORWARD),
                Mount(str(_files(work.directory, number)), FILES),
            ),
            memory=limits.memory,
            cpus=limits.cpus,
            pids=limits.pids,
            network="none",
            read_only=False,
            capabilities=ROOT_CAPABILITIES if step.user == "root" else (),
            workdir=HOME,
        )

    async def _topped(self, height: Height, layer: Layer, path: str, name: str) -> Height:
        """Push a layer to `path`, where all that is below goes too."""
        await self._mounted(height, path)
        await self._registry.upload(path, layer.stream, lambda: layer.digest)
        return Height(height.stack.add(layer.blob, name), path, "", None)

    async def _mounted(self, height: Height, path: str) -> None:
        blobs = {blob.digest for blob in height.stack.layers}
        if not all(await asyncio.gather(*(self._registry.mount(path, blob, height.path) for blob in blobs))):
            raise RegistryUnavailable("The image registry has lost a layer that it had. Trying again may help.")

    async def _intermediate(self, height: Height, work: _Work) -> str:
        """An image that only the next step's container needs, under no tag."""
        found = await self._push(height, work.path, None, work.build.created, {})
        return work.build.image.at(found)

    async def _forgotten(self, reference: str, *, papers: bool = False) -> None:
        """No tag leads to it, so nothing would ever remove it, and its layers would stay for its sake."""
        repository, _, name = reference.partition("@")
        with contextlib.suppress(RegistryUnavailable, TimeoutError):
            async with asyncio.timeout(FORGET_SECONDS):
                await (self._registry.delete(reference) if papers else self._registry.erase(self._registry.path(repository), name))

    async def _push(self, height: Height, path: str, tag: str | None, created: float, said: dict[str, str]) -> str:
        await self._mounted(height, path)
        configuration = height.stack.configuration(created, said)
        await self._registry.put_blob(path, configuration)
        return await self._registry.put_manifest(path, height.stack.manifest(configuration), tag)


def _check(ended: Exit, step: Step, advice: Advice, limits: Build) -> None:
    """Raises the error of a step that failed."""
    if ended.code == 0:
        return
    if ended.out_of_memory:
        raise LimitHit(f"{_capital(step.name)}: out of memory, limit {limits.memory / 1024**3:.3g} GiB. Use less at once.")
    if ended.out_of_processes:
        raise LimitHit(f"{_capital(step.name)}: too many processes, limit {limits.pids}. Start fewer at once.")
    raise BuildFailed(f"{_capital(step.name)}: failed with exit status {ended.code}. {advice.sentence()}")


@dataclass(frozen=True, slots=True)
class _Work:
    """One build: what is asked, where its files are, where its image goes, what is removed in the end."""

    build: BuildRecord
    plan: Plan
    directory: Path
    log: BuildLog
    path: str
    limits: Build
    ended: AsyncExitStack


def _files(directory: Path, number: int) -> Path:
    return directory / f"files-{number}"


def _copied(step: Step, directory: Path, number: int) -> list[str]:
    """Copy the files that a step reads, following no link; returns names and contents' digests for its key."""
    target = _files(directory, number)
    target.mkdir(exist_ok=True)
    target.chmod(0o755)
    parts: list[str] = []
    for name in step.files:
        try:
            data = _read_inside(directory / "src", name)
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(data)
        except OSError as error:
            raise BuildFailed(f"{_capital(step.name)}: a file it needs is not a plain file of the repository.") from error
        parts += [name, digest(data)]
    return parts


def _read_inside(root: Path, name: str) -> bytes:
    """A regular file below `root`, no part of whose path is a link."""
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        *folders, last = [part for part in name.split("/") if part not in ("", ".")]
        for folder in folders:
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = below
        descriptor = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(FILE_BYTES + 1)
        if len(data) > FILE_BYTES:
            raise OSError(errno.EFBIG, name)
        return data
    finally:
        os.close(directory)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
