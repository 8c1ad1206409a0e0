"""What a git server advertises over ssh: one connection, one command, ``git-upload-pack``, nothing else.

Used by `providers.git` where the site has a key. The connection is one that the address rules have checked; the host must show a key that the
site's ``known_hosts`` has. Reads no configuration and no agent of the machine's, forwards nothing, shows nobody the host's own words.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import asyncssh

from binder_onprem.egress.hostnames import DEFAULT_PORTS
from binder_onprem.egress.relay import splice
from binder_onprem.errors import AddressRefused, ConfigError, ProviderUnavailable, RefNotFound

if TYPE_CHECKING:
    from pathlib import Path

    from binder_onprem.egress.outbound import Outbound

IDLE: Final = 60.0
STRANGER: Final = (
    "The repository's host shows an ssh key that this site does not know. The administrator must add it to the provider's known_hosts_file."
)
LOCKED: Final = (
    "The repository's host does not let this site's ssh key in. Give the site's key the right to read it, or use a public https:// address."
)
ABSENT: Final = "The repository does not exist, or this site's ssh key may not read it. Check its address."
BROKEN: Final = "The repository's host broke the connection. Try again later."

Read = Callable[[asyncssh.SSHReader[bytes]], Awaitable[bytes]]

logging.getLogger("asyncssh").setLevel(logging.WARNING)  # below that it tells hosts, users and what they say


class Ssh:
    """The site's key and what it knows of hosts.

    Args:
        outbound: Connects.
        key: Private key without a passphrase.
        known_hosts: As ssh's file of that name.

    Raises:
        ConfigError: One of the files cannot be read, or is not what it should be.
    """

    def __init__(self, outbound: Outbound, key: Path, known_hosts: Path) -> None:
        self._outbound = outbound
        try:
            self._key = asyncssh.read_private_key(key)
        except (OSError, asyncssh.KeyImportError):
            raise ConfigError(f"ssh_key_file: {key} cannot be read as a private key without a passphrase") from None
        try:
            self._known = asyncssh.read_known_hosts(str(known_hosts))
        except (OSError, ValueError):
            raise ConfigError(f"known_hosts_file: {known_hosts} cannot be read as ssh's known_hosts") from None

    async def advertised(self, url: str, read: Read) -> bytes:
        """What the server says first about a repository.

        Args:
            url: ``ssh://user@host:port/path``, checked.
            read: Reads as much of it as is wanted.

        Raises:
            AddressRefused: The rules refuse the host, or its key is not known.
            RefNotFound: Our key is not let in, or there is no such repository.
            ProviderUnavailable: It does not answer, or breaks off.
        """
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or DEFAULT_PORTS["ssh"]
        streams = await self._outbound.open(host, port)
        ours, theirs = socket.socketpair()
        relay = asyncio.create_task(self._relay(theirs, streams))
        try:
            async with asyncssh.connect(host, port, sock=ours, config=None, options=self._options(parts.username or "")) as connection:
                return await self._asked(connection, parts.path, read)
        except asyncssh.HostKeyNotVerifiable:
            raise AddressRefused(STRANGER) from None
        except asyncssh.PermissionDenied:
            raise RefNotFound(LOCKED) from None
        except asyncio.IncompleteReadError:
            raise RefNotFound(ABSENT) from None
        except (OSError, ValueError, asyncssh.Error):
            raise ProviderUnavailable(BROKEN) from None
        finally:
            ours.close()
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)

    def _options(self, user: str) -> asyncssh.SSHClientConnectionOptions:
        return asyncssh.SSHClientConnectionOptions(
            config=None,
            username=user,
            client_keys=[self._key],
            known_hosts=self._known,
            agent_path=None,
            x509_trusted_certs=None,
            preferred_auth=("publickey",),
            public_key_auth=True,
            password_auth=False,
            kbdint_auth=False,
            gss_auth=False,
            gss_kex=False,
            host_based_auth=False,
            compression_algs=None,
            connect_timeout=None,  # whoever asks has a limit for everything together
        )

    @staticmethod
    async def _asked(connection: asyncssh.SSHClientConnection, path: str, read: Read) -> bytes:
        try:
            process = await connection.create_process(command(path), encoding=None, stderr=asyncssh.DEVNULL, request_pty=False)
            return await read(process.stdout)
        finally:
            connection.abort()  # a polite end would wait for the other side's

    @staticmethod
    async def _relay(theirs: socket.socket, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        """Bytes between asyncssh, which wants a socket, and a connection that may lead through a proxy and TLS."""
        try:
            reader, writer = await asyncio.open_connection(sock=theirs)
            try:
                await splice((reader, writer), streams, IDLE)
            finally:
                writer.transport.abort()
        finally:
            streams[1].transport.abort()


def command(path: str) -> str:
    """The one command, quoted as git does it. Raises ValueError for what a shell could read otherwise."""
    plain = unquote(path)
    plain = plain[1:] if plain.startswith("/~") else plain
    if not re.fullmatch(r"[^'!\\\x00-\x1f\x7f]+", plain):
        raise ValueError("path")
    return f"git-upload-pack '{plain}'"
