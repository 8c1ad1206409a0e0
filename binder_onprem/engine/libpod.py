"""Podman's own API (libpod) over its unix socket: short calls and streams, with podman's errors as ours.

Used by `containers`, `images` and `dockerbuild`. Short calls go through podman-py on threads, fast ones apart from slow ones, so that a list never
waits behind a start. Streams are read on the event loop, so that cancelling needs no thread's consent. Podman's words go to the log only.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from podman import PodmanClient
from podman.errors import APIError

from binder_onprem.errors import BinderError, EngineUnavailable, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

API: Final = "http://podman/v4.0.0/libpod"
FAST_SECONDS: Final = 15.0
SLOW_SECONDS: Final = 120.0
DOWN: Final = "The container engine (podman) does not answer. Trying again later may help."
FULL: Final = "The disk that holds images and containers is full. The administrator must free space; then try again."
REFUSED: Final = "The container engine (podman) could not do what was asked. Trying again later may help."


class Libpod:
    """One engine.

    Args:
        socket: Where it listens.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._client = PodmanClient(base_url=f"unix://{socket}", max_pool_size=32)
        # A kept connection outlives the service it leads to; a new one over a unix socket costs nothing.
        self._client.api.headers["Connection"] = "close"
        self._fast = ThreadPoolExecutor(8, "podman-fast")
        self._slow = ThreadPoolExecutor(16, "podman-slow")

    async def call(self, method: str, path: str, *, slow: bool = False, **options: Any) -> Any:
        """Ask once.

        Args:
            method: ``get``, ``post``, ``delete``.
            path: Below ``/libpod``.
            slow: May take long: up to 120 s instead of 15.
            options: `params`, `data`, `headers` as requests has them.

        Returns:
            The answer's JSON, None when there is none.

        Raises:
            NotFound: Podman knows no such thing.
            EngineUnavailable: It does not answer, or refuses.
        """
        pool, seconds = (self._slow, SLOW_SECONDS) if slow else (self._fast, FAST_SECONDS)
        return await asyncio.get_running_loop().run_in_executor(pool, self._request, method, path, seconds, options)

    @asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str], data: AsyncIterator[bytes] | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """POST and read what comes for as long as it comes; raises as `call` does. Leaving closes the connection."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=FAST_SECONDS)
        connector = aiohttp.UnixConnector(str(self._socket))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.post(API + path, params=dict(params), data=data, headers=headers) as answer,
            ):
                if answer.status != 200:  # noqa: PLR2004 - HTTP
                    raise refused(answer.status, (await answer.content.read(4096)).decode("utf-8", "replace"))
                yield _chunks(answer)
        except (aiohttp.ClientError, OSError) as error:
            raise EngineUnavailable(DOWN) from error

    def _request(self, method: str, path: str, seconds: float, options: dict[str, Any]) -> Any:
        try:
            answer = getattr(self._client.api, method)(path, timeout=seconds, **options)
            answer.raise_for_status()
        except APIError as error:
            if error.response is None:
                raise EngineUnavailable(DOWN) from error
            raise refused(error.response.status_code, str(error.explanation or error)) from error
        return answer.json() if "json" in answer.headers.get("Content-Type", "") and answer.content else None


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, OSError) as error:
        raise EngineUnavailable(DOWN) from error


def refused(status: int, words: str) -> BinderError:
    """Podman's refusal as one of our errors.

    Args:
        status: HTTP status, 0 for an error inside a stream.
        words: What podman said; for the log.
    """
    if status == 404 or "no such image" in words or "image not known" in words:  # noqa: PLR2004 - HTTP
        return NotFound("That container or image is not on this machine (any more).")
    logger.info("podman refused", extra={"status": status, "words": words[:500]})
    error = EngineUnavailable(FULL if "no space left on device" in words else REFUSED)
    # For whoever reads a traceback; people are told the message alone.
    error.add_note(f"podman: {status} {words[:500]}")
    return error
