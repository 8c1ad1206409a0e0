"""How much of a gate each container has: connections at once and new ones a second, so that no build takes what others need.

Used by `egress`. Every container has ids of its own, a block of 65536, which the kernel tells of whoever connects to a unix socket; on the TCP
side each has its own address. Neither can be chosen by what runs inside.
"""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

BLOCK: Final = 65536
"""Ids of one container."""
KNOWN: Final = 1024
"""Containers that are remembered; those without a connection are forgotten beyond that."""
SUBIDS: Final = Path("/etc/subuid")


@dataclass(slots=True)
class _Share:
    """One container's: connections now, the second that is counted and how many began in it."""

    open: int = 0
    since: float = 0.0
    begun: int = 0


class Shares:
    """The connections of a gate.

    Args:
        total: Of all containers at once.
        each: Of one container at once.
        rate: New ones of one container in a second.
        now: Seconds of a clock that never goes back.
    """

    def __init__(self, total: int, each: int, rate: int, now: Callable[[], float] = time.monotonic) -> None:
        self._total, self._each, self._rate, self._now = total, each, rate, now
        self._shares: dict[str, _Share] = {}
        self.open = 0

    def take(self, container: str) -> bool:
        """Whether the container may have one connection more; then it has it, until `give`."""
        share = self._shares.get(container) or self._new(container)
        now = self._now()
        if now - share.since >= 1:
            share.since, share.begun = now, 0
        share.begun += 1
        if self.open >= self._total or share.open >= self._each or share.begun > self._rate:
            return False
        share.open += 1
        self.open += 1
        return True

    def give(self, container: str) -> None:
        """One that was taken has ended."""
        self._shares[container].open -= 1
        self.open -= 1

    def _new(self, container: str) -> _Share:
        if len(self._shares) >= KNOWN:
            self._shares = {name: share for name, share in self._shares.items() if share.open}
        return self._shares.setdefault(container, _Share())


def first_id() -> int:
    """Where the blocks of containers begin; 0 where none are set aside."""
    try:
        lines = SUBIDS.read_text(encoding="ascii").splitlines()
        return next((int(line.split(":")[1]) for line in lines if line.startswith("containers:")), 0)
    except (OSError, ValueError, IndexError):
        return 0


def container(writer: asyncio.StreamWriter, first: int) -> str:
    """Which container is on the other side.

    Args:
        writer: The connection.
        first: From `first_id`.
    """
    end = writer.get_extra_info("socket")
    if end.family != socket.AF_UNIX:
        return str(writer.get_extra_info("peername", ("",))[0])
    _, user, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return f"block {(user - first) // BLOCK}"
