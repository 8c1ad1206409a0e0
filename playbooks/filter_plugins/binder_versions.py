"""Which version of Kubernetes may follow which."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

FORM = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:\+k3s(\d+))?")


def parsed(text: str) -> tuple[int, int, int, int]:
    """Numbers of a version; raises ValueError for what is none."""
    found = FORM.search(text)
    if not found:
        raise ValueError(f"{text!r} is no version of k3s")
    return int(found[1]), int(found[2]), int(found[3]), int(found[4] or 0)


def binder_skew(wanted: str, runs: list[str]) -> str:
    """Why a version may not follow those that run; "" if it may.

    Kubernetes goes up one minor version at a time, and never back: the datastore is not made for it.
    """
    new = parsed(wanted)
    for text in runs:
        old = parsed(text)
        if new < old:
            return f"{text} runs and {wanted} is older. Kubernetes does not go back: restore a backup of that version, or give newer artefacts."
        if (new[0], new[1]) > (old[0], old[1] + 1):
            return f"{text} runs and {wanted} is more than one minor version on. Go there step by step, first to v{old[0]}.{old[1] + 1}."
    return ""


class FilterModule:
    """What templates may use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"binder_skew": binder_skew}
