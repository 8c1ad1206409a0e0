"""``/health`` and ``/versions``: what monitoring and federation redirectors read.

Checks run together, each bounded; their result is shared by everybody who asks within `FRESH` seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from binder_onprem import __version__
from binder_onprem.web.keys import HEALTH, SITE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

logger = logging.getLogger(__name__)

FRESH: Final = 15.0
TIMEOUT: Final = 5.0

Check = "Callable[[], Awaitable[dict[str, Any]]]"


class Health:
    """The site's checks, cached.

    Args:
        checks: By BinderHub's names (``Docker registry``, ``JupyterHub API``) and ours. Each returns ``{"ok": bool, …}``; further fields are
            shown as they are, ``_ignore_failure`` keeps a failure from counting. One that raises is not ok.
        clock: Monotonic seconds.
    """

    def __init__(self, checks: Mapping[str, Callable[[], Awaitable[dict[str, Any]]]], clock: Callable[[], float] = time.monotonic) -> None:
        self._checks = checks
        self._clock = clock
        self._lock = asyncio.Lock()
        self._result: dict[str, Any] = {}
        self._until = float("-inf")

    async def report(self) -> dict[str, Any]:
        """BinderHub's ``{"ok": …, "checks": […]}``."""
        async with self._lock:
            if self._clock() >= self._until:
                checks = await asyncio.gather(*(self._check(name) for name in self._checks))
                self._result = {"ok": all(check["ok"] or check.get("_ignore_failure") for check in checks), "checks": checks}
                self._until = self._clock() + FRESH
            return self._result

    async def _check(self, name: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(TIMEOUT):
                return {"service": name, "ok": False, **await self._checks[name]()}
        except Exception as error:  # noqa: BLE001 - whatever a check raises means not ok
            logger.warning("health check failed", extra={"service": name, "error": type(error).__name__})
            return {"service": name, "ok": False}


def capacity(sessions: int, builds: int, total: int) -> dict[str, Any]:
    """The check ``Pod quota`` that federation redirectors weigh members by: a full site is not an ill one.

    Args:
        sessions: That run or start.
        builds: That run.
        total: Sessions at once at the most.
    """
    use = {"total_pods": sessions + builds, "build_pods": builds, "user_pods": sessions, "quota": total}
    return {"ok": sessions <= total, **use, "_ignore_failure": True}


async def health(request: web.Request) -> web.Response:
    """GET and HEAD ``/health``."""
    report = await request.app[HEALTH].report()
    return web.json_response(report, status=200 if report["ok"] else 503, headers={"Cache-Control": "no-store"})


async def versions(request: web.Request) -> web.Response:
    """``/versions``, readable from every page of the world, as in BinderHub."""
    info = dict(request.app[SITE].builder_info)
    answer: dict[str, Any] = {"builder_info": info, "binderhub": __version__}
    if "build_image" in info:
        answer["builder"] = info["build_image"]
    return web.json_response(answer, headers={"Access-Control-Allow-Origin": "*"})
