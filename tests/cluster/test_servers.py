"""Three servers with etcd: one may be lost, they are upgraded one by one, the first is replaced, and all come back from their archives.

The tests stand in the order in which the servers live.
"""

from __future__ import annotations

import json
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import artefacts
from tests.cluster.site import Site
from tests.cluster.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.hosts import Hosts

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def site(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    hosts.start(*NAMES)
    site = Site(hosts, tmp_path_factory.mktemp("servers"))
    describe(site, artefacts.directory())
    yield site
    for name in NAMES:
        hosts.remove(name)


def describe(site: Site, artifacts: Any, order: tuple[str, ...] = NAMES) -> None:
    common = {"preflight_disk": {}, "preflight_memory": {}, "site_firewall": True, "k3s_api_host": site.hosts.address(order[0])}
    site.describe({"k3s_server": order}, k3s_artifacts=str(artifacts), site_registry_host=site.hosts.address("one"), **common)


def kubectl(site: Site, name: str, *words: str) -> str:
    return site.hosts.run(name, f"timeout 90 sh -c 'until k3s kubectl --request-timeout=10s {' '.join(words)}; do sleep 1; done'").stdout


def nodes(site: Site, name: str) -> dict[str, tuple[str, bool]]:
    """Node → version of its kubelet, whether it is Ready and takes pods; by one server's word."""
    found = {}
    for one in json.loads(kubectl(site, name, "get", "nodes", "-o", "json"))["items"]:
        ready = any(each["type"] == "Ready" and each["status"] == "True" for each in one["status"]["conditions"])
        found[one["metadata"]["name"]] = (one["status"]["nodeInfo"]["kubeletVersion"], ready and not one["spec"].get("unschedulable"))
    return found


def usable(site: Site) -> set[str]:
    return {name for name, (_, good) in nodes(site, "two").items() if good}


class Watched(Watching):
    """Counts, again and again, how many servers answer at once."""

    def __init__(self, site: Site) -> None:
        self.urls = [f"https://{site.hosts.address(name)}:6443/readyz" for name in NAMES]
        self.counts: list[int] = []
        super().__init__()

    def look(self) -> None:
        codes = [subprocess.run(["curl", "-sk", "--max-time", "5", "-o", "/dev/null", url], check=False).returncode for url in self.urls]
        self.counts.append(codes.count(0))


def test_three_servers_are_one_cluster_and_strangers_see_nothing_of_etcd(site: Site) -> None:
    assert site.done("site")["changed"] > 0
    assert usable(site) == set(NAMES)
    for port in (2379, 2380):
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((site.hosts.address("one"), port), timeout=5).close()


def test_without_the_first_one_the_cluster_goes_on(site: Site) -> None:
    site.hosts.power_off("one")
    kubectl(site, "two", "create", "configmap", "written-meanwhile")
    site.hosts.power_on("one")
    assert "written-meanwhile" in kubectl(site, "one", "get", "configmaps", "-o", "name")


def test_they_are_upgraded_one_by_one_after_a_snapshot(site: Site) -> None:
    later, old = artefacts.following(), nodes(site, "two")
    if later == artefacts.directory():
        pytest.skip(f"the real release that is given has no later one beside it: name that in {artefacts.LATER}")
    describe(site, later)
    with Watched(site) as watched:
        site.done("upgrade", "-e", "upgrade_patience=1")
    assert len(watched.counts) > 5
    assert min(watched.counts) >= 2
    assert usable(site) == set(NAMES)
    assert not {version for version, _ in nodes(site, "two").values()} & {version for version, _ in old.values()}
    assert "before-upgrade-one" in site.hosts.run("one", "ls /var/lib/rancher/k3s/server/db/snapshots").stdout


def test_the_first_one_is_lost_for_good_and_another_machine_takes_its_place(site: Site) -> None:
    hosts = site.hosts
    hosts.replace("one")
    code, told = site.deploy("site", "--limit", "one")
    assert (code, "Put two first" in told["failures"][0]["message"]) == (11, True)
    describe(site, artefacts.following(), order=("two", "three", "one"))
    site.done("site", "--limit", "two,three")
    site.done("remove", "--limit", "one", "--yes")
    assert set(nodes(site, "two")) == {"two", "three"}
    site.done("add", "--limit", "one")
    assert usable(site) == set(NAMES)


def test_all_come_back_from_their_archives_on_new_machines(site: Site) -> None:
    kubectl(site, "two", "create", "configmap", "kept")
    site.done("backup")
    kubectl(site, "two", "create", "configmap", "too-late")
    site.hosts.replace(*NAMES)
    site.done("restore")
    assert usable(site) == set(NAMES)
    there = kubectl(site, "three", "get", "configmaps", "-o", "name")
    assert ("kept" in there, "written-meanwhile" in there, "too-late" in there) == (True, True, False)
    site.hosts.power_off("two")
    kubectl(site, "three", "create", "configmap", "afterwards")
    site.hosts.power_on("two")
    assert site.done("site")["changed"] == 0
