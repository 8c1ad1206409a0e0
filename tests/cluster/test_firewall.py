"""Firewalls of hosts: strangers are refused at the site's ports, its own hosts are not, by whatever a host uses; and nothing of ours stays behind."""

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
OPEN, CLOSED, OTHER = 5000, 10250, 7777
"""Of the registry; of the kubelet; of nobody of ours."""
PLAYBOOK: Final = Path(__file__).with_name("firewall.yml")
INSTALL = "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends"
BEGIN = {
    "nftables": "true",
    "ufw": f"{INSTALL} ufw && ufw allow 22/tcp && ufw --force enable",
    "firewalld": f"ufw --force disable; {INSTALL} netbase firewalld && systemctl start firewalld",
}
LOOK = {
    "nftables": "nft list ruleset; ls /etc/systemd/system /etc",
    "ufw": "ufw show added; ls /etc/systemd/system /etc; nft list tables",
    "firewalld": "firewall-cmd --list-all-zones; firewall-cmd --permanent --list-all-zones; ls /etc/systemd/system /etc",
}


@pytest.fixture(scope="module")
def site(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    hosts.start(*NAMES)
    site = Site(hosts, tmp_path_factory.mktemp("walls"))
    site.describe(GROUPS, site_firewall=True, binder_settings={"listen": {"host": hosts.address("wall")}})
    for port in (OPEN, CLOSED, OTHER, 8585, 6443):
        hosts.run("wall", f"systemd-run -q --unit=listens{port} python3 -m http.server {port}")
    yield site
    for name in NAMES:
        hosts.remove(name)


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


@pytest.mark.parametrize("kind", BEGIN)
def test_strangers_are_refused_and_hosts_of_the_site_are_not(site: Site, kind: str) -> None:
    hosts = site.hosts
    hosts.run("wall", BEGIN[kind])
    before = hosts.run("wall", LOOK[kind]).stdout
    assert (reached(site, OPEN), reached(site, OTHER)) == ((kind == "nftables"),) * 2
    assert changed(play(site, "--check")) == set(NAMES)
    assert hosts.run("wall", LOOK[kind]).stdout == before

    assert changed(play(site)) >= {"wall"}
    assert changed(play(site)) == set()
    assert changed(play(site, "--check")) == set()
    # The API is for who runs playbooks, too; what is not the site's is as the host has it.
    expected = {OPEN: False, CLOSED: False, 8585: True, 6443: True, 22: True, OTHER: kind == "nftables"}
    assert {port: reached(site, port) for port in expected} == expected
    assert {port: known(site, port) for port in (OPEN, CLOSED, 8585, 6443)} == dict.fromkeys((OPEN, CLOSED, 8585, 6443), True)

    # With --limit to another host, too, a change reaches this one.
    told = json.loads(site.inventory.read_text())
    told["all"]["vars"]["firewall_nodes"] = [hosts.gateway]
    site.inventory.write_text(json.dumps(told))
    assert changed(play(site, "--limit", "peer")) == {"peer"}
    assert (reached(site, OPEN), reached(site, OTHER)) == (True, kind == "nftables")
    del told["all"]["vars"]["firewall_nodes"]
    site.inventory.write_text(json.dumps(told))
    play(site)
    assert not reached(site, OPEN)

    assert changed(play(site, "-e", "wanted=false")) == set(NAMES)
    assert changed(play(site, "-e", "wanted=false")) == set()
    assert hosts.run("wall", LOOK[kind]).stdout == before


def test_rules_come_back_after_a_boot(site: Site) -> None:
    hosts = site.hosts
    hosts.run("wall", "systemctl disable --now firewalld")
    play(site)
    hosts.power_off("wall")
    hosts.power_on("wall")
    hosts.run("wall", f"systemd-run -q --unit=listens{OPEN} python3 -m http.server {OPEN}; sleep 1")
    assert (reached(site, OPEN), known(site, OPEN)) == (False, True)
    # What empties everybody's rules brings ours back.
    hosts.run("wall", "systemctl start nftables; systemctl restart nftables")
    assert not reached(site, OPEN)


def test_rules_that_no_new_connection_confirms_are_taken_back(site: Site) -> None:
    play(site, "-e", "wanted=false")
    play(site, "--limit", "wall", "-e", json.dumps({"firewall_fresh": "-o Port=1", "firewall_seconds": 4}), fine=False)
    assert not reached(site, OPEN)
    end = time.monotonic() + 30
    while not reached(site, OPEN):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert site.hosts.run("wall", "nft list tables; ls -d /etc/binder-firewall", check=False).stdout.count("binder") == 0
