"""How often GitHub still answers this site, as its answers tell."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from binder_onprem.errors import ProviderUnavailable
from binder_onprem.providers.reader import retry_after

if TYPE_CHECKING:
    from binder_onprem.providers.reader import Answer

SOON = 60.0
"""Seconds after which to try again where GitHub does not say when."""


class RateLimit:
    """Attributes: `remaining`: requests that GitHub still answers in this period, None before it was asked."""

    def __init__(self) -> None:
        self.remaining: int | None = None

    def check(self, answer: Answer) -> None:
        """Remember what an answer tells. Raises ProviderUnavailable when it says that there were too many."""
        remaining = answer.headers.get("X-RateLimit-Remaining", "")
        if remaining.isdecimal():
            self.remaining = int(remaining[:9])
        if answer.status != 403:  # noqa: PLR2004
            return
        reset = answer.headers.get("X-RateLimit-Reset", "")
        if remaining == "0":
            raise _exceeded(max(int(reset[:12]) - time.time(), 0.0) if reset.isdecimal() else 0.0)
        if wait := answer.headers.get("Retry-After"):  # for asking too fast, whatever remains
            raise _exceeded(retry_after(wait, time.time()) or SOON)


def _exceeded(seconds: float) -> ProviderUnavailable:
    minutes = 5 * (1 + int(seconds) // 300)  # to the next five minutes, as BinderHub says it
    return ProviderUnavailable(f"GitHub rate limit exceeded. Try again in {minutes} minutes.", retry_after=seconds or None)
