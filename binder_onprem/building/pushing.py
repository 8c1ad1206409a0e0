"""The end of a build, as both ways of building go through it. Pure value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def _nothing(_digest: str) -> None:
    """No papers."""


@dataclass(frozen=True, slots=True)
class Pushing:
    """What is to be called.

    Attributes:
        begins: Before anything is pushed; records it.
        attest: With the digest of what is in the registry and on this machine, before it gets the name by which launches find it. What it
            raises ends the build.
    """

    begins: Callable[[], Awaitable[None]]
    attest: Callable[[str], Awaitable[None]] = _nothing
