"""One request to JupyterHub's REST API, and the three shapes of its answers: object, pages, events.

`hub.JupyterHub` calls it. Every call of ours may be repeated, so a hub that restarts for a few seconds is waited for here and nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from yarl import URL

from binder_onprem.errors import HubUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Container

BRIDGE: Final = 20.0
"""Seconds that a restart of the hub may take without anybody noticing."""
PAUSE: Final = 0.25
"""Seconds between two questions whether something has come about."""
PAGE: Final = 200
"""Entries per page of the hub's lists; the hub's own limit."""
SUCCESS: Final = range(200, 300)
ANY: Final = range(100, 600)
_BYTES: Final = 16 * 1024**2
_DOWN: Final = "JupyterHub does not answer. Sessions that run go on; try again in a moment."


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        method, path: The path below ``/hub/api``, percent-encoded.
        data: JSON to send.
        params: Query.
        limit: Seconds until the whole answer must be there.
        bridge: Seconds to go on asking while nobody answers.
        form: Fields to send instead of JSON.
        token: In whose name; None: in the daemon's, "": in nobody's.
    """

    method: str
    path: str
    data: dict[str, Any] | None = None
    params: dict[str, str] | None = None
    limit: float = 30.0
    bridge: float = BRIDGE
    form: dict[str, str] | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


class HubApi:
    """The hub's port on loopback.

    Args:
        url: ``http://127.0.0.1:port/prefix/hub/api``.
        session: Plain HTTP.
        token: The service's.
    """

    def __init__(self, url: str, session: aiohttp.ClientSession, token: str) -> None:
        self._url = url
        self._session = session
        self._headers = {"Authorization": f"token {token}", "Accept": "application/jupyterhub-pagination+json"}

    async def ask(self, call: Call, fine: Container[int] = SUCCESS) -> tuple[int, dict[str, Any]]:
        """One call, repeated while nobody answers; returns the status, which is one of `fine`, and the object that came.

        Raises:
            HubUnavailable: Nobody answers, the answer's status is another, or the token is refused.
        """
        alone: float | None = None  # since when nobody answers
        while (reply := await self._once(call)) is None:
            alone = alone or time.monotonic()
            if time.monotonic() >= alone + call.bridge:
                raise HubUnavailable(_DOWN, retry_after=10)
            await asyncio.sleep(PAUSE)
        status, _ = reply
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} and call.token is None:
            raise HubUnavailable("JupyterHub refuses the daemon's token. Restart the hub, so that it reads the secret again.")
        if status not in fine:
            raise HubUnavailable(_DOWN, retry_after=10)
        return reply

    async def _once(self, call: Call) -> tuple[int, dict[str, Any]] | None:
        timeout = aiohttp.ClientTimeout(total=call.limit, sock_connect=5)
        headers = dict(self._headers)
        if call.token is not None:
            del headers["Authorization"]
            headers |= {"Authorization": f"token {call.token}"} if call.token else {}
        body = {"json": call.data} if call.form is None else {"data": call.form}
        options: dict[str, Any] = {**body, "params": call.params, "headers": headers, "timeout": timeout, "allow_redirects": False}
        try:
            async with self._session.request(call.method, URL(self._url + call.path, encoded=True), **options) as answer:
                return answer.status, _object(await answer.content.read(_BYTES))
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def pages(self, path: str, **params: str) -> AsyncGenerator[Any]:
        """A list of the hub's, page by page; `params` go with each. Raises `HubUnavailable`."""
        offset: int | None = 0
        while offset is not None:
            _, page = await self.ask(Call("GET", path, params=params | {"offset": str(offset), "limit": str(PAGE)}))
            try:
                yield page["items"]
                following = page["_pagination"]["next"]
                offset = int(following["offset"]) if following else None
            except (KeyError, TypeError, ValueError):
                raise HubUnavailable("JupyterHub's answer cannot be read; is it version 6?") from None

    async def events(self, path: str, seconds: float) -> AsyncIterator[dict[str, Any]]:
        """Server-sent events; ends with the stream. Raises aiohttp.ClientError, TimeoutError."""
        timeout = aiohttp.ClientTimeout(total=seconds, sock_read=30)
        async with self._session.get(
            URL(self._url + path, encoded=True), headers=self._headers | {"Accept": "text/event-stream"}, timeout=timeout
        ) as answer:
            if answer.status != HTTPStatus.OK:
                return
            async for line in answer.content:
                if line.startswith(b"data:"):
                    yield _object(line[5:])


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
