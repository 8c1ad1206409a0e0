"""What is of a site among the rules of podman's helper; the listing by iptables is a real one, that by nftables is written after its own."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from binder_onprem.host.forwarding import addresses, rules, stale

IPTABLES = """\
table ip nat { # handle 10
	chain POSTROUTING { # handle 4
		type nat hook postrouting priority srcnat; policy accept;
		counter packets 30321 bytes 1819726 jump NETAVARK-HOSTPORT-MASQ # handle 11
		ip saddr 10.245.0.0/17 counter packets 21 bytes 1260 jump NETAVARK-CD79BD619DEB7 # handle 23
		ip saddr 10.245.0.9 counter packets 21 bytes 1260 accept # handle 24
	}

	chain NETAVARK-HOSTPORT-DNAT { # handle 8
		tcp dport 40581  counter packets 1222 bytes 73320 jump NETAVARK-DN-CD79BD619DEB7 # handle 36
		tcp dport 40582  counter packets 1222 bytes 73320 jump NETAVARK-DN-CD79BD619DEB7 # handle 37
		tcp dport 40583  counter packets 1222 bytes 73320 jump NETAVARK-DN-CD79BD619DEB7 # handle 38
	}

	chain NETAVARK-DN-CD79BD619DEB7 { # handle 32
		ip saddr 10.245.0.0/17 ip daddr 127.213.118.157 tcp dport 40581 counter packets 0 bytes 0 jump NETAVARK-HOSTPORT-SETMARK # handle 33
		ip saddr 127.0.0.1 ip daddr 127.213.118.157 tcp dport 40581 counter packets 2 bytes 120 jump NETAVARK-HOSTPORT-SETMARK # handle 34
		ip daddr 127.213.118.157 tcp dport 40581 counter packets 1222 bytes 73320 dnat to 10.245.0.2:8888 # handle 35
		ip daddr 127.213.118.158 tcp dport 40582 counter packets 1222 bytes 73320 dnat to 10.246.0.2:8888 # handle 41
		ip daddr 127.213.118.159 tcp dport 40583 counter packets 1222 bytes 73320 dnat to 10.245.0.3:8888 # handle 42
		ip daddr 127.213.118.160 tcp dport 40583 counter packets 1222 bytes 73320 dnat to 10.246.0.3:8888 # handle 43
	}
}
"""
NFTABLES = """\
table inet netavark { # handle 4
	chain NETAVARK-HOSTPORT-DNAT { # handle 9
		ip daddr 127.213.0.7 tcp dport 40581 jump nv_a1_10_245_0_0_nm17_dnat # handle 30
		ip daddr 127.213.0.8 tcp dport 40581 jump nv_a1_10_246_0_0_nm17_dnat # handle 31
	}

	chain nv_a1_10_245_0_0_nm17_dnat { # handle 20
		ip saddr 10.245.0.0/17 ip daddr 127.213.0.7 tcp dport 40581 jump NETAVARK-HOSTPORT-SETMARK # handle 21
		ip daddr 127.213.0.7 tcp dport 40581 dnat ip to 10.245.0.2:8888 # handle 22
	}
}
"""


@pytest.mark.parametrize(
    ("listed", "gone"),
    [
        # 38 stays: another site's container has that port at another address.
        (IPTABLES, ["23", "36", "33", "34", "35", "42"]),
        # By nftables the way has the address, and each network its own chain.
        (NFTABLES, ["30", "21", "22"]),
        ("", []),
    ],
)
def test_rules_of_the_range_go_and_the_ways_to_them_and_no_others(listed: str, gone: list[str]) -> None:
    assert [rule.handle for rule in stale(tuple(rules(listed)), IPv4Network("10.245.0.0/16"))] == gone


def test_links_without_an_address_are_no_stumbling_block() -> None:
    listed = '[{"ifname":"lo","addr_info":[{}]},{},{"addr_info":[{"family":"inet","local":"10.213.0.5","prefixlen":17},{"prefixlen":8}]}]'
    assert [str(address) for address in addresses(listed)] == ["10.213.0.5"]
    assert [addresses(nonsense) for nonsense in ("", "[]", "x")] == [[], [], []]
