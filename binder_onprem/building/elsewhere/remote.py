"""A builder on another machine, as this Binder speaks to it: over HTTPS, with the token that it takes orders by.

Called by `dispatch`. What the builder asks is answered here: the push is recorded, credentials are looked up, signing keys stay on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiohttp

from binder_onprem.building.elsewhere import wire
from binder_onprem.building.elsewhere.dispatch import Away
from binder_onprem.building.elsewhere.wire import Question
from binder_onprem.building.supply.bill import Part
from binder_onprem.errors import BinderError, BuildFailed, EngineUnavailable, HostUnfit
from binder_onprem.events import Phase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from binder_onprem.config import BuilderHost
    from binder_onprem.credential import Credential
    from binder_onprem.interfaces import BuildLog
    from binder_onprem.model import BuildRecord

logger = logging.getLogger(__name__)

SECONDS: Final = 10.0
"""For a connection, and for each question that is answered at once."""
OURS: Final = "Something went wrong on the machine that builds, not in the repository. Tell the administrator."


class Papers(Protocol):
    """Signs, and has looked at, what was listed elsewhere (`supply.chain.Chain`)."""

    @property
    def lists(self) -> bool:
        """Whether what is installed in an image is listed."""
        ...

    async def certify(self, build: BuildRecord, buildpack: str, digest: str, found: Sequence[Part] | None, log: BuildLog) -> None:
        """As `attest`, with what was `found`; None: it could not be listed."""
        ...


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What builders ask for.

    Attributes:
        used: Told of a layer of an environment (``…@sha256:…``) that is in use.
        replaced: Told of an image and of the one that has taken its place.
        credential: Id → what opens a private repository; None when it is gone.
    """

    used: Callable[[str], Awaitable[None]]
    replaced: Callable[[str, str], Awaitable[None]]
    credential: Callable[[str], Awaitable[Credential | None]]


class RemoteBuilder:
    """Satisfies `interfaces.Builder`.

    Args:
        settings: Where it is, and what it is trusted by.
        session: Speaks HTTP; without proxy.
        made: What builds stand on.
        knowledge: Answers what it asks.
        papers: Looks at and signs images.
    """

    def __init__(self, settings: BuilderHost, session: aiohttp.ClientSession, made: wire.Made, knowledge: Knowledge, papers: Papers) -> None:
        self.url = settings.url
        self.places = 2
        self._settings = settings
        self._session = session
        self._made = made
        self._knowledge = knowledge
        self._papers = papers

    async def build(self, build: BuildRecord, log: BuildLog, pushing: Callable[[], Awaitable[None]]) -> str:
        """See `interfaces.Builder`; `Away` when it cannot be reached or is lost on the way."""
        await self.state()
        with self._reached():
            async with self._session.ws_connect(
                f"{self.url}/build", ssl=self._trust(), headers=self._headers(), heartbeat=wire.HEARTBEAT, max_msg_size=wire.BYTES
            ) as socket:
                await socket.send_str(wire.order(wire.Order(build, self._made, self._papers.lists)))
                return await _Conversation(socket, build, log, pushing, self._knowledge, self._papers).result()
        raise AssertionError("the block returns or raises")

    async def sweep(self, running: frozenset[str]) -> None:
        """See `interfaces.Builder`."""
        with self._reached():
            await self._asked("POST", "sweep", {"running": sorted(running)})

    async def state(self) -> wire.State:
        """What it says of itself.

        Raises:
            Away: It cannot be reached, refuses the token, or has another release than this machine.
        """
        with self._reached():
            found = wire.read_state(await self._asked("GET", "", None))
            if (found.form, found.code) != (wire.FORM, self._made.code):
                raise Away(f"{self._settings.name} has another release, or other settings of builds, than this machine. Run `deploy site`.")
            self.places = max(1, found.places)
            return found
        raise AssertionError("the block returns or raises")

    async def _asked(self, method: str, path: str, body: Any) -> bytes:
        limit = aiohttp.ClientTimeout(SECONDS)
        async with self._session.request(
            method, f"{self.url}/{path}", ssl=self._trust(), headers=self._headers(), json=body, timeout=limit, allow_redirects=False
        ) as answer:
            answer.raise_for_status()
            return await answer.content.read(wire.BYTES)

    @contextlib.contextmanager
    def _reached(self) -> Any:
        name = self._settings.name
        try:
            yield
        except aiohttp.ClientResponseError as error:
            why = "refuses the token of builders.token_file" if error.status in (401, 403) else f"answers with HTTP status {error.status}"
            raise Away(f"{name} {why}.") from error
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise Away(f"{name} shows a certificate that is not trusted, or none.") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Away(f"{name} does not answer.") from error

    def _trust(self) -> ssl.SSLContext:
        # Read each time: a renewed one holds without a restart.
        file = self._settings.ca_file
        try:
            return ssl.create_default_context(cafile=str(file) if file else None)
        except (OSError, ssl.SSLError) as error:
            raise EngineUnavailable(f"builders.ca_file: {file} cannot be read.") from error

    def _headers(self) -> dict[str, str]:
        try:
            return {"Authorization": f"Bearer {self._settings.token_file.read_text(encoding='ascii').strip()}"}
        except (OSError, UnicodeDecodeError) as error:
            raise HostUnfit(f"builders.token_file: {self._settings.token_file} cannot be read.") from error


