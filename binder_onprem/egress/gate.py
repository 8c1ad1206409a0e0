"""The egress gate: an HTTP proxy that builds reach by a unix socket or, for podman's own builds, by one TCP address.

Runs inside the daemon; whoever connects is hostile. A target passes by name if it is a mirror, else by the address rules, and is connected to by
the address that was checked. Never tells one refusal from another, never logs what a client sent beyond the host it asked for (cut), never
keeps a connection that nothing moves on.

Fairness: clones have a gate of their own, with connections of its own, and looking up refs goes through no gate at all. Within a gate each
container has at most `EACH` connections and `RATE` new ones a second, and `seats` gives a gate as many as all builds at once may have; so a build
that opens whatever it can takes nothing from another build, from a clone or from a look-up. Further connections are answered with a 503.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import h11

from binder_onprem.egress.hostnames import port_number
from binder_onprem.egress.outbound import BUFFER, Outbound
from binder_onprem.egress.relay import Broken, Peer, Upstream, absolute, end_to_end, exchange, hang_up, splice
from binder_onprem.egress.shares import Shares, container, first_id
from binder_onprem.errors import AddressRefused, BinderError, HostUnfit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable
    from pathlib import Path

    from binder_onprem.egress.addresses import AddressRules
    from binder_onprem.egress.outbound import Streams

log = logging.getLogger(__name__)

REFUSAL: Final = "The address rules of this site do not let builds connect to this host."
FULL: Final = b"HTTP/1.1 503 Too many connections to the gate at once\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
EACH: Final = 96
"""Connections of one container at once; the keenest of the usual clients opens 50."""
RATE: Final = 200
"""New connections of one container in a second."""
SEATS: Final = 2048
AUDIT_LINES: Final = 120
"""Lines about refused hosts per minute; a flood must not fill the log."""


class Gate:
    """One gate.

    Args:
        rules: The address rules.
        sources_hosts: Host and port of every mirror.
        mirrors_only: Nothing but mirrors passes.
        proxy: The site's proxy, or None.
        no_proxy: Hosts reached without it.
        connections: Clients at once.
        each: Clients of one container at once.
        rate: New clients of one container in a second.
        idle: Seconds without a byte after which a connection ends.
        head: Seconds a client may take for the head of a request.
    """

    def __init__(  # noqa: PLR0913 - a site's network has that many sides
        self,
        rules: AddressRules,
        sources_hosts: Collection[tuple[str, int]],
        mirrors_only: bool = False,  # noqa: FBT001, FBT002 - by position in the contract with the daemon
        proxy: str | None = None,
        no_proxy: Iterable[str] = (),
        *,
        connections: int = 256,
        each: int = EACH,
        rate: int = RATE,
        idle: float = 300,
        head: float = 15,
    ) -> None:
        self._outbound = Outbound(rules.apart(), sources_hosts, mirrors_only=mirrors_only, proxy=proxy, no_proxy=no_proxy)
        self._limit = connections
        self._idle = idle
        self._head = head
        self._shares = Shares(connections, each, rate)
        self._first_id = first_id()
        self._clients: set[asyncio.Task[None]] = set()
        self._leaving = 0
        self._audit_window = (0.0, 0)

    @property
    def clients(self) -> int:
        """Connections now."""
        return len(self._clients)

    @asynccontextmanager
    async def serving(self, socket: Path, tcp: tuple[str, int] | None) -> AsyncIterator[None]:
        """Serve until the context ends; then every connection is closed.

        Args:
            socket: Path of the unix socket; whoever can see it may use it.
            tcp: Address and port besides, or None.

        Raises:
            HostUnfit: One of them cannot be bound.
        """
        async with AsyncExitStack() as stack:
            try:
                socket.parent.mkdir(parents=True, exist_ok=True)
                server = await asyncio.start_unix_server(self._accept, socket, limit=BUFFER, backlog=512)
                stack.push_async_callback(self._close, server)
                socket.chmod(0o666)  # noqa: ASYNC240 - a moment; containers come with user ids of their own; the socket is mounted into those that may use it
            except OSError as error:
                raise HostUnfit(f"The gate's socket {socket} cannot be made: {error.strerror}.") from error
            if tcp:
                try:
                    stack.push_async_callback(self._close, await asyncio.start_server(self._accept, *tcp, limit=BUFFER, backlog=512))
                except OSError as error:
                    raise HostUnfit(
                        f"The gate's address {tcp[0]}:{tcp[1]} cannot be bound; `binder-onprem up` sets it up. ({error.strerror})"
                    ) from error
            yield

    async def _close(self, server: asyncio.Server) -> None:
        server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs callbacks of servers in tasks
        whose = container(writer, self._first_id)
        if not self._shares.take(whose):
            self._turn_away(writer)
            return
        client = Peer(h11.SERVER, (reader, writer), self._idle)
        self._clients.add(task)
        try:
            await self._serve(client)
        except Broken:
            await _malformed(client)
        except OSError:
            pass
        except asyncio.CancelledError:
            pass  # the gate closes; let through, asyncio's callback would report each client as an error
        except Exception:
            log.exception("gate: connection failed")
        finally:
            self._clients.discard(task)
            self._shares.give(whose)
            hang_up(writer)

    def _turn_away(self, writer: asyncio.StreamWriter) -> None:
        """Say that it is full without waiting for anybody; in a flood not even that. Closing on unread bytes resets: the answer needs a moment."""
        if self._leaving >= self._limit:
            writer.transport.abort()
            return
        writer.write(FULL)
        self._leaving += 1
        asyncio.get_running_loop().call_later(0.5, self._turned_away, writer)

    def _turned_away(self, writer: asyncio.StreamWriter) -> None:
        self._leaving -= 1
        writer.transport.abort()

    async def _serve(self, client: Peer) -> None:
        """Requests of one client, one after the other."""
        upstream = Upstream()
        try:
            while True:
                event = await client.event(self._head)
                if not isinstance(event, h11.Request):
                    return
                client.method = event.method
                if not event.http_version.startswith(b"1."):
                    raise Broken
                if event.method == b"CONNECT":
                    await self._tunnel(client, event)
                    return
                if not await self._request(client, event, upstream) or not client.again():
                    return
        finally:
            upstream.drop()

    async def _tunnel(self, client: Peer, request: h11.Request) -> None:
        try:
            host, _, port = request.target.decode("ascii").rpartition(":")
            target = host, port_number(port)
        except ValueError:
            await _refuse(client, 400, "CONNECT asks for host:port.")
            return
        streams = await self._open(client, *target, tunnel=True)
        if streams is None:
            return
        try:
            while not isinstance(await client.event(), (type, h11.ConnectionClosed)):  # up to PAUSED: what follows is the tunnel's
                pass
            await client.send(h11.Response(status_code=200, headers=[], reason=b"Connection established"))
            if early := client.http.trailing_data[0]:
                streams[1].write(early)
            await splice((client.reader, client.writer), streams, self._idle)
        finally:
            hang_up(streams[1])

    async def _request(self, client: Peer, request: h11.Request, upstream: Upstream) -> bool:
        """One plain request; whether another may follow."""
        try:
            host, port, authority, path = absolute(request.target)
        except ValueError:
            await _refuse(client, 400, "This is a proxy: requests name http://host/path, or CONNECT.")
            return False
        peer = upstream.same(host, port)
        if peer is None:
            streams = await self._open(client, host, port, tunnel=False)
            if streams is None:
                return False
            peer = upstream.take(host, port, Peer(h11.CLIENT, streams, self._idle))
        proxied = self._outbound.proxied(host, port)
        headers = [(b"host", authority), *end_to_end(request.headers)]
        if proxied and self._outbound.proxy and self._outbound.proxy.authorization:
            headers.append((b"proxy-authorization", self._outbound.proxy.authorization.encode()))
        target = b"http://" + authority + path if proxied else path
        try:
            await exchange(client, peer, h11.Request(method=request.method, target=target, headers=headers))
        except Broken:
            upstream.drop()
            if client.http.our_state is not h11.SEND_RESPONSE:
                client.abort()  # cut, so that half a body is not taken for a whole one
                return False
            await _refuse(client, 502, "The host broke the connection.")
            return False
        return True

    async def _open(self, client: Peer, host: str, port: int, *, tunnel: bool) -> Streams | None:
        try:
            return await self._outbound.open(host, port, tunnel=tunnel)
        except AddressRefused:
            self._audit(host, port)
            await _refuse(client, 403, REFUSAL)
        except BinderError as error:
            await _refuse(client, 502, error.message)
        return None

    def _audit(self, host: str, port: int) -> None:
        start, lines = self._audit_window
        now = time.monotonic()
        self._audit_window = (now, 1) if now - start > 60 else (start, lines + 1)  # noqa: PLR2004 - a minute
        if self._audit_window[1] <= AUDIT_LINES:
            log.warning("gate refused a host", extra={"event": "egress_refused", "host": host[:100], "port": port})


def seats(builds: int) -> int:
    """Connections that a gate for so many builds at once needs, and one more container's."""
    return min(EACH * (builds + 1), SEATS)


async def _refuse(client: Peer, status: int, sentence: str) -> None:
    body = f"{sentence}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), ("Connection", "close")]
    await client.send(h11.Response(status_code=status, headers=headers, reason=sentence.encode() if status == 403 else b""))  # noqa: PLR2004 - curl shows the reason
    if client.method != b"HEAD":
        await client.send(h11.Data(data=body))
    await client.send(h11.EndOfMessage())
    await _linger(client)


async def _linger(client: Peer) -> None:
    """Read a little of what is still coming: closing on unread bytes would reset the connection before the answer is read."""
    try:
        client.writer.write_eof()
        async with asyncio.timeout(1):
            for _ in range(16):
                if not await client.reader.read(BUFFER):
                    return
    except (OSError, TimeoutError):
        pass


async def _malformed(client: Peer) -> None:
    if client.http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
        with suppress(Broken):
            await _refuse(client, 400, "This is not a request that a proxy understands.")
