"""A site with the network cut: what it needs comes by a bundle, and no host asks anybody outside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.host import clients
from tests.cluster import cache
from tests.cluster.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.hosts import Hosts

pytestmark = [pytest.mark.real, pytest.mark.timeout(1500)]

NAME = "closed"
GROUPS = {"registry": (NAME,), "control": (NAME,)}
PLAIN = "git/git%3A%2F%2F127.0.0.1%2Fplain/HEAD"
SERVED = """
set -e
mkdir /srv/git
git init -q --initial-branch=main /srv/git/plain
cd /srv/git/plain
echo 'A plain repository' >README.md
git add README.md
git -c user.name=it -c user.email=it@host commit -q -m first
systemd-run --quiet --unit=plain git daemon --export-all --base-path=/srv/git --listen=127.0.0.1
"""
"""A repository of the host's own, without anything to install."""
CUT = """
table inet cut {{
    counter outside {{}}
    chain through {{
        type filter hook forward priority -10; policy accept;
        oifname != "eth0" accept
        ct state established,related accept
        counter name outside drop
    }}
    chain out {{
        type filter hook output priority -10; policy accept;
        oifname "lo" accept
        ct state established,related accept
        ip daddr {address} accept
        ip6 daddr {{ fe80::/10, ff02::/16 }} accept
        counter name outside drop
    }}
}}
"""
"""The host answers who asks it; whatever it or its containers ask of anybody else, names too, is counted and gets nowhere."""


@pytest.fixture(scope="module")
def site(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    hosts.start(NAME)
    # Not by SSH, whose own connection would be one that the host began.
    hosts.write(NAME, "/run/cut", CUT.format(address=hosts.address(NAME)))
    hosts.podman("exec", NAME, "nft", "-f", "/run/cut")
    site = Site(hosts, tmp_path_factory.mktemp("closed"))
    (site.folder / "bookworm.sources").write_text(clients.apt_sources("bookworm"), encoding="utf-8")
    site.describe(
        GROUPS,
        site_bundle=str(site.folder / "bundle"),
        bundle_releases={"bookworm": str(site.folder / "bookworm.sources")},
        bundle_cache=str(cache.directory() / "bundle"),
        preflight_memory={},
        binder_settings={"network": {"allow": ["127.0.0.0/8"]}},
    )
    yield site
    hosts.remove(NAME)


@pytest.fixture(scope="module")
def before(site: Site) -> dict[str, Any]:
    """The host as it was; whatever failed to start for want of a network, too."""
    return site.look(NAME)


@pytest.fixture(scope="module")
def bundle(site: Site) -> Path:
    site.done("bundle")
    return site.folder / "bundle"


def asked(site: Site) -> int:
    """How often the host tried to ask somebody outside."""
    said = json.loads(site.hosts.run(NAME, "nft -j list counter inet cut outside").stdout)
    return next(int(entry["counter"]["packets"]) for entry in said["nftables"] if "counter" in entry)


def test_a_bundle_is_made_once(site: Site, bundle: Path) -> None:
    assert {file.name for file in bundle.iterdir()} == {
        "SHA256SUMS",
        "bom.cdx.json",
        "binder-onprem.tar",
        "deb-bookworm.tar",
        "npm.tar",
        "wheels-bookworm.tar",
    }
    names = {part["name"] for part in json.loads((bundle / "bom.cdx.json").read_text())["components"]}
    assert {"podman", "docker-registry", "nginx-light", "libc6", "jupyterhub", "uv", "configurable-http-proxy", "binder-onprem.tar"} <= names
    assert site.done("bundle")["changed"] == 0


def test_a_damaged_bundle_is_refused_before_anything_is_touched(site: Site, bundle: Path, before: dict[str, Any]) -> None:
    with (bundle / "deb-bookworm.tar").open("r+b") as file:
        file.seek(100_000)
        kept = file.read(1)
        file.seek(100_000)
        file.write(bytes([kept[0] ^ 1]))
    code, told = site.deploy("site")
    assert code == 11
    assert {failure["host"] for failure in told["failures"]} == {NAME}
    assert "damaged: deb-bookworm.tar" in told["failures"][0]["message"]
    assert site.look(NAME) == before
    # It is made whole again of what was fetched before.
    assert site.done("bundle")["changed"] == 1


def test_a_site_comes_up_with_the_network_cut_and_asks_nobody(site: Site, bundle: Path) -> None:
    assert bundle.exists()
    already = asked(site)
    assert site.done("site")["changed"] > 0
    assert site.done("site")["changed"] == 0
    assert site.hosts.run(NAME, "podman --version && systemctl is-active binder-registry-front").stdout.split()[-1] == "active"
    assert asked(site) == already


def test_a_plain_repository_is_built_launched_and_calculates_with_the_network_cut(site: Site) -> None:
    site.hosts.run(NAME, SERVED)
    try:
        told = site.done("canary", "-e", f"canary_link={PLAIN}")
    finally:
        site.hosts.run(NAME, "systemctl stop plain; rm -r /srv/git")
    assert told["canary"][NAME][0]["level"] == "ok"


def test_who_does_ask_is_counted(site: Site) -> None:
    already = asked(site)
    site.hosts.run(NAME, "timeout 2 getent hosts nowhere.example", check=False)
    assert asked(site) > already


def test_reset_leaves_the_host_as_it_was(site: Site, before: dict[str, Any]) -> None:
    site.done("reset", "--yes")
    now = site.look(NAME)
    assert {path for path in {*now, *before} if now.get(path) != before.get(path)} == set()
