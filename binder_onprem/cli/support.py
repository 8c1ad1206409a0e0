"""``support``: an archive for a bug report, of a Binder on one machine. Sites of several machines have ``deploy support``."""

from __future__ import annotations

import os
import platform
import secrets
import sys
import time
from pathlib import Path

import click

from binder_onprem import __version__
from binder_onprem.cli.options import Site, dump, json_option
from binder_onprem.config import CONFIG_VARIABLE, DEFAULT_HOME, HOME_VARIABLE
from binder_onprem.errors import ConfigError, HostUnfit
from binder_onprem.support import archive, look
from binder_onprem.support.sources import Order


@click.command()
@click.option("--lines", default=2000, show_default=True, type=click.IntRange(1, 100_000), help="Lines at the end of each journal and log.")
@click.option("--since", default="", metavar="TIME", help='From when on journals are taken, as journalctl has it: "2 hours ago".')
@click.option("--people", is_flag=True, help="Leave people's names in it; without it they are pseudonyms.")
@click.option("--to", "directory", type=click.Path(path_type=Path), help="Directory for the archive; default: support in the home.")
@json_option
@click.pass_obj
def support(  # noqa: PLR0913 - one for each option
    site: Site, *, lines: int, since: str, people: bool, directory: Path | None, as_json: bool
) -> None:
    """Write one archive for a bug report: versions, states, journals, settings; secrets are taken out. Works where nothing else does."""
    if os.geteuid():
        raise HostUnfit("Journals and settings are read as root. Run it with sudo.")
    home, config = _places(site)
    key = b"" if people else secrets.token_bytes(16)
    program = (sys.executable, "-c", "from binder_onprem.cli import main; main()")
    order = Order(groups=("control",), home=str(home), config=config, program=program, lines=lines, since=since, key=key)
    found = look.report(order)
    about = {"version": __version__, "lines": lines, "since": since, "people": people}
    target = (directory or home / "support").absolute()
    try:
        path = archive.write(target, {platform.node() or "here": archive.Host(found)}, about, (), time.time())
    except OSError as error:
        raise HostUnfit(f"The archive cannot be written to {target}: {error.strerror}. Choose another directory with --to.") from error
    if as_json:
        dump({"path": str(path), "files": sorted(found["files"]), "notes": found["notes"]})
        return
    for note in found["notes"]:
        click.echo(f"  {note}", err=True)
    click.echo(f"{path}: {len(found['files'])} files, for you alone to read. Look through it before you give it to somebody.")


def _places(site: Site) -> tuple[Path, str]:
    """Home, and the file of settings where it is named; also where the settings are what is broken."""
    named = site.config or (Path(os.environ[CONFIG_VARIABLE]) if CONFIG_VARIABLE in os.environ else None)
    config = str(named.absolute()) if named else ""
    try:
        return site.read().home, config
    except ConfigError:
        return (site.home or Path(os.environ.get(HOME_VARIABLE) or DEFAULT_HOME)).absolute(), config
