"""``deploy``: a site of several machines, by the playbooks. Needs no daemon and no settings of this machine."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from binder_onprem.cli.host import SIGNS
from binder_onprem.cli.options import dump, json_option
from binder_onprem.deploy.run import Order, Outcome, run
from binder_onprem.deploy.verbs import VERBS, playbooks
from binder_onprem.errors import HostUnfit, Unavailable

if TYPE_CHECKING:
    from binder_onprem.deploy.story import Story

PATHS: Final = click.Path(path_type=Path)
ORDER: Final = {"fail": 0, "warn": 1, "ok": 2}


@click.command(help="Do VERB to the site that an inventory describes.\n\n\b\n" + "\n".join(f"{name:<13} {verb.text}" for name, verb in VERBS.items()))
@click.argument("verb", type=click.Choice(list(VERBS)), metavar="VERB")
@click.option("-i", "--inventory", required=True, type=PATHS, help="The site's inventory: a file, or a directory with hosts and group_vars.")
@click.option("--check", is_flag=True, help="Tell what would change; change nothing.")
@click.option("--limit", default="", metavar="PATTERN", help="Only hosts that this pattern matches.")
@click.option(
    "-e", "--extra", multiple=True, metavar="NAME=VALUE", help="A variable beyond the inventory's; not for secrets, which others could see."
)
@click.option("--vault-password-file", "vault", type=click.Path(path_type=Path, exists=True), help="File with the vault's password.")
@click.option("--playbooks", "place", type=PATHS, help="Directory of the playbooks; default: this checkout's.")
@click.option("--yes", is_flag=True, help="Do not ask before something is removed.")
@json_option
def deploy(  # noqa: PLR0913 - one for each option
    *, verb: str, inventory: Path, check: bool, limit: str, extra: tuple[str, ...], vault: Path | None, place: Path | None, yes: bool, as_json: bool
) -> None:
    """Run the playbook of a verb; see `VERBS`."""
    variables: list[tuple[str, Any]] = [_variable(text) for text in extra]
    if sure := VERBS[verb].sure:
        if not (yes or check):
            click.confirm(f"{verb}: {VERBS[verb].text}. Hosts of {inventory}{f', {limit}' if limit else ''}. Go on?", abort=True, err=True)
        variables.append((sure, True))
    order = Order(verb, playbooks(place), inventory, check, limit, tuple(variables), vault)
    done = _shown(order)
    if as_json:
        dump(_json(order, done))
    else:
        _print(order, done)
    if not _well(done):
        unreachable = done.story.failures and all(failure.kind == "unreachable" for failure in done.story.failures)
        click.get_current_context().exit(Unavailable.exit_code if unreachable else HostUnfit.exit_code)


def _well(done: Outcome) -> bool:
    """Whether all was done, and nothing that was looked at fails."""
    rows = (row for answer in done.story.answers.values() for found in answer.values() for row in found)
    return not done.code and all(row["level"] != "fail" for row in rows)


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="-e")
    return name, value


def _shown(order: Order) -> Outcome:
    """Run it with progress on stderr: on a terminal a table of hosts, elsewhere a line for each role."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not sys.stderr.isatty():
        last = ""

        def tell(story: Story) -> None:
            nonlocal last
            if story.role and story.role != last:
                last = story.role
                console.print(f"… {last}", markup=False)

        return run(order, tell)
    with Live(console=console, transient=True, refresh_per_second=8) as live:
        return run(order, lambda story: live.update(_progress(story)))


def _progress(story: Story) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("host", "role", "task", "done", "changed"):
        grid.add_column(column, no_wrap=True, overflow="ellipsis")
    for name, host in story.hosts.items():
        row = (name, host.role, host.task, str(host.ok + host.skipped), str(host.changed))
        grid.add_row(*[Text(cell, style="red" if host.failed or host.unreachable else "") for cell in row])
    return grid


def _print(order: Order, done: Outcome) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for answer in done.story.answers.values():
        for name, rows in answer.items():
            console.print(Text(name, style="bold"))
            for row in sorted(rows, key=lambda row: ORDER[row["level"]]):
                _line(console, row["level"], f"{row['subject']}: {row['text']}", row["fix"])
    for name, host in done.story.hosts.items():
        bad = host.failed or host.unreachable
        changed = f"{host.changed} {'would change' if order.check else 'changed'}"
        _line(console, "fail" if bad else "ok", f"{name}: {host.ok} done, {changed}{', failed' if bad else ''}")
    for failure in done.story.failures:
        console.print(Text(f"{failure.host}: {failure.role or order.verb}: {failure.task}", style="bold red"))
        console.print(Text(f"  {failure.message}"))
        console.print(Text(f"  → {failure.fix}", style="dim"))
    console.print(Text(f"{order.verb}: {'done' if _well(done) else 'failed'} in {done.seconds:.0f} s. The full log: {done.log}"))


def _line(console: Console, level: str, text: str, fix: str = "") -> None:
    console.print(Text.from_markup(SIGNS[level]) + Text(f" {text}") + Text(f" → {fix}" if fix else "", style="dim"))


def _json(order: Order, done: Outcome) -> dict[str, Any]:
    return {
        "verb": order.verb,
        "ok": _well(done),
        "check": order.check,
        "changed": done.story.changed,
        "hosts": {name: asdict(host) for name, host in done.story.hosts.items()},
        "failures": [asdict(failure) for failure in done.story.failures],
        **done.story.answers,
        "log": str(done.log),
        "seconds": round(done.seconds, 1),
    }
