"""Everything that our own layers do not cover: a build context, rendered by repo2docker or a repository's own Dockerfile, built by podman.

Called by `builder`. The build sees one network, which reaches the egress gate and nothing else; few capabilities; no secret; no mount. Its steps
run inside a control group of ours, so that a limit or a cancellation ends the steps and never podman. What comes out is an image of which only
layers and the way to start it are kept: labels, health checks, volumes and triggers of a repository's making are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Final

from binder_onprem.building.advice import Advice
from binder_onprem.building.disk import room, too_much
from binder_onprem.building.enclosure import Enclosure, left
from binder_onprem.building.layers import context, piped
from binder_onprem.building.oci import CONFIG_TYPE, digest, labels, plain
from binder_onprem.building.overlay import written
from binder_onprem.building.rendering import TOOLS_NAME, tools, tools_image
from binder_onprem.building.reports import failed, reports
from binder_onprem.engine.libpod import Libpod
from binder_onprem.errors import BinderError, BuildFailed, EngineUnavailable, LimitHit, RegistryUnavailable
from binder_onprem.events import Phase

if TYPE_CHECKING:
    from pathlib import Path

    from binder_onprem.building.pushing import Pushing
    from binder_onprem.building.registry import DistributionRegistry
    from binder_onprem.config import Build, Config
    from binder_onprem.engine.images import Images
    from binder_onprem.host.sources import Sources
    from binder_onprem.interfaces import BuildLog
    from binder_onprem.model import BuildRecord
    from binder_onprem.plan import Plan

logger = logging.getLogger(__name__)

NETWORK: Final = "binder-builds"
NAME: Final = "localhost/binder-build"
CAPABILITIES: Final = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETGID", "CAP_SETUID")
"""What installing packages as root needs, of the eleven that podman's build would give."""
ENDING: Final = 100
"""Tenths of a second that podman gets to clear up after a build that was ended."""
STEPS_SECONDS: Final = 3600.0
STEPS_AGE: Final = "24h"
"""Images of steps are podman's cache: a build that is repeated within a day takes them up."""
SHM_BYTES: Final = 64 * 1024**2
CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"


