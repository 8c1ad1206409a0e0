"""The bench's figures: a failed check hides the figure, and being over the limit shows."""

import io

import pytest
from rich.console import Console

from tests.bench.figures import Figure, Series, percentile, table


def printed(figure: Figure) -> str:
    console = Console(file=io.StringIO(), width=150)
    console.print(table([figure]))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(("share", "value"), [(0.5, 5), (0.95, 10), (0.9, 9), (0.0, 1)])
def test_percentile(share: float, value: float) -> None:
    assert percentile(list(range(10, 0, -1)), share) == value


def test_ratio_and_limit() -> None:
    figure = Figure("start", Series("ours", [1.2, 1.2]), Series("plain", [1.0, 1.0]), 1.3)
    assert figure.value == pytest.approx(1.2)
    assert figure.kept
    assert "ok" in printed(figure)
    assert not Figure("start", Series("ours", [1.4]), Series("plain", [1.0]), 1.3).kept


def test_a_failed_check_hides_the_figure() -> None:
    figure = Figure("start", Series("ours", [1.2345], ["wrong notebook"]), Series("plain", [1.0]), 1.3)
    assert figure.value is None
    assert not figure.kept
    assert "1.23" not in printed(figure)
    assert "not valid" in printed(figure)


def test_seconds_have_a_limit_of_their_own() -> None:
    assert Figure("edit", Series("ours", [2.0]), None, 3).kept
    assert not Figure("edit", Series("ours"), None, 3).kept
