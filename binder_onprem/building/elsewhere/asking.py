"""What a build on this machine needs of the Binder that has ordered it, asked over the build's websocket. The other end is `remote`.

It is the build's log, what is called when the push starts, what opens a private repository, and what looks at the image.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import astuple
from typing import TYPE_CHECKING, Any, Protocol

from binder_onprem.building.elsewhere import wire
from binder_onprem.building.elsewhere.wire import Question
from binder_onprem.errors import BinderError, EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from binder_onprem.building.supply.bill import Part
    from binder_onprem.building.supply.installed import Installed
    from binder_onprem.credential import Credential
    from binder_onprem.events import Phase
    from binder_onprem.model import BuildRecord
    from binder_onprem.plan import Plan


class Socket(Protocol):
    """The websocket's sending side."""

    def send_str(self, data: str) -> Awaitable[None]:
        """Send a text; waits while the other side takes nothing."""
        ...


class Asking:
    """One build's.

    Args:
        socket: Sends.
        listed: Whether what is in the image is to be listed.
    """

    def __init__(self, socket: Socket, *, listed: bool) -> None:
        self._socket = socket
        self._listed = listed
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0

    async def write(self, phase: Phase, message: str) -> None:
        """See `interfaces.BuildLog`."""
        await self._sent({"say": [phase.value, message]})

    async def pushing(self) -> None:
        """The push starts. Returns when that is recorded."""
        await self._asked(Question.PUSHING)

    async def used(self, reference: str) -> None:
        """A layer of an environment is in use."""
        await self._asked(Question.USED, reference=reference)

    async def replaced(self, old: str, new: str) -> None:
        """An image has taken another one's place."""
        await self._asked(Question.REPLACED, old=old, new=new)

    async def credential(self) -> Credential | None:
        """What opens this build's private repository, as it is now."""
        return wire.read_credential(await self._asked(Question.CREDENTIAL))

    async def attest(self, installed: Installed, build: BuildRecord, plan: Plan, digest: str) -> None:
        """Have the image looked at and signed. Raises what ends the build."""
        found = await self._found(installed, build, digest) if self._listed else []
        await self._asked(Question.ATTEST, buildpack=plan.buildpack, digest=digest, found=found)

    async def _found(self, installed: Installed, build: BuildRecord, digest: str) -> list[tuple[str, ...]] | None:
        try:
            parts: tuple[Part, ...] = await installed.read(build.id, build.image.at(digest))
        except BinderError:
            return None  # the other side decides what follows from that
        return [astuple(part) for part in parts]

    def heard(self, answer: dict[str, Any]) -> None:
        """An answer has come; one to nothing that was asked is none."""
        number, failed = answer.get("answer"), answer.get("failed")
        waiting = self._waiting.pop(number, None) if isinstance(number, int) else None
        if waiting is None or waiting.done():
            return
        if failed is None:
            waiting.set_result(answer.get("value"))
        else:
            waiting.set_exception((wire.raised(failed) if isinstance(failed, dict) else None) or EngineUnavailable(wire.NONSENSE))

    async def _asked(self, question: Question, **said: Any) -> Any:
        self._number += 1
        number = self._number
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._sent({"ask": question.value, "number": number, "said": said})
            return await waiting
        finally:
            self._waiting.pop(number, None)

    async def _sent(self, value: dict[str, Any]) -> None:
        await self._socket.send_str(json.dumps(value))
