"""``launch``: the same stream as on the page, printed on a terminal."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from binder_onprem.choice import PREFIX, parse
from binder_onprem.cli.opening import session_url
from binder_onprem.cli.options import Site, json_option
from binder_onprem.errors import InvalidSpec

if TYPE_CHECKING:
    from binder_onprem.config import Config

PHASES = ("waiting", "fetching", "building", "built", "launching", "ready")


def spec_of(link: str) -> str:
    """``provider/path`` from a spec or from a whole link ``http…/v2/provider/path?…``.

    Raises:
        InvalidSpec: Neither.
    """
    whole = re.fullmatch(r"https?://[^\s/]+(?:/[^\s?#]*)?/(?:v2|build)/([^\s?#]+)(?:[?#]\S*)?", link)
    spec = whole[1] if whole else link
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*/[^\s?#]+", spec):
        raise InvalidSpec("Give a link, or provider/repository/ref as in a link: gh/owner/repository/HEAD, or git/<percent-encoded URL>/HEAD.")
    return spec


def query_of(link: str, *, profile: str | None, data: tuple[str, ...], env: tuple[str, ...], image: str | None) -> str:
    """What is chosen, by the link's own query and by the options, as a query; the options hold where both say something.

    Raises:
        InvalidSpec: It has no form that any choice could have.
    """
    asked = dict(parse(parse_qsl(urlsplit(link).query) if link.startswith(("http://", "https://")) else ()).pairs)
    asked |= {key: value for key, value in (("profile", profile), ("image", image), ("data", ",".join(data))) if value}
    for text in env:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidSpec("--env needs NAME=VALUE.")
        asked[f"{PREFIX}{name}"] = value
    return parse(asked.items()).query


@click.command()
@click.argument("spec")
@click.option("--quiet", "-q", is_flag=True, help="Only the URL at the end.")
@click.option("--profile", help="Resources, as the site names them.")
@click.option("--data", multiple=True, help="Data set to read, as the site names it; may be repeated.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Variable of the session, where the site allows it; may be repeated.")
@click.option("--image", help="Prebuilt image, as the site names it.")
@click.option("--build-only", is_flag=True, help="Start no session, print the image's name (where web.api_only is set).")
@json_option
@click.pass_obj
def launch(site: Site, /, spec: str, *, quiet: bool, build_only: bool, as_json: bool, **chosen: Any) -> None:
    """Launch SPEC (gh/owner/repo/ref, git/ENCODED-URL/ref or a whole link), show what happens, print the URL."""
    asyncio.run(_launch(site.read(), spec, query_of(spec, **chosen), quiet=quiet or as_json, build_only=build_only, as_json=as_json))


async def _launch(  # noqa: PLR0913 - what the command line says
    config: Config, link: str, query: str, *, quiet: bool, build_only: bool, as_json: bool
) -> None:
    from binder_onprem.cli.client import connected, error_of  # noqa: PLC0415 - the other commands start faster without it

    spec = spec_of(link)
    console = Console(stderr=True, highlight=False, quiet=quiet)
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn()
    async with connected(config) as client:
        with Progress(*columns, console=console, transient=True, disable=quiet) as bar:
            task = bar.add_task("waiting", total=len(PHASES), note="")
            async for event in client.launch(spec, build_only=build_only, query=query):
                if as_json:
                    click.echo(json.dumps(event))
                if event["phase"] == "failed":
                    raise error_of(event, event.get("status_code", 500))
                _show(bar, task, event)
                if event["phase"] == "ready" and not as_json:
                    bar.stop()
                    click.echo(session_url(event["url"], event["token"], link) if "url" in event else event["imageName"])


def _show(bar: Progress, task: Any, event: dict[str, Any]) -> None:
    phase = event["phase"]
    if phase in PHASES:
        position = event.get("position")
        bar.update(task, description=phase, completed=PHASES.index(phase) + 1, note=f"{position} in the queue" if position else "")
    if phase != "ready" and event["message"].strip():
        bar.console.print(Text.from_ansi(event["message"].rstrip("\n")))


COMMANDS = (launch,)
