"""``up``, ``down``, ``status``, ``check`` and ``clean``: the commands about this machine. They speak to the supervisor, not to the daemon."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console

from binder_onprem.cli.calls import call
from binder_onprem.cli.options import Site, dump, json_option
from binder_onprem.config import CONFIG_VARIABLE, DEFAULT_HOME, HOME_VARIABLE
from binder_onprem.errors import BinderError, HostUnfit, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binder_onprem.config import BuildingFor, Config
    from binder_onprem.host.up import Outcome

SIGNS: Final = {"ok": "[green]✓[/]", "warn": "[yellow]![/]", "fail": "[bold red]✗[/]"}


class Shown:
    """Progress on stderr: a spinner on a terminal, lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show a step and how long it took."""
        start = time.monotonic()
        with self._console.status(f"{title} …"):
            yield
        self._console.print(f"{SIGNS['ok']} {title} [dim]{time.monotonic() - start:.1f} s[/]")

    def say(self, line: str) -> None:
        """A line of the step."""
        self._console.print(f"  [dim]{line.replace('[', chr(92) + '[')}[/]")


@click.command()
@json_option
@click.pass_obj
def up(site: Site, *, as_json: bool) -> None:
    """Start everything and wait until it answers; run again: changes nothing, or restarts just what the settings change."""
    from binder_onprem.host import place, site_files, up  # noqa: PLC0415 - the other commands start faster without

    shown = Shown()
    if objection := place.objection(_home(site).absolute()):
        raise HostUnfit(objection)
    if site.config is None and CONFIG_VARIABLE not in os.environ and site_files.first_settings(_home(site)):
        shown.say(f"Settings for a first run were written to {_home(site) / 'config.yaml'}.")
    _hand_on(site)
    config = site.read()
    done = up.up(config, shown)
    if building := config.building_for:
        _up_for_others(building, done, as_json=as_json)
        return
    link = _sample_link(config) if config.samples else None
    if as_json:
        dump({"url": config.public_url, "sample": link, "changed": list(done.changed), "seconds": round(done.seconds, 2)})
        return
    console = Console(highlight=False, soft_wrap=True)
    what = f"started {', '.join(done.changed)}" if done.changed else "it was up; nothing changed"
    console.print(f"[bold green]Up[/] ({done.seconds:.1f} s; {what}): [bold]{config.public_url}[/]")
    if link:
        console.print(f"Click to try it: {link}")


def _up_for_others(building: BuildingFor, done: Outcome, *, as_json: bool) -> None:
    if as_json:
        dump({"url": None, "sample": None, "changed": list(done.changed), "seconds": round(done.seconds, 2)})
        return
    what = f"started {', '.join(done.changed)}" if done.changed else "it was up; nothing changed"
    Console(highlight=False, soft_wrap=True).print(f"[bold green]Up[/] ({done.seconds:.1f} s; {what}): this machine builds, on port {building.port}")


@click.command()
@json_option
@click.pass_obj
def down(site: Site, *, as_json: bool) -> None:
    """Stop everything, sessions and builds too; data stays."""
    from binder_onprem.host import up  # noqa: PLC0415 - the other commands start faster without

    _hand_on(site)
    up.down(site.read(), Shown())
    dump({"up": False}) if as_json else click.echo("Down. The data is still there.")


@click.command()
@json_option
@click.pass_obj
def status(site: Site, *, as_json: bool) -> None:
    """Show the parts: whether they run and answer. Exit code, with --json too: 0 when all of them answer, 6 when any does not."""
    from binder_onprem.host import machine as host  # noqa: PLC0415 - the other commands start faster without
    from binder_onprem.host import probes  # noqa: PLC0415 - the other commands start faster without
    from binder_onprem.host.parts import parts  # noqa: PLC0415 - same
    from binder_onprem.host.supervision import Status, supervision  # noqa: PLC0415 - same

    config = site.read()
    states = supervision(config, host.look(config.home)).states()
    url, rows = None if config.building_for else config.public_url, []
    for part in parts(config):
        found = states.get(part.name, Status("stopped", 0))
        rows.append({"name": part.name, "state": found.state, "pid": found.pid, "answers": probes.answers(part)})
    running = all(row["answers"] for row in rows)
    dead = _dead_letters(site) if running and config.events.webhooks else None
    if as_json:
        dump({"up": running, "url": url, "home": str(config.home), "parts": rows, "dead_letters": dead})
    else:
        _show(rows, dead, f"{'Up' if running else 'Not up'}: {url or 'this machine builds for another one'}")
    if not running:
        click.get_current_context().exit(Unavailable.exit_code)


def _show(rows: list[dict[str, Any]], dead: int | None, last: str) -> None:
    console = Console(highlight=False)
    for row in rows:
        sign = SIGNS["ok" if row["answers"] else "fail"]
        console.print(f"{sign} {row['name']:<9} {row['state']:<9} {row['pid'] or '':<8} {'answers' if row['answers'] else 'does not answer'}")
    console.print(last)
    if dead:
        console.print(f"{SIGNS['warn']} events that no receiver took: {dead} → binder-onprem events outbox, then: binder-onprem events retry")


def _dead_letters(site: Site) -> int | None:
    """Events that were put aside; None where that cannot be told, which is not what is asked for."""
    try:
        return len(call(site, "GET", "api/outbox")["dead"])
    except BinderError:
        return None


@click.command()
@click.option("--reach", is_flag=True, help="In a cluster: start a pod, and tell what a session reaches.")
@json_option
@click.pass_obj
def check(site: Site, *, reach: bool, as_json: bool) -> None:
    """Check settings and machine; each finding with what to do about it."""
    from binder_onprem.host import podreach  # noqa: PLC0415 - the other commands start faster without
    from binder_onprem.host.check import findings  # noqa: PLC0415 - same

    config = site.read()
    found = [*findings(config), *(podreach.findings(config) if reach else ())]
    failed = [finding for finding in found if finding.level == "fail"]
    if as_json:
        rows = [{"level": one.level, "subject": one.subject, "text": one.text, "fix": one.fix} for one in found]
        dump({"ok": not failed, "findings": rows})
    else:
        console = Console(highlight=False, soft_wrap=True)
        for finding in found:
            fix = f" [dim]→ {finding.fix}[/]" if finding.fix else ""
            console.print(f"{SIGNS[finding.level]} {finding.subject}: {finding.text}{fix}")
    if failed:
        click.get_current_context().exit(HostUnfit.exit_code)


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def clean(site: Site, *, yes: bool, as_json: bool) -> None:
    """Stop everything and remove the home with all its data: images, people's projects, logs, database, settings."""
    from binder_onprem.host import up  # noqa: PLC0415 - the other commands start faster without

    _hand_on(site)
    config = site.read()
    if not yes:
        click.confirm(f"Remove {config.home} with all images, people's projects, logs and settings in it?", abort=True, err=True)
    up.clean(config, Shown())
    dump({"home": None}) if as_json else click.echo(f"{config.home} is gone.")


def _home(site: Site) -> Path:
    return site.home or Path(os.environ.get(HOME_VARIABLE) or DEFAULT_HOME)


def _hand_on(site: Site) -> None:
    """What was said on the command line holds for the parts that are started, too."""
    if site.config:
        os.environ[CONFIG_VARIABLE] = str(site.config.absolute())
    if site.home:
        os.environ[HOME_VARIABLE] = str(site.home.absolute())


def _sample_link(config: Config) -> str:
    from binder_onprem.host.samples import sample_link  # noqa: PLC0415 - a git server's modules

    return sample_link(config)


COMMANDS: Final = (up, down, status, check, clean)
