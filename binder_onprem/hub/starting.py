"""What both spawners share: a launch's options, a start's failure, its progress, and the wait until a server answers."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, ClassVar, Final

from jupyterhub.spawner import SpawnException

from binder_onprem.hub.session import Confinement, Options, options, patience

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


PULL_SECONDS: Final = 600.0
"""Until there is room and the image is there."""


class NotStarted(SpawnException):  # type: ignore[misc]
    """A start that failed, with the sentence for the person. The hub's event stream knows no status: it travels in the field for HTML."""

    def __init__(self, message: str, *, reason: str, status: int, log_message: str = "") -> None:
        super().__init__(message, reason=reason, log_message=log_message or message, status_code=status)
        self.jupyterhub_message = message
        self.jupyterhub_html_message = str(status)


class Said:
    """What a start says while it goes on; each sentence once."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._more = asyncio.Event()

    def say(self, message: str) -> None:
        """Tell it, unless it was the last thing told."""
        if self._said[-1:] != [message]:
            self._said.append(message)
            self._more.set()

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """As the hub streams them; never ends by itself."""
        told = 0
        while True:
            while told < len(self._said):
                yield {"progress": min(10 + 20 * told, 90), "message": self._said[told]}
                told += 1
            self._more.clear()
            await self._more.wait()


async def answers(address: str, port: int, base_url: str) -> bool:
    """Whether a session's server answers: a plain connection refused costs next to nothing, an HTTP client a millisecond of the hub each time."""
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        return False
    try:
        writer.write(f"GET {base_url}api HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        line = await asyncio.wait_for(reader.readline(), 10)
    except (OSError, ValueError, TimeoutError):
        return False
    finally:
        writer.close()
    return line.startswith(b"HTTP/1.1 200")


class Launched:
    """What a spawner of ours is beside JupyterHub's, before whose class it stands: one session of one launch, which gets nothing of the hub's."""

    site: ClassVar[Confinement]
    """What all sessions share. Set by `config_file`; not traits, because traitlets copies what is configured."""
    answer_timeout: ClassVar[float] = 60.0
    """Seconds from the container's start until its server must answer."""

    _starting: ClassVar[int] = 0
    """Servers that are being waited for now; thirty of them must not poll the processor away."""
    name: str
    user: Any
    user_options: Any
    server: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._said = Said()

    @property
    def chosen(self) -> Options:
        """The checked options. Raises ValueError."""
        return options(self.name or self.user.name, self.user_options, self.site)

    def get_env(self) -> dict[str, str]:
        """Nothing: what the hub would tell (its token, its address, this process's own environment) is not for sessions."""
        return {}

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """What `start` says while it goes on."""
        async for event in self._said.events():
            yield event

    def _say(self, message: str) -> None:
        self._said.say(message)

    def _begun(self) -> Options:
        """The options of a start that begins now, whose progress is a new one. Raises `NotStarted`."""
        self._said = Said()
        try:
            return self.chosen
        except ValueError as error:
            message = "This session cannot be started: its request does not hold."
            raise NotStarted(message, reason="options", status=400, log_message=str(error)) from None

    async def _answered(self, address: str, port: int, ended: Callable[[], Awaitable[NotStarted | None]], pause: float) -> None:
        """Wait until the server answers.

        Args:
            address: Where it listens.
            port: Same.
            ended: Notices at once when the container has ended, and says why.
            pause: Seconds between two looks, where few start.

        Raises:
            NotStarted: It has ended, or its time is over.
        """
        Launched._starting += 1
        clock, busiest = asyncio.get_running_loop().time, 0
        began = clock()
        try:
            while not await answers(address, port, self.server.base_url):
                if failure := await ended():
                    raise failure
                busiest = max(busiest, self._starting)
                if clock() - began > (seconds := patience(self.answer_timeout, busiest)):
                    message = f"The session's server did not answer within {seconds:g} seconds. Try again; its start script may hang."
                    raise NotStarted(message, reason="timeout", status=504)
                await asyncio.sleep(max(pause, 0.004 * self._starting))
        finally:
            Launched._starting -= 1


def exited(why: str, tail: str, *, advised: bool) -> NotStarted:
    """A start whose container has ended.

    Args:
        why: How.
        tail: What it said last.
        advised: Whether its start script may be at fault.
    """
    advice = ' A start script, or the ENTRYPOINT of a Dockerfile, must end with: exec "$@"' if advised else ""
    message = f"The session did not start: {why}.{advice}" + (f" It said last:\n{tail}" if tail else "")
    return NotStarted(message, reason="exited", status=502, log_message=why)


def readable(text: str) -> str:
    """What a container said, without control characters and colours."""
    lines = text.splitlines()
    return "\n".join("".join(filter(str.isprintable, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line))) for line in lines).strip()
