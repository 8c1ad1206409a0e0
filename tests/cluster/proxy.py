"""An HTTP proxy with an account, as institutions have one: tunnels and plain requests, and a list of whom it was asked for."""

from __future__ import annotations

import asyncio
import base64
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME, PASSWORD = "campus", "planted-proxy-password"
ACCOUNT: Final = b"basic " + base64.b64encode(f"{NAME}:{PASSWORD}".encode()).lower()
CHUNK: Final = 256 * 1024


@dataclass
class Proxy:
    """Runs in a thread of its own; `asked` grows."""

    port: int = 0
    asked: set[str] = field(default_factory=set)
    """Hosts, as they were named."""
    refused: int = 0
    """Requests without the account."""

    def url(self, address: str) -> str:
        """What clients are given."""
        return f"http://{NAME}:{PASSWORD}@{address}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one tunnel, or one plain request."""
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await self._answer(reader, writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).rstrip().split(b"\r\n")
        method, target, version = first.split()
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        if target.startswith(b"/"):
            # It was taken for an ordinary server.
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        parts = urlsplit(target.decode() if method != b"CONNECT" else f"//{target.decode()}")
        if headers.get(b"proxy-authorization", b"").lower() != ACCOUNT:
            self.refused += 1
            writer.write(b"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        self.asked.add(parts.hostname or "")
        try:
            there, thither = await asyncio.open_connection(parts.hostname, parts.port or 80)
        except OSError:
            writer.write(b"HTTP/1.1 502 Not there\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 Go on\r\n\r\n")
        else:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            kept = [line for line in lines if not line.lower().startswith((b"proxy-", b"connection:"))]
            thither.write(b"\r\n".join([b" ".join((method, path.encode(), version)), *kept, b"Connection: close", b"", b""]))
        await asyncio.gather(_pass(reader, thither), _pass(there, writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextmanager
def running() -> Iterator[Proxy]:
    """One that every host reaches, while the context lasts."""
    loop, proxy = asyncio.new_event_loop(), Proxy()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    # Hosts are on a bridge.
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(proxy.serve, "0.0.0.0", 0), loop).result(10)  # noqa: S104
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _end(server: asyncio.Server) -> None:
    """The server and its connections."""
    server.close()
    own = asyncio.current_task()
    tasks = [task for task in asyncio.all_tasks() if task is not own]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
