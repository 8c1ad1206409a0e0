"""Remembers looked-up refs: one call upstream for equal requests at once, none while an answer is fresh, an old answer while a host is down."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast

from binder_onprem.errors import BinderError, ProviderUnavailable, RefNotFound
from binder_onprem.providers.links import FULL_SHA

if TYPE_CHECKING:
    from collections.abc import Callable

    from binder_onprem.interfaces import Clonable, Provider
    from binder_onprem.model import RepoSpec, ResolvedRepo

log = logging.getLogger(__name__)

SIZE: Final = 1024
MISSING_TTL: Final = 10.0
"""Seconds that "there is no such ref" is believed: people push and click again."""
BACK_OFF: Final = 5.0
"""Seconds between two attempts at a host that is down while an old answer serves."""
LONGEST_BACK_OFF: Final = 60.0


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a link.

    Attributes:
        outcome: The answer, or the error that stands for it.
        at: When it was had.
        until: When to ask again.
    """

    outcome: ResolvedRepo | BinderError
    at: float
    until: float


class Cached:
    """A provider whose answers are remembered.

    Args:
        provider: Asks the host.
        timeout: Seconds for one look-up.
        ttl: Seconds an answer is believed.
        stale: Seconds an answer serves when its host is down.
        now: A clock that never goes back, in seconds.
    """

    def __init__(self, provider: Provider, timeout: float, ttl: float, stale: float, now: Callable[[], float]) -> None:
        self.provider = provider
        self.prefix, self.name, self.display_config = provider.prefix, provider.name, provider.display_config
        self._timeout, self._ttl, self._stale, self._now = timeout, ttl, stale, now
        self.clonable = cast("Clonable", provider) if hasattr(provider, "at") else None
        self._known: OrderedDict[RepoSpec, Known] = OrderedDict()
        self._running: dict[RepoSpec, asyncio.Task[ResolvedRepo]] = {}

    def parse(self, path: str) -> RepoSpec:
        """The provider's."""
        return self.provider.parse(path)

    async def resolve(self, spec: RepoSpec) -> ResolvedRepo:
        """See `interfaces.Provider`; a waiter that is cancelled leaves the others waiting."""
        known = self._known.get(spec)
        if known and self._now() < known.until:
            self._known.move_to_end(spec)
            if isinstance(known.outcome, BinderError):
                raise type(known.outcome)(known.outcome.message, retry_after=self._left(known))
            return known.outcome
        task = self._running.get(spec)
        if task is None:
            task = self._running[spec] = asyncio.create_task(self._ask(spec))
            task.add_done_callback(lambda done: self._done(spec, done))
        return await asyncio.shield(task)

    def _left(self, known: Known) -> float | None:
        return known.until - self._now() if isinstance(known.outcome, ProviderUnavailable) else None

    def _done(self, spec: RepoSpec, task: asyncio.Task[ResolvedRepo]) -> None:
        self._running.pop(spec, None)
        if not task.cancelled():
            task.exception()  # with every waiter gone nobody else would look at it

    async def _ask(self, spec: RepoSpec) -> ResolvedRepo:
        known = self._known.get(spec)
        try:
            async with asyncio.timeout(self._timeout):
                found = await self.provider.resolve(spec)
        except TimeoutError:
            error = ProviderUnavailable(f"The repository's host did not answer in {self._timeout:g} seconds. Try again later.")
            return self._instead(spec, known, error)
        except ProviderUnavailable as error:
            return self._instead(spec, known, error)
        except RefNotFound as error:
            self._keep(spec, Known(error, self._now(), self._now() + min(MISSING_TTL, self._ttl)))
            raise
        ttl = float("inf") if FULL_SHA.fullmatch(spec.ref) else self._ttl
        self._keep(spec, Known(found, self._now(), self._now() + ttl))
        return found

    def _instead(self, spec: RepoSpec, known: Known | None, error: ProviderUnavailable) -> ResolvedRepo:
        """The old answer while the host is down, if there is one that is young enough."""
        now = self._now()
        pause = min(error.retry_after or 0.0, LONGEST_BACK_OFF)
        if known is None or isinstance(known.outcome, BinderError) or now - known.at > self._stale:
            if pause:
                self._keep(spec, Known(error, now, now + pause))
            raise error
        log.warning("repository's host is down; a remembered commit serves", extra={"event": "stale_ref", "provider": self.prefix})
        minutes = max(1, round((now - known.at) / 60))
        notice = f"The repository's host does not answer; this is the state of {minutes} minute{'s' if minutes > 1 else ''} ago."
        self._keep(spec, replace(known, until=now + max(pause, BACK_OFF)))
        return replace(known.outcome, notice=notice)

    def _keep(self, spec: RepoSpec, known: Known) -> None:
        self._known[spec] = known
        self._known.move_to_end(spec)
        if len(self._known) > SIZE:
            self._known.popitem(last=False)
