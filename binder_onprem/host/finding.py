"""One line of what `check` reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        level: ``fail``: it does not work; ``warn``: it is slower or weaker; ``ok``.
        subject: What was looked at.
        text: What was found.
        fix: What to do; "" where nothing is to be done.
    """

    level: Literal["ok", "warn", "fail"]
    subject: str
    text: str
    fix: str = ""
