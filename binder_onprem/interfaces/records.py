"""What is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from binder_onprem.model import BuildRecord, ImageRef, LaunchAudit, LaunchRequest, ResolvedRepo
    from binder_onprem.project import Project
    from binder_onprem.ruling import Ban


class Store(Protocol):
    """What must not be lost: builds and the last use of images."""

    async def add(self, build: BuildRecord) -> BuildRecord:
        """Insert, or return the build of the same image that is not in a terminal state (one build per image, whoever asks)."""
        ...

    async def move(self, before: BuildRecord, after: BuildRecord) -> bool:
        """Write `after` if the stored state is still ``before.state``; False when somebody was faster.

        Raises:
            ValueError: A forbidden transition.
        """
        ...

    async def untold(self) -> Sequence[BuildRecord]:
        """Builds whose state was recorded, but not told to whoever hears of builds, as when the process was killed in between. Oldest first."""
        ...

    async def prioritise(self, build_id: str, now: float) -> bool:
        """Move a queued build to the front at `now` (Unix seconds); False when it is not queued (any more)."""
        ...

    async def build(self, build_id: str) -> BuildRecord | None:
        """One record."""
        ...

    async def builds(self, *, open_only: bool = False, limit: int = 100) -> Sequence[BuildRecord]:
        """Newest first; the open ones oldest first."""
        ...

    async def touch(self, image: str, now: float) -> None:
        """Remember that ``…@sha256:…`` was used at `now` (Unix seconds)."""
        ...

    async def last_used(self) -> dict[str, float]:
        """``…@sha256:…`` → Unix seconds."""
        ...

    async def built(self, image: ImageRef) -> str | None:
        """``sha256:…`` of the last build of the image that ended BUILT, if any."""
        ...

    async def latest(self, image: ImageRef) -> BuildRecord | None:
        """The last build of the image, whatever became of it."""
        ...

    async def begin(self, request: LaunchRequest, repo: ResolvedRepo, now: float) -> tuple[ResolvedRepo, float]:
        """Pin the launch to a commit; a repetition gets what the first time was pinned, and when (Unix seconds).

        Raises `InvalidSpec` when the launch's key was used for another link.
        """
        ...

    async def looked_up(self, client: str, repo: ResolvedRepo) -> bool:
        """Whether this client (account, or address) has launched this private repository at this commit."""
        ...

    async def audit(self, launch: LaunchAudit) -> None:
        """Record how a launch ended; a repetition replaces the record."""
        ...

    async def launches(self, limit: int = 100) -> Sequence[LaunchAudit]:
        """Newest first."""
        ...

    async def expire(self, before: float) -> Sequence[str]:
        """Forget builds and launches that ended before `before` (Unix seconds), and uses of images older than that; the builds' ids."""
        ...


class Rulings(Protocol):
    """What the administrator has ruled. Every method raises `StoreUnavailable` when it cannot be known or kept."""

    async def bans(self) -> Sequence[Ban]:
        """Oldest first."""
        ...

    async def ban(self, ban: Ban) -> None:
        """Keep it."""
        ...

    async def unban(self, ban_id: str) -> bool:
        """Forget it; whether it was there."""
        ...

    async def pins(self) -> frozenset[str]:
        """``…@sha256:…`` of pinned images."""
        ...

    async def pin(self, image: str, now: float) -> None:
        """Pin it; once more changes nothing."""
        ...

    async def unpin(self, image: str) -> None:
        """No longer; absent is fine."""
        ...

    async def switches(self) -> Mapping[str, Any]:
        """Everything that is switched, by name."""
        ...

    async def switch(self, name: str, value: Mapping[str, Any] | None) -> None:
        """Set it to a JSON object; None: no longer."""
        ...


class Used(Protocol):
    """What a session uses now."""

    @property
    def cpu(self) -> float | None:
        """Processors; None when that is not known yet."""
        ...

    @property
    def memory(self) -> int | None:
        """Bytes."""
        ...


class ProjectStore(Protocol):
    """People's projects as they are kept. Every method raises `StoreUnavailable`."""

    async def projects(self, owner: str | None = None) -> Sequence[Project]:
        """Everybody's, or one person's; what was used last comes first."""
        ...

    async def add(self, project: Project) -> None:
        """Keep a new one; its name is its owner's only one, its slot nobody else's."""
        ...

    async def change(self, project_id: str, values: dict[str, Any]) -> None:
        """Write what has changed of one; absent is fine."""
        ...

    async def drop(self, project_id: str) -> None:
        """Forget it; absent is fine."""
        ...
