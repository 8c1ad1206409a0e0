"""`deploy preflight` on hosts that are broken in all the ways that servers of an institution are: each is named with its fix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.hosts import Hosts

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

NAMES = ("good", "cut", "copy", "plain")
SMALL = {"registry": {"/var/lib/binder-registry": 0.01}, "builder": {"/var/lib/binder-onprem": 0.01}, "k3s_agent": {"/var/lib/rancher": 0.01}}
BROKEN = {
    "cut": (
        "ip route del default",
        "systemd-run --unit=other python3 -m http.server 10250",
        "sed -i 's/^VERSION_ID=.*/VERSION_ID=\"11\"/' /etc/os-release",
    ),
    "copy": (
        "hostname plain",
        "mkdir -p /var/lib/binder-onprem && mount -t tmpfs -o size=4m none /var/lib/binder-onprem",
        "ip link set eth0 mtu 1200",
        "umount /etc/resolv.conf; echo nameserver 127.0.0.9 > /etc/resolv.conf; sed -i '/good/d' /etc/hosts",
    ),
    "plain": ("mkdir -p /srv/few && mount -t tmpfs -o nr_inodes=12 none /srv/few && cd /srv/few && touch 1 2 3 4 5 6 7 8 9 10 11",),
}


@pytest.fixture(scope="module")
def site(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    hosts.start(*NAMES)
    site = Site(hosts, tmp_path_factory.mktemp("preflight"))
    release(site.folder / "k3s", "amd64")
    yield site
    for name in NAMES:
        hosts.remove(name)


def release(folder: Path, arch: str) -> None:
    """Files of a release of k3s, by their names."""
    folder.mkdir()
    for name in ("k3s" if arch == "amd64" else f"k3s-{arch}", f"sha256sum-{arch}.txt", f"k3s-airgap-images-{arch}.tar.zst"):
        (folder / name).touch()


def describe(site: Site, **each: dict[str, Any]) -> None:
    groups = {"registry": ("good",), "k3s_agent": ("cut",), "builder": ("copy", "plain")}
    common = {"preflight_disk": SMALL, "preflight_memory": {}, "site_registry_host": "good", "k3s_artifacts": str(site.folder / "k3s")}
    site.describe(groups, each, **common)


def subjects(told: dict[str, Any], host: str, level: str) -> set[str]:
    return {row["subject"] for row in told["findings"][host] if row["level"] == level}


def test_good_hosts_pass_and_stay_as_they_are(site: Site) -> None:
    describe(site)
    before = {name: site.look(name) for name in NAMES}
    told = site.done("preflight")
    assert told["changed"] == 0
    assert [subjects(told, name, "fail") for name in NAMES] == [set()] * len(NAMES)
    assert {name: site.look(name) for name in NAMES} == before


def test_each_fault_is_named_with_its_fix(site: Site) -> None:
    for name, faults in BROKEN.items():
        for fault in faults:
            site.hosts.run(name, fault)
    same = site.hosts.run("plain", "cat /etc/machine-id").stdout
    site.hosts.write("copy", "/etc/machine-id", same, "444")
    few = {"preflight_disk": SMALL | {"builder": {"/srv/few": 0.001}}, "ansible_user": "eyes", "ansible_become": False}
    release(site.folder / "other", "arm64")
    describe(site, cut={"preflight_memory": {"k3s_agent": 4000}, "k3s_artifacts": str(site.folder / "other")}, plain=few)
    code, told = site.deploy("preflight")
    assert code == 11
    assert {name: subjects(told, name, "fail") for name in NAMES} == {
        "good": set(),
        "cut": {"default route", "ports", "system", "memory", "k3s release"},
        "copy": {"hostname", "machine id", "disk", "MTU", "names"},
        "plain": {"hostname", "machine id", "inodes", "root"},
    }
    assert all(row["fix"] for rows in told["findings"].values() for row in rows if row["level"] == "fail")
    assert sorted({failure["host"] for failure in told["failures"]}) == ["copy", "cut", "plain"]


def test_a_host_that_is_switched_off_is_said_to_be_unreachable(site: Site, tmp_path: Path) -> None:
    assert tmp_path.exists()
    site.hosts.power_off("good")
    code, told = site.deploy("preflight", "--limit", "good")
    assert (code, [(failure["host"], failure["kind"]) for failure in told["failures"]]) == (6, [("good", "unreachable")])
