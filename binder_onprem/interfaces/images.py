"""Builds, and where images lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from binder_onprem.events import Phase
    from binder_onprem.model import BuildRecord, ImageRef


class BuildLog(Protocol):
    """Where a build writes while it goes on; durable, numbered, capped."""

    async def write(self, phase: Phase, message: str) -> None:
        """Add a line (or several, split at line feeds). Cleans and cuts it."""
        ...


class Builder(Protocol):
    """Makes one image; the caller bounds its time by cancelling the task."""

    async def build(self, build: BuildRecord, log: BuildLog, pushing: Callable[[], Awaitable[None]]) -> str:
        """Prepare, build, push; returns ``sha256:…`` that the registry has confirmed.

        Cancelling it stops every container it started and removes what they wrote. `pushing` is awaited once, when the push starts.

        Raises:
            BuildFailed: The repository's fault or a limit; final.
            Unavailable: Ours; the caller may try again.
        """
        ...

    async def sweep(self, running: frozenset[str]) -> None:
        """Remove containers, volumes and directories of builds that are not among the running builds' ids. Idempotent."""
        ...


class Registry(Protocol):
    """Where images are kept."""

    async def digest(self, image: ImageRef) -> str | None:
        """Digest of the image's manifest, None only when the registry said that there is none. Raises `RegistryUnavailable`."""
        ...

    async def images(self) -> Sequence[StoredImage]:
        """Every image under our prefix. Raises `RegistryUnavailable`."""
        ...

    async def delete(self, reference: str) -> None:
        """Forget ``repository@sha256:…``; absent is fine. Raises `RegistryUnavailable`."""
        ...


class Publication(Protocol):
    """The registry outside that other hubs pull from."""

    @property
    def place(self) -> str:
        """``host:port/path``."""
        ...

    async def publish(self, image: ImageRef, digest: str) -> str:
        """Have the image there; returns ``host:port/path/name@sha256:…``. Repeating it is cheap. Raises `RegistryUnavailable`."""
        ...


class StoredImage(Protocol):
    """An image as the registry has it."""

    @property
    def reference(self) -> str:
        """``host:port/prefix/name@sha256:…``."""
        ...

    @property
    def size(self) -> int:
        """Bytes of its manifest and layers, shared ones included."""
        ...

    @property
    def layers(self) -> Sequence[tuple[str, int]]:
        """Digest and bytes of each blob, so that shared ones are counted once."""
        ...


class Supply(Protocol):
    """What is known of an image beside it in the registry: contents, signature, scan."""

    async def verify(self, reference: str) -> None:
        """Pass for ``…@sha256:…`` that may be started. Raises `Untrusted`, `RegistryUnavailable`."""
        ...

    async def sign(self, reference: str) -> None:
        """Sign an image that is there. Raises `RegistryUnavailable`, `HostUnfit`."""
        ...

    async def papers(self, reference: str) -> Mapping[str, Any]:
        """``sbom`` (summary or None), ``signature`` (good, bad, none), ``scan`` (result or None). Raises `RegistryUnavailable`."""
        ...

    async def sbom(self, reference: str) -> bytes | None:
        """The list of contents as it is, CycloneDX in JSON. Raises `RegistryUnavailable`."""
        ...


class LocalImage(Protocol):
    """An image on this machine."""

    @property
    def id(self) -> str:
        """Of its configuration."""
        ...

    @property
    def references(self) -> Sequence[str]:
        """Names it is known by, ``repository@sha256:…`` and tags."""
        ...

    @property
    def size(self) -> int:
        """Bytes of all its layers."""
        ...

    @property
    def shared(self) -> int:
        """Bytes of these that other images have too."""
        ...

    @property
    def containers(self) -> int:
        """How many use it."""
        ...


class LocalImages(Protocol):
    """Images on this machine, ready to start from."""

    async def exists(self, reference: str) -> bool:
        """Whether ``repository@sha256:…`` is here. Raises `EngineUnavailable`."""
        ...

    async def local(self) -> Sequence[LocalImage]:
        """Every image of ours that is here. Raises `EngineUnavailable`."""
        ...

    async def remove(self, reference: str) -> bool:
        """Remove; absent is fine. False when it is in use. Raises `EngineUnavailable`."""
        ...