class DockerBuild:
    """Builds plans of kind ``dockerfile``.

    Args:
        config: Limits, names, the gate's address.
        sources: Mirrors that the build is told of.
        images: Makes the base image local, and what was pushed.
        registry: Keeps the image.
        base: ``host:port/binder-base@sha256:…``.
        network: Podman's network for builds.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the composition names them
        self, config: Config, sources: Sources, images: Images, registry: DistributionRegistry, base: str, network: str = NETWORK
    ) -> None:
        self._config = config
        self._sources = sources
        self._images = images
        self._registry = registry
        self._base = base
        self._network = network
        self._engine = Libpod(config.podman_socket)
        self._site = config.listen.port
        self._installing = asyncio.Lock()
        self._steps_due = 0.0
        self._active: set[str] = set()
        """Builds of this process. A sweep is told who runs when it begins; who begins during the sweep is only known here."""

    async def build(self, build: BuildRecord, plan: Plan, directory: Path, log: BuildLog, pushing: Pushing) -> str:
        """Build a context, push the image, have it local; returns the digest that the registry confirmed. Raises as `interfaces.Builder`."""
        await log.write(Phase.BUILDING, f"Building with podman ({plan.buildpack}) …")
        await self._images.fetch(self._base)
        name = f"{NAME}:{build.id}"
        self._active.add(build.id)
        try:
            if plan.buildpack != "Dockerfile":
                await self._tooled(build, directory, log)
            await self._built(build, directory, name, log)
            await pushing.begins()
            await log.write(Phase.BUILDING, "Pushing the image to the registry …")
            found, manifest = await self._pushed(build, plan, name)
            try:
                await self._images.fetch(build.image.at(found))
                await pushing.attest(found)
            except BaseException:
                await asyncio.shield(self._dropped(build.image.at(found)))
                raise
            return await self._registry.put_manifest(self._registry.path(build.image.repository), manifest, build.image.tag)
        finally:
            await asyncio.shield(self._untagged(name))
            self._active.discard(build.id)

    async def sweep(self, running: frozenset[str]) -> None:
        """End the steps and remove the half-made images of builds that are not running. Raises `EngineUnavailable`."""
        for build_id in await asyncio.to_thread(left, self._site):
            if build_id not in running | self._active:
                await _ended(self._enclosure(build_id, self._config.build))
        for name in await self._named(NAME):
            if name.removeprefix(f"{NAME}:") not in running | self._active:
                await self._untagged(name)
        if not running | self._active:
            await self._without_workers()
            await self._without_steps()

    async def _without_workers(self) -> None:
        """Remove the working containers of builds that were interrupted; only while none runs, for they do not say whose they are."""
        found = await self._engine.call("get", "/containers/json", params={"all": "true", "external": "true"})
        for container in found:
            if not self._active and (container.get("Command") == ["buildah"] or str(container.get("State")).lower() == "storage"):
                with contextlib.suppress(BinderError):
                    await self._engine.call("delete", f"/containers/{container['Id']}", params={"force": "true"}, slow=True)

    async def _without_steps(self) -> None:
        """Remove podman's own images of steps, once in `STEPS_SECONDS`, that no image stands on and that are too old to be of use."""
        now = asyncio.get_running_loop().time()
        if now < self._steps_due:
            return
        self._steps_due = now + STEPS_SECONDS
        with contextlib.suppress(BinderError):
            await self._engine.call("post", "/images/prune", params={"filters": json.dumps({"until": [STEPS_AGE]})}, slow=True)

    async def _tooled(self, build: BuildRecord, directory: Path, log: BuildLog) -> None:
        """Have the image that repo2docker's buildpacks stand on: made once for each base image, whoever comes first."""
        name = tools_image(self._base)
        if self._installing.locked():
            await log.write(Phase.BUILDING, "Waiting for another build, which installs what repo2docker's buildpacks need …")
        async with self._installing:
            if await self._images.exists(name):
                return
            await log.write(Phase.BUILDING, "Installing what repo2docker's buildpacks need, once for all builds …")
            place = directory / "tools"
            (place / "context").mkdir(parents=True)
            (place / "context" / "Dockerfile").write_text(tools(self._base), encoding="utf-8")
            try:
                await self._built(build, place, name, log)
            except LimitHit:
                raise
            except BuildFailed as error:
                message = "What repo2docker's buildpacks need could not be installed from the distribution. Tell the administrator; the log says why."
                raise BuildFailed(message) from error
            for old in await self._named(TOOLS_NAME):
                if old != name:
                    await self._untagged(old)

    async def _named(self, reference: str) -> list[str]:
        """Names that images of this repository have."""
        found = await self._engine.call("get", "/images/json", params={"filters": json.dumps({"reference": [reference]})})
        names = [name for image in found for name in image.get("RepoTags") or image.get("Names") or ()]
        return [name for name in names if name.startswith(f"{reference}:")]

    async def _built(self, build: BuildRecord, directory: Path, name: str, log: BuildLog) -> None:
        limits = self._config.build_of(build.repo.link)
        enclosure = self._enclosure(build.id, limits)
        enclosed = await asyncio.to_thread(enclosure.make)
        # Its own task: when the build must end, its steps are killed first and podman is heard to the end, so that it clears up after itself.
        parameters = self._parameters(name, enclosure if enclosed else None, limits, fresh=build.fresh)
        streaming = asyncio.create_task(self._streamed(directory, name, parameters, log))
        watching = asyncio.create_task(self._watched(enclosure, directory, int(limits.disk)))
        try:
            await asyncio.wait([streaming, watching], return_when=asyncio.FIRST_COMPLETED)
            (streaming if streaming.done() else watching).result()
        except BuildFailed as error:
            raise _explained(error, enclosure, limits) from None
        finally:
            watching.cancel()
            await asyncio.shield(_ended(enclosure, streaming))

    async def _streamed(self, directory: Path, name: str, parameters: dict[str, str], log: BuildLog) -> None:
        headers = {"Content-Type": "application/x-tar"}
        tar = piped(context(directory / "context"))
        async with self._engine.stream("/build", parameters, data=tar, headers=headers) as chunks:
            image, advice = "", Advice()
            async for report in reports(chunks):
                if "error" in report:
                    raise failed(str(report["error"]), advice)
                text = str(report.get("stream", ""))
                image = text.strip() or image
                if text.strip():
                    advice.hear(text)
                    await log.write(Phase.BUILDING, text.rstrip("\n"))
        if not await self._images.exists(name):
            logger.warning("build ended without an image", extra={"last": image[:200]})
            raise EngineUnavailable("The container engine (podman) broke the build off. Trying again may help.")

    def _parameters(self, name: str, enclosure: Enclosure | None, limits: Build, *, fresh: bool) -> dict[str, str]:
        namespaces = [{"Name": "network", "Host": False, "Path": self._network}]
        return {
            "dockerfile": "Dockerfile",
            "t": name,
            "layers": "true",
            **({"nocache": "true"} if fresh else {}),
            "rm": "true",
            "forcerm": "true",
            "networkmode": self._network,
            "nsoptions": json.dumps(namespaces),
            "httpproxy": "0",
            "buildargs": json.dumps(dict(self._arguments())),
            "dropcaps": json.dumps(["all"]),
            "addcaps": json.dumps(CAPABILITIES),
            "cpuquota": str(round(limits.cpus * 100_000)),
            "cpuperiod": "100000",
            "shmsize": str(SHM_BYTES),
            "pullpolicy": "missing",
            "outputformat": "application/vnd.oci.image.manifest.v1+json",
            # The enclosure limits memory over all steps; a second limit at the same height below it would hide which one was hit.
            **({"cgroupparent": enclosure.inner} if enclosure else {"memory": str(int(limits.memory)), "memswap": str(int(limits.memory))}),
        }

    def _arguments(self) -> list[tuple[str, str]]:
        """What every step finds in its environment, for the time of the build only."""
        gate = f"http://{self._config.gate_address}:{self._config.gate_port}"
        proxies = [(form, gate) for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY") for form in (name, name.lower())]
        local = [(form, self._sources.direct) for form in ("NO_PROXY", "no_proxy")]
        return [*proxies, *local]

    async def _watched(self, enclosure: Enclosure, directory: Path, limit: int) -> None:
        """Raise when the steps have written more than they may, or the disk has no room."""
        sizes: dict[Path, int] = {}
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            room(directory)
            for upper in await asyncio.to_thread(enclosure.uppers):
                with contextlib.suppress(OSError):  # the step ended meanwhile
                    sizes[upper] = max(sizes.get(upper, 0), await asyncio.to_thread(written, upper))
            if sum(sizes.values()) > limit:
                raise too_much(limit)
            for _ in range(round(max(1.0, 5 * (loop.time() - begun)) / 0.2)):
                enclosure.look()
                await asyncio.sleep(0.2)

    async def _pushed(self, build: BuildRecord, plan: Plan, name: str) -> tuple[str, bytes]:
        """Push podman's image, then put a manifest over its layers that says only what we want it to say; under no tag yet."""
        path, temporary = self._registry.path(build.image.repository), f"building-{build.id}"
        destination = f"{build.image.repository}:{temporary}"
        await self._images.push(name, destination)
        found = await self._registry.manifest(path, temporary)
        if found is None:
            raise RegistryUnavailable("The image registry did not keep the image that was pushed. Trying again may help.")
        raw, manifest = found
        configuration = plain(await self._registry.configuration(path, str(manifest["config"]["digest"])), labels(build.repo.commit, plan.buildpack))
        await self._registry.put_blob(path, configuration)
        manifest["config"] = {"mediaType": CONFIG_TYPE, "digest": digest(configuration), "size": len(configuration)}
        manifest.pop("annotations", None)
        content = json.dumps(manifest, separators=(",", ":")).encode()
        done = await self._registry.put_manifest(path, content)
        await self._registry.erase(path, raw)
        return done, content

    async def _dropped(self, reference: str) -> None:
        """No tag leads to it, so nothing would ever remove it."""
        with contextlib.suppress(BinderError):
            await self._registry.delete(reference)

    async def _untagged(self, name: str) -> None:
        """Forget podman's own image; its layers stay where an image of ours has them."""
        try:
            await self._engine.call("delete", f"/images/{name}", params={"force": "true"}, slow=True)
        except BinderError as error:
            logger.info("image of a build not removed", extra={"error": error.code})

    def _enclosure(self, build_id: str, limits: Build) -> Enclosure:
        return Enclosure(self._site, build_id, int(limits.memory), limits.cpus, limits.pids)


def _explained(error: BuildFailed, enclosure: Enclosure, limits: Build) -> BuildFailed:
    """A failed build that ran into a limit failed because of it."""
    if isinstance(error, LimitHit):
        return error
    if enclosure.out_of_memory:
        return LimitHit(f"The build ran out of memory, limit {limits.memory / 1024**3:.3g} GiB. Use less at once.")
    if enclosure.out_of_processes:
        return LimitHit(f"The build started too many processes, limit {limits.pids}. Start fewer at once.")
    return error


async def _ended(enclosure: Enclosure, streaming: asyncio.Task[None] | None = None) -> None:
    """Kill until nothing is left: podman may be about to start one more step."""
    for _ in range(ENDING):
        await asyncio.to_thread(enclosure.kill)
        gone = await asyncio.to_thread(enclosure.remove)
        if gone and (streaming is None or streaming.done()):
            break
        await asyncio.sleep(0.1)
    if streaming:
        streaming.cancel()
        # What it says about having been killed is of no interest.
        await asyncio.gather(streaming, return_exceptions=True)
