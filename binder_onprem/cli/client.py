"""How the commands speak to the running daemon: its documented HTTP API on loopback, with the site's admin token.

Used by the CLI only. Errors of the API come back as the classes of the tree, so that a command ends with the same exit code as the cause.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from yarl import URL

from binder_onprem.errors import BinderError, HostUnfit, Unavailable
from binder_onprem.model import BuildState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from binder_onprem.config import Config

DOWN: Final = "The Binder on this machine does not answer. Is it up? `binder-onprem status` tells, `binder-onprem up` starts it."
LINE_LIMIT: Final = 1024 * 1024
"""Bytes of one event that are read at the most."""
SILENCE: Final = 600.0
"""Seconds without a line after which a log is asked for anew; nothing says that it is still open."""
RESTART: Final = 60.0
"""Seconds that a restart of the daemon may take before following a log is given up."""


class DaemonClient:
    """The daemon's API.

    Args:
        config: Where it listens and where its admin token lies.
        session: An open HTTP session.
    """

    def __init__(self, config: Config, session: aiohttp.ClientSession) -> None:
        self._base = f"http://127.0.0.1:{config.daemon_port}{config.listen.base_url}"
        self._session = session
        # The URLs that answers hold are to be people's, not those of the daemon's own port.
        self._headers = {"Authorization": f"Bearer {_token(config)}", "Host": URL(config.public_url).authority}

    async def json(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """One call; `path` is relative to the base URL, `body` is sent as JSON.

        Raises:
            BinderError: What the API said, or that it does not answer.
        """
        url = URL(self._base + path, encoded=True)
        try:
            async with self._session.request(method, url, params=query, json=body, headers=self._headers) as answer:
                text = await answer.text()
                if answer.status >= 400:  # noqa: PLR2004 - HTTP's own border
                    raise error_of(_decoded(text), answer.status)
                return _decoded(text)
        except aiohttp.ClientError as error:
            raise Unavailable(DOWN) from error

    async def log(self, build_id: str) -> AsyncIterator[str]:
        """A build's log as far as it is, line by line. Raises `BinderError`."""
        try:
            async with aclosing(self._lines(build_id)) as lines:
                async for line in lines:
                    yield line
        except aiohttp.ClientError as error:
            raise Unavailable(DOWN) from error

    async def follow(self, build_id: str) -> AsyncIterator[str]:
        """A build's log until the build has ended, each line once, however long it is silent and whatever restarts meanwhile.

        Raises:
            BinderError: What the API said, or that it does not answer for `RESTART` seconds.
        """
        told, ended, heard = 0, False, time.monotonic()
        while True:
            try:
                number = 0
                async with aclosing(self._lines(build_id, follow="1")) as lines:
                    async for line in lines:
                        number, heard = number + 1, time.monotonic()
                        # Half a line is one that broke off, or the last one of all.
                        if number > told and (ended or line.endswith("\n")):
                            told = number
                            yield line
                if ended:
                    return
                # A stream ends with its build, but also with a daemon that is being restarted.
                if ended := await self._ended(build_id):
                    continue
            except (aiohttp.ClientError, Unavailable) as error:
                if not told or time.monotonic() > heard + RESTART:
                    raise Unavailable(DOWN) from error
            await _pause()

    async def _ended(self, build_id: str) -> bool:
        state = (await self.json("GET", f"api/builds/{build_id}"))["state"]
        return BuildState(state).terminal

    async def _lines(self, build_id: str, **query: str) -> AsyncGenerator[str]:
        url = URL(f"{self._base}api/builds/{build_id}/log", encoded=True)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE)
        async with self._session.get(url, params=query, headers=self._headers, timeout=timeout) as answer:
            if answer.status >= 400:  # noqa: PLR2004 - HTTP's own border
                raise error_of(_decoded(await answer.text()), answer.status)
            async for line in answer.content:
                yield line.decode(errors="replace")

    async def lines(self, path: str, **query: str) -> AsyncIterator[str]:
        """A text, line by line. Raises `BinderError`."""
        try:
            async with self._session.get(self._base + path, params=query, headers=self._headers) as answer:
                if answer.status >= 400:  # noqa: PLR2004 - HTTP's own border
                    raise error_of(_decoded(await answer.text()), answer.status)
                async for line in answer.content:
                    yield line.decode(errors="replace")
        except aiohttp.ClientError as error:
            raise Unavailable(DOWN) from error

    async def launch(self, spec: str, *, build_only: bool = False, query: str = "") -> AsyncIterator[dict[str, Any]]:
        """The events of a launch, `ready` or `failed` last; a broken connection is taken up again where it broke.

        Args:
            spec: ``provider/path`` as in a link.
            build_only: Start no session.
            query: What is chosen, ``profile=large&…``, encoded.
        """
        spec += "?build_only=true&" if build_only else "?"
        spec += f"{query}&" if query else ""
        last: str | None = None
        for attempt in range(1, 31):
            try:
                async for event_id, event in self._stream(spec, last):
                    last = event_id or last
                    yield event
                    if event["phase"] in ("ready", "failed"):
                        return
            except aiohttp.ClientError as error:
                if last is None or attempt == 30:  # noqa: PLR2004 - the loop's end
                    raise Unavailable(DOWN) from error
            await _pause()
        raise Unavailable(DOWN)

    async def _stream(self, spec: str, last: str | None) -> AsyncGenerator[tuple[str | None, dict[str, Any]]]:
        headers = self._headers | {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        event_id: str | None = None
        url = URL(f"{self._base}build/{spec}resume=true", encoded=True)
        async with self._session.get(url, headers=headers) as answer:
            async for line in answer.content:
                name, _, value = line.decode(errors="replace").rstrip("\r\n").partition(": ")
                if name == "id":
                    event_id = value
                elif name == "data":
                    yield event_id, json.loads(value)


async def _pause() -> None:
    await asyncio.sleep(1)


def _token(config: Config) -> str:
    try:
        return (config.secrets / "admin-token").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise HostUnfit(f"No Binder has been set up below {config.home}. Run `binder-onprem up`, or name its directory with --home.") from None
    except PermissionError:
        raise HostUnfit(f"The Binder below {config.home} belongs to another account. Run this as root or with sudo.") from None


def _decoded(body: str) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return {"message": body[:500]}


def error_of(body: Any, status: int) -> BinderError:
    """The error of the tree that an answer names by its ``code``; a plain `BinderError` where it names none.

    Args:
        body: Decoded JSON with ``code`` and ``message``.
        status: HTTP status, for the words when there are none.
    """
    data = body if isinstance(body, dict) else {}
    kind = next((kind for kind in _tree(BinderError) if kind.code == data.get("code")), BinderError)
    return kind(str(data.get("message") or f"The daemon answered with HTTP status {status}.").strip())


def _tree(kind: type[BinderError]) -> Iterator[type[BinderError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


@asynccontextmanager
async def connected(config: Config) -> AsyncIterator[DaemonClient]:
    """A client with a session of its own; answers may take long (a launch), single reads may not."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=120)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False, read_bufsize=LINE_LIMIT) as session:
        yield DaemonClient(config, session)
