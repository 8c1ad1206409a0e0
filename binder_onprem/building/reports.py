"""What podman's build says: JSON documents, one a line, and at the end perhaps why it failed.

Called by `dockerbuild`. A repository shapes these words: nothing of them is believed, and only the instruction that failed is shown.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.engine.libpod import refused
from binder_onprem.errors import BinderError, BuildFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from binder_onprem.building.advice import Advice

logger = logging.getLogger(__name__)

LINE_BYTES: Final = 1024 * 1024
STEP_LETTERS: Final = 120
# What follows the instruction may hold paths of this machine in quotes; of a RUN, whose text may hold anything, it is always this.
_RAN: Final = re.compile(r'building at STEP "(RUN .*)": (?:error )?while running runtime: (.*)', re.DOTALL)
_OTHER: Final = re.compile(r'building at STEP "(.*?)": (.*)', re.DOTALL)
_STATUS: Final = re.compile(r"exit status (\d{1,3})")


async def reports(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON documents of a stream, one a line; what is none is not believed, what is too long is dropped."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[:LINE_BYTES]
        for line in lines:
            with contextlib.suppress(ValueError):
                report = json.loads(line)
                if isinstance(report, dict):
                    yield report


def failed(words: str, advice: Advice) -> BinderError:
    """A failed build as one of our errors; `words` are podman's own, `advice` has heard what the steps printed."""
    if "no space left on device" in words:
        return refused(0, words)
    logger.info("build failed", extra={"words": words[:500]})
    return BuildFailed(f"{_step(words)}. {advice.sentence()}")


def _step(words: str) -> str:
    """Which step failed, of podman's words: the instruction as the Dockerfile has it, cut, and nothing else of them."""
    found = _RAN.search(words[:LINE_BYTES]) or _OTHER.search(words[:LINE_BYTES])
    if not found:
        return "The build failed"
    step = " ".join("".join(character if character.isprintable() else " " for character in found[1]).split())
    step = step if len(step) <= STEP_LETTERS else f"{step[:STEP_LETTERS]} …"
    status = _STATUS.search(found[2])
    return f"{step}: failed" + (f" with exit status {status[1]}" if status else "")
