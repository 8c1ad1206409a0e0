"""``maintenance``, ``bans`` and ``audit``: what the administrator rules while the service runs, and the record of it."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime
from typing import Any, Final

import click

from binder_onprem.cli.calls import call, segment
from binder_onprem.cli.options import Site, dump, json_option, table

UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[float]):
    """``90``, ``30m``, ``2h``, ``7d``: seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds of it."""
        found = re.fullmatch(r"(\d{1,9})([smhd]?)", str(value))
        if not found or not int(found[1]):
            self.fail(f"{value!r} is not a duration like 90, 30m, 2h or 7d.", param, ctx)
        return float(int(found[1]) * UNITS[found[2]])


def _time(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S") if seconds else ""


@click.group()
def maintenance() -> None:
    """Tell people of a maintenance, and stop launches or builds for its time; running sessions go on."""


@maintenance.command("on")
@click.option("--mode", type=click.Choice(["notice", "builds", "launches"]), default="launches", show_default=True, help="What is stopped.")
@click.option("--message", default="", help="What people read.")
@click.option("--message-fr", default="", help="The same in French.")
@click.option("--for", "seconds", type=Duration(), help="Until it ends by itself: 30m, 2h, 1d.")
@json_option
@click.pass_obj
def maintenance_on(site: Site, mode: str, message: str, message_fr: str, seconds: float | None, *, as_json: bool) -> None:  # noqa: PLR0913 - its options
    """Begin: `notice` stops nothing, `builds` no build begins, `launches` nobody but administrators launches."""
    order = {"mode": mode, "message": message, "message_fr": message_fr, "seconds": seconds}
    _shown(call(site, "PUT", "api/maintenance", order)["maintenance"], as_json=as_json)


@maintenance.command("off")
@json_option
@click.pass_obj
def maintenance_off(site: Site, *, as_json: bool) -> None:
    """End it."""
    _shown(call(site, "DELETE", "api/maintenance")["maintenance"], as_json=as_json)


@maintenance.command("show")
@json_option
@click.pass_obj
def maintenance_show(site: Site, *, as_json: bool) -> None:
    """Show the one that is announced or in force."""
    _shown(call(site, "GET", "api/maintenance")["maintenance"], as_json=as_json)


def _shown(found: dict[str, Any] | None, *, as_json: bool) -> None:
    if as_json:
        dump(found)
        return
    if found is None:
        click.echo("No maintenance.")
        return
    until = f" until {_time(found['until'])}" if found["until"] else ""
    click.echo(click.unstyle(f"{found['mode']} since {_time(found['since'])}{until}: {found['message'] or '(the usual words)'}"))


@click.group()
def bans() -> None:
    """Who or what may not launch; those of the configuration are changed there."""


@bans.command("list")
@json_option
@click.pass_obj
def bans_list(site: Site, *, as_json: bool) -> None:
    """List bans in force."""
    rows = call(site, "GET", "api/bans")["bans"]
    shown = [row | {"created": row["created"], "until": _time(row["until"])} for row in rows]
    dump(rows) if as_json else table(shown, ("id", "kind", "value", "reason", "until", "by", "source"), empty="No bans.")


@bans.command("add")
@click.argument("kind", type=click.Choice(["spec", "network", "user"]))
@click.argument("value")
@click.option("--reason", default="", help="Told to those it concerns.")
@click.option("--for", "seconds", type=Duration(), help="Until it ends by itself: 30m, 2h, 7d.")
@json_option
@click.pass_obj
def bans_add(site: Site, kind: str, value: str, reason: str, seconds: float | None, *, as_json: bool) -> None:  # noqa: PLR0913 - its options
    """Ban a link (gh/owner/*, * for any characters), a network (192.0.2.0/24) or an account, from now on."""
    made = call(site, "POST", "api/bans", {"kind": kind, "value": value, "reason": reason, "seconds": seconds})
    dump(made) if as_json else click.echo(click.unstyle(f"{made['id']}: {made['kind']} {made['value']} is banned"))


@bans.command("remove")
@click.argument("ban_id")
@json_option
@click.pass_obj
def bans_remove(site: Site, ban_id: str, *, as_json: bool) -> None:
    """Remove a ban."""
    call(site, "DELETE", f"api/bans/{segment(ban_id)}")
    dump({"removed": ban_id}) if as_json else click.echo(f"{ban_id}: removed")


@click.command()
@click.option("--launches", is_flag=True, help="Launches instead of what administrators did.")
@click.option("--action", default="", help="Only actions that begin so, as image.")
@click.option("--who", default="", help="Only this account or address.")
@click.option("--last", type=Duration(), help="Only the last 30m, 2h, 7d.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="How many at the most.")
@click.option("--export", is_flag=True, help="All of it, one JSON object on each line.")
@json_option
@click.pass_obj
def audit(site: Site, action: str, who: str, last: float | None, limit: int, *, launches: bool, export: bool, as_json: bool) -> None:  # noqa: PLR0913 - its options
    """Who did what, when, from where; newest first."""
    since = datetime.now(UTC).timestamp() - last if last else 0.0
    query = {"kind": "launches" if launches else "actions", "action": action, "who": who, "since": f"{max(0.0, since):.3f}"}
    if export:
        asyncio.run(_exported(site, query))
        return
    rows = call(site, "GET", "api/audit", limit=str(limit), **query)["entries"]
    shown = [row | {"at": _time(row["at"]), "details": json.dumps(row["details"], ensure_ascii=False)} for row in rows]
    dump(rows) if as_json else table(shown, ("at", "who", "address", "action", "subject", "outcome"), empty="Nothing is recorded.")


async def _exported(site: Site, query: dict[str, str]) -> None:
    from binder_onprem.cli.client import connected  # noqa: PLC0415 - the other commands start faster without it

    async with connected(site.read()) as client:
        async for line in client.lines("api/audit/export", **query):
            click.echo(line, nl=False)


COMMANDS = (maintenance, bans, audit)
