"""``events``: what waits for the receivers of events. Speaks to the running daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from binder_onprem.cli.calls import call
from binder_onprem.cli.options import dump, json_option, table

if TYPE_CHECKING:
    from binder_onprem.cli.options import Site


@click.group()
def events() -> None:
    """Events that wait for the receivers of webhooks."""


@events.command("outbox")
@json_option
@click.pass_obj
def outbox(site: Site, *, as_json: bool) -> None:
    """Show how many events wait for each receiver, and which were put aside."""
    found = call(site, "GET", "api/outbox")
    if as_json:
        dump(found)
        return
    table([{"receiver": name} | counts for name, counts in found["receivers"].items()], ("receiver", "waiting", "dead"), empty="Nothing waits.")
    if found["dead"]:
        table(found["dead"], ("number", "receiver", "created", "tries", "error"), empty="")


@events.command("retry")
@json_option
@click.pass_obj
def retry(site: Site, *, as_json: bool) -> None:
    """Send what was put aside once more."""
    found = call(site, "POST", "api/outbox/retry")
    dump(found) if as_json else click.echo(f"{found['revived']} events are sent once more.")
