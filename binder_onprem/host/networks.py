"""The engine's two networks, sessions' and builds'.

`up` calls it once podman's service answers. The bridges exist only while a container runs. Knows nothing of what the networks may reach: that
is `firewall`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from podman import PodmanClient

from binder_onprem.errors import EngineUnavailable, HostUnfit
from binder_onprem.host.firewall import bridges

if TYPE_CHECKING:
    from ipaddress import IPv4Network

    from binder_onprem.config import Config

SESSIONS: Final = "binder-sessions"
BUILDS: Final = "binder-builds"
TIMEOUT: Final = 30


def make(config: Config) -> None:
    """Make the networks; one that has other ranges than the configuration says is made anew.

    Raises:
        EngineUnavailable: Podman does not answer.
        HostUnfit: A network with other ranges is in use.
    """
    wanted = dict(zip((SESSIONS, BUILDS), ((config.session_network, bridges(config)[0]), (config.build_network, bridges(config)[1])), strict=True))
    with PodmanClient(base_url=f"unix://{config.podman_socket}", timeout=TIMEOUT) as podman:
        for name, (subnet, bridge) in wanted.items():
            try:
                _make(podman, name, subnet, bridge)
            except OSError as error:
                raise EngineUnavailable("Podman's service does not answer. Run `binder-onprem check`.") from error


def _make(podman: PodmanClient, name: str, subnet: IPv4Network, bridge: str) -> None:
    found = podman.api.get(f"/networks/{name}/json")
    if found.status_code == 200:  # noqa: PLR2004 - HTTP
        network: dict[str, Any] = found.json()
        if network.get("network_interface") == bridge and [entry["subnet"] for entry in network.get("subnets", [])] == [str(subnet)]:
            return
        if podman.api.delete(f"/networks/{name}").status_code != 200:  # noqa: PLR2004 - HTTP
            raise HostUnfit("network.pool or listen.port was changed while containers run. Run `binder-onprem down`, then `binder-onprem up`.")
    definition = {
        "name": name,
        "driver": "bridge",
        "network_interface": bridge,
        "subnets": [{"subnet": str(subnet), "gateway": str(subnet[1])}],
        "ipv6_enabled": False,
        "internal": False,
        "dns_enabled": False,  # the engine's name server would listen on the bridge, and know the neighbours
        "ipam_options": {"driver": "host-local"},
    }
    made = podman.api.post("/networks/create", data=json.dumps(definition))
    if made.status_code != 200:  # noqa: PLR2004 - HTTP
        raise HostUnfit(f"The network {subnet} cannot be made: perhaps something else uses the range. Choose another network.pool.")
