"""What the administrator's routes reach, and how an order is carried out: who may, and a line in the audit before anything happens."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from binder_onprem.errors import BinderError, InvalidSpec, NotFound, StoreUnavailable
from binder_onprem.model import Role
from binder_onprem.ruling import Entry
from binder_onprem.web import clients
from binder_onprem.web.keys import SITE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from aiohttp import web

    from binder_onprem.interfaces import Audit, Usage
    from binder_onprem.model import Client
    from binder_onprem.rules import Rules

ADMINISTRATOR: Final = "administrator"
"""Who acts with the site's own token."""
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Desk:
    """The administrator's parts.

    Attributes:
        rules: Bans, maintenance, pins, the queue's pause.
        audit: Who did what.
        delete: Removes an image (``…@sha256:…``); its bytes.
        usage: What sessions use; None where they run elsewhere.
        written: Launch → bytes written, as they were last counted.
        host: This machine as JSON; None where there is nothing to tell.
        told: Called with each entry of the audit.
        builders: Every machine that builds as JSON; None where this one is all.
        passes: Name of a periodic pass → when it ran last (Unix seconds), whether it worked, seconds it took.
    """

    rules: Rules
    audit: Audit
    delete: Callable[[str], Awaitable[int]]
    usage: Usage | None = None
    written: Callable[[], Mapping[str, int]] = dict
    host: Callable[[], Awaitable[Mapping[str, Any]]] | None = None
    passes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    told: Callable[[Entry], Awaitable[None]] | None = None
    builders: Callable[[], Awaitable[list[dict[str, Any]]]] | None = None

    async def record(self, entry: Entry) -> None:
        """Write it into the audit, then tell. Raises `StoreUnavailable`."""
        await self.audit.record(entry)
        if self.told:
            await self.told(entry)


def desk_of(request: web.Request) -> Desk:
    """The site's desk. Raises `NotFound` where it has none."""
    desk = request.app[SITE].desk
    if desk is None:
        raise NotFound("This site has no such thing.")
    return desk


def who(client: Client) -> str:
    """As it stands in the audit."""
    return client.user or ADMINISTRATOR


@asynccontextmanager
async def ordered(request: web.Request, action: str, subject: str = "", **details: Any) -> AsyncIterator[Client]:
    """Carry an order out: what cannot be recorded is not done, and what was not done after all is recorded as that.

    Args:
        request: The administrator's.
        action: ``build.cancel``, ``image.pin``, …
        subject: What it is done to.
        details: Further facts, JSON.

    Raises:
        Refused: Not an administrator.
        StoreUnavailable: It could not be recorded.
    """
    client = await clients.require(request, Role.ADMIN)
    async with recorded(request, client, action, subject, **details):
        yield client


@asynccontextmanager
async def recorded(request: web.Request, client: Client, action: str, subject: str, **details: Any) -> AsyncIterator[None]:
    """The same for what others may do, too; that they may was found out before. Raises `StoreUnavailable`."""
    desk = request.app[SITE].desk
    entry = Entry(time.time(), who(client), client.address, action, subject[:500], details=details)
    if desk:
        await desk.record(entry)
    try:
        yield
    except BinderError as error:
        if desk:
            with suppress(StoreUnavailable):
                await desk.record(replace(entry, at=time.time(), outcome=error.code))
        raise


async def body(request: web.Request, kind: type[M]) -> M:
    """The request's JSON object, checked. Raises `InvalidSpec`, which says what does not hold."""
    try:
        data = json.loads(await request.text() or "{}")
    except (ValueError, LookupError, RecursionError):
        raise InvalidSpec("The body of the request must be JSON.") from None
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:100] or "body"
        raise InvalidSpec(f"{place}: {first['msg']}") from None
    except RecursionError:
        raise InvalidSpec("The body of the request must be JSON.") from None


def moment(request: web.Request, name: str) -> float:
    """A query parameter in Unix seconds; 0 when it is not given. Raises `InvalidSpec`."""
    text = request.query.get(name, "")
    try:
        value = float(text or 0)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e12:  # noqa: PLR2004 - beyond any date
        raise InvalidSpec(f"{name} must be a time in Unix seconds.")
    return value
