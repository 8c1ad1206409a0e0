"""A loop that does a piece of work again and again: the daemon's reaper, reconcile and prune passes each run in one.

It never ends by itself and never quietly: an error is logged and the pauses grow until the work succeeds again; work that takes longer than its
limit is cancelled. Time is the event loop's, which does not jump.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final, NoReturn

from binder_onprem.errors import BinderError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

JITTER: Final = 0.1
"""Share of the interval by which pauses differ, so that passes do not march in step."""
LONGEST: Final = 10
"""Pauses grow to so many intervals at the most."""


async def periodic(  # noqa: PLR0913 - the last three are choices with defaults
    name: str,
    interval: float,
    work: Callable[[], Awaitable[object]],
    *,
    limit: float = 600.0,
    at_once: bool = False,
    done: Callable[[str, bool, float], None] | None = None,
) -> NoReturn:
    """Do `work` every `interval` seconds, measured from start to start, until cancelled.

    Args:
        name: For the log.
        interval: Seconds.
        work: Idempotent; its result is not looked at.
        limit: Seconds after which a piece of work is cancelled.
        at_once: Begin with the work instead of a pause.
        done: Told after each piece: name, whether it succeeded, seconds it took; for metrics.
    """
    loop = asyncio.get_running_loop()
    failures = 0
    if not at_once:
        await asyncio.sleep(_jittered(interval))
    while True:
        began = loop.time()
        succeeded = await _once(name, work, limit)
        took = loop.time() - began
        if done:
            done(name, succeeded, took)
        if took > interval:
            logger.warning("overrun", extra={"work": name, "seconds": round(took, 3), "interval": interval})
        failures = 0 if succeeded else failures + 1
        await asyncio.sleep(_pause(interval, took, failures))


def _pause(interval: float, took: float, failures: int) -> float:
    wanted = interval * min(2 ** min(failures, 10), LONGEST)
    return max(_jittered(wanted) - took, interval * JITTER)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load, guards nothing


async def _once(name: str, work: Callable[[], Awaitable[object]], limit: float) -> bool:
    try:
        async with asyncio.timeout(limit):
            await work()
    except BinderError as error:
        logger.warning("work failed", extra={"work": name, "code": error.code, "error": error.message})
    except TimeoutError:
        logger.exception("work took too long", extra={"work": name, "limit": limit})
    except Exception:
        logger.exception("work failed", extra={"work": name})
    else:
        return True
    return False
