"""Which ports a host of a site needs open and for whom: what its groups need, as pure decisions on groups and variables of the inventory."""

from __future__ import annotations

import ipaddress
import socket
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible.errors import AnsibleFilterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Groups = dict[str, list[str]]

ANYONE = "anyone"
"""A source: no address is refused."""
CONTROLLER = "controller"
"""A source: where the connection that tasks run by comes from; the host knows."""
SERVERS = ("k3s_server",)
NODES = ("k3s_server", "k3s_agent")
HOSTS = (*NODES, "registry", "builder", "control", "database")
KUBERNETES = frozenset(NODES)
LISTEN = 8585
BUILDER = 8592
PODS = "10.42.0.0/16"
SERVICES = "10.43.0.0/16"
POOL = "10.213.0.0/16"
"""Of the Binder's own containers, where the settings name no other."""
KUBELET = "10250"
LISTED = {"nodes": "firewall_nodes", "clients": "postgresql_clients"}
"""Variables of the inventory that name further sources."""
FLANNEL = {"vxlan": ("udp", "8472"), "wireguard-native": ("udp", "51820-51821")}
"""What carries the pods' network from node to node; other kinds carry it in no port of the host's."""


class Need(NamedTuple):
    """A port, or several as ``first-last``, and who has to reach it: groups of hosts, or `ANYONE`, `CONTROLLER`, "people", "pods", "clients"."""

    what: str
    protocol: str
    ports: str
    who: tuple[str, ...]


def needs(name: str, groups: Groups, own: Mapping[str, Any]) -> list[Need]:
    """What a host needs open for others; ssh is not among it, as nothing here closes it."""
    member = {group for group in HOSTS if name in groups.get(group, [])}
    found: list[Need] = []
    if "registry" in member:
        found += _registry(own)
    if member & KUBERNETES:
        found += _node(own, server="k3s_server" in member, many=len(groups.get("k3s_server", [])) > 1)
    if "builder" in member and "control" not in member:
        found.append(Need("builds", "tcp", str(own.get("builder_port", BUILDER)), ("control",)))
    if "control" in member:
        found += _control(own)
    if "database" in member and (own.get("postgresql_clients") or set(groups.get("control", [])) - {name}):
        found.append(Need("database", "tcp", str(own.get("site_database_port", 5432)), ("control", "clients")))
    return found


def _registry(own: Mapping[str, Any]) -> Iterator[Need]:
    yield Need("registry", "tcp", str(own.get("site_registry_port", 5000)), (*HOSTS, "nodes"))
    caches = own.get("registry_caches") or []
    for cache in caches:
        yield Need(f"cache {cache['name']}", "tcp", str(cache["port"]), (*HOSTS, "nodes"))
    if not _loopback(str(own.get("registry_metrics") or "127.0.0.1")):
        first = int(own.get("registry_metrics_port", 9581))
        yield Need("registry's metrics", "tcp", f"{first}-{first + 1 + len(caches)}", ("monitoring",))


def _node(own: Mapping[str, Any], *, server: bool, many: bool) -> Iterator[Need]:
    config = own.get("k3s_config") or {}
    spegel = bool(own.get("k3s_server_embedded_registry"))
    api = {str(config.get("https-listen-port", 6443)), str(own.get("k3s_api_port", 6443))}
    if server:
        yield from (Need("API", "tcp", port, (*NODES, "nodes", "control", "pods", CONTROLLER)) for port in sorted(api))
    if server and many:
        yield Need("etcd", "tcp", "2379-2380", SERVERS)
    yield Need("kubelet", "tcp", KUBELET, (*NODES, "nodes", "pods"))
    carrier = FLANNEL.get(str(config.get("flannel-backend", "vxlan")))
    if carrier:
        yield Need("pods' network", *carrier, (*NODES, "nodes"))
    if spegel:
        # Nodes give each other images: each one's port of the API is its registry, too.
        yield Need("images from node to node", "tcp", "5001", NODES)
        yield from (Need("images from node to node", "tcp", port, NODES) for port in sorted(api))


def _control(own: Mapping[str, Any]) -> Iterator[Need]:
    listen = (own.get("binder_settings") or {}).get("listen") or {}
    if own.get("binder_host"):
        yield Need("HTTPS", "tcp", str(own.get("binder_https_port", 443)), ("people", "monitoring"))
        if port := int(own.get("binder_http_port", 80)):
            # An ACME server asks there, and from no address that is known.
            yield Need("HTTP", "tcp", str(port), (ANYONE,) if own.get("binder_acme") else ("people",))
    elif not _loopback(str(listen.get("host", "127.0.0.1"))):
        yield Need("Binder", "tcp", str(listen.get("port", LISTEN)), ("people", "monitoring"))


