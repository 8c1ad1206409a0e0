"""One at a time for each key, such as a build's layer or a person's project; keys that nobody holds or waits for are forgotten."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Hashable


class Doors:
    """The locks."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    def of(self, key: Hashable) -> asyncio.Lock:
        """The key's lock, the same for all who have it at the same time: ``async with doors.of(key)``."""
        return self._locks.setdefault(key, asyncio.Lock())
