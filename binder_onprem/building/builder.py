"""Prepare, build, push: one image, by our own layers where the plan says so, else by podman's build.

Called by the builds' loop, which bounds the time by cancelling. Whatever ends a build, no container, file or mount of it stays; what a crash
leaves is found by labels and names and removed by `sweep`.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from typing import TYPE_CHECKING, Final, Protocol

from binder_onprem.building import prepare
from binder_onprem.building.disk import room
from binder_onprem.building.dockerbuild import DockerBuild
from binder_onprem.building.layerbuild import LayerBuild
from binder_onprem.building.pushing import Pushing
from binder_onprem.errors import EngineUnavailable
from binder_onprem.events import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from binder_onprem.building.registry import DistributionRegistry
    from binder_onprem.config import Config
    from binder_onprem.engine.containers import Containers
    from binder_onprem.engine.images import Images
    from binder_onprem.host.baseimage import Made
    from binder_onprem.host.sources import Sources
    from binder_onprem.interfaces import BuildLog
    from binder_onprem.model import BuildRecord
    from binder_onprem.plan import Plan

logger = logging.getLogger(__name__)

LABEL: Final = "io.binder-onprem.build"
KIND: Final = ("io.binder-onprem.kind", "build")


class Preparation(Protocol):
    """Finds out what to build (`prepare.Sandbox`)."""

    async def prepare(self, build: BuildRecord, log: BuildLog, directory: Path) -> Plan:
        """Leave ``plan.json``, ``src/`` and perhaps ``context/`` in `directory`."""
        ...


class Papers(Protocol):
    """Makes an image's papers (`supply.chain.Chain`)."""

    async def attest(self, build: BuildRecord, plan: Plan, digest: str, log: BuildLog) -> None:
        """Raises what ends the build."""
        ...


class PodmanBuilder:
    """Satisfies `interfaces.Builder`.

    Args:
        config: Limits and names.
        sources: Mirrors, proxy and certificates that builds get.
        containers: The engine's containers.
        images: The engine's images.
        registry: Where images are kept.
        preparation: Examines repositories.
        made: The base image.
        used: Told of each layer of an environment (``…@sha256:…``) that a build stands on, so that those go last.
        replaced: Told of an image (``…@sha256:…``) and of the one that a fresh build has put in its place, before the old one is forgotten.
        papers: Has an image listed, looked at and signed before it gets its name.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the composition root names them
        self,
        config: Config,
        sources: Sources,
        containers: Containers,
        images: Images,
        registry: DistributionRegistry,
        preparation: Preparation,
        made: Made,
        *,
        used: Callable[[str], Awaitable[None]] | None = None,
        replaced: Callable[[str, str], Awaitable[None]] | None = None,
        papers: Papers | None = None,
    ) -> None:
        self._papers = papers
        self._builds = config.home / "builds"
        self._containers = containers
        self._images = images
        self._registry = registry
        self._preparation = preparation
        self._replaced = replaced
        self._layers = LayerBuild(config, containers, images, registry, made.base, used, sources.direct)
        self._docker = DockerBuild(config, sources, images, registry, made.base)
        self._active: set[str] = set()
        """Builds of this process. A sweep is told who runs when it begins; who begins during the sweep is only known here."""

    async def build(self, build: BuildRecord, log: BuildLog, pushing: Callable[[], Awaitable[None]]) -> str:
        """See `interfaces.Builder`."""
        directory = self._builds / build.id
        self._builds.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._active.add(build.id)
        try:
            room(self._builds)
            # Asked in any case: a registry that is away costs seconds now instead of a build that cannot be pushed.
            known = await self._registry.digest(build.image)
            if known and not build.fresh and await self._fetched(build.image.at(known)):
                await log.write(Phase.BUILDING, "The image is in the registry already.")
                await pushing()
                return known
            plan = await self._preparation.prepare(build, log, directory)
            for notice in plan.notices:
                await log.write(Phase.BUILDING, notice)
            await log.write(Phase.BUILDING, f"Buildpack: {plan.buildpack}")
            way = self._layers if plan.kind == "layers" else self._docker

            async def attest(digest: str) -> None:
                if self._papers:
                    await self._papers.attest(build, plan, digest, log)

            made = await way.build(build, plan, directory, log, Pushing(pushing, attest))
            if known and known != made:
                await self._forget(build.image.at(known), build.image.at(made))
            return made
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True))
            self._active.discard(build.id)

    async def _forget(self, old: str, new: str) -> None:
        """Its tag is the new image's now, and nothing would ever find the old one again. What runs has it on this machine."""
        if self._replaced:
            await self._replaced(old, new)
        await self._registry.delete(old)

    async def _fetched(self, image: str) -> bool:
        """Have it local; False when it cannot be had any more and is better made again."""
        try:
            await self._images.fetch(image)
        except EngineUnavailable:
            logger.warning("image in the registry cannot be fetched", extra={"image": image})
            return False
        return True

    async def sweep(self, running: frozenset[str]) -> None:
        """See `interfaces.Builder`."""
        for found in await self._containers.labelled(dict([KIND])):
            if found.labels.get(LABEL) not in running | self._active:
                logger.info("removing what a build left", extra={"container": found.name, "build": found.labels.get(LABEL)})
                await self._containers.remove(found.id)
        await self._docker.sweep(running)
        for name in await asyncio.to_thread(self._left):
            if name not in running | self._active:
                await prepare.sweep(self._builds / name)

    def _left(self) -> set[str]:
        """Build ids that have something below ``builds/``."""
        return {path.name.partition(".")[0] for path in self._builds.glob("*")} if self._builds.is_dir() else set()