def binder_firewall(name: str, groups: Groups, hostvars: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a host's firewall is to let through.

    Args:
        name: The host.
        groups: Of the inventory.
        hostvars: Variables and facts of every host by name; role defaults count where one is missing.

    Returns:
        ``openings``: each with protocol, ports and sources (addresses, networks, `ANYONE`, `CONTROLLER`); ``trusted``: networks of pods and services
        of a node; ``forwarded``: networks of containers, whose packets the host passes on.

    Raises:
        AnsibleFilterError: Nobody knows the address of a host.
    """
    own = hostvars[name]
    sources: dict[tuple[str, str], set[str]] = defaultdict(set)
    trusted = _ranges(own) if any(name in groups.get(group, []) for group in NODES) else []
    for need in needs(name, groups, own):
        for who in need.who:
            sources[need.protocol, need.ports].update(_who(who, own, trusted, groups, hostvars))
    openings = [
        {"protocol": protocol, "ports": ports, "sources": [ANYONE] if ANYONE in found else sorted(found)}
        for (protocol, ports), found in sorted(sources.items())
    ]
    engine = any(name in groups.get(group, []) for group in ("builder", "control"))
    pool = ((own.get("binder_settings") or {}).get("network") or {}).get("pool") or POOL
    return {"openings": openings, "trusted": trusted, "forwarded": [*trusted[:-1], *([str(pool)] if engine else [])]}


def _who(who: str, own: Mapping[str, Any], trusted: list[str], groups: Groups, hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Addresses and networks of who has to reach a port."""
    if who == ANYONE:
        return [who]
    if who == CONTROLLER:
        return [who, *_listed(own.get("firewall_controllers"))]
    if who == "people":
        return _listed(own.get("firewall_people")) or [ANYONE]
    if who in LISTED:
        return _listed(own.get(LISTED[who]))
    if who == "pods":
        return trusted[:-1]
    return [address for host in groups.get(who, []) for address in binder_addresses(host, hostvars)]


def binder_addresses(name: str, hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Addresses that other hosts see when this one speaks to them.

    Those of its default routes, the one that the inventory gives, k3s's own, and ``firewall_addresses``: not all that it has, for bridges of
    containers come and go. Where none is known (the host does not answer), what its name resolves to on the controller.
    """
    own = hostvars[name]
    facts = own.get("ansible_facts") or {}
    given = [(facts.get(kind) or {}).get("address", "") for kind in ("default_ipv4", "default_ipv6")]
    given += str((own.get("k3s_config") or {}).get("node-ip", "")).split(",")
    given += [str(own.get("ansible_host", "")), *_listed(own.get("firewall_addresses"))]
    found = {address for address in given if _usable(address)} or set(_resolved(str(own.get("ansible_host") or name)))
    if not found:
        raise AnsibleFilterError(f"Nobody knows the address of {name}: give it firewall_addresses in the inventory, or its name in DNS.")
    return sorted(found)


def _usable(text: str) -> bool:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return False
    return not (network.is_loopback or network.is_link_local or network.is_unspecified or network.is_multicast)


def _resolved(name: str) -> list[str]:
    with suppress(OSError):
        return [str(entry[4][0]) for entry in socket.getaddrinfo(name, None) if _usable(str(entry[4][0]))]
    return []


def _listed(given: Any) -> list[str]:
    """A list of networks from the inventory; what is none is said."""
    found = [str(one) for one in given or []]
    for one in found:
        try:
            ipaddress.ip_network(one)
        except ValueError as error:
            raise AnsibleFilterError(f"{one} is no address and no network, as firewall_people and the like have them: {error}") from error
    return found


def _ranges(own: Mapping[str, Any]) -> list[str]:
    """Networks of pods, then the one of services; of k3s with two kinds of addresses, both of pods and the first of services."""
    config = own.get("k3s_config") or {}
    return [*str(config.get("cluster-cidr", PODS)).split(","), str(config.get("service-cidr", SERVICES)).split(",")[0]]


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def binder_ports(name: str, groups: Groups, own: Mapping[str, Any]) -> list[str]:
    """The same for people: ``5000/tcp (registry) to the site's hosts``."""
    names = {ANYONE: "anyone", CONTROLLER: "the controller", "people": "people", "pods": "pods", "monitoring": "monitoring", "nodes": "nodes"}
    names["clients"] = "whom postgresql_clients names"

    def whom(who: tuple[str, ...]) -> str:
        if set(HOSTS) <= set(who):
            return "the site's hosts"
        spoken = ["nodes" if one in NODES and set(NODES) <= set(who) else names.get(one, one.replace("k3s_server", "servers")) for one in who]
        return ", ".join(dict.fromkeys(spoken))

    return [f"{need.ports}/{need.protocol} ({need.what}) to {whom(need.who)}" for need in needs(name, groups, own)]


class FilterModule:
    """What templates may use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"binder_firewall": binder_firewall, "binder_ports": binder_ports}
