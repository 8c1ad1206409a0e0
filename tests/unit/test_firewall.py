"""The rules as text, and which names become which addresses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.config import Config
from binder_onprem.host import firewall
from binder_onprem.host.sources import Sources

if TYPE_CHECKING:
    from pathlib import Path

REACH = firewall.Reach(
    resolvers=(IPv4Address("198.51.100.53"),),
    mirrors=frozenset({(IPv4Address("198.51.100.7"), 443)}),
    allowed=(IPv4Network("10.9.0.0/16"),),
)


def site(tmp_path: Path, **network: Any) -> Config:
    return Config.model_validate({"home": tmp_path, "listen": {"port": 4000}, "network": {"pool": "10.77.0.0/16", **network}})


def sources(*hosts: tuple[str, int], proxy: str | None = None) -> Sources:
    return Sources(b"", None, "", None, None, None, proxy, (), frozenset(hosts))


def chain(text: str, name: str) -> str:
    return text.split(f"chain {name} {{", 1)[1].split("}\n", 1)[0]


def test_private_is_refused_before_the_rest_is_let_pass(tmp_path: Path) -> None:
    session = chain(firewall.ruleset(site(tmp_path), REACH), "session")
    assert session.index("@mirrors accept") < session.index("@private jump refuse") < session.rindex("accept")


@pytest.mark.parametrize(
    ("sessions", "passes"), [("public", ["@resolvers", "@mirrors", "@allowed"]), ("mirrors", ["@resolvers", "@mirrors"]), ("none", [])]
)
def test_what_sessions_reach(tmp_path: Path, sessions: str, passes: list[str]) -> None:
    session = chain(firewall.ruleset(site(tmp_path, sessions=sessions), REACH), "session")
    assert all(name in session for name in passes)
    assert session.rstrip().endswith("accept" if sessions == "public" else "jump refuse")
    assert ("ct state new" in session) is False


def test_builds_reach_the_gate_only(tmp_path: Path) -> None:
    text = firewall.ruleset(site(tmp_path), REACH)
    accepted = [line for line in chain(text, "input").splitlines() if "bbuild4000" in line and line.endswith(" accept") and "established" not in line]
    assert [line.strip() for line in accepted] == ['iifname "bbuild4000" ip daddr 10.77.255.254 tcp dport 4006 accept']
    assert 'iifname "bbuild4000" ct state new jump refuse' in chain(text, "forward")


@pytest.mark.parametrize(("by_bridge", "rule"), [(True, 'meta ibrname "bsess4000" drop'), (False, "ip saddr 10.77.0.0/17 drop")])
def test_neighbours(tmp_path: Path, rule: str, *, by_bridge: bool) -> None:
    assert rule in firewall.ruleset(site(tmp_path), REACH, by_bridge=by_bridge).split("table bridge")[-1]


def test_empty_sets_are_still_valid(tmp_path: Path) -> None:
    assert "elements = {  }" not in firewall.ruleset(site(tmp_path), firewall.Reach())


def test_names_become_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"m.example": ["198.51.100.1"], "git.example": ["10.5.5.5"], "proxy.example": ["10.6.6.6"], "loop.example": ["127.0.0.1"]}
    monkeypatch.setattr(firewall, "_lookup", lambda hosts: {host: [IPv4Address(text) for text in table[host]] for host in hosts if host in table})
    config = site(tmp_path, allow=["127.0.0.0/8", "10.5.5.5", "10.4.0.0/16", "git.example", "gone.example"])
    found = firewall.reach(config, sources(("m.example", 443), ("loop.example", 1), proxy="http://proxy.example:3128"))
    assert found.mirrors == {(IPv4Address("198.51.100.1"), 443), (IPv4Address("10.6.6.6"), 3128)}
    assert found.allowed == (IPv4Network("10.4.0.0/16"), IPv4Network("10.5.5.5/32"))


def test_only_mirrors_means_no_proxy_and_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall, "_lookup", lambda hosts: {host: [IPv4Address("10.6.6.6")] for host in hosts})
    found = firewall.reach(site(tmp_path, sessions="mirrors", allow=["10.4.0.0/16"]), sources(proxy="http://proxy.example:3128"))
    assert found.mirrors == frozenset()
    assert found.allowed == ()


def test_addresses_are_remembered_for_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules: list[str] = []
    answers = iter(["198.51.100.1", "198.51.100.2", "198.51.100.3"])
    monkeypatch.setattr(firewall, "_nft", lambda text: rules.append(text) or True)
    monkeypatch.setattr(firewall, "_let_gate_in", lambda _: None)
    monkeypatch.setattr(firewall, "_lookup", lambda _: {"m.example": [IPv4Address(next(answers))]})
    wall = firewall.Firewall(site(tmp_path), sources(("m.example", 443)))
    for now in (0.0, 1800.0, 3700.0):
        wall.put(now)
    assert "198.51.100.1 . 443, 198.51.100.2 . 443" in rules[1]
    assert "198.51.100.1 . 443" not in rules[2]
    assert "198.51.100.2 . 443, 198.51.100.3 . 443" in rules[2]


def test_resolvers_leave_loopback_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("nameserver 127.0.0.53\nnameserver ::1\nsearch x\n")
    second.write_text("nameserver 10.1.1.1\n# nameserver 10.1.1.2\n")
    monkeypatch.setattr(firewall, "RESOLV", (first, second))
    assert firewall.resolvers() == (IPv4Address("10.1.1.1"),)
    second.unlink()
    assert firewall.resolvers() == ()
