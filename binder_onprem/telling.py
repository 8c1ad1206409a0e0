"""A build told from its log: lines under their numbers, places in the queue between them, how it ended. Called by `builds` alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binder_onprem import queueing
from binder_onprem.events import Phase, Progress, Stage
from binder_onprem.outcome import verdict

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from binder_onprem.attempt import Live
    from binder_onprem.eventlog import Logs
    from binder_onprem.queueing import Place

TERMINAL: Final = frozenset({Phase.BUILT, Phase.FAILED})


async def tell(live: Live, after: int, logs: Logs, placed: Callable[[str], Place | None]) -> AsyncGenerator[Progress, None]:
    """The log from line `after` + 1, live until the build has ended; the last event says how.

    Args:
        live: The build.
        after: Number of the last line that the reader has.
        logs: Where its log is had from.
        placed: The place in the queue of a build's id now, if it waits.
    """
    data = {"build": live.record.id}
    told: Place | None = None
    async with logs.hold(live.record.id) as log:
        phase = None
        while True:
            bell = log.bell.hear()
            ended = live.record.state.terminal and live.closed
            for line in await log.read(after):
                after, phase = line.number, line.phase
                yield Progress(phase, line.message, Stage.BUILD, after, dict(data))
            if after < log.count:
                continue
            if ended:
                break
            place = placed(live.record.id)
            if place and place != told:
                told = place
                where = {"position": place.position, "estimate": place.estimate}
                yield Progress(Phase.WAITING, queueing.waiting(place), Stage.BUILD, 0, data | where)
            await bell.wait()
    if phase not in TERMINAL:  # we died between the record and the log's last line, or the log has expired
        yield Progress(*verdict(live.record), Stage.BUILD, after + 1, data)
