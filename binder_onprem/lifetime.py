"""The life of a daemon's process: from its first line of log to the signal that ends it. For `daemon` and `buildhost`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

from binder_onprem import logs

if TYPE_CHECKING:
    from collections.abc import Coroutine


def run(serving: Coroutine[object, object, None], level: str) -> None:
    """Run until SIGTERM or SIGINT, which cancel it.

    Args:
        serving: What never returns by itself.
        level: Of the log, as in `Config.log_level`.

    Raises:
        BinderError: As `serving`.
    """
    logs.configure(level)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_until_signalled(serving))


async def _until_signalled(serving: Coroutine[object, object, None]) -> None:
    task = asyncio.create_task(serving)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await task
