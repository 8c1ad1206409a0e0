"""Hosts and a cluster for the tests of this directory, or the reason why there are none here. Beside others these tests come last."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster import artefacts, kube, proxy
from tests.cluster import hosts as servers
from tests.real import tlsregistry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.hosts import Hosts
    from tests.cluster.kube import Cluster

REGISTRY = "registry.test"
HERE = Path(__file__).parent


def needed() -> str:
    """Why these tests cannot run here; "" if they can."""
    if os.geteuid() != 0:
        return "hosts are privileged containers, which need root"
    missing = [name for name in ("podman", "mmdebstrap", "ssh", "skopeo", "docker-registry") if not shutil.which(name)]
    return f"not installed: {', '.join(missing)}" if missing else artefacts.needed()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if HERE in item.path.parents]
    others = [item for item in items if HERE not in item.path.parents]
    items[:] = [*others, *here]
    if here and (reason := needed()):
        for item in here:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def hosts() -> Iterator[Hosts]:
    """An engine that hosts are made on; those see the artefacts."""
    with servers.running({artefacts.directory(): kube.MOUNTED}) as running:
        yield running


@pytest.fixture(scope="module")
def campus_proxy() -> Iterator[proxy.Proxy]:
    """The way outside for the hosts of a module that are told of it."""
    with proxy.running() as running:
        yield running


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tlsregistry.TlsRegistry]:
    """One with TLS by a CA of its own and an account, at ``registry.test`` for hosts."""
    with tlsregistry.running(tmp_path_factory.mktemp("registry"), REGISTRY, address="0.0.0.0") as running:  # noqa: S104 - hosts are on a bridge
        yield running


@pytest.fixture(scope="session")
def cluster(hosts: Hosts, registry: tlsregistry.TlsRegistry) -> Cluster:
    """One server and two agents, put up by hand; every node pulls from the registry with its account."""
    names = ("server", "agent1", "agent2")
    hosts.start(*names)
    user, _, password = tlsregistry.ACCOUNT.partition(":")
    place = f"{REGISTRY}:{registry.port}"
    for name in names:
        hosts.run(name, f"echo {hosts.gateway} {REGISTRY} >> /etc/hosts")
        hosts.write(name, "/etc/rancher/k3s/tls/site-ca.pem", registry.ca.read_bytes())
        tls, auth = "{ca_file: /etc/rancher/k3s/tls/site-ca.pem}", f"{{username: {user}, password: {password}}}"
        text = f'mirrors: {{"{place}": {{}}}}\nconfigs:\n  "{place}":\n    auth: {auth}\n    tls: {tls}\n'
        hosts.write(name, "/etc/rancher/k3s/registries.yaml", text)
    return kube.up(hosts, *names)
