"""Passes bytes and HTTP messages between two connections, for the gate (`egress`).

Plain requests are taken apart and put together again by h11, so that what one side calls the end of a message is the end for the other
(nothing can be smuggled behind it). Tunnels are passed as they are. Never decides who may connect to what.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import h11

from binder_onprem.egress.hostnames import port_number
from binder_onprem.egress.outbound import BUFFER, HEAD_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from binder_onprem.egress.outbound import Streams

HOP_BY_HOP: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization", b"proxy-authenticate", b"te", b"trailer", b"upgrade", b"host"}
)
GRACE: Final = 5.0
Headers = list[tuple[bytes, bytes]]


def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection; what the other side has not taken after some seconds is dropped, so that nobody holds it by not reading."""
    writer.close()
    if writer.transport.get_write_buffer_size():
        asyncio.get_running_loop().call_later(GRACE, writer.transport.abort)


class Broken(Exception):  # never leaves the gate
    """A peer went away or does not speak HTTP."""


class Peer:
    """One side of a relay: a connection and h11's idea of it."""

    def __init__(self, role: type[h11.CLIENT | h11.SERVER], streams: Streams, idle: float) -> None:
        self.http = h11.Connection(role, max_incomplete_event_size=HEAD_LIMIT)
        self.reader, self.writer = streams
        self.method = b""
        self._idle = idle

    async def event(self, within: float | None = None) -> h11.Event | type[h11.PAUSED]:
        """The next event, h11's. Raises Broken, also when there is none `within` seconds (default: the idle time)."""
        try:
            async with asyncio.timeout(within or self._idle):
                while (event := self.http.next_event()) is h11.NEED_DATA:
                    in_head = self.http.their_state in (h11.IDLE, h11.SEND_RESPONSE)  # h11 limits what is incomplete, not what comes at once
                    self.http.receive_data(await self.reader.read(HEAD_LIMIT if in_head else BUFFER))
        except (h11.RemoteProtocolError, OSError, TimeoutError) as error:
            raise Broken from error
        return event  # type: ignore[return-value]  # NEED_DATA never leaves the loop

    async def send(self, event: h11.Event) -> None:
        """Send one event. Raises Broken, also when the peer does not take it for the idle time."""
        try:
            for data in self.http.send_with_data_passthrough(event) or ():
                self.writer.write(data)
            async with asyncio.timeout(self._idle):
                await self.writer.drain()
        except (h11.LocalProtocolError, OSError, TimeoutError) as error:
            raise Broken from error

    def abort(self) -> None:
        """Close without waiting for anything."""
        self.writer.transport.abort()

    def again(self) -> bool:
        """Whether another message may follow, and get ready for it."""
        if self.http.our_state is not h11.DONE or self.http.their_state is not h11.DONE or self.reader.at_eof():
            return False
        self.http.start_next_cycle()
        return True


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Headers that go on to the other side; those of one connection only stay behind. Names come in lower case from h11."""
    pairs = list(headers)
    named = {word.strip().lower() for name, value in pairs if name == b"connection" for word in value.split(b",")}
    dropped = (HOP_BY_HOP | named) - {b"content-length", b"transfer-encoding"}
    return [(name, value) for name, value in pairs if name not in dropped]


async def exchange(client: Peer, server: Peer, request: h11.Request) -> None:
    """Pass one request, whose head is `request`, to the server and its response back.

    Raises:
        Broken: One side failed; whatever of a response has not been sent is lost.
    """
    await server.send(request)
    upload = asyncio.create_task(_body(client, server))
    try:
        await _response(client, server)
    finally:
        # A server may answer without reading the body: the rest of it is not waited for, and the connections end after this exchange.
        upload.cancel()
        await asyncio.gather(upload, return_exceptions=True)


async def _body(source: Peer, target: Peer) -> None:
    while True:
        try:
            event = await source.event()
        except Broken:
            target.abort()  # wakes the one who waits for the response
            raise
        if isinstance(event, (h11.Data, h11.EndOfMessage)):
            await target.send(event)
        if not isinstance(event, h11.Data):
            return


async def _response(client: Peer, server: Peer) -> None:
    while True:
        event = await server.event()
        if isinstance(event, h11.InformationalResponse):
            if event.status_code == 100:  # noqa: PLR2004 - Continue; others (hints, upgrades) are for one connection
                await client.send(h11.InformationalResponse(status_code=100, headers=[], reason=event.reason))
        elif isinstance(event, h11.Response):
            headers = end_to_end(event.headers)
            await client.send(h11.Response(status_code=event.status_code, headers=headers, reason=event.reason))
        elif isinstance(event, h11.Data):
            await client.send(event)
        elif isinstance(event, h11.EndOfMessage):
            await client.send(h11.EndOfMessage())
            return
        else:
            raise Broken


async def splice(one: Streams, two: Streams, idle: float) -> None:
    """Pass bytes both ways until both sides have ended, one fails, or nothing moved for `idle` seconds."""
    try:
        async with asyncio.timeout(idle) as limit, asyncio.TaskGroup() as directions:
            directions.create_task(_copy(one[0], two[1], limit, idle))
            directions.create_task(_copy(two[0], one[1], limit, idle))
    except* OSError:  # TimeoutError is one
        pass


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: asyncio.Timeout, idle: float) -> None:
    now = asyncio.get_running_loop().time
    while data := await reader.read(BUFFER):
        writer.write(data)
        await writer.drain()
        limit.reschedule(now() + idle)
    if writer.can_write_eof():
        writer.write_eof()


class Upstream:
    """The connection that a client's last plain request used; the next one to the same host uses it again."""

    def __init__(self) -> None:
        self._peer: Peer | None = None
        self._target = ("", 0)

    def same(self, host: str, port: int) -> Peer | None:
        """The connection to this host if it can be used again; any other is closed."""
        if self._peer is not None and self._target == (host, port) and self._peer.again():
            return self._peer
        self.drop()
        return None

    def take(self, host: str, port: int, peer: Peer) -> Peer:
        """Remember a new connection."""
        self._peer, self._target = peer, (host, port)
        return peer

    def drop(self) -> None:
        """Close it."""
        if self._peer is not None:
            self._peer.abort()
            self._peer = None


def absolute(target: bytes) -> tuple[str, int, bytes, bytes]:
    """``http://host:port/path?query`` → host, port, authority for ``Host``, path with query. Raises ValueError."""
    scheme, _, rest = target.partition(b"://")
    if scheme.lower() != b"http" or b"#" in rest or b"\\" in rest:
        raise ValueError("form")
    end = min((rest.find(mark) for mark in (b"/", b"?") if mark in rest), default=len(rest))
    authority, path = rest[:end], rest[end:]
    text = authority.decode("ascii")
    if not text or "@" in text:
        raise ValueError("authority")
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    path = path if path.startswith(b"/") else b"/" + path
    return (host, port_number(port), authority, path) if colon else (text, 80, authority, path)
