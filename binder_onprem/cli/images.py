"""``images``: what is kept, what is in one, who signed it, making room."""

from __future__ import annotations

from typing import Any, Final

import click

from binder_onprem.cli.calls import call, segment
from binder_onprem.cli.options import Site, dump, json_option, table

SIGNATURES: Final = {"good": "good, by this site's key", "bad": "not this site's", "none": "none"}


@click.group()
def images() -> None:
    """Images: what is kept, what is in one and who signed it, making room."""


@images.command("list")
@json_option
@click.pass_obj
def images_list(site: Site, *, as_json: bool) -> None:
    """List images with their size and last use."""
    rows = call(site, "GET", "api/images")["images"]
    dump(rows) if as_json else table(rows, ("id", "repo_url", "size", "own", "last_used", "sessions", "pinned"), empty="No images yet.")


@images.command("show")
@click.argument("image")
@click.option("--sbom", is_flag=True, help="Print the whole list of what is installed, as CycloneDX.")
@json_option
@click.pass_obj
def images_show(site: Site, image: str, *, sbom: bool, as_json: bool) -> None:
    """Show what is in IMAGE (a reference, a digest or its beginning, a repository's name), whether its signature is good, what the scan said."""
    if sbom:
        dump(call(site, "GET", f"api/images/{segment(image)}/sbom"))
        return
    papers = call(site, "GET", f"api/images/{segment(image)}")
    dump(papers) if as_json else table(_rows(papers), ("field", "value"), empty="")


def _rows(papers: dict[str, Any]) -> list[dict[str, Any]]:
    known = papers["sbom"] or {}
    parts = ", ".join(f"{count} {kind}" for kind, count in (known.get("components") or {}).items())
    scan = papers["scan"]
    said = {
        "reference": papers["reference"],
        "installed": parts or "not listed",
        **{name: known[name] for name in ("repository", "commit", "buildpack", "base", "recipe") if name in known},
        "signature": SIGNATURES[papers["signature"]],
        "scan": f"accepted: {scan['sentence']}" if scan else "none",
    }
    if known and papers["signature"] == "good" and not known.get("signed"):
        said["list"] = "not the one that was signed"
    return [{"field": key, "value": value} for key, value in said.items()]


@images.command("sign")
@click.argument("image")
@json_option
@click.pass_obj
def images_sign(site: Site, image: str, *, as_json: bool) -> None:
    """Sign IMAGE with the site's key, as for one that was built before images were signed."""
    papers = call(site, "POST", f"api/images/{segment(image)}/sign")
    dump(papers) if as_json else click.echo(f"{papers['reference']}: signature {SIGNATURES[papers['signature']]}")


@images.command("key")
@click.option("--rotate", is_flag=True, help="Make a new key; what the old ones signed still counts.")
@click.option("--forget", is_flag=True, help="With --rotate: what the old keys signed counts no more.")
@json_option
@click.pass_obj
def images_key(site: Site, *, rotate: bool, forget: bool, as_json: bool) -> None:
    """Print the public key that images are signed with, for `cosign verify --key`; or make a new one."""
    from binder_onprem.building.supply.keys import Keys  # noqa: PLC0415 - the other commands start faster without

    if forget and not rotate:
        raise click.UsageError("--forget goes with --rotate.")
    keys = Keys(site.read())
    if rotate:
        keys.rotate(forget=forget)
    dump({"key": keys.public, "rotated": rotate}) if as_json else click.echo(keys.public, nl=False)


@images.command("pin")
@click.argument("image")
@json_option
@click.pass_obj
def images_pin(site: Site, image: str, *, as_json: bool) -> None:
    """Keep an image (its digest, sha256:…) whatever the budget."""
    found = call(site, "PUT", f"api/images/{segment(image)}/pin")
    dump(found) if as_json else click.echo(f"{image}: pinned")


@images.command("unpin")
@click.argument("image")
@json_option
@click.pass_obj
def images_unpin(site: Site, image: str, *, as_json: bool) -> None:
    """Keep an image no longer than the budget has room."""
    found = call(site, "DELETE", f"api/images/{segment(image)}/pin")
    dump(found) if as_json else click.echo(f"{image}: not pinned")


@images.command("delete")
@click.argument("image")
@json_option
@click.pass_obj
def images_delete(site: Site, image: str, *, as_json: bool) -> None:
    """Delete an image; refused while it is pinned or in use."""
    found = call(site, "DELETE", f"api/images/{segment(image)}")
    dump(found) if as_json else click.echo(f"{image}: deleted")


@images.command("prune")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
@click.pass_obj
def images_prune(site: Site, *, dry_run: bool, as_json: bool) -> None:
    """Delete the least recently used images beyond the byte budget."""
    rows = call(site, "POST", "api/images/prune", dry_run=str(dry_run).lower())["images"]
    dump(rows) if as_json else table(rows, ("reference", "size", "last_used"), empty="Nothing to delete: images are within their budget.")


COMMANDS = (images,)