class _Conversation:
    """One build's websocket."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it stands between
        self,
        socket: aiohttp.ClientWebSocketResponse,
        build: BuildRecord,
        log: BuildLog,
        pushing: Callable[[], Awaitable[None]],
        knowledge: Knowledge,
        papers: Papers,
    ) -> None:
        self._socket, self._build, self._log, self._pushing = socket, build, log, pushing
        self._knowledge, self._papers = knowledge, papers

    async def result(self) -> str:
        """Listen until the end. An answer may take its time, and signs of life go on meanwhile."""
        answering: set[asyncio.Task[None]] = set()
        try:
            async for found in self._messages():
                if "say" in found:
                    await self._say(found["say"])
                elif "ask" in found:
                    task = asyncio.create_task(self._answer(found))
                    answering.add(task)
                    task.add_done_callback(answering.discard)
                else:
                    return self._ended(found)
        finally:
            for task in answering:
                task.cancel()
            if answering:
                await asyncio.wait(answering)
        raise Away("The machine that builds was lost.")

    async def _messages(self) -> AsyncIterator[dict[str, Any]]:
        async for received in self._socket:
            if received.type is aiohttp.WSMsgType.TEXT:
                yield wire.message(received.data)

    async def _say(self, words: Any) -> None:
        try:
            phase, text = Phase(words[0]), str(words[1])
        except (ValueError, LookupError, TypeError):
            raise EngineUnavailable(wire.NONSENSE) from None
        await self._log.write(phase, text)

    def _ended(self, found: dict[str, Any]) -> str:
        if isinstance(found.get("done"), str):
            return str(found["done"])
        failed = found.get("failed")
        raise (wire.raised(failed) if isinstance(failed, dict) else None) or BuildFailed(OURS)

    async def _answer(self, asked: dict[str, Any]) -> None:
        try:
            answer = {"value": await self._found(asked)}
        except BinderError as error:
            answer = {"failed": wire.failure(error)}
        except Exception:
            logger.exception("a builder's question", extra={"build": self._build.id, "question": str(asked.get("ask"))[:40]})
            answer = {"failed": wire.failure(EngineUnavailable("The Binder could not answer what the builder asked. Tell the administrator."))}
        with contextlib.suppress(ConnectionError):
            await self._socket.send_str(json.dumps({"answer": asked.get("number"), **answer}))

    async def _found(self, asked: dict[str, Any]) -> Any:
        try:
            question, said = Question(asked["ask"]), asked["said"]
            match question:
                case Question.PUSHING:
                    return await self._pushing()
                case Question.USED:
                    return await self._knowledge.used(str(said["reference"]))
                case Question.REPLACED:
                    return await self._knowledge.replaced(str(said["old"]), str(said["new"]))
                case Question.CREDENTIAL:
                    # That of its own build alone: a builder is no door to all that people have stored.
                    return wire.credential(await self._knowledge.credential(self._build.repo.access) if self._build.repo.access else None)
                case Question.ATTEST:
                    found = None if said["found"] is None else tuple(Part(*map(str, part)) for part in said["found"])
                    return await self._papers.certify(self._build, str(said["buildpack"]), str(said["digest"]), found, self._log)
        except (LookupError, TypeError, ValueError):
            raise EngineUnavailable(wire.NONSENSE) from None
