"""What was measured, how it is summed up, and the table. A figure whose check failed even once is not printed."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass
class Series:
    """One thing done again and again.

    Attributes:
        name: What was done.
        seconds: Of each run that passed its check.
        failures: What went wrong in the others.
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def sound(self) -> bool:
        return bool(self.seconds) and not self.failures


@dataclass
class Figure:
    """A comparison with its limit.

    Attributes:
        name: What the figure is.
        ours: The Binder.
        plain: The yardstick; None: the limit is in seconds.
        limit: Ratio of medians, or seconds.
    """

    name: str
    ours: Series
    plain: Series | None
    limit: float

    @property
    def value(self) -> float | None:
        """Ratio or seconds; None if a check failed."""
        if not self.ours.sound or (self.plain and not self.plain.sound):
            return None
        return self.ours.median / self.plain.median if self.plain else self.ours.median

    @property
    def kept(self) -> bool:
        return self.value is not None and self.value <= self.limit


def table(figures: Sequence[Figure]) -> Table:
    """Everything side by side."""
    made = Table(title="Binder against plain tools", title_justify="left")
    for column in ("figure", "what", "median s", "p95 s", "n", "failures", "value", "limit", ""):
        made.add_column(column, justify="left" if column in ("figure", "what", "") else "right")
    for figure in figures:
        for series in (figure.ours, figure.plain):
            if series:
                made.add_row(*_row(figure, series))
        made.add_section()
    return made


def _row(figure: Figure, series: Series) -> tuple[str, ...]:
    counts = (str(len(series.seconds) + len(series.failures)), str(len(series.failures)))
    spread = (f"{series.median:.2f}", f"{percentile(series.seconds, 0.95):.2f}") if series.sound else ("-", "-")
    if series is not figure.ours:
        return ("", series.name, *spread, *counts, "", "", "")
    unit = "" if figure.plain else " s"
    value = "not valid" if figure.value is None else f"{figure.value:.2f}{unit}"
    return (figure.name, series.name, *spread, *counts, value, f"≤ {figure.limit:g}{unit}", "ok" if figure.kept else "OVER")
