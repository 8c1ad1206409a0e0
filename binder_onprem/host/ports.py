"""The loopback ports of a site, and which of them somebody else has. Asked by `up` and `check`; opens nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binder_onprem.host import probes

if TYPE_CHECKING:
    from collections.abc import Collection

    from binder_onprem.config import Config


def taken(config: Config, running: Collection[str]) -> tuple[int, ...]:
    """Ports that another program listens on.

    Args:
        config: The site.
        running: Names of the parts that run: theirs are their own.
    """
    host, building = config.listen.host, config.building_for
    wanted = (
        [("daemon", building.address, building.port)]
        if building
        else [
            ("proxy", host, config.listen.port),
            ("proxy", "127.0.0.1", config.proxy_api_port),
            ("hub", "127.0.0.1", config.hub_port),
            ("daemon", "127.0.0.1", config.daemon_port),
            *([] if config.remote else [("registry", "127.0.0.1", config.registry_port)]),
        ]
    )
    wanted += [("samples", "127.0.0.1", config.samples_port)] if config.samples else []
    wanted.append(("daemon", config.gate_address, config.gate_port))
    return tuple(port for part, address, port in wanted if part not in running and probes.held(address, port))


def advice(ports: Collection[int]) -> str:
    """What is said about them."""
    return f"Another program listens on port {', '.join(map(str, ports))}. Set listen.port to the first of seven free ports."
