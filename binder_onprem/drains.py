"""Which sessions end because their machine is maintained, and when: what the cluster says, remembered for as long as somebody has to be told.

Nothing ends here: whoever drains the machine ends what runs on it. All of it is in the cluster, so a new process knows at its first look what the
last one knew. Moments are of wall clocks, because those who drain and those who are told have no other in common.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from binder_onprem.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from binder_onprem.interfaces import Machines
    from binder_onprem.model import Session

logger = logging.getLogger(__name__)

EVERY: Final = 5.0
"""Seconds between two looks, however many pages ask."""
SECONDS: Final = 3.0
"""One look's limit: pages wait for it."""
LATE: Final = 900.0
"""Seconds after which what was said is not true any more: a drain that was broken off takes nothing back."""
SKEW: Final = 60.0
"""Seconds by which clocks of a site may differ."""


def known(last: Mapping[str, float], found: Mapping[str, float | None], wall: float) -> dict[str, float]:
    """Launch → when its session ends at the latest, Unix seconds.

    Args:
        last: What was known so far; of a session that is not in the cluster any more it stays known.
        found: What the cluster says of all that run; None: no drain, or one that was called off.
        wall: Unix seconds.
    """
    return {launch: until for launch, until in {**last, **found}.items() if until is not None and wall <= until + LATE}


class Drains:
    """The looks.

    Args:
        machines: Asked.
        wall: Unix seconds.
        now: Monotonic seconds.
    """

    def __init__(self, machines: Machines, *, wall: Callable[[], float] = time.time, now: Callable[[], float] = time.monotonic) -> None:
        self._machines = machines
        self._wall = wall
        self._now = now
        self._at = float("-inf")
        self._known: dict[str, float] = {}
        self._one = asyncio.Lock()

    async def until(self, session: Session) -> float | None:
        """When the session ends at the latest, Unix seconds; None: its machine is not drained. While nobody answers, as last known."""
        await self.look()
        return self._known.get(session.launch_id or "")

    async def left(self, session: Session) -> float | None:
        """The same as seconds from now, 0 when it is due."""
        until = await self.until(session)
        return None if until is None else max(0.0, until - self._wall())

    async def ended(self, session: Session) -> bool:
        """Whether a session that has ended by itself, as it seems, was ended by the drain of its machine."""
        left = await self.left(session)
        return left is not None and left <= SKEW

    async def look(self) -> None:
        """Ask, unless that was done a moment ago. What is told of an end has to be known before it."""
        async with self._one:
            if self._now() - self._at < EVERY:
                return
            try:
                async with asyncio.timeout(SECONDS):
                    found = await self._machines.drains()
            except (EngineUnavailable, TimeoutError) as error:
                logger.info("drains not known anew", extra={"reason": str(error)[:200]})
                found = {}
            self._known, self._at = known(self._known, found, self._wall()), self._now()
