"""Which ports of a site's hosts are open for whom, and the rules that say so."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from tests.unit.plugins import PLAYBOOKS, plugin

decisions = plugin("filter_plugins/binder_firewall.py")
module = plugin("library/binder_firewall.py")

GROUPS = {
    "registry": ["reg"],
    "k3s_server": ["head"],
    "k3s_agent": ["work1", "work2"],
    "builder": ["head"],
    "control": ["head"],
    "monitoring": ["prom"],
}
ADDRESSES = {"reg": "192.0.2.1", "head": "192.0.2.2", "work1": "192.0.2.3", "work2": "192.0.2.4", "prom": "192.0.2.9"}
SITE = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]
NODES = SITE[1:]
PODS = "10.42.0.0/16"


def opened(name: str, groups: dict[str, list[str]] = GROUPS, **variables: Any) -> dict[str, list[str]]:
    """``ports/protocol`` → sources of a host."""
    hosts = {host: {"ansible_facts": {"default_ipv4": {"address": address}}, **variables} for host, address in ADDRESSES.items()}
    found = decisions.binder_firewall(name, groups, hosts)
    return {f"{one['ports']}/{one['protocol']}": one["sources"] for one in found["openings"]}


def test_the_registry_is_for_the_hosts_of_the_site() -> None:
    assert opened("reg") == {"5000/tcp": SITE}
    caches = [{"name": "hub", "port": 5443, "upstream": "https://images.example"}]
    several = opened("reg", site_registry_port=5001, registry_caches=caches, registry_metrics="192.0.2.1", firewall_nodes=["198.51.100.0/24"])
    assert several == {
        "5001/tcp": [*SITE, "198.51.100.0/24"],
        "5443/tcp": [*SITE, "198.51.100.0/24"],
        "9581-9583/tcp": ["192.0.2.9"],
    }


def test_nodes_are_for_each_other_and_for_their_pods() -> None:
    between = {"8472/udp": NODES, "10250/tcp": [PODS, *NODES]}
    assert opened("work1") == between
    assert opened("head") == between | {"6443/tcp": [PODS, *NODES, "controller"]}
    assert opened("work1", k3s_config={"flannel-backend": "wireguard-native"}).keys() == {"51820-51821/udp", "10250/tcp"}
    assert opened("work1", k3s_config={"flannel-backend": "host-gw"}).keys() == {"10250/tcp"}
    assert opened("work1", k3s_config={"cluster-cidr": "10.50.0.0/16"})["10250/tcp"] == ["10.50.0.0/16", *NODES]
    assert opened("work1", k3s_server_embedded_registry=True) == between | {"5001/tcp": NODES, "6443/tcp": NODES}


def test_the_database_is_for_control_hosts_and_whom_its_rules_name() -> None:
    assert opened("reg", {"database": ["reg"], "control": ["head"]}) == {"5432/tcp": ["192.0.2.2"]}
    assert opened("reg", {"database": ["reg"], "control": ["reg"]}) == {}
    named = opened("reg", {"database": ["reg"], "control": ["reg"]}, site_database_port=5433, postgresql_clients=["198.51.100.1"])
    assert named == {"5433/tcp": ["192.0.2.1", "198.51.100.1"]}


def test_etcd_is_for_servers_where_there_are_several() -> None:
    several = GROUPS | {"k3s_server": ["head", "work1", "work2"], "k3s_agent": []}
    assert opened("head", several)["2379-2380/tcp"] == NODES
    assert "2379-2380/tcp" not in opened("head")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {}),
        ({"binder_settings": {"listen": {"host": "127.0.0.1", "port": 9000}}}, {}),
        ({"binder_settings": {"listen": {"host": "0.0.0.0", "port": 9000}}}, {"9000/tcp": ["anyone"]}),  # noqa: S104 - in a setting
        ({"binder_host": "b.example"}, {"443/tcp": ["anyone"], "80/tcp": ["anyone"]}),
        ({"binder_host": "b.example", "binder_https_port": 8443, "binder_http_port": 0}, {"8443/tcp": ["anyone"]}),
        (
            {"binder_host": "b.example", "firewall_people": ["198.51.100.0/24"]},
            {"443/tcp": ["192.0.2.9", "198.51.100.0/24"], "80/tcp": ["198.51.100.0/24"]},
        ),
        (
            {"binder_host": "b.example", "firewall_people": ["198.51.100.0/24"], "binder_acme": {"directory": "https://ca.example"}},
            {"443/tcp": ["192.0.2.9", "198.51.100.0/24"], "80/tcp": ["anyone"]},
        ),
    ],
)
def test_the_public_port_is_for_people(variables: dict[str, Any], expected: dict[str, list[str]]) -> None:
    assert opened("head", {"control": ["head"], "monitoring": ["prom"]}, **variables) == expected


def test_a_builder_is_for_the_control_host_alone() -> None:
    elsewhere = GROUPS | {"builder": ["reg", "head"]}
    assert opened("reg", elsewhere, builder_port=9592)["9592/tcp"] == ["192.0.2.2"]
    assert "8592/tcp" in opened("reg", elsewhere)
    assert "8592/tcp" not in opened("head", elsewhere)


def test_what_containers_send_is_passed_on() -> None:
    hosts = {name: {"ansible_host": address} for name, address in ADDRESSES.items()}
    found = {name: decisions.binder_firewall(name, GROUPS, hosts) for name in ("reg", "head", "work1")}
    assert {name: (one["trusted"], one["forwarded"]) for name, one in found.items()} == {
        "reg": ([], []),
        "head": ([PODS, "10.43.0.0/16"], [PODS, "10.213.0.0/16"]),
        "work1": ([PODS, "10.43.0.0/16"], [PODS]),
    }


def test_a_host_is_known_by_what_others_see_of_it() -> None:
    host = {
        "ansible_host": "192.0.2.7",
        "ansible_facts": {
            "default_ipv4": {"address": "192.0.2.8"},
            "default_ipv6": {"address": "fe80::1"},
            "all_ipv4_addresses": ["192.0.2.8", "10.42.0.1"],
        },
        "k3s_config": {"node-ip": "192.0.2.9,2001:db8::9"},
        "firewall_addresses": ["198.51.100.0/30"],
    }
    assert decisions.binder_addresses("one", {"one": host}) == ["192.0.2.7", "192.0.2.8", "192.0.2.9", "198.51.100.0/30", "2001:db8::9"]
    with pytest.raises(AnsibleFilterError, match=r"Nobody knows the address of nowhere\.invalid"):
        decisions.binder_addresses("nowhere.invalid", {"nowhere.invalid": {}})
    with pytest.raises(AnsibleFilterError, match="campus is no address"):
        decisions.binder_addresses("one", {"one": {"firewall_addresses": ["campus"]}})


def test_people_are_told_the_same() -> None:
    assert decisions.binder_ports("head", GROUPS, {"binder_host": "b.example"}) == [
        "6443/tcp (API) to nodes, control, pods, the controller",
        "10250/tcp (kubelet) to nodes, pods",
        "8472/udp (pods' network) to nodes",
        "443/tcp (HTTPS) to people, monitoring",
        "80/tcp (HTTP) to people",
    ]
    assert decisions.binder_ports("reg", GROUPS, {}) == ["5000/tcp (registry) to the site's hosts"]


def test_ports_are_those_of_the_roles() -> None:
    defaults: dict[str, Any] = {}
    for role in ("site", "registry", "k3s", "k3s_server", "binder"):
        defaults |= yaml.safe_load((PLAYBOOKS / "roles" / role / "defaults" / "main.yml").read_text())
    plain = {name: value for name, value in defaults.items() if "{{" not in str(value)}
    for name, more in itertools.product(ADDRESSES, ({}, {"binder_host": "b.example"}, {"registry_metrics": "192.0.2.1"})):
        assert opened(name, **more) == opened(name, **plain | more)


def test_the_table_refuses_strangers_at_our_ports_only_and_never_at_ssh() -> None:
    openings = [
        {"protocol": "tcp", "ports": "22", "sources": ["192.0.2.1"]},
        {"protocol": "tcp", "ports": "443", "sources": ["anyone"]},
        {"protocol": "udp", "ports": "8472", "sources": ["192.0.2.1", "2001:db8::1", "192.0.2.0", "192.0.2.0/31", "controller"]},
        {"protocol": "tcp", "ports": "9100", "sources": []},
    ]
    lines = [line.strip() for line in module.ruleset(openings, "198.51.100.5", "22").splitlines()]
    rules = lines[lines.index("type filter hook input priority -5; policy accept;") + 1 :]
    assert rules[:-2] == [
        "ct state established,related accept",
        'iifname "lo" accept',
        "tcp dport 22 accept",
        "ip saddr { 192.0.2.1 } tcp dport 22 accept",
        "tcp dport 22 counter reject with tcp reset",
        "ip saddr { 192.0.2.0/31, 198.51.100.5 } udp dport 8472 accept",
        "ip6 saddr { 2001:db8::1 } udp dport 8472 accept",
        "udp dport 8472 counter reject with icmpx admin-prohibited",
        "tcp dport 9100 counter reject with tcp reset",
    ]


def test_ufw_is_told_in_its_own_words() -> None:
    asked = {
        "openings": [
            {"protocol": "tcp", "ports": "2379-2380", "sources": ["192.0.2.1", "controller"]},
            {"protocol": "tcp", "ports": "443", "sources": ["anyone"]},
        ],
        "forwarded": [PODS],
    }
    assert module.ufw_rules(asked, "") == [
        "allow from 192.0.2.1 to any port 2379:2380 proto tcp",
        "allow 443/tcp",
        f"route allow from {PODS}",
    ]


def test_a_firewalld_that_has_just_been_started_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter(["not running\n", None, "running\n"])

    def said(*command: str, given: str = "") -> str | None:
        assert not given
        return next(states) if command[0] == "firewall-cmd" else "active\n"

    monkeypatch.setattr(module, "said", said)
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    assert module.kind() == "firewalld"
    monkeypatch.setattr(module, "STARTING_SECONDS", -1)
    states = iter([None])
    with pytest.raises(module.Refused, match="journal"):
        module.kind()
    monkeypatch.setattr(module, "said", lambda *command: "Status: active" if command[0] == "ufw" else None)
    assert module.kind() == "ufw"
