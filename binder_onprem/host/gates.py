"""The egress gates of a machine that builds: one for clones, by the rules of links, and one for builds. Opened by its daemon."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from binder_onprem.egress.gate import Gate, seats
from binder_onprem.errors import HostUnfit

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from binder_onprem.config import Config
    from binder_onprem.egress.addresses import AddressRules
    from binder_onprem.host.sources import Sources

logger = logging.getLogger(__name__)

SOCKET: Final = "gate.sock"


async def open_gates(config: Config, given: Sources, rules: AddressRules, stack: AsyncExitStack) -> None:
    """Open both, the builds' one with its two sides; `stack` closes them.

    Without its TCP side builds by Dockerfile have no network, and say so; everything else works.
    """
    clones, builds = gates(config, given, rules)
    await stack.enter_async_context(clones.serving(config.clone_gate_socket / SOCKET, None))
    unix = config.gate_socket / SOCKET
    try:
        await stack.enter_async_context(builds.serving(unix, (config.gate_address, config.gate_port)))
    except HostUnfit as error:
        logger.warning("gate without TCP", extra={"reason": error.message})
        await stack.enter_async_context(builds.serving(unix, None))


def gates(config: Config, given: Sources, rules: AddressRules) -> tuple[Gate, Gate]:
    """The gate of clones and that of builds."""
    room = seats(config.build.concurrency)
    clones = Gate(rules, (), proxy=given.proxy, no_proxy=given.no_proxy, connections=room)
    return clones, Gate(rules, given.hosts, config.network.builds == "mirrors", given.proxy, given.no_proxy, connections=room)
