"""Ends sessions, for whatever reason: keeps what was changed, stops them, counts and tells it. Called by the passes and by the pages, which decide.

The hub leaves the container of a session that ended by itself where it is, so that its files can still be kept; here it is removed.
"""

from __future__ import annotations

import asyncio
import logging
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from binder_onprem import metrics
from binder_onprem.errors import HubUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from binder_onprem.interfaces import Hub
    from binder_onprem.model import Session

logger = logging.getLogger(__name__)

STOP_SECONDS: Final = 60.0


class Reason(StrEnum):
    """Why a session ends."""

    IDLE = "idle"
    AGE = "age"
    START = "never answered"
    GONE = "ended by itself"
    MAINTENANCE = "maintenance"
    LEFT = "without server"
    DISK = "disk"
    ADMINISTRATOR = "administrator"
    OWN = "own wish"


_NOTHING_TO_KEEP: Final = frozenset({Reason.START, Reason.OWN})


async def nothing(_session: Session) -> None:
    """Keeps no files."""


async def nobody(_session: Session, _reason: str) -> None:
    """Nobody wants to know."""


async def no_container(_name: str) -> None:
    """There is nothing to remove beside what the hub removes."""


class Ends:
    """The one way to a session's end.

    Args:
        hub: Stops it.
        keep: Keeps what it has changed, as far as there is room and time; raises nothing.
        remove: Removes its container, by name; absent is fine. Raises `EngineUnavailable`.
        told: Called when it was ended, with the reason.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        keep: Callable[[Session], Awaitable[None]] = nothing,
        remove: Callable[[str], Awaitable[None]] = no_container,
        told: Callable[[Session, str], Awaitable[None]] = nobody,
    ) -> None:
        self._hub = hub
        self._keep = keep
        self._remove = remove
        self._told = told

    async def keep(self, session: Session, reason: Reason) -> None:
        """Keep its files, unless its person wanted them gone, or never had any."""
        if reason not in _NOTHING_TO_KEEP:
            await self._keep(session)

    async def stop(self, session: Session, reason: Reason) -> None:
        """Stop it. Raises `HubUnavailable`, after a minute at the latest, and `EngineUnavailable`."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._hub.stop(session)
                if not session.server and session.launch_id:
                    await self._remove(f"binder-{session.launch_id}")
        except TimeoutError:
            raise HubUnavailable("The session does not stop; the next pass tries again.") from None
        metrics.REAPED.labels(reason.value).inc()
        logger.info("session ended", extra={"session": session.name, "reason": reason.value})
        await self._told(session, reason.value)

    async def end(self, session: Session, reason: Reason) -> None:
        """Both. Raises as `stop`."""
        await self.keep(session, reason)
        await self.stop(session, reason)

    async def wished(self, session: Session) -> None:
        """As its own person wants it. Raises as `stop`."""
        await self.end(session, Reason.OWN)
