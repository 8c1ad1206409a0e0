"""Podman's images on this machine: fetch one from the registry by digest, list, remove, count the disk.

Called by the builder (fetch), the spawner's side (is it local) and the pruner. Never fetches from any registry but ours.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from binder_onprem.engine.libpod import DOWN, Libpod, refused
from binder_onprem.errors import EngineUnavailable, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from binder_onprem.config import Config

IN_USE: Final = "The image is in use by a session or a build and stays."


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image on this machine.

    Attributes:
        id: Of its configuration.
        references: ``host:port/name@sha256:…`` and tags it is known by.
        size: Bytes of all its layers.
        shared: Bytes of these that other images have too.
        created: Unix seconds, UTC.
        containers: How many use it.
    """

    id: str
    references: tuple[str, ...]
    size: int
    shared: int
    created: float
    containers: int


class Images:
    """Podman's images.

    Args:
        config: Says which registry is ours, and where the account and the engine's socket are.
    """

    def __init__(self, config: Config) -> None:
        self._engine = Libpod(config.podman_socket)
        self._registry = config.registry_host
        self._account = config.push_account
        self._tls = "true" if config.remote else "false"

    async def exists(self, reference: str) -> bool:
        """Whether the image is on this machine. Raises `EngineUnavailable`."""
        try:
            await self._engine.call("get", f"/images/{_quoted(reference)}/exists")
        except NotFound:
            return False
        return True

    async def configuration(self, reference: str) -> dict[str, Any]:
        """The ``Config`` of an image on this machine. Raises `NotFound`, `EngineUnavailable`."""
        return dict((await self._engine.call("get", f"/images/{_quoted(reference)}/json"))["Config"] or {})

    async def fetch(self, reference: str) -> None:
        """Have ``host:port/name@sha256:…`` on this machine; layers that are here are not moved again.

        Raises:
            EngineUnavailable: Podman or the registry does not answer, or the image is not in the registry.
        """
        if not reference.startswith(f"{self._registry}/") or await self.exists(reference):
            return
        parameters = {"reference": f"docker://{reference}", "tlsVerify": self._tls, "quiet": "true"}
        async with self._engine.stream("/images/pull", parameters, headers=self._authority()) as chunks:
            answer = b"".join([chunk async for chunk in chunks])
        _check_pull(answer)

    async def push(self, name: str, destination: str) -> None:
        """Push a local image to our registry; whether it is there is for the registry to say. Raises `EngineUnavailable`."""
        parameters = {"destination": destination, "tlsVerify": self._tls, "format": "oci"}
        async with self._engine.stream(f"/images/{_quoted(name)}/push", parameters, headers=self._authority()) as chunks:
            answer = b"".join([chunk async for chunk in chunks])
        _check_stream(answer)

    async def local(self) -> Sequence[LocalImage]:
        """Every image on this machine that has a name of ours. Raises `EngineUnavailable`."""
        answer = await self._engine.call("get", "/images/json", slow=True)
        found = [_local(entry) for entry in answer]
        return [image for image in found if any(name.startswith(f"{self._registry}/") for name in image.references)]

    async def remove(self, reference: str) -> bool:
        """Remove an image that nothing uses; absent is fine. False when it is in use. Raises `EngineUnavailable`."""
        try:
            await self._engine.call("delete", f"/images/{_quoted(reference)}", params={"force": "false"}, slow=True)
        except NotFound:
            return True
        except EngineUnavailable:
            if await self._used(reference):
                return False
            raise
        return True

    async def disk(self) -> int:
        """Bytes that all local images take, shared layers counted once. Raises `EngineUnavailable`."""
        answer = await self._engine.call("get", "/system/df", slow=True)
        return int(answer.get("ImagesSize") or sum(int(entry.get("UniqueSize") or 0) for entry in answer.get("Images") or ()))

    async def _used(self, reference: str) -> bool:
        filters = json.dumps({"ancestor": [reference]})
        return bool(await self._engine.call("get", "/containers/json", params={"all": "true", "filters": filters}))

    def _authority(self) -> dict[str, str]:
        try:
            user, _, password = self._account.read_text(encoding="utf-8").strip().partition(":")
        except OSError as error:
            raise EngineUnavailable("The registry's account is missing on this machine. The administrator should run the set-up again.") from error
        account = json.dumps({"username": user, "password": password}).encode()
        return {"X-Registry-Auth": base64.urlsafe_b64encode(account).decode()}


def _check_pull(answer: bytes) -> None:
    if not any(report.get("images") or report.get("id") for report in _check_stream(answer)):
        raise EngineUnavailable(DOWN)


def _check_stream(answer: bytes) -> list[dict[str, Any]]:
    """The status is 200 whatever happens; the truth is in the lines."""
    try:
        reports = [json.loads(line) for line in answer.splitlines() if line.strip()]
    except ValueError as error:
        raise EngineUnavailable(DOWN) from error
    for report in reports:
        if report.get("error"):
            raise refused(0, str(report["error"]))
    return reports


def _local(entry: dict[str, Any]) -> LocalImage:
    names = (*(entry.get("RepoDigests") or ()), *(entry.get("RepoTags") or ()))
    sizes = int(entry.get("Size") or 0), int(entry.get("SharedSize") or 0)
    return LocalImage(entry["Id"], names, *sizes, float(entry.get("Created") or 0), int(entry.get("Containers") or 0))


def _quoted(reference: str) -> str:
    return quote(reference, safe=":@")
