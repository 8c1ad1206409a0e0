"""Sends events to the receivers that the site has named: signed, in order, again until they arrive or are put aside. Run by the daemon.

What is to be sent lies in the outbox until the receiver has answered with 2xx, so a process that is killed sends it once more: receivers tell
repetitions by `webhook-id`. Signed as the Standard Webhooks specification says: HMAC-SHA256 over ``id.timestamp.body``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp
from yarl import URL

from binder_onprem.errors import BinderError, ConfigError
from binder_onprem.waitingevents import TRIES, pause

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from binder_onprem.config import Webhook
    from binder_onprem.waitingevents import Letter

logger = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 10.0
LONGEST_QUIET: Final = 60.0
SECRET_BYTES: Final = 16


class Outbox(Protocol):
    """What waits."""

    async def waiting(self, receiver: str, limit: int = 1) -> Sequence[Letter]:
        """Oldest first. Raises `StoreUnavailable`."""
        ...

    async def sent(self, number: int) -> None:
        """Forget it. Raises `StoreUnavailable`."""
        ...

    async def failed(self, letter: Letter) -> None:
        """Keep how it stands. Raises `StoreUnavailable`."""
        ...


def secret(file: Path, setting: str) -> bytes:
    """A shared secret; ``whsec_<base64>`` as the specification writes it, or any text.

    Raises:
        ConfigError: It cannot be read, or is too short to be one.
    """
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{setting}: {file} cannot be read") from None
    found = text.encode()
    if text.startswith("whsec_"):
        with suppress(ValueError):
            found = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    if len(found) < SECRET_BYTES:
        raise ConfigError(f"{setting}: {file} must hold at least {SECRET_BYTES} characters")
    return found


def signature(key: bytes, event_id: str, moment: int, body: bytes) -> str:
    """The header ``webhook-signature``."""
    mac = hmac.new(key, f"{event_id}.{moment}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(mac).decode()


class Webhooks:
    """The receivers.

    Args:
        hooks: By name.
        outbox: What waits.
        session: For addresses that the rules allow.
        proxy: Tells the site's proxy for a host and port, or None.
        now: Unix seconds.
    """

    def __init__(
        self,
        hooks: Mapping[str, Webhook],
        outbox: Outbox,
        session: aiohttp.ClientSession,
        proxy: Callable[[str, int], str | None] = lambda _host, _port: None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._hooks = hooks
        self._keys = {name: secret(hook.secret_file, f"events.webhooks.{name}.secret_file") for name, hook in hooks.items()}
        self._outbox = outbox
        self._session = session
        self._proxy = proxy
        self._now = now
        self._bells = {name: asyncio.Event() for name in hooks}

    def stir(self) -> None:
        """There is something to send."""
        for bell in self._bells.values():
            bell.set()

    async def run(self) -> None:
        """Send, until cancelled; one receiver that does not answer keeps no other waiting."""
        async with asyncio.TaskGroup() as tasks:
            for name in self._hooks:
                tasks.create_task(self._serve(name), name=f"webhook-{name}")

    async def _serve(self, name: str) -> None:
        while True:
            self._bells[name].clear()
            try:
                wait = await self._step(name)
            except BinderError as error:
                logger.warning("outbox", extra={"receiver": name, "error": error.message})
                wait = LONGEST_QUIET
            if wait:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._bells[name].wait()

    async def _step(self, name: str) -> float:
        """Send one; seconds until it is worth looking again."""
        letters = await self._outbox.waiting(name)
        if not letters:
            return LONGEST_QUIET
        (letter,) = letters
        if (wait := letter.due - self._now()) > 0:
            self._bells[name].clear()
            return wait
        error = await self._post(name, letter)
        if error is None:
            await self._outbox.sent(letter.number)
            return 0
        tries = letter.tries + 1
        later = pause(tries)
        logger.warning("event not delivered", extra={"receiver": name, "tries": tries, "error": error, "dead": later is None})
        await self._outbox.failed(replace(letter, tries=min(tries, TRIES), due=self._now() + (later or 0.0), error=error, dead=later is None))
        return 0

    async def _post(self, name: str, letter: Letter) -> str | None:
        """None when it has arrived, else why not."""
        body, moment, event_id = letter.body.encode(), int(self._now()), f"{letter.number}-{int(letter.created)}"
        headers = {
            "Content-Type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": str(moment),
            "webhook-signature": signature(self._keys[name], event_id, moment, body),
        }
        url = self._hooks[name].url
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                parts = URL(url)
                proxy = self._proxy(parts.raw_host or "", parts.port or 0)
                async with self._session.post(url, data=body, headers=headers, allow_redirects=False, proxy=proxy) as answer:
                    return None if answer.status // 100 == 2 else f"HTTP status {answer.status}"  # noqa: PLR2004
        except TimeoutError:
            return f"no answer in {ANSWER_SECONDS:g} s"
        except BinderError as error:
            return error.message
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return type(error).__name__
