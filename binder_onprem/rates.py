"""How often somebody has launched lately: fixed windows that outlive a restart.

`admission` counts, in memory, and waits for `settled` before anybody is told: many clicks at once are one write, and what was acknowledged is
counted after a restart, too. Times are Unix seconds, because they are kept; a clock that is set back never makes a window longer than a period.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from binder_onprem.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

SUBJECTS: Final = 50_000
"""Remembered; beyond it the one that was first seen longest ago is forgotten."""
LAUNCHES_REMEMBERED: Final = 1000
"""Of one subject, so that a reconnect does not count again."""
UNWRITTEN: Final = 10_000


@dataclass(frozen=True, slots=True)
class Hit:
    """One launch that counts.

    Attributes:
        launch_id: Of the launch; repeating it counts once.
        subject: Whom it counts against.
        began: When that one's window began, Unix seconds.
    """

    launch_id: str
    subject: str
    began: float


class Kept(Protocol):
    """Where hits are kept."""

    async def hits(self, since: float) -> Sequence[Hit]:
        """Those of windows that began after `since`. Raises `StoreUnavailable`."""
        ...

    async def count(self, hits: Sequence[Hit], before: float) -> None:
        """Keep these; forget those of windows that began before `before`. Raises `StoreUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class Allowance:
    """What somebody has left.

    Attributes:
        limit: Launches per period.
        remaining: Of these; less than none: a launch that is asked about will be refused.
        reset: Seconds until the period ends.
    """

    limit: int
    remaining: int
    reset: float


@dataclass(slots=True)
class _Window:
    began: float
    launches: set[str] = field(default_factory=set)
    count: int = 0

    def add(self, launch_id: str) -> None:
        self.count += 1
        if len(self.launches) < LAUNCHES_REMEMBERED:
            self.launches.add(launch_id)


class Rates:
    """Everybody's windows.

    Args:
        period: Seconds of a window.
        kept: Where they outlive us; None: in memory alone.
    """

    def __init__(self, period: float, kept: Kept | None = None) -> None:
        self._period = period
        self._kept = kept
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._fresh: list[Hit] = []
        self._writing = asyncio.Lock()
        self._loaded = kept is None

    def allowance(self, subject: str, limit: int, now: float, launch_id: str = "") -> Allowance:
        """What is left, counting nothing; with a launch: what will be left after it."""
        window = self._current(subject, now)
        if window is None:
            return Allowance(limit, limit - bool(launch_id), self._period)
        mine = 1 if launch_id and launch_id not in window.launches else 0
        return Allowance(limit, limit - window.count - mine, window.began + self._period - now)

    def count(self, subject: str, limit: int, launch_id: str, now: float) -> float | None:
        """Count a launch; None when it is within the limit, else the seconds until the window ends. A repetition is not counted again."""
        window = self._current(subject, now)
        if window is None:
            self._windows.pop(subject, None)
            window = self._windows[subject] = _Window(now)
            if len(self._windows) > SUBJECTS:
                self._windows.popitem(last=False)
        if launch_id in window.launches:
            return None
        if window.count >= limit:
            return window.began + self._period - now
        window.add(launch_id)
        if self._kept and len(self._fresh) < UNWRITTEN:
            self._fresh.append(Hit(launch_id, subject, window.began))
        return None

    def _current(self, subject: str, now: float) -> _Window | None:
        window = self._windows.get(subject)
        if window is None or now >= window.began + self._period:
            return None
        window.began = min(window.began, now)
        return window

    async def loaded(self, now: float) -> None:
        """Take up what was counted before a restart; a database that does not answer is asked again at the next launch."""
        if self._kept is None:
            return
        async with self._writing if not self._loaded else nullcontext():
            if self._loaded:
                return
            try:
                hits = await self._kept.hits(now - self._period)
            except StoreUnavailable:
                return
            for hit in hits:
                window = self._windows.setdefault(hit.subject, _Window(min(hit.began, now)))
                if hit.launch_id not in window.launches:
                    window.add(hit.launch_id)
            self._loaded = True

    async def settled(self, now: float) -> None:
        """Wait until what has been counted is kept. When the database is down it stays to be written; the launch's own step says so."""
        if self._kept is None or not self._fresh:
            return
        async with self._writing:  # whoever comes here while another writes finds its own written with the next ones
            hits, self._fresh = self._fresh, []
            if not hits:
                return
            try:
                await self._kept.count(hits, now - 2 * self._period)
            except StoreUnavailable:
                self._fresh = hits + self._fresh
                logger.warning("rates not written", extra={"hits": len(self._fresh)})
            except BaseException:  # cancelled: the write goes on or not, writing it once more does no harm
                self._fresh = hits + self._fresh
                raise
