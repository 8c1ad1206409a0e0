"""Whether a part answers. Loopback and unix sockets only; each probe is over within `TIMEOUT` seconds."""

from __future__ import annotations

import errno
import http.client
import socket
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection

    from binder_onprem.host.parts import Part

TIMEOUT: Final = 5.0
SERVER_ERROR: Final = 500


def answers(part: Part) -> bool:
    """Whether the part's `ready` answers: a connection, or any HTTP status below 500 (401 comes from one that is there)."""
    kind, _, path = part.ready.partition(":")
    try:
        return _connects(path) if kind == "unix" else _status(part.ready) < SERVER_ERROR
    except (OSError, http.client.HTTPException):
        return False


def silent(parts: Collection[Part], seconds: float) -> tuple[str, ...]:
    """Wait until all answer; names of those that still do not after some seconds."""
    end = time.monotonic() + seconds
    while (waiting := [part for part in parts if not answers(part)]) and time.monotonic() < end:
        time.sleep(0.1)
        parts = waiting
    return tuple(part.name for part in waiting)


def free(host: str, port: int) -> bool:
    """Whether nothing listens there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def held(host: str, port: int) -> bool:
    """Whether somebody listens there; an address that this machine does not have (yet) nobody listens on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(TIMEOUT)
        probe.connect(path)
    return True


def _status(url: str) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=TIMEOUT)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path)
        return connection.getresponse().status
    finally:
        connection.close()
