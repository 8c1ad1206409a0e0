"""The JSON API on one image: what is in it, who signed it, what the site's scan said. For the administrator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from binder_onprem.errors import InvalidSpec, NotFound
from binder_onprem.model import Role
from binder_onprem.web import clients
from binder_onprem.web.admin.desk import ordered
from binder_onprem.web.keys import SITE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from binder_onprem.interfaces import StoredImage, Supply
    from binder_onprem.web.site import Site

SHORTEST: Final = 6
"""Digits of a digest that may stand for it, where no other image begins so."""


async def show(request: web.Request) -> web.Response:
    """``GET /api/images/<image>``."""
    site, supply, image = await _asked(request)
    used = (await site.store.last_used()).get(image.reference)
    return web.json_response({**await supply.papers(image.reference), "size": image.size, "last_used": used})


async def sbom(request: web.Request) -> web.Response:
    """``GET /api/images/<image>/sbom``: the document."""
    _, supply, image = await _asked(request)
    document = await supply.sbom(image.reference)
    if document is None:
        raise NotFound("There is no list of what is in this image. It was built before such lists were made, or the making failed.")
    return web.Response(body=document, content_type="application/vnd.cyclonedx+json")


async def sign(request: web.Request) -> web.Response:
    """``POST /api/images/<image>/sign``: by the site's key, at the administrator's word."""
    async with ordered(request, "image.sign", request.match_info["id"]):
        _, supply, image = await _asked(request)
        await supply.sign(image.reference)
    return web.json_response(await supply.papers(image.reference))


async def _asked(request: web.Request) -> tuple[Site, Supply, StoredImage]:
    await clients.require(request, Role.ADMIN)
    site, name = request.app[SITE], request.match_info["id"]
    if site.line.supply is None:
        raise NotFound("Nothing is kept of images here.")
    return site, site.line.supply, _found(name, await site.registry.images())


def _found(name: str, images: Sequence[StoredImage]) -> StoredImage:
    """The image by its reference, its repository's last part, its digest, or the beginning of that.

    Raises:
        NotFound: There is none.
        InvalidSpec: There are several.
    """
    digest = name.rpartition("@")[2].removeprefix("sha256:")
    hits = [image for image in images if _meant(image.reference, name, digest)]
    if not hits:
        raise NotFound("There is no such image (any more). The list of images has the references.")
    if len(hits) > 1:
        raise InvalidSpec(f"This names {len(hits)} images. Give more of the digest.")
    return hits[0]


def _meant(reference: str, name: str, digest: str) -> bool:
    repository, _, own = reference.partition("@sha256:")
    if "@" in name:
        return reference.endswith(f"{name.partition('@')[0]}@sha256:{own}") and own == digest
    return repository.endswith(f"/{name}") or (len(digest) >= SHORTEST and own.startswith(digest))
