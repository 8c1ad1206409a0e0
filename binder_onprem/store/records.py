"""What must not be lost: builds, the last use of images, launches.

Satisfies `interfaces.Store`; opened by the daemon, called by `launch`, `builds` and the passes. Every method is one short transaction. That an
image has one open build at the most is the database's promise (a partial unique index), not this module's.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from binder_onprem.errors import InvalidSpec, StoreUnavailable
from binder_onprem.model import TRANSITIONS, BuildState
from binder_onprem.store.database import DOWN, Database, whole
from binder_onprem.store.tables import BEGUN, BUILDS, LAUNCHES, OPEN_STATES, USES, build_record, build_row, launch_record, launch_row, plain, resolved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from binder_onprem.model import BuildRecord, ImageRef, LaunchAudit, LaunchRequest, ResolvedRepo

ADD_TRIES: Final = 10


class SqlStore(Database):
    """The store; see `interfaces.Store` for the methods."""

    telling = False
    """Whether somebody hears of builds that are added now; set once, by the daemon."""

    @whole
    async def add(self, build: BuildRecord) -> BuildRecord:
        """Insert, or return the open build of the same image."""
        for _ in range(ADD_TRIES):
            try:
                async with self._engine.begin() as connection:
                    await connection.execute(BUILDS.insert().values(build_row(build) | {"told": "" if self.telling else None}))
            except IntegrityError:
                # Somebody else's build of the image is open. Between our insert and our look it may end: then we try again.
                found = await self._open(build.image)
                if found:
                    return found
            except (SQLAlchemyError, OSError) as error:
                raise StoreUnavailable(DOWN) from error
            else:
                return build
        raise StoreUnavailable(DOWN)

    async def _open(self, image: ImageRef) -> BuildRecord | None:
        return await self._one(sa.select(BUILDS).where(*_of(image), BUILDS.c.state.in_(OPEN_STATES)))

    async def _one(self, query: sa.Select[Any]) -> BuildRecord | None:
        async with self._transaction() as connection:
            row = (await connection.execute(query)).mappings().first()
        return build_record(row) if row else None

    @whole
    async def move(self, before: BuildRecord, after: BuildRecord) -> bool:
        """Compare and set. Raises ValueError for a forbidden transition."""
        if after.id != before.id or after.state not in TRANSITIONS[before.state]:
            raise ValueError(f"a build does not go from {before.state} to {after.state}")
        where = (BUILDS.c.id == before.id, BUILDS.c.state == before.state.value, BUILDS.c.attempt == before.attempt)
        async with self._transaction() as connection:
            changed = await connection.execute(BUILDS.update().where(*where).values(build_row(after)))
        return bool(changed.rowcount)

    @whole
    async def untold(self) -> list[BuildRecord]:
        """Builds whose state was recorded and not told, oldest first."""
        state = sa.cast(BUILDS.c.attempt, sa.Text) + ":" + BUILDS.c.state
        query = sa.select(BUILDS).where(BUILDS.c.told.is_not(None), BUILDS.c.told != state).order_by(BUILDS.c.number)
        async with self._transaction() as connection:
            return [build_record(row) for row in (await connection.execute(query)).mappings()]

    @whole
    async def prioritise(self, build_id: str, now: float) -> bool:
        """Move a queued build to the front; False when it is not queued (any more)."""
        where = (BUILDS.c.id == build_id, BUILDS.c.state == BuildState.QUEUED.value)
        async with self._transaction() as connection:
            return bool((await connection.execute(BUILDS.update().where(*where).values(front=now))).rowcount)

    @whole
    async def build(self, build_id: str) -> BuildRecord | None:
        """One record."""
        return await self._one(sa.select(BUILDS).where(BUILDS.c.id == build_id)) if build_id.isalnum() else None

    @whole
    async def builds(self, *, open_only: bool = False, limit: int = 100) -> list[BuildRecord]:
        """Newest first; the open ones oldest first."""
        query = sa.select(BUILDS).order_by(BUILDS.c.number.desc()).limit(limit)
        if open_only:
            query = sa.select(BUILDS).where(BUILDS.c.state.in_(OPEN_STATES)).order_by(BUILDS.c.number)
        async with self._transaction() as connection:
            return [build_record(row) for row in (await connection.execute(query)).mappings()]

    @whole
    async def latest(self, image: ImageRef) -> BuildRecord | None:
        """The last build of the image."""
        return await self._one(sa.select(BUILDS).where(*_of(image)).order_by(BUILDS.c.number.desc()).limit(1))

    @whole
    async def built(self, image: ImageRef) -> str | None:
        """``sha256:…`` of the last one that ended BUILT."""
        where = (*_of(image), BUILDS.c.state == BuildState.BUILT.value)
        build = await self._one(sa.select(BUILDS).where(*where).order_by(BUILDS.c.number.desc()).limit(1))
        return build.digest if build else None

    @whole
    async def touch(self, image: str, now: float) -> None:
        """Remember a use; a clock that went back does not make it older."""
        insert = self._insert(USES).values(image=image, used=now)
        update = insert.on_conflict_do_update(index_elements=["image"], set_={"used": now}, where=USES.c.used < now)
        async with self._transaction() as connection:
            await connection.execute(update)

    @whole
    async def last_used(self) -> dict[str, float]:
        """``…@sha256:…`` → Unix seconds."""
        async with self._transaction() as connection:
            return {row.image: row.used for row in await connection.execute(sa.select(USES))}

    @whole
    async def begin(self, request: LaunchRequest, repo: ResolvedRepo, now: float) -> tuple[ResolvedRepo, float]:
        """Pin the launch to a commit; the first one to do so wins."""
        row = {
            "launch_id": request.launch_id,
            "provider": plain(request.provider),
            "path": plain(request.path),
            "client": request.client.user or request.client.address,
            "began": now,
            "outcome": BEGUN,
            "commit": repo.commit,
            "pinned": {**asdict(repo), "choice": request.choice.query},
        }
        async with self._transaction() as connection:
            # The record of a repetition that was refused before it got here has no pin yet.
            pin = {"pinned": row["pinned"], "commit": repo.commit}
            insert = self._insert(LAUNCHES).values(row)
            await connection.execute(insert.on_conflict_do_update(index_elements=["launch_id"], set_=pin, where=LAUNCHES.c.pinned.is_(None)))
            query = sa.select(LAUNCHES).where(LAUNCHES.c.launch_id == request.launch_id)
            found = (await connection.execute(query)).mappings().one()
        pinned = dict(found["pinned"])
        choice = pinned.pop("choice", "")
        if (found["provider"], found["path"], choice) != (row["provider"], row["path"], request.choice.query):
            raise InvalidSpec("This launch was begun for another link. Click the link once more.")
        return resolved(pinned), found["began"]

    @whole
    async def looked_up(self, client: str, repo: ResolvedRepo) -> bool:
        """Whether this client has launched this private repository at this commit."""
        query = sa.select(LAUNCHES.c.pinned).where(LAUNCHES.c.client == client, LAUNCHES.c.commit == repo.commit, LAUNCHES.c.pinned.is_not(None))
        async with self._transaction() as connection:
            pins = [row.pinned for row in await connection.execute(query)]
        return any(pin.get("access") and pin["spec"]["url"] == repo.url for pin in pins)

    @whole
    async def audit(self, launch: LaunchAudit) -> None:
        """Record how a launch ended; when it began and what it is pinned to stay."""
        row = launch_row(launch)
        again = {name: value for name, value in row.items() if value is not None and name not in ("launch_id", "began", "provider", "path")}
        async with self._transaction() as connection:
            await connection.execute(self._insert(LAUNCHES).values(row).on_conflict_do_update(index_elements=["launch_id"], set_=again))

    @whole
    async def launches(self, limit: int = 100) -> Sequence[LaunchAudit]:
        """Newest first."""
        query = sa.select(LAUNCHES).order_by(LAUNCHES.c.number.desc()).limit(limit)
        async with self._transaction() as connection:
            return [launch_record(row) for row in (await connection.execute(query)).mappings()]

    @whole
    async def expire(self, before: float) -> Sequence[str]:
        """Forget what ended before `before` (Unix seconds)."""
        async with self._transaction() as connection:
            old = BUILDS.c.state.not_in(OPEN_STATES) & (BUILDS.c.ended < before)
            ids = [row.id for row in await connection.execute(BUILDS.delete().where(old).returning(BUILDS.c.id))]
            await connection.execute(LAUNCHES.delete().where(LAUNCHES.c.began < before))
            await connection.execute(USES.delete().where(USES.c.used < before))
        return ids


def _of(image: ImageRef) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return BUILDS.c.repository == image.repository, BUILDS.c.tag == image.tag
