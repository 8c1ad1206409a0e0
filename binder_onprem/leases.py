"""Who uses an image's repository right now, so that a prune never takes it from under a launch.

`launch` holds a lease from before it asks for the image until the session answers; the prune asks `removing` before each deletion. Without it:
the launch sees the digest, the prune deletes it, the session starts from nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Leases:
    """Counted leases on names of repositories; in memory, because a launch that dies with us is no use any more."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._removing: dict[str, asyncio.Event] = {}

    @property
    def held(self) -> frozenset[str]:
        """Names in use now."""
        return frozenset(self._held)

    @asynccontextmanager
    async def hold(self, repository: str) -> AsyncIterator[None]:
        """Use it; waits while it is being removed, so that what is seen afterwards is the truth."""
        while (event := self._removing.get(repository)) is not None:
            await event.wait()
        self._held[repository] += 1
        try:
            yield
        finally:
            self._held[repository] -= 1
            if not self._held[repository]:
                del self._held[repository]

    @asynccontextmanager
    async def removing(self, repository: str) -> AsyncIterator[bool]:
        """Keep users out for the time of a deletion; False when somebody uses it (or removes it) already."""
        if repository in self._held or repository in self._removing:
            yield False
            return
        event = self._removing[repository] = asyncio.Event()
        try:
            yield True
        finally:
            del self._removing[repository]
            event.set()
