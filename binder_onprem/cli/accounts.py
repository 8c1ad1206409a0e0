"""People: accounts of the site's own, and logging somebody out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from binder_onprem.cli.calls import call, segment
from binder_onprem.cli.options import Site, dump, json_option, table
from binder_onprem.errors import ConfigError

if TYPE_CHECKING:
    from binder_onprem.hub.nativeaccounts import NativeAccounts


@click.group()
def accounts() -> None:
    """People who log in: accounts of the site's own (auth.kind: native), and logging somebody out."""


@accounts.command("list")
@json_option
@click.pass_obj
def accounts_list(site: Site, *, as_json: bool) -> None:
    """List accounts, and whether they may log in."""
    rows = [{"name": name, "allowed": allowed} for name, allowed in _native(site).listed()]
    dump(rows) if as_json else table(rows, ("name", "allowed"), empty="No accounts.")


@accounts.command("allow")
@click.argument("name")
@json_option
@click.pass_obj
def accounts_allow(site: Site, name: str, *, as_json: bool) -> None:
    """Let somebody who has signed up log in."""
    _native(site).allow(name)
    _told(name, "may log in", as_json=as_json)


@accounts.command("add")
@click.argument("name")
@json_option
@click.pass_obj
def accounts_add(site: Site, name: str, *, as_json: bool) -> None:
    """Make an account; its password is asked for, or read from the input."""
    _native(site).add(name, _password())
    _told(name, "may log in", as_json=as_json)


@accounts.command("password")
@click.argument("name")
@json_option
@click.pass_obj
def accounts_password(site: Site, name: str, *, as_json: bool) -> None:
    """Give an account another password; it is asked for, or read from the input."""
    _native(site).password(name, _password())
    _told(name, "has another password", as_json=as_json)


@accounts.command("remove")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
@click.pass_obj
def accounts_remove(site: Site, name: str, *, dry_run: bool, as_json: bool) -> None:
    """Take an account away, and all that is kept of its person: sessions, projects, log-ins, tokens, credentials for private repositories.

    Of accounts that are kept elsewhere (OpenID, LDAP, PAM) what is kept here goes; who still has one there may log in again.
    """
    from binder_onprem.config import auth  # noqa: PLC0415 - the other commands start faster without it

    name = name.lower()
    if dry_run:
        _left(site, name, as_json=as_json)
        return
    native = _native(site) if isinstance(site.read().auth, auth.NativeAccounts) else None
    # The account goes last, unable to log in meanwhile: killed in between, the command finds it again and does the rest.
    if native:
        native.forbid(name)
    call(site, "DELETE", f"api/users/{segment(name)}", credentials="true", projects="true")
    if native:
        native.remove(name)
    _told(name, "removed", as_json=as_json)


@accounts.command("logout")
@click.argument("name")
@json_option
@click.pass_obj
def accounts_logout(site: Site, name: str, *, as_json: bool) -> None:
    """End somebody's sessions, log-ins and tokens, whatever the kind of accounts."""
    call(site, "DELETE", f"api/users/{segment(name.lower())}")
    _told(name, "logged out everywhere", as_json=as_json)


def _left(site: Site, name: str, *, as_json: bool) -> None:
    """What is kept of a person."""
    sessions = [row for row in call(site, "GET", "api/sessions")["sessions"] if row["owner"] == name]
    credentials = [row for row in call(site, "GET", "api/credentials")["credentials"] if (row["kind"], row["owner"]) == ("user", name)]
    stored = [row for row in credentials if row["source"] == "stored"]
    projects = [row["name"] for row in call(site, "GET", "api/projects")["projects"] if row["owner"] == name]
    if as_json:
        told = {"sessions": [row["name"] for row in sessions], "projects": projects, "credentials": [row["host"] for row in stored]}
        dump({"name": name, "dry_run": True, **told})
        return
    what = (*(f"session {row['name']}" for row in sessions), *(f"project {project} with its files" for project in projects))
    kept = [*what, *(f"credential for {row['host']}" for row in stored), "log-ins and tokens"]
    click.echo(f"{name}: would be removed, with {', '.join(kept)}")


def _password() -> str:
    # Never an argument: everybody on this machine sees those.
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")


def _native(site: Site) -> NativeAccounts:
    from binder_onprem.config import auth  # noqa: PLC0415 - the other commands start faster without it
    from binder_onprem.hub.nativeaccounts import NativeAccounts  # noqa: PLC0415 - same

    config = site.read()
    if not isinstance(config.auth, auth.NativeAccounts):
        raise ConfigError(f"auth.kind is {config.auth.kind}: accounts are kept elsewhere. These commands are for auth.kind: native.")
    return NativeAccounts(config.home, config.auth.password_length)


def _told(name: str, what: str, *, as_json: bool) -> None:
    dump({"name": name.lower(), "done": what}) if as_json else click.echo(f"{name.lower()}: {what}")


COMMANDS = (accounts,)
