"""What every command shares: where the site is, ``--json``, and how an answer is printed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from binder_onprem import config as configuration

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from binder_onprem.config import Config

TIMES: Final = frozenset({"created", "started", "ended", "last_used", "last_activity", "since"})
"""Columns that hold Unix seconds."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@dataclass(frozen=True, slots=True)
class Site:
    """The options before the command.

    Attributes:
        config: ``--config``, if given.
        home: ``--home``, if given.
    """

    config: Path | None
    home: Path | None

    def read(self) -> Config:
        """The configuration; raises `ConfigError` with the file, the key and what is wrong with it."""
        return configuration.load(self.config, self.home)


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, empty: str) -> None:
    """Print rows as a table; hostile text is shown as text.

    Args:
        rows: Decoded JSON objects.
        columns: Keys to show, in order.
        empty: The sentence for no rows.
    """
    console = Console(highlight=False)
    if not rows:
        console.print(empty)
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # What is copied into the next command is never cut; other columns fold where the terminal is narrow.
        grid.add_column(column.replace("_", " "), overflow="fold", no_wrap=column in ("id", "name"))
    for row in rows:
        grid.add_row(*[_cell(column, row.get(column)) for column in columns])
    console.print(grid)


def _cell(column: str, value: Any) -> Text:
    if value is None:
        return Text("")
    if column in TIMES:
        return Text(datetime.fromtimestamp(float(value), UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S"))
    if column == "size":
        return Text(decimal(int(value)))
    return Text(click.unstyle(str(value)))


def dump(value: Any) -> None:
    """Print JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
