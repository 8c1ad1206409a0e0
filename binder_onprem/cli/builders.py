"""``builders``: the machines that build, and which of them get no new builds."""

from __future__ import annotations

from typing import Any

import click

from binder_onprem.cli.calls import call, segment
from binder_onprem.cli.options import Site, dump, json_option, table


@click.group()
def builders() -> None:
    """Machines that build for this Binder; the settings name them."""


@builders.command("list")
@json_option
@click.pass_obj
def builders_list(site: Site, *, as_json: bool) -> None:
    """List them: ok, away (and why), or closed to new builds."""
    _shown(call(site, "GET", "api/builders"), as_json=as_json)


@builders.command("close")
@click.argument("name")
@json_option
@click.pass_obj
def builders_close(site: Site, name: str, *, as_json: bool) -> None:
    """Give a machine no new builds, before work on it; what runs there goes on, and `list` tells when nothing does."""
    _shown(call(site, "POST", f"api/builders/{segment(name)}/close"), as_json=as_json)


@builders.command("open")
@click.argument("name")
@json_option
@click.pass_obj
def builders_open(site: Site, name: str, *, as_json: bool) -> None:
    """Give it builds again."""
    _shown(call(site, "POST", f"api/builders/{segment(name)}/open"), as_json=as_json)


def _shown(found: Any, *, as_json: bool) -> None:
    rows = found["builders"]
    if as_json:
        dump(rows)
    else:
        table(rows, ("name", "state", "running", "places", "url", "message"), empty="Everything is built on this machine.")


COMMANDS = (builders,)
