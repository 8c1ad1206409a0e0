"""``builds`` and ``servers``: what the daemon knows, and the few things one may do to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from binder_onprem.cli.calls import call, segment
from binder_onprem.cli.options import Site, dump, json_option, table

if TYPE_CHECKING:
    from binder_onprem.config import Config


@click.group()
def builds() -> None:
    """Builds: what is queued, running, done; their logs; cancel one."""


@builds.command("list")
@click.option("--open", "open_only", is_flag=True, help="Only what is queued or running.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="How many at the most.")
@json_option
@click.pass_obj
def builds_list(site: Site, *, open_only: bool, limit: int, as_json: bool) -> None:
    """List builds, newest first."""
    rows = call(site, "GET", "api/builds", limit=str(limit), **({"open": "true"} if open_only else {}))["builds"]
    dump(rows) if as_json else table(rows, ("id", "state", "repo_url", "commit", "created", "seconds"), empty="No builds.")


@builds.command("show")
@click.argument("build_id")
@json_option
@click.pass_obj
def builds_show(site: Site, build_id: str, *, as_json: bool) -> None:
    """Show one build."""
    record = call(site, "GET", f"api/builds/{segment(build_id)}")
    dump(record) if as_json else table([{"field": key, "value": value} for key, value in record.items()], ("field", "value"), empty="")


@builds.command("log")
@click.argument("build_id")
@click.option("--follow", "-f", is_flag=True, help="Go on until the build ends.")
@json_option
@click.pass_obj
def builds_log(site: Site, build_id: str, *, follow: bool, as_json: bool) -> None:
    """Print a build's log."""
    asyncio.run(_log(site.read(), build_id, follow=follow, as_json=as_json))


async def _log(config: Config, build_id: str, *, follow: bool, as_json: bool) -> None:
    from binder_onprem.cli.client import connected  # noqa: PLC0415 - same

    lines: list[str] = []
    async with connected(config) as client:
        read = client.follow if follow else client.log
        async for line in read(segment(build_id)):
            lines.append(line.rstrip("\n")) if as_json else click.echo(line, nl=False)
    if as_json:
        dump(lines)


@builds.command("rebuild")
@click.argument("build_id")
@json_option
@click.pass_obj
def builds_rebuild(site: Site, build_id: str, *, as_json: bool) -> None:
    """Make the image of a build anew, though it is there; sessions stay."""
    record = call(site, "POST", f"api/builds/{segment(build_id)}/rebuild")
    dump(record) if as_json else click.echo(f"{record['id']}: {record['state']}")


@builds.command("prioritise")
@click.argument("build_id")
@json_option
@click.pass_obj
def builds_prioritise(site: Site, build_id: str, *, as_json: bool) -> None:
    """Move a queued build to the front."""
    record = call(site, "POST", f"api/builds/{segment(build_id)}/prioritise")
    place = f", number {record['position']} in the queue" if record["position"] else ""
    dump(record) if as_json else click.echo(f"{build_id}: {record['state']}{place}")


@builds.command("pause")
@json_option
@click.pass_obj
def builds_pause(site: Site, *, as_json: bool) -> None:
    """Let no build begin; what runs goes on."""
    found = call(site, "POST", "api/queue/pause")
    dump(found) if as_json else click.echo(f"Builds are paused; {len(found['running'])} go on, {len(found['waiting'])} wait.")


@builds.command("resume")
@json_option
@click.pass_obj
def builds_resume(site: Site, *, as_json: bool) -> None:
    """Let builds begin again."""
    found = call(site, "POST", "api/queue/resume")
    still = "A maintenance still keeps builds from beginning." if found["paused"] else "Builds begin again."
    dump(found) if as_json else click.echo(still)


@builds.command("cancel")
@click.argument("build_id")
@json_option
@click.pass_obj
def builds_cancel(site: Site, build_id: str, *, as_json: bool) -> None:
    """Cancel a build that has not ended."""
    record = call(site, "DELETE", f"api/builds/{segment(build_id)}")
    dump(record) if as_json else click.echo(f"{build_id}: {record['state']}")


@click.group()
def servers() -> None:
    """Sessions that run, and stopping them."""


@servers.command("list")
@json_option
@click.pass_obj
def servers_list(site: Site, *, as_json: bool) -> None:
    """List sessions."""
    rows = call(site, "GET", "api/sessions")["sessions"]
    dump(rows) if as_json else table(
        rows, ("name", "client", "link", "ready", "started", "last_activity", "maintenance", "cpu", "memory"), empty="No sessions."
    )


@servers.command("stop")
@click.argument("name", required=False)
@click.option("--repo", help="All sessions whose link begins so, as gh/owner/name.")
@json_option
@click.pass_obj
def servers_stop(site: Site, name: str | None, repo: str | None, *, as_json: bool) -> None:
    """Stop a session, or all of a repository; their files are gone then."""
    if bool(name) == bool(repo):
        raise click.UsageError("Give the name of a session, or --repo.")
    if repo:
        found = call(site, "DELETE", "api/sessions", repo=repo)
        dump(found) if as_json else click.echo(f"{repo}: {len(found['stopped'])} stopped, {len(found['failed'])} could not be stopped")
        return
    call(site, "DELETE", f"api/sessions/{segment(str(name))}")
    dump({"stopped": name}) if as_json else click.echo(f"{name}: stopped")


@servers.command("reap")
@click.option("--dry-run", is_flag=True, help="Only say what would be stopped and cleared away.")
@json_option
@click.pass_obj
def servers_reap(site: Site, *, dry_run: bool, as_json: bool) -> None:
    """Stop idle and over-age sessions and clear away what has no owner, now."""
    rows = call(site, "POST", "api/sessions/reap", dry_run=str(dry_run).lower())["actions"]
    dump(rows) if as_json else table(rows, ("kind", "name", "reason"), empty="Nothing to do.")


@servers.command("queue")
@json_option
@click.pass_obj
def servers_queue(site: Site, *, as_json: bool) -> None:
    """List launches that wait for a free place, and the quotas that hold."""
    found = call(site, "GET", "api/waiting")
    if as_json:
        dump(found)
        return
    table(found["waiting"], ("position", "subject", "url", "waiting_for", "since", "present"), empty="Nobody waits.")
    click.echo("Quotas: " + ", ".join(f"{name} {value}" for name, value in found["quotas"].items()))


COMMANDS = (builds, servers)
