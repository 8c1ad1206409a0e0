"""``binder-onprem``: the commands, and the one place where an error becomes a sentence on the terminal and an exit code.

Exit codes: 0 done · 1 unexpected · 2 the link or the command line is malformed · 3 refused by policy · 4 busy, later · 5 not found ·
6 a part does not answer · 7 the build failed · 8 cancelled · 9 the session did not start · 10 configuration · 11 this machine lacks something.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from binder_onprem import __version__
from binder_onprem.cli import accounts as cli_accounts
from binder_onprem.cli import builders as cli_builders
from binder_onprem.cli import credentials as cli_credentials
from binder_onprem.cli import deploy as cli_deploy
from binder_onprem.cli import events as cli_events
from binder_onprem.cli import host as cli_host
from binder_onprem.cli import images as cli_images
from binder_onprem.cli import launch as cli_launch
from binder_onprem.cli import projects as cli_projects
from binder_onprem.cli import records as cli_records
from binder_onprem.cli import rulings as cli_rulings
from binder_onprem.cli import support as cli_support
from binder_onprem.cli.options import Site
from binder_onprem.errors import BinderError


class Commands(click.Group):
    """A group that tells errors of the tree as sentences, or as JSON where the command was asked for JSON."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BinderError as error:
            if "--json" in sys.argv[1:]:
                click.echo(json.dumps({"error": error.code, "message": error.message, "retryable": error.retryable}))
            else:
                Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]✗[/] {_escaped(error.message)}")
            ctx.exit(error.exit_code)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}, epilog=__doc__)
@click.option(
    "--config", "config", type=click.Path(dir_okay=False, path_type=Path), envvar="BINDER_ONPREM_CONFIG", help="YAML file with the settings."
)
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), envvar="BINDER_ONPREM_HOME", help="Directory of all state.")
@click.version_option(__version__, prog_name="binder-onprem")
@click.pass_context
def main(ctx: click.Context, config: Path | None, home: Path | None) -> None:
    """The Binder on your own machines: click a link to a repository, get a running Jupyter session."""
    ctx.obj = Site(config, home)


@main.command()
@click.pass_obj
def serve(site: Site) -> None:
    """Run the daemon in the foreground; `up` has it started by the supervisor."""
    from binder_onprem import buildhost, daemon  # noqa: PLC0415 - the other commands start faster without

    config = site.read()
    (buildhost if config.building_for else daemon).main(config)


COMMANDS = (
    *cli_accounts.COMMANDS,
    *cli_credentials.COMMANDS,
    *cli_host.COMMANDS,
    *cli_launch.COMMANDS,
    *cli_records.COMMANDS,
    *cli_images.COMMANDS,
    *cli_projects.COMMANDS,
    *cli_rulings.COMMANDS,
    *cli_builders.COMMANDS,
    cli_events.events,
    cli_deploy.deploy,
    cli_support.support,
)
for command in COMMANDS:
    main.add_command(command)
