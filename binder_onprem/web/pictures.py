"""Badges, icons, scripts, styles and the terminal's files: fixed names, each leading to one file; no path of a client is ever joined to ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

from binder_onprem.web.keys import SITE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

STATIC: Final = Path(__file__).parent / "static"

PICTURES: Final = {
    "badge.svg": "badge.svg",
    "badge_logo.svg": "badge_logo.svg",
    "assets/images/badge.svg": "badge.svg",
    "logo_social.png": "logo_social.png",
    "favicon.svg": "favicon.svg",
    "favicon.ico": "favicon.ico",
}
VENDOR: Final = {
    "xterm.mjs": "@xterm/xterm/lib/xterm.mjs",
    "xterm.css": "@xterm/xterm/css/xterm.css",
    "addon-fit.mjs": "@xterm/addon-fit/lib/addon-fit.mjs",
}
TYPES: Final = {
    ".mjs": "text/javascript; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}
"""Not left to the machine's own table of types, which may be missing."""
FILES: Final = {path.name: path for path in STATIC.iterdir() if path.suffix in TYPES}


def routes(router: web.UrlDispatcher, base: str) -> None:
    """Badges and icons."""
    for name, file in PICTURES.items():
        router.add_get(base + name, _picture(STATIC / file))


def files(router: web.UrlDispatcher, base: str) -> None:
    """What pages load."""
    router.add_get(f"{base}static/vendor/{{name}}", vendor)
    router.add_get(f"{base}static/{{name}}", static)


def _picture(path: Path) -> Callable[[web.Request], Awaitable[web.FileResponse]]:
    async def picture(_request: web.Request) -> web.FileResponse:
        return _file(path, "public, max-age=3600")

    return picture


def _file(path: Path, caching: str = "no-cache") -> web.FileResponse:
    return web.FileResponse(path, headers={"Content-Type": TYPES[path.suffix], "Cache-Control": caching})


async def static(request: web.Request) -> web.FileResponse:
    """A file of ours; asked for again each time, so that an update holds at once."""
    path = FILES.get(request.match_info["name"])
    if path is None:
        raise web.HTTPNotFound
    return _file(path)


async def vendor(request: web.Request) -> web.FileResponse:
    """A file of the terminal; 404 where npm has not been run: the page then does without."""
    name = VENDOR.get(request.match_info["name"])
    path = request.app[SITE].vendor / name if name else None
    if path is None or not path.is_file():
        raise web.HTTPNotFound
    return _file(path)
