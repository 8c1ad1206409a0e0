"""How each launch ends, for the log and the site's records. `launch` uses it."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from binder_onprem.errors import BinderError, StoreUnavailable
from binder_onprem.model import LaunchAudit
from binder_onprem.text import without_account

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from binder_onprem.launch import Line
    from binder_onprem.model import LaunchRequest, ResolvedRepo

logger = logging.getLogger(__name__)


class Trail:
    """What is known of a launch so far.

    Args:
        request: The launch.
        began: Unix seconds, UTC.
        clock: Seconds of a clock that does not jump.
    """

    def __init__(self, request: LaunchRequest, began: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = self._clock()
        self.began = began
        self.private = False
        who = request.client.user or request.client.address
        self.audit = LaunchAudit(request.launch_id, request.provider, without_account(request.path), who, self.began, "left")

    def _lap(self) -> float:
        last, self._last = self._last, self._clock()
        return round(self._last - last, 3)

    def resolved(self, repo: ResolvedRepo) -> None:
        """The commit is known."""
        self.private = repo.private
        self.audit = replace(self.audit, commit=repo.commit, resolve=self._lap())

    def imaged(self, reference: str) -> None:
        """The image is there."""
        self.audit = replace(self.audit, image=reference, build=self._lap())

    def ended(self, outcome: str) -> None:
        """``ready``, or the error's code."""
        self.audit = replace(self.audit, outcome=outcome, start=self._lap() if self.audit.image else None)


@asynccontextmanager
async def audited(request: LaunchRequest, line: Line) -> AsyncIterator[Trail]:
    """One line of log and one record for each launch, however it ends; a database that is down does not hide the launch's own error."""
    trail = Trail(request, line.now(), line.monotonic)
    try:
        yield trail
    except BinderError as error:
        trail.ended(error.code)
        raise
    except Exception:
        trail.ended(BinderError.code)
        raise
    finally:
        entry = trail.audit
        fields = {"launch": entry.launch_id, "provider": entry.provider, "outcome": entry.outcome, "image": entry.image, "commit": entry.commit}
        logger.info("launch", extra=fields | {"resolve": entry.resolve, "build": entry.build, "start": entry.start})
        try:
            await line.store.audit(entry)
        except StoreUnavailable:
            logger.warning("launch not recorded", extra={"launch": entry.launch_id})
        if line.journal:
            await line.journal.launched(request, entry, private=trail.private)
