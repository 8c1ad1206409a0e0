"""``credentials``: what opens private repositories, for the site, a group or a person.

A secret is read from the input or a file, never from an argument, which everybody on this machine sees.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from binder_onprem.cli.calls import call, segment
from binder_onprem.cli.options import Site, dump, json_option, table

if TYPE_CHECKING:
    from typing import TextIO


@click.group()
def credentials() -> None:
    """Tokens that open private repositories; who may launch those follows from them."""


@credentials.command("list")
@json_option
@click.pass_obj
def credentials_list(site: Site, *, as_json: bool) -> None:
    """List whose there are and for which hosts, never the secrets."""
    rows = call(site, "GET", "api/credentials")["credentials"]
    columns = ("id", "kind", "owner", "host", "username", "created", "used", "source", "readable")
    dump(rows) if as_json else table(rows, columns, empty="No credentials: public repositories only.")


@credentials.command("add")
@click.argument("host")
@click.option("--username", default="", help="Goes with the secret; tokens mostly need none.")
@click.option("--user", default="", help="Only this person may use it.")
@click.option("--group", default="", help="Only members of this group may use it.")
@click.option("--secret-file", type=click.File("r", encoding="utf-8"), help="File with the token; default: it is asked for, or read from the input.")
@json_option
@click.pass_obj
def credentials_add(site: Site, host: str, username: str, user: str, group: str, secret_file: TextIO | None, *, as_json: bool) -> None:  # noqa: PLR0913, PLR0917
    """Add a token for HOST (git.uni.example, git.uni.example:8443), or replace the one that is there.

    Without --user and --group everybody who may launch may use it.
    """
    if user and group:
        raise click.UsageError("--user and --group exclude each other.")
    kind = "user" if user else "group" if group else "site"
    order = {"host": host, "username": username, "secret": _secret(secret_file), "kind": kind, "owner": user or group}
    row = call(site, "POST", "api/credentials", body=order)
    dump(row) if as_json else click.echo(f"{row['id']}: opens {row['host']} for {user or group or 'everybody who may launch'}")


@credentials.command("remove")
@click.argument("credential_id")
@json_option
@click.pass_obj
def credentials_remove(site: Site, credential_id: str, *, as_json: bool) -> None:
    """Remove a token; from now on it opens nothing, images that were made with it included."""
    call(site, "DELETE", f"api/credentials/{segment(credential_id)}")
    dump({"removed": credential_id}) if as_json else click.echo(f"{credential_id}: removed")


@credentials.command("rotate")
@json_option
@click.pass_obj
def credentials_rotate(site: Site, *, as_json: bool) -> None:
    """Encrypt all stored secrets with a new key and forget the old one."""
    count = call(site, "POST", "api/credentials/rotate")["rotated"]
    dump({"rotated": count}) if as_json else click.echo(f"{count} encrypted anew.")


def _secret(file: TextIO | None) -> str:
    if file is not None:
        return file.read().strip()
    if sys.stdin.isatty():
        return str(click.prompt("Token", hide_input=True))
    return sys.stdin.readline().strip()


COMMANDS = (credentials,)
