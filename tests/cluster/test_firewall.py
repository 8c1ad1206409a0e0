"""Firewalls of hosts: strangers are refused at the site's ports, its own hosts are not, by whatever a host uses; and nothing of ours stays behind.

The tests stand in the order in which a host changes its firewall.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.cluster.site import ROOT, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.hosts import Hosts

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

NAMES = ("wall", "peer")
GROUPS = {"registry": ("wall",), "k3s_server": ("wall",), "k3s_agent": ("peer",), "control": ("wall",)}
REGISTRY, KUBELET, PUBLIC, API, OTHER = 5000, 10250, 8585, 6443, 7777
"""Of the registry; of the kubelet; the Binder's public one; of k3s's API; of nobody of ours."""
PLAYBOOK: Final = Path(__file__).with_name("firewall.yml")
INSTALL = "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends"
LOOK = "nft list tables; ls /etc /etc/systemd/system /etc/systemd/system/*.wants"

PODS = """
set -e
ip link add cni0 type bridge
ip addr add 10.42.{own}.1/24 dev cni0
ip link set cni0 up
ip link add flannel.1 type vxlan id 1 dstport 8472 local {here} remote {there}
ip addr add 10.42.{own}.0/32 dev flannel.1
ip link set flannel.1 up
ip route add 10.42.{other}.0/24 via 10.42.{other}.0 dev flannel.1 onlink
ip netns add pod
ip link add pod0 type veth peer name eth0 netns pod
ip link set pod0 master cni0 up
ip -n pod addr add 10.42.{own}.2/24 dev eth0
ip -n pod link set eth0 up
ip -n pod route add default via 10.42.{own}.1
echo 1 >/proc/sys/net/ipv4/ip_forward
"""
"""A pod with its network to the other node's, as flannel makes it."""


