"""One call of the daemon's API, as most commands make it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from binder_onprem.cli.options import Site


def call(site: Site, method: str, path: str, body: Any = None, **query: str) -> Any:
    """The answer's JSON; raises `BinderError` as the API says."""
    return asyncio.run(_called(site, method, path, body, query))


async def _called(site: Site, method: str, path: str, body: Any, query: dict[str, str]) -> Any:
    from binder_onprem.cli.client import connected  # noqa: PLC0415 - the other commands start faster without it

    async with connected(site.read()) as client:
        return await client.json(method, path, body, **query)


def segment(text: str) -> str:
    """As one segment of a path."""
    return quote(text, safe="")
