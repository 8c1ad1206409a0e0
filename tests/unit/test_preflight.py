"""What preflight makes of a host's facts: each thing that is broken is named, with a fix; a good host has nothing against it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.plugins import plugin

if TYPE_CHECKING:
    from collections.abc import Callable

rules = plugin("filter_plugins/binder_preflight.py")
GIB = 1024**3
GOOD: dict[str, Any] = {
    "system": {
        "id": "debian", "version": "13", "name": "Debian 13", "kernel": "6.12", "arch": "x86_64", "init": "systemd", "cpus": 4,
        "hostname": "one", "machine_id": "a1", "time": 1000.0, "asked": 999.5,
    },
    "memory": 8 * GIB, "swap": 0, "watchers": 8192, "cgroup": {"version": 2, "controllers": ["cpu", "memory", "pids"]},
    "modules": {"overlay": "loaded"}, "disks": {"/var/lib/x": {"free": 60 * GIB, "size": 100 * GIB, "inodes_used": 0.1}},
    "taken": {"6443": "k3s.service"},
    "network": {"default_interface": "eth0", "mtu": 1500, "names": {"registry": ["10.0.0.1"]}},
    "clock": {"service": "chrony", "synchronised": True},
    "confinement": {"selinux": "absent", "policies": [], "apparmor": True, "firewall": ["nftables"], "dropping": []},
    "podman": "5.4.2", "registry": {"place": "registry:5443", "state": "trusted", "expires": 1000.0 + 90 * 86400}, "root": True, "ours": True,
    "proxy": {"place": "proxy:3128", "state": "answers"}, "proxied": [],
    "postgresql": {"programs": ["15"], "clusters": [["15", "main"], ["15", "binder"]], "ours": ["binder"]},
}  # fmt: skip
WANTED: dict[str, Any] = {
    "groups": ["k3s_server", "builder", "database"], "ports": {"6443": "k3s", "5000": "binder-registry"}, "paths": {"/var/lib/x": 50 * GIB},
    "port_sets": [{"6443": "k3s"}, {"5000": "binder-registry"}], "artifacts": "/srv/k3s", "artifacts_missing": [],
    "cluster": "binder",
    "memory": 4 * GIB, "modules": ["overlay"], "days": 30, "heard": 1010.0, "open": ["6443/tcp (API) to nodes"], "firewall": False,
}  # fmt: skip


def judged(change: Callable[[dict[str, Any]], object] = lambda _: None, cluster: dict[str, Any] | None = None, **wanted: Any) -> list[dict[str, str]]:
    facts = copy.deepcopy(GOOD)
    change(facts)
    return list(rules.binder_findings(facts, {**WANTED, **wanted}, cluster))


def test_nothing_stands_against_a_good_host() -> None:
    found = judged()
    assert [one for one in found if one["level"] != "ok"] == []
    assert {"system", "memory", "disk", "control groups", "ports", "default route", "clock", "podman", "registry"} <= {
        one["subject"] for one in found
    }


@pytest.mark.parametrize(
    ("level", "subject", "fix", "change"),
    [
        ("fail", "system", "Debian 12", lambda facts: facts["system"].update(version="11")),
        ("fail", "system", "Debian 12", lambda facts: facts["system"].update(id="centos", version="9")),
        ("fail", "system", "x86_64", lambda facts: facts["system"].update(arch="riscv64")),
        ("fail", "init", "systemd", lambda facts: facts["system"].update(init="bash")),
        ("fail", "root", "sudo", lambda facts: facts.update(root=False)),
        ("fail", "memory", "4 GiB", lambda facts: facts.update(memory=GIB)),
        ("warn", "swap", "swapoff", lambda facts: facts.update(swap=GIB)),
        ("warn", "inotify", "max_user_instances=8192", lambda facts: facts.update(watchers=128)),
        ("fail", "disk", "/var/lib/x", lambda facts: facts["disks"]["/var/lib/x"].update(free=GIB)),
        ("fail", "inodes", "small files", lambda facts: facts["disks"]["/var/lib/x"].update(inodes_used=0.97)),
        ("fail", "control groups", "memory", lambda facts: facts["cgroup"].update(controllers=["cpu", "pids"])),
        ("warn", "control groups", "fail-cgroupv1=false", lambda facts: facts["cgroup"].update(version=1)),
        ("warn", "kernel modules", "modprobe overlay", lambda facts: facts["modules"].update(overlay="missing")),
        ("fail", "ports", "Stop nginx.service", lambda facts: facts["taken"].update({"5000": "nginx.service"})),
        ("fail", "default route", "gateway", lambda facts: facts["network"].update(default_interface="")),
        ("fail", "MTU", "1280", lambda facts: facts["network"].update(mtu=1000)),
        ("fail", "names", "/etc/hosts", lambda facts: facts["network"]["names"].update(registry=[])),
        ("fail", "clock", "chrony", lambda facts: facts["system"].update(time=1100.0)),
        ("fail", "clock", "chrony", lambda facts: facts["system"].update(time=900.0)),
        ("warn", "clock", "timesyncd", lambda facts: facts.update(clock={"service": "", "synchronised": False})),
        ("warn", "firewall", "site_firewall: true", lambda facts: facts["confinement"].update(firewall=["ufw"])),
        ("warn", "firewall", "6443/tcp (API) to nodes", lambda facts: facts["confinement"].update(dropping=["inet filter input"])),
        ("fail", "SELinux", "container-selinux and k3s-selinux", lambda facts: facts["confinement"].update(selinux="enforcing")),
        ("fail", "SELinux", "Install k3s-selinux", lambda facts: facts["confinement"].update(selinux="enforcing", policies=["container"])),
        ("fail", "podman", "4.3", lambda facts: facts.update(podman="3.4.4")),
        ("warn", "podman", "Debian 13", lambda facts: facts.update(podman="4.3.1")),
        ("fail", "PostgreSQL", "postgresql_cluster", lambda facts: facts["postgresql"].update(ours=[])),
        ("fail", "PostgreSQL", "pg_upgradecluster 15 binder", lambda facts: facts["postgresql"].update(programs=["17"])),
        ("fail", "PostgreSQL", "13 or later", lambda facts: facts["postgresql"].update(programs=["11"], clusters=[])),
        ("ok", "PostgreSQL", "", lambda facts: facts.update(postgresql={})),
        ("warn", "registry", "site", lambda facts: facts["registry"].update(expires=1000.0 + 5 * 86400)),
        ("fail", "registry", "CA", lambda facts: facts.update(registry={"place": "r:1", "state": "untrusted", "why": "self signed"})),
        ("fail", "proxy", "site_proxy", lambda facts: facts.update(proxy={"place": "p:1", "state": "silent", "why": "refused"})),
        ("fail", "proxy", "vault", lambda facts: facts.update(proxy={"place": "p:1", "state": "refuses"})),
        ("fail", "proxy", "CA", lambda facts: facts.update(proxy={"place": "p:1", "state": "untrusted", "why": "self signed"})),
        ("warn", "proxy", "Add registry to no_proxy", lambda facts: facts.update(proxied=["/etc/environment"])),
        ("fail", "proxy", "Add registry to no_proxy", lambda facts: facts.update(proxied=["systemd's environment"])),
        ("fail", "registry", "Start it", lambda facts: facts.update(registry={"place": "r:1", "state": "silent", "why": "refused"})),
    ],
)
def test_what_is_broken_is_named_with_its_fix(level: str, subject: str, fix: str, change: Callable[[dict[str, Any]], object]) -> None:
    found = [one for one in judged(change) if one["level"] == level and one["subject"] == subject]
    assert len(found) == 1
    assert fix in found[0]["fix"]


@pytest.mark.parametrize(
    ("subject", "text", "wanted"),
    [
        ("ports", "443 is wanted by binder-front and by binder-registry", {"port_sets": [{"443": "binder-registry"}, {"443": "binder-front"}]}),
        ("k3s release", "k3s_artifacts is not set", {"artifacts": ""}),
        ("k3s release", "/srv/k3s on the controller lacks k3s-arm64", {"artifacts_missing": ["k3s-arm64"]}),
    ],
)
def test_an_inventory_that_cannot_work_is_named(subject: str, text: str, wanted: dict[str, Any]) -> None:
    (found,) = [one for one in judged(**wanted) if one["level"] == "fail"]
    assert (found["subject"], found["text"], bool(found["fix"])) == (subject, text, True)


def test_a_firewall_that_site_manages_needs_nothing_done_by_hand() -> None:
    for active in ([], ["ufw"], ["firewalld"]):
        found = judged(lambda facts, active=active: facts["confinement"].update(firewall=active), firewall=True)
        assert [one["level"] for one in found if one["subject"] == "firewall"] == ["ok"]


def test_selinux_stays_enforcing_where_its_policies_are() -> None:
    found = judged(lambda facts: facts["confinement"].update(selinux="enforcing", policies=["container", "k3s"]))
    assert [(one["level"], one["text"]) for one in found if one["subject"] == "SELinux"] == [("ok", "enforcing, and stays so")]


def test_before_the_first_site_a_registry_need_not_answer() -> None:
    found = judged(lambda facts: facts.update(ours=False, registry={"place": "r:1", "state": "silent", "why": "refused"}))
    assert {one["level"] for one in found} == {"ok"}


def test_a_new_host_may_be_the_registrys() -> None:
    silent = {"place": "r:1", "state": "silent", "why": "refused"}
    cluster = {"one": GOOD, "two": {"system": {"hostname": "two", "machine_id": "b2"}, "ours": False}}
    assert {one["level"] for one in judged(lambda facts: facts.update(registry=silent), cluster)} == {"ok"}


def test_hosts_made_from_one_image_are_told_apart() -> None:
    twin = {"system": {"hostname": "two", "machine_id": "a1"}, "ours": True}
    found = [one for one in judged(cluster={"one": GOOD, "two": twin}) if one["level"] == "fail"]
    assert [(one["subject"], one["text"]) for one in found] == [("machine id", "a1 is that of one, two")]


def test_the_table_begins_with_what_needs_doing() -> None:
    lines = rules.binder_table(judged(lambda facts: facts.update(memory=GIB, podman="4.3.1")))
    assert [line.split()[0] for line in lines[:3]] == ["fail", "warn", "ok"]
    assert "  -> Give this host 4 GiB" in lines[0]
