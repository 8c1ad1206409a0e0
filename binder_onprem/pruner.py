"""Keeps images within a budget of bytes, and within what the disk has: the least recently used go first, what is in use never does.

`surplus` decides, pure; `Pruner.prune` is the pass, run by `periodic` and by the CLI, over the registry and over this machine's images alike.
Never removes the base image, a pinned one, an image of a session, one whose build is open, one that a launch holds a lease on, or one used a short
while ago.
The registry forgets the manifests; its bytes come back when its garbage collection runs, which needs it stopped or read-only: `collect` is
called for that after a prune that removed something, while no build runs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from binder_onprem import metrics
from binder_onprem.errors import InUse, NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from binder_onprem import config
    from binder_onprem.builds import Builds
    from binder_onprem.interfaces import Hub, LocalImage, LocalImages, Registry, Store, StoredImage
    from binder_onprem.leases import Leases

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pruned:
    """One decision: `place` is ``registry`` or ``local``; `bytes` come free by it; `removed` is False in a dry run or when it is in use after all."""

    place: str
    reference: str
    bytes: int
    removed: bool


def repository(reference: str) -> str:
    """``host:port/prefix/name`` of ``host:port/prefix/name@sha256:…``."""
    return reference.partition("@")[0]


def surplus(  # noqa: PLR0913 - a decision over six facts
    images: Sequence[StoredImage],
    last_used: Mapping[str, float],
    in_use: Callable[[str], bool],
    *,
    budget: int,
    keep: float,
    now: float,
    short: int = 0,
) -> list[tuple[str, int]]:
    """Which images have to go so that the others fit: reference and the bytes that come free, in order.

    Args:
        images: With their layers; a layer that several share counts once, and comes free with the last of them.
        last_used: Reference → Unix seconds; an image that is not in it was never used and goes first.
        in_use: Whether an image may not go.
        budget: Bytes.
        keep: Seconds an image stays after its last use.
        now: Unix seconds.
        short: Bytes that have to come free whatever the budget, because the disk lacks them.
    """
    sizes: dict[str, int] = {}
    for digest, size in (layer for image in images for layer in image.layers):
        sizes[digest] = max(size, sizes.get(digest, 0))
    users = Counter(digest for image in images for digest in {digest for digest, _ in image.layers})
    total = sum(sizes.values())
    budget = min(budget, total - short) if short else budget
    going = []
    for image in sorted(images, key=lambda image: (last_used.get(image.reference, 0.0), image.reference)):
        if total <= budget:
            break
        used = last_used.get(image.reference)
        if in_use(image.reference) or (used is not None and now - used < keep):
            continue
        freed = 0
        for digest in {digest for digest, _ in image.layers}:
            users[digest] -= 1
            freed += 0 if users[digest] else sizes[digest]
        total -= freed
        going.append((image.reference, freed))
    return going


@dataclass(frozen=True, slots=True)
class _Here:
    reference: str
    layers: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        return sum(size for _, size in self.layers)


def here_as_stored(image: LocalImage) -> StoredImage | None:
    """An image of this machine as one with two layers, its own bytes and the shared ones; None when it may not go.

    The engine tells how much of an image is shared, not with which; nearly always that is the base image. The largest share of any counts, once.
    An image without a digest of the registry is in the making.
    """
    reference = next((name for name in image.references if "@sha256:" in name), None)
    if reference is None or image.containers > 0:
        return None
    return _Here(reference, ((image.id, image.size - image.shared), ("shared", image.shared)))


class Pruner:
    """The pass.

    Args:
        registry, local: The two places; `local` None where sessions run elsewhere.
        hub: Whose sessions use images.
        builds: Whose open builds need theirs.
        store: Knows the last use.
        leases: Shared with `launch`.
        limits: Budget and time.
        protected: References or repositories that never go: base image, sandbox.
        short: Bytes that the disk lacks for builds to go on; the budget may be more than the disk ever had.
        collect: Gives the registry's bytes back, False when it could not now; None where somebody else looks after it.
        pinned: References that stay whatever the budget.
        now: Unix seconds.
    """

    def __init__(  # noqa: PLR0913 - the pass is where they meet
        self,
        registry: Registry,
        local: LocalImages | None,
        *,
        hub: Hub,
        builds: Builds,
        store: Store,
        leases: Leases,
        limits: config.Images,
        protected: Iterable[str] = (),
        short: Callable[[], int] = lambda: 0,
        collect: Callable[[], Awaitable[bool]] | None = None,
        pinned: Callable[[], frozenset[str]] = frozenset,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._pinned = pinned
        self._registry = registry
        self._local = local
        self._hub = hub
        self._builds = builds
        self._store = store
        self._leases = leases
        self._limits = limits
        self._protected = frozenset(protected)
        self._short = short
        self._collect = collect
        self._due = False
        self._now = now
        self._one = asyncio.Lock()

    async def prune(self, *, dry_run: bool = False) -> tuple[Pruned, ...]:
        """Remove what is too much; what was, or in a dry run would be, done.

        Raises:
            Unavailable: Registry, engine, hub or database does not answer; what was removed until then stays removed.
        """
        async with self._one:
            stored = {image.reference: image for image in await self._registry.images()}
            removed = await self._pass("registry", stored, self._forget, dry_run=dry_run)
            # The bytes stay until the collection, and a collection beside a push can lose the push's blobs.
            self._due |= any(image.removed for image in removed)
            if self._collect and self._due and not dry_run and not self._builds.running:
                self._due = not await self._collect()
            if self._local:
                here = {image.reference: image for image in map(here_as_stored, await self._local.local()) if image}
                removed += await self._pass("local", here, self._local.remove, dry_run=dry_run)
            return tuple(removed)

    async def delete(self, reference: str) -> int:
        """Remove one image, however lately it was used, from the registry and from this machine; its bytes, shared ones included.

        Args:
            reference: ``…@sha256:…``.

        Raises:
            NotFound: The registry has no such image.
            InUse: It is pinned, or a session, launch or build needs it.
            Unavailable: Registry, engine, hub or database does not answer.
        """
        async with self._one:
            found = next((image for image in await self._registry.images() if image.reference == reference), None)
            if found is None:
                raise NotFound("There is no such image (any more).")
            used = await self._used()
            async with self._leases.removing(repository(reference)) as alone:
                if reference in self._pinned():
                    raise InUse("The image is pinned. Unpin it first.")
                if not alone or used(reference):
                    raise InUse("The image is in use by a session, a launch or a build and stays. Stop those first.")
                await self._registry.delete(reference)
                if self._local:
                    await self._local.remove(reference)
            # The bytes come back with the next collection.
            self._due = True
            logger.info("image deleted", extra={"image": reference})
            return found.size

    async def _forget(self, reference: str) -> bool:
        await self._registry.delete(reference)
        return True

    async def _pass(self, name: str, found: Mapping[str, StoredImage], remove: Callable[[str], Awaitable[bool]], *, dry_run: bool) -> list[Pruned]:
        used = await self._used()
        images = list(found.values())
        budget, keep = self._limits.budget, self._limits.keep
        going = surplus(images, await self._store.last_used(), used, budget=budget, keep=keep, now=self._now(), short=self._short())
        if dry_run:
            return [Pruned(name, reference, freed, removed=False) for reference, freed in going]
        done = [Pruned(name, reference, freed, await self._delete(remove, reference, used)) for reference, freed in going]
        metrics.PRUNED.labels(name).inc(sum(image.removed for image in done))
        return done

    async def _used(self) -> Callable[[str], bool]:
        sessions = {session.image for session in await self._hub.sessions() if session.image}
        building = {record.image.repository for record, _ in self._builds.places()}

        def used(reference: str) -> bool:
            name = repository(reference)
            if reference in sessions or reference in self._pinned() or name in building or name in self._leases.held:
                return True
            return not self._protected.isdisjoint((reference, name))

        return used

    async def _delete(self, remove: Callable[[str], Awaitable[bool]], reference: str, used: Callable[[str], bool]) -> bool:
        # A launch may have come since the decision. It is kept out of this repository from here until the deletion is done.
        async with self._leases.removing(repository(reference)) as alone:
            if not alone or used(reference) or self._now() - (await self._store.last_used()).get(reference, 0.0) < self._limits.keep:
                return False
            removed = await remove(reference)
        logger.info("image removed" if removed else "image in use", extra={"image": reference})
        return removed
