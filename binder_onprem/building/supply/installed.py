"""Reads what is installed in an image of this machine: its files are mounted read-only in a throw-away container of ours that lists them.

Called by `chain`. Nothing of the image runs. The container has no network, a user namespace, no capability, a time limit.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binder_onprem.building.supply.bill import parts
from binder_onprem.engine.containers import Mount, Run
from binder_onprem.errors import EngineUnavailable
from binder_onprem.sandbox import inventory

if TYPE_CHECKING:
    from binder_onprem.building.supply.bill import Part
    from binder_onprem.config import Config
    from binder_onprem.engine.containers import Containers

SECONDS: Final = 120.0
MEMORY: Final = 512 * 1024**2
LINES: Final = inventory.PARTS + 1
_PACKAGE: Final = Path(__file__).parents[2]


class Installed:
    """The reader.

    Args:
        config: Limits.
        containers: The engine's.
        sandbox: Id of the sandbox image.
    """

    def __init__(self, config: Config, containers: Containers, sandbox: str) -> None:
        self._config = config
        self._containers = containers
        self._sandbox = sandbox

    async def read(self, build_id: str, reference: str) -> tuple[Part, ...]:
        """What is installed in ``…@sha256:…``.

        Raises:
            EngineUnavailable: Podman does not answer, or it takes too long.
            NotFound: The image is not on this machine.
        """
        lines: list[str] = []

        async def line(text: str) -> None:
            if len(lines) < LINES:
                lines.append(text)

        try:
            async with asyncio.timeout(SECONDS), self._containers.mounted(self._files(build_id, reference)) as files:
                ended = await self._containers.run(self._run(build_id, "inventory", self._sandbox, self._mounts(files)), line)
        except TimeoutError:
            raise EngineUnavailable("Listing what is installed in the image took too long.") from None
        if ended.code != 0:
            raise EngineUnavailable("What is installed in the image could not be listed.")
        return parts(lines)

    def _files(self, build_id: str, reference: str) -> Run:
        # It never runs, so it needs no user namespace, for which the engine might have to copy files.
        return replace(self._run(build_id, "files", reference, ()), userns="host")

    def _mounts(self, files: Path) -> tuple[Mount, ...]:
        return Mount(str(files), "/image"), Mount(str(_PACKAGE), "/srv/ours/binder_onprem")

    def _run(self, build_id: str, what: str, image: str, mounts: tuple[Mount, ...]) -> Run:
        return Run(
            name=f"build-{build_id}-{what}",
            image=image,
            command=("python3", "-m", "binder_onprem.sandbox.inventory", "/image"),
            env=(("PYTHONPATH", "/srv/ours"), ("PYTHONDONTWRITEBYTECODE", "1")),
            user="65534:65534",
            labels=(("io.binder-onprem.kind", "build"), ("io.binder-onprem.build", build_id)),
            mounts=mounts,
            memory=MEMORY,
            cpus=self._config.build.cpus,
            pids=64,
            network="none",
            read_only=True,
        )
