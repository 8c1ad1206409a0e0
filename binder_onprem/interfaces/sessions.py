"""Sessions: the hub, the proxy, what runs and what it has written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asyncio import StreamReader
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from binder_onprem.interfaces.records import Used
    from binder_onprem.model import LaunchRequest, ResolvedRepo, Server, Session
    from binder_onprem.terms import Terms


class Hub(Protocol):
    """JupyterHub."""

    async def start(self, launch: LaunchRequest, repo: ResolvedRepo, image: str, log: Callable[[str], Awaitable[None]], terms: Terms) -> Server:
        """Start the launch's session from ``…@sha256:…`` on these terms; repeating it for the same launch gives the same server.

        It is a named server of the client's owner, or else the server of a temporary user.

        Raises `SpawnFailed`, `SpawnTimeout`, `HubUnavailable`.
        """
        ...

    async def sessions(self) -> Sequence[Session]:
        """Every session that has a server, starting or running. Raises `HubUnavailable`."""
        ...

    async def remains(self) -> Sequence[Session]:
        """The same, and what is left of sessions without server, as far as anybody could miss it. Raises `HubUnavailable`."""
        ...

    async def token(self, session: Session) -> str | None:
        """The token of a session that runs, for its owner alone; None when it does not run. Raises `HubUnavailable`."""
        ...

    async def forget(self, user: str) -> None:
        """Take a person's log-ins and tokens away; she comes back by logging in. Absent is fine. Raises `HubUnavailable`."""
        ...

    async def current(self, session: Session) -> tuple[Session, str] | None:
        """A session as it is this moment, with its token; None when it has no server (any more). Raises `HubUnavailable`."""
        ...

    async def stop(self, session: Session) -> None:
        """Stop the session's server and remove it, and the user if it is a temporary one; absent is fine. Raises `HubUnavailable`."""
        ...


class Volumes(Protocol):
    """The volumes of projects, by id."""

    async def home(self, image: str) -> str:
        """Path in sessions of ``…@sha256:…`` that a project takes the place of. Raises `InvalidSpec`, `EngineUnavailable`."""
        ...

    def there(self, volume: str) -> bool:
        """Whether a whole one is there."""
        ...

    async def make(self, volume: str, slot: int, size: int, image: str) -> None:
        """Make one of `size` bytes with the files of an image's home; whole or not at all.

        Raises `LimitHit` when they do not fit, `HostUnfit`, `EngineUnavailable`.
        """
        ...

    async def mount(self, volume: str) -> Path:
        """Have it mounted; the directory that is the home. Raises `NotFound`, `HostUnfit`."""
        ...

    async def unmount(self, volume: str) -> bool:
        """Whether it is not mounted now; what is in use stays."""
        ...

    async def mounted(self) -> frozenset[str]:
        """Ids of those that are mounted."""
        ...

    async def used(self, volume: str) -> int | None:
        """Bytes in use in it; None when it is not mounted."""
        ...

    async def free(self, volume: str) -> int:
        """Bytes that can still be written to it, while it is mounted; 0 when no file can be made."""
        ...

    async def remove(self, volume: str) -> bool:
        """Remove it; absent is fine. False when it is in use."""
        ...

    async def sweep(self) -> None:
        """Clear away what an earlier process was making or removing."""
        ...


class Usage(Protocol):
    """What sessions use now."""

    async def now(self) -> Mapping[str, Used]:
        """Launch → what its session uses. Raises `EngineUnavailable`."""
        ...


class Activity(Protocol):
    """What only the session itself knows; asked before an idle session is stopped."""

    async def busy(self, session: Session) -> bool:
        """Whether a kernel works or a page is connected. False when the session does not answer. Raises `HubUnavailable`."""
        ...


class Routes(Protocol):
    """The proxy's table."""

    async def routes(self) -> Mapping[str, str]:
        """Sessions' routes: path on the public port → the session's name. Raises `HubUnavailable`."""
        ...

    async def drop(self, path: str) -> None:
        """Take a route away; absent is fine. Raises `HubUnavailable`."""
        ...


class EngineContainer(Protocol):
    """A container of ours as the engine has it."""

    @property
    def name(self) -> str:
        """For `Engine.remove`."""
        ...

    @property
    def labels(self) -> Mapping[str, str]:
        """``io.binder-onprem.…``."""
        ...

    @property
    def created(self) -> float:
        """Unix seconds, UTC."""
        ...


class Engine(Protocol):
    """The container engine, as far as reconcile needs it."""

    async def labelled(self, labels: Mapping[str, str]) -> Sequence[EngineContainer]:
        """Containers that have all these labels, running or not. Raises `EngineUnavailable`."""
        ...

    async def remove(self, name: str) -> None:
        """Stop and remove; absent is fine. Raises `EngineUnavailable`."""
        ...


class Machines(Protocol):
    """Where sessions run on several machines: which of these are about to be maintained."""

    async def drains(self) -> Mapping[str, float | None]:
        """Launch → when the session ends at the latest because its machine is maintained, Unix seconds; None where it is not.

        Raises:
            EngineUnavailable: It does not answer.
        """
        ...


class ChangedFiles(Protocol):
    """What sessions have changed of their files, as archives."""

    def changed(self, container: str) -> AbstractAsyncContextManager[StreamReader]:
        """Of a running session. Leaving it raises when the archive broke off. Raises `Busy`, `NotFound`, `EngineUnavailable`, TimeoutError."""
        ...

    def folder(self, path: Path, limit: int) -> AbstractAsyncContextManager[StreamReader]:
        """Of a project's directory on this host, `limit` bytes at the most. Leaving it raises when it broke off. Raises `Busy`, TimeoutError."""
        ...

    def kept(self, session: str, token: str) -> tuple[Path, float] | None:
        """What is kept of an ended session for the holder of its token: a gzipped tar, and until when (Unix seconds)."""
        ...


class SessionFiles(Protocol):
    """What sessions write to this machine's disk."""

    async def used(self) -> int:
        """Bytes in use of the file system they write to, by whomever."""
        ...

    async def written(self, container: str) -> int:
        """Bytes that a session's container has written. Raises `NotFound`, `EngineUnavailable`."""
        ...