@pytest.fixture(scope="module")
def site(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    hosts.start(*NAMES)
    site = Site(hosts, tmp_path_factory.mktemp("walls"))
    site.describe(GROUPS, site_firewall=True, binder_settings={"listen": {"host": hosts.address("wall")}})
    listen(site)
    pods(site, "peer")
    yield site
    for name in NAMES:
        hosts.remove(name)


def pods(site: Site, name: str) -> None:
    """A host gets its pod and the way to the other's."""
    own, other = (1, 2) if name == "wall" else (2, 1)
    here, there = site.hosts.address(name), site.hosts.address("peer" if name == "wall" else "wall")
    site.hosts.run(name, PODS.format(own=own, other=other, here=here, there=there))


def paired(site: Site) -> bool:
    """Whether pods of the two nodes reach each other, from either side."""
    ways = (("wall", "10.42.2.2"), ("peer", "10.42.1.2"))
    return all(site.hosts.run(name, f"ip netns exec pod ping -c1 -W2 {other}", check=False).returncode == 0 for name, other in ways)


def listen(site: Site) -> None:
    """Somebody answers at each port of the host, and it has a pod."""
    pods(site, "wall")
    for port in (REGISTRY, KUBELET, PUBLIC, API, OTHER):
        site.hosts.run("wall", f"systemd-run -q --unit=listens{port} python3 -m http.server {port}")
    end = time.monotonic() + 30
    while site.hosts.run("wall", "ss -Hltn | grep -c 0.0.0.0").stdout.strip() != "6":
        assert time.monotonic() < end
        time.sleep(0.2)


def play(site: Site, *words: str, fine: bool = True) -> dict[str, dict[str, int]]:
    """Run the role; what it counted for each host."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(site.inventory), str(PLAYBOOK), *words]
    places = {"ROLES_PATH": "roles", "LIBRARY": "library", "FILTER_PLUGINS": "filter_plugins"}
    env = {**os.environ, **{f"ANSIBLE_{name}": str(ROOT / "playbooks" / folder) for name, folder in places.items()}}
    env |= {"ANSIBLE_SSH_CONTROL_PATH_DIR": str(site.folder), "ANSIBLE_LOCAL_TEMP": str(site.folder / "tmp"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=env, cwd=site.folder)
    assert (done.returncode == 0) == fine, done.stdout[-6000:] + done.stderr[-2000:]
    recap = re.findall(r"^(\w+)\s+: (.*)$", done.stdout, flags=re.MULTILINE)
    return {name: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", counts)} for name, counts in recap}


def changed(counted: dict[str, dict[str, int]]) -> set[str]:
    return {name for name, counts in counted.items() if counts["changed"]}


def reached(site: Site, port: int) -> bool:
    """Whether this machine, which is nobody of the site's, gets through."""
    with suppress(OSError), socket.create_connection((site.hosts.address("wall"), port), timeout=2):
        return True
    return False


def known(site: Site, port: int) -> bool:
    """Whether the other host of the site gets through."""
    code = f"import socket; socket.create_connection(('{site.hosts.address('wall')}', {port}), timeout=2)"
    return site.hosts.run("peer", f'python3 -c "{code}"', check=False).returncode == 0


def stands(site: Site, *, strict: bool) -> None:
    """Who reaches what; `strict`: the host refuses by default, whatever the port."""
    # The API is for who runs playbooks, too; what is not the site's is as the host has it.
    strangers = {REGISTRY: False, KUBELET: False, PUBLIC: True, API: True, 22: True, OTHER: not strict}
    assert {port: reached(site, port) for port in strangers} == strangers
    hosts = dict.fromkeys((REGISTRY, KUBELET, PUBLIC, API), True)
    assert {port: known(site, port) for port in hosts} == hosts
    assert paired(site)


def test_a_table_of_ours_keeps_strangers_from_the_sites_ports(site: Site) -> None:
    before = site.hosts.run("wall", LOOK).stdout
    assert changed(play(site, "--check")) == set(NAMES)
    assert (site.hosts.run("wall", LOOK).stdout, reached(site, REGISTRY)) == (before, True)
    assert changed(play(site)) == set(NAMES)
    stands(site, strict=False)
    assert changed(play(site)) == set()


def test_a_change_reaches_hosts_that_a_play_is_not_about(site: Site) -> None:
    told = json.loads(site.inventory.read_text())
    told["all"]["vars"]["firewall_nodes"] = [site.hosts.gateway]
    site.inventory.write_text(json.dumps(told))
    assert changed(play(site, "--limit", "peer")) == {"peer"}
    assert reached(site, REGISTRY)
    del told["all"]["vars"]["firewall_nodes"]
    site.inventory.write_text(json.dumps(told))


def test_rules_are_there_after_a_boot_and_after_others_are_emptied(site: Site) -> None:
    hosts, asked = site.hosts, "nft list table inet binder_site | grep saddr"
    rules = hosts.run("wall", asked).stdout
    hosts.power_off("wall")
    hosts.power_on("wall")
    assert hosts.run("wall", asked).stdout == rules
    hosts.run("wall", "systemctl start nftables")
    for order in ("restart", "reload"):
        hosts.run("wall", f"systemctl {order} nftables")
        end = time.monotonic() + 30
        while hosts.run("wall", asked, check=False).stdout != rules:
            assert time.monotonic() < end, order
            time.sleep(0.2)
    listen(site)


def test_ufw_is_told_and_the_table_goes(site: Site) -> None:
    site.hosts.run("wall", f"systemctl stop nftables; {INSTALL} ufw && ufw allow 22/tcp && ufw --force enable")
    assert not paired(site)
    assert "wall" in changed(play(site))
    stands(site, strict=True)
    assert changed(play(site)) == set()
    assert "binder_site" not in site.hosts.run("wall", "nft list tables").stdout
    assert "ufw route allow from 10.42.0.0/16" in site.hosts.run("wall", "ufw show added").stdout


def test_firewalld_is_told_and_ufw_is_as_before_and_nothing_stays_behind(site: Site) -> None:
    hosts = site.hosts
    look = "ufw show added; firewall-cmd --list-all-zones; firewall-cmd --permanent --list-all-zones"
    hosts.run("wall", f"ufw --force disable; {INSTALL} netbase firewalld && systemctl start firewalld")
    assert not paired(site)
    before = [line for line in hosts.run("wall", f"{look}; {LOOK}").stdout.splitlines() if "binder-site" not in line]
    assert "wall" in changed(play(site))
    stands(site, strict=True)
    assert changed(play(site)) == set()
    assert changed(play(site, "-e", "wanted=false")) == set(NAMES)
    assert hosts.run("wall", f"{look}; {LOOK}").stdout.splitlines() == before
    assert "binder" not in hosts.run("peer", LOOK).stdout


def test_rules_that_no_new_connection_confirms_are_taken_back(site: Site) -> None:
    nowhere = "-o ControlMaster=no -o ControlPath=none -o Port=1"
    site.hosts.run("wall", "systemctl disable --now firewalld")
    play(site, "--limit", "wall", "-e", json.dumps({"firewall_fresh": nowhere, "firewall_seconds": 4}), fine=False)
    end = time.monotonic() + 60
    while not reached(site, REGISTRY):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert "binder" not in site.hosts.run("wall", LOOK).stdout
