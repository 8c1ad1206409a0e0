"""``POST /api/hooks/<name>``: somebody tells of a push, and the environment is built before anybody clicks; and what waits for receivers."""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiohttp import web

from binder_onprem import pushes
from binder_onprem.errors import InvalidSpec, NotFound, Refused
from binder_onprem.model import ImageRef, ResolvedRepo, Role
from binder_onprem.web import clients
from binder_onprem.web.keys import SITE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from binder_onprem.config import PushHook
    from binder_onprem.waitingevents import Letter
    from binder_onprem.web.site import Site

BODY_BYTES: Final = 5 * 1024**2
BODY_SECONDS: Final = 10.0
TEXT: Final = {"type": "string"}
COUNT: Final = {"type": "integer"}
SCHEMAS: Final[dict[str, Any]] = {
    "PushAnswer": {
        "type": "object",
        "properties": {
            "state": {"enum": ["ignored", "built", "queued", "running", "pushing", "failed", "cancelled"]},
            "reason": {**TEXT, "description": "Why nothing is built"},
            "build": {**TEXT, "description": "For /api/builds/{id}"},
        },
        "required": ["state"],
    },
    "Outbox": {
        "type": "object",
        "properties": {
            "receivers": {
                "type": "object",
                "additionalProperties": {"type": "object", "properties": {"waiting": COUNT, "dead": COUNT}, "required": ["waiting", "dead"]},
            },
            "dead": {"type": "array", "items": {"type": "object"}, "description": "Events put aside, newest first, with the last error"},
        },
        "required": ["receivers", "dead"],
    },
    "Revived": {"type": "object", "properties": {"revived": COUNT}, "required": ["revived"]},
}


class Letters(Protocol):
    """The outbox, and what pushes were answered with."""

    async def counts(self) -> dict[str, dict[str, int]]:
        """By receiver."""
        ...

    async def dead(self, limit: int = 100) -> Sequence[Letter]:
        """Put aside."""
        ...

    async def revive(self, now: float) -> int:
        """Try them once more."""
        ...

    async def delivered(self, key: str) -> str | None:
        """The build of a push that was told of before."""
        ...

    async def deliver(self, key: str, build: str, now: float) -> None:
        """Remember it."""
        ...


@dataclass(frozen=True, slots=True)
class Post:
    """What these routes need beyond the site's parts.

    Attributes:
        letters: The tables.
        keys: Name of a hook → its secret.
        stir: Wakes the sender.
    """

    letters: Letters
    keys: Mapping[str, bytes]
    stir: Callable[[], None] = lambda: None


async def push(request: web.Request) -> web.Response:
    """``POST /api/hooks/<name>``."""
    site, name = request.app[SITE], request.match_info["name"]
    hook = site.config.hooks.get(name)
    if hook is None or site.post is None:
        raise NotFound("There is no hook of this name.")
    body = await _body(request)
    pushes.check(hook, site.post.keys[name], request.headers, body, site.line.now())
    told = pushes.read(hook, request.headers, body)
    if told is None:
        return web.json_response({"state": "ignored", "reason": "no push of a commit"})
    if hook.branches and not any(re.fullmatch(pattern, told.branch) for pattern in hook.branches):
        return web.json_response({"state": "ignored", "reason": "not one of the hook's branches"})
    return await _built(site, name, hook, told.link(hook), hashlib.sha256(f"{name}\0".encode() + body).hexdigest())


async def _built(site: Site, name: str, hook: PushHook, link: str, key: str) -> web.Response:
    prefix, _, path = link.partition("/")
    provider = site.line.providers.get(prefix)
    if provider is None or not any(re.match(pattern, link, re.IGNORECASE) for pattern in hook.repositories):
        raise Refused("This hook is not for this repository.")
    site.line.admission.link(link)
    spec = provider.parse(path)
    # The sender has named the commit, so nobody needs to be asked: the answer is quick whatever its host does.
    image = ImageRef.of(ResolvedRepo(spec, spec.ref, spec.path, spec.url), site.config.image_prefix, site.line.recipe)
    assert site.post is not None  # noqa: S101 - `push` has seen to it
    earlier = await site.post.letters.delivered(key)
    record = await site.store.build(earlier) if earlier else None
    if record is None:
        if await site.registry.digest(image):
            return web.json_response({"state": "built"})
        record = await site.builds.start(image, ResolvedRepo(spec, spec.ref, spec.path, spec.url), client=f"hook:{name}")
        await site.post.letters.deliver(key, record.id, site.line.now())
    return web.json_response({"state": record.state.value, "build": record.id}, status=200 if record.state.terminal else 202)


async def _body(request: web.Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_chunked(64 * 1024):
                body += chunk
                if len(body) > BODY_BYTES:
                    raise InvalidSpec(f"The body is longer than {BODY_BYTES // 1024**2} MiB.")
    except TimeoutError:
        raise InvalidSpec("The body did not arrive in time.") from None
    return bytes(body)


async def outbox(request: web.Request) -> web.Response:
    """``GET /api/outbox``."""
    await clients.require(request, Role.ADMIN)
    post = request.app[SITE].post
    counts, dead = (await post.letters.counts(), await post.letters.dead()) if post else ({}, ())
    return web.json_response({"receivers": counts, "dead": [asdict(letter) for letter in dead]})


async def revive(request: web.Request) -> web.Response:
    """``POST /api/outbox/retry``."""
    await clients.require(request, Role.ADMIN)
    site = request.app[SITE]
    number = await site.post.letters.revive(site.line.now()) if site.post else 0
    if site.post:
        site.post.stir()
    return web.json_response({"revived": number})
