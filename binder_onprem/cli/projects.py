"""``projects``: what people keep here, and making room."""

from __future__ import annotations

from typing import Any

import click

from binder_onprem.cli.calls import call, segment
from binder_onprem.cli.options import Site, dump, json_option, table
from binder_onprem.errors import NotFound


@click.group()
def projects() -> None:
    """People's projects: homes that outlive their sessions."""


@projects.command("list")
@json_option
@click.pass_obj
def projects_list(site: Site, *, as_json: bool) -> None:
    """List everybody's, what was used last first."""
    rows = call(site, "GET", "api/projects")["projects"]
    if as_json:
        dump(rows)
        return
    told = [row | {"used": f"{100 * row['bytes'] // row['size']} %"} for row in rows]
    table(told, ("id", "owner", "name", "repo_url", "used", "size", "running", "last_used"), empty="No projects.")


@projects.command("delete")
@click.argument("project")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def projects_delete(site: Site, project: str, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete PROJECT (its id, or OWNER/NAME) with all its files; its session ends."""
    row = _found(call(site, "GET", "api/projects")["projects"], project)
    if not dry_run:
        if not yes:
            click.confirm(f"Delete {row['owner']}/{row['name']} with {row['bytes'] // 1_000_000} MB of files?", abort=True, err=True)
        call(site, "DELETE", f"api/projects/{segment(row['id'])}")
    if as_json:
        dump(row | {"deleted": not dry_run})
        return
    click.echo(f"{row['owner']}/{row['name']}: {'would be deleted' if dry_run else 'deleted'}, {row['bytes'] // 1_000_000} MB")


def _found(rows: list[dict[str, Any]], project: str) -> dict[str, Any]:
    found = next((row for row in rows if project in (row["id"], f"{row['owner']}/{row['name']}")), None)
    if found is None:
        raise NotFound("There is no project of this id or OWNER/NAME. See `binder-onprem projects list`.")
    return found


COMMANDS = (projects,)
