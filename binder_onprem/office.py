"""The administrator's parts, put together: rules, audit, the machine's picture, the passes' results. Made and run by the daemon."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from binder_onprem import metrics
from binder_onprem.host.view import View
from binder_onprem.rules import Rules
from binder_onprem.web.admin.desk import Desk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from binder_onprem.config import Config
    from binder_onprem.interfaces import Usage
    from binder_onprem.journal import Journal
    from binder_onprem.pruner import Pruner
    from binder_onprem.quota import Quota
    from binder_onprem.store.rulings import SqlRulings

READ_SECONDS: Final = 10.0
"""Between two looks at what another process on the same database may have ruled, and at what has run out."""


class Office:
    """The parts.

    Args:
        config: The site's.
        tables: Where rulings and the audit are kept.
    """

    def __init__(self, config: Config, tables: SqlRulings) -> None:
        self._config = config
        self._tables = tables
        self._view = View(config)
        self._passed: dict[str, dict[str, Any]] = {}
        self.rules = Rules(tables)

    def desk(
        self, pruner: Pruner, quota: Quota | None, usage: Usage, journal: Journal, builders: Callable[[], Awaitable[list[dict[str, Any]]]] | None
    ) -> Desk:
        """What the web reaches."""
        return Desk(
            self.rules,
            self._tables,
            pruner.delete,
            usage=usage,
            written=lambda: quota.sizes if quota else {},
            host=lambda: asyncio.to_thread(self._view.now),
            passes=self._passed,
            told=journal.ordered,
            builders=builders,
        )

    def passed(self, name: str, succeeded: bool, seconds: float) -> None:  # noqa: FBT001 - shape of periodic's callback
        """A pass has run."""
        metrics.PASS_TIME.labels(name, "success" if succeeded else "failure").observe(seconds)
        self._passed[name] = {"at": time.time(), "ok": succeeded, "seconds": round(seconds, 3)}

    def passes(self) -> tuple[tuple[str, float, Callable[[], Awaitable[object]]], ...]:
        """Its own passes: name, seconds between two, work."""
        return (
            ("rules", READ_SECONDS, self.rules.read),
            ("audit", self._config.passes.prune, lambda: self._tables.forget(time.time() - self._config.audit.keep)),
        )
