"""What must stand before any container runs: the gate's address and the firewall.

Run by ``python -m binder_onprem.host.ground`` at boot and by `up` before it starts anything.
The address lies on loopback, so it is there without any container (a bridge is not). Never touches the engine.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from binder_onprem import config as configuration
from binder_onprem.errors import HostUnfit
from binder_onprem.host import forwarding, sources
from binder_onprem.host.firewall import Firewall, bridges, remove, standing

if TYPE_CHECKING:
    from binder_onprem.config import Config


_TIMEOUT: Final = 30


def lay(config: Config) -> None:
    """Put address and rules up, in place of those that are there. Raises `HostUnfit`."""
    put_gate_address(config)
    Firewall(config, sources.read(config)).put()


def lies(config: Config) -> bool:
    """Whether both are there."""
    return gate_address_there(config) and standing(config)


def take_away(config: Config) -> None:
    """Remove both, and what an engine which could not clear up has left.

    Its bridges' addresses would keep the next networks from being made, its rules would lead ports to containers that are not meant.
    """
    remove(config)
    forwarding.clear(config)
    remove_gate_address(config)
    for bridge in bridges(config):
        _ip("link", "del", bridge)


def put_gate_address(config: Config) -> None:
    """Put the gate's address on loopback; there already is fine.

    Raises:
        HostUnfit: Not root, or no ``ip``.
    """
    if not _ip("addr", "replace", f"{config.gate_address}/32", "dev", "lo", "noprefixroute"):
        raise HostUnfit("The gate's address cannot be put on the loopback interface. Run as root, with the package iproute2 installed.")


def remove_gate_address(config: Config) -> None:
    """Take it away; absent is fine."""
    _ip("addr", "del", f"{config.gate_address}/32", "dev", "lo")


def gate_address_there(config: Config) -> bool:
    """Whether it is there."""
    done = subprocess.run(("ip", "-4", "-o", "addr", "show", "dev", "lo"), capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    return f" {config.gate_address}/32 " in done.stdout


def _ip(*arguments: str) -> bool:
    try:
        return subprocess.run(("ip", *arguments), capture_output=True, timeout=_TIMEOUT, check=False, stdin=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    lay(configuration.load())
