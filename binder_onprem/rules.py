"""What the administrator has ruled, as it holds now: bans, maintenance, pins, the queue's pause, builders that are closed.

Asked by the launch line, the builds and the prune.
What is asked on the way of a launch is answered from memory. A change is in the database before it holds and before anybody is told; other
processes on the same database see it when they `read` next.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.errors import Banned, InvalidSpec, NotFound, QuotaExceeded, UnderMaintenance
from binder_onprem.model import Role
from binder_onprem.ruling import Ban, BanKind, Maintenance, Mode, checked_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from binder_onprem.interfaces import Rulings
    from binder_onprem.model import LaunchRequest

NOTHING_LAUNCHED: Final = "This site is under maintenance. Nothing is launched until it is over."
BANS: Final = 10_000
"""Kept at the most."""
MAINTENANCE: Final = "maintenance"
QUEUE: Final = "queue"
BUILDERS: Final = "builders"


class Rules:
    """The rulings in force.

    Args:
        kept: Where they are kept; None: nowhere, and nothing can be ruled.
        now: Unix seconds.
        changed: Called when builds may begin again or may not any more.
    """

    def __init__(self, kept: Rulings | None = None, *, now: Callable[[], float] = time.time, changed: Callable[[], None] = lambda: None) -> None:
        self._kept = kept
        self._now = now
        self.changed = changed
        self._bans: tuple[Ban, ...] = ()
        self._pins: frozenset[str] = frozenset()
        self._maintenance: Maintenance | None = None
        self._queue: Mapping[str, Any] | None = None
        self._closed: Mapping[str, str] = {}

    async def read(self) -> None:
        """Take over what is kept. Raises `StoreUnavailable`, and then what was known holds on."""
        if self._kept:
            bans, pins, switches = await self._kept.bans(), await self._kept.pins(), await self._kept.switches()
            self._bans, self._pins = tuple(bans), pins
            self._maintenance, self._queue = _maintenance(switches.get(MAINTENANCE)), switches.get(QUEUE)
            self._closed = dict(switches.get(BUILDERS) or {})
            self.changed()

    @property
    def _store(self) -> Rulings:
        if self._kept is None:
            raise NotFound("This site keeps no rules of its own.")
        return self._kept

    # What the line, the builds and the prune ask.

    def admit(self, request: LaunchRequest) -> None:
        """Let a launch pass, or not.

        Raises:
            Banned: Its link, address or account is banned.
            UnderMaintenance: Nobody but an administrator launches now.
        """
        link, now = f"{request.provider}/{request.path}", self._now()
        ban = next((ban for ban in self._bans if ban.holds(now) and ban.meets(link, request.client)), None)
        if ban:
            raise Banned(_banned(ban))
        found = self.maintenance
        if found and found.mode is Mode.LAUNCHES and Role.ADMIN not in request.client.roles:
            left = None if found.until is None else max(1.0, found.until - now)
            raise UnderMaintenance(found.told("en") or NOTHING_LAUNCHED, retry_after=left)

    @property
    def maintenance(self) -> Maintenance | None:
        """The one that is announced or in force now."""
        return self._maintenance if self._maintenance and self._maintenance.holds(self._now()) else None

    @property
    def paused(self) -> bool:
        """Whether no build may begin now."""
        return self.queue is not None or (self.maintenance is not None and self.maintenance.mode is not Mode.NOTICE)

    @property
    def queue(self) -> Mapping[str, Any] | None:
        """Who paused the queue (``by``) and when (``since``); None: it is not paused by itself."""
        return self._queue

    @property
    def closed(self) -> frozenset[str]:
        """Names of machines that get no new builds."""
        return frozenset(self._closed)

    @property
    def pins(self) -> frozenset[str]:
        """``…@sha256:…`` of images that stay whatever the budget."""
        return self._pins

    @property
    def bans(self) -> Sequence[Ban]:
        """Those that hold now, oldest first."""
        now = self._now()
        return tuple(ban for ban in self._bans if ban.holds(now))

    # What the administrator does.

    async def ban(self, kind: BanKind, value: str, reason: str, until: float | None, by: str) -> Ban:
        """Ban from now on. Raises `InvalidSpec`, `QuotaExceeded`, `StoreUnavailable`."""
        now = self._now()
        if until is not None and until <= now:
            raise InvalidSpec("The end must lie in the future.")
        if len(self._bans) >= BANS:
            raise QuotaExceeded(f"There are {BANS} bans already. Remove some, or ban a network or a pattern.")
        made = Ban(secrets.token_hex(8), kind, checked_value(kind, value), reason.strip(), now, until, by)
        await self._store.ban(made)
        self._bans = (*self._bans, made)
        return made

    async def unban(self, ban_id: str) -> None:
        """Remove a ban. Raises `NotFound`, `StoreUnavailable`."""
        if not await self._store.unban(ban_id):
            raise NotFound("There is no such ban (any more). What the configuration bans is changed there.")
        self._bans = tuple(ban for ban in self._bans if ban.id != ban_id)

    async def pin(self, image: str) -> None:
        """Keep an image whatever the budget. Raises `StoreUnavailable`."""
        await self._store.pin(image, self._now())
        self._pins |= {image}

    async def unpin(self, image: str) -> None:
        """Keep it no longer. Raises `StoreUnavailable`."""
        await self._store.unpin(image)
        self._pins -= {image}

    async def replaced(self, old: str, new: str) -> None:
        """An image has taken another's place: it is pinned if that one was. Raises `StoreUnavailable`."""
        if old in self._pins:
            await self.pin(new)
            await self.unpin(old)

    async def maintain(self, mode: Mode, words: Mapping[str, str], until: float | None, by: str) -> Maintenance:
        """Announce a maintenance or put it in force. Raises `InvalidSpec`, `StoreUnavailable`."""
        now = self._now()
        if until is not None and until <= now:
            raise InvalidSpec("The end must lie in the future.")
        if mode is Mode.NOTICE and not any(words.values()):
            raise InvalidSpec("A notice needs words.")
        made = Maintenance(mode, dict(words), now, until, by)
        await self._store.switch(MAINTENANCE, asdict(made))
        self._maintenance = made
        self.changed()
        return made

    async def end_maintenance(self) -> None:
        """It is over; without one nothing changes. Raises `StoreUnavailable`."""
        await self._store.switch(MAINTENANCE, None)
        self._maintenance = None
        self.changed()

    async def pause(self, by: str) -> None:
        """No build begins until `resume`; what runs goes on. Raises `StoreUnavailable`."""
        found = self._queue or {"since": self._now(), "by": by}
        await self._store.switch(QUEUE, found)
        self._queue = found
        self.changed()

    async def resume(self) -> None:
        """Builds begin again. Raises `StoreUnavailable`."""
        await self._store.switch(QUEUE, None)
        self._queue = None
        self.changed()

    async def close_builder(self, name: str, by: str) -> None:
        """No new build goes to that machine; what runs there goes on. Raises `StoreUnavailable`."""
        await self._close({**self._closed, name: by})

    async def open_builder(self, name: str) -> None:
        """Builds go there again. Raises `StoreUnavailable`."""
        await self._close({other: by for other, by in self._closed.items() if other != name})

    async def _close(self, closed: Mapping[str, str]) -> None:
        await self._store.switch(BUILDERS, closed or None)
        self._closed = closed
        self.changed()


def _banned(ban: Ban) -> str:
    reason = f" {ban.reason}" if ban.reason else ""
    if ban.kind is BanKind.SPEC:
        return f"This repository may not be launched here.{reason} Ask the administrator if you do not know why."
    return f"You may not launch sessions here at present.{reason} Ask the administrator if you do not know why."


def _maintenance(value: Mapping[str, Any] | None) -> Maintenance | None:
    return Maintenance(**{**value, "mode": Mode(value["mode"])}) if value else None
