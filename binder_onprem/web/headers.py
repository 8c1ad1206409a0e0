"""Around every request: errors become JSON or a page, answers carry the security headers and CORS, one line goes to the log.

The request's path is logged cut and without its query, which may hold tokens.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from binder_onprem import metrics
from binder_onprem.errors import BinderError, NotFound
from binder_onprem.web import accept, clients, maintenance, pages
from binder_onprem.web.keys import CATALOGUES, SITE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

logger = logging.getLogger(__name__)

SECURITY: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "SAMEORIGIN",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
}
"""A page brings a policy of its own; this one is for JSON, text and pictures."""

ALLOW_HEADERS: Final = "accept, authorization, cache-control, content-type, last-event-id, x-xsrftoken"
ALLOW_METHODS: Final = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
GONE: Final = "There is nothing at this address."
BROKEN: Final = "Something went wrong on our side. Try again; if it stays, tell the administrator."


async def decorate(request: web.Request, response: web.StreamResponse) -> None:
    """Signal `on_response_prepare`: also for streams and files."""
    for name, value in SECURITY.items():
        response.headers.setdefault(name, value)
    response.headers.popall("Server", None)
    allowed = request.app[SITE].config.web.cors_allow_origin
    if allowed:
        response.headers.setdefault("Access-Control-Allow-Origin", allowed)
        response.headers["Access-Control-Expose-Headers"] = "retry-after, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset"
    response.headers["Access-Control-Allow-Headers"] = ALLOW_HEADERS


def server_log() -> logging.Logger:
    """Where the server logs: without a traceback for every malformed request that somebody sends."""
    log = logging.getLogger("binder_onprem.web.server")
    log.addFilter(_worth_logging)
    return log


def _worth_logging(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


@web.middleware
async def logged(request: web.Request, handler: Handler) -> web.StreamResponse:
    """One line and one count for each answer."""
    started = time.monotonic()
    response = await handler(request)
    resource = request.match_info.route.resource
    route = (resource.canonical if resource else None) or "none"
    metrics.ANSWERS.labels(route=route, status=f"{response.status // 100}xx").inc()
    fields = {
        "method": request.method[:16],
        "path": request.raw_path.partition("?")[0][:200],
        "status": response.status,
        "address": clients.of_request(request, request.app[SITE].config),
        "seconds": round(time.monotonic() - started, 3),
    }
    logger.debug("answered", extra=fields)
    return response


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error in the form the client reads; HTTP's own ones too. Preflights are answered here."""
    if request.method == "OPTIONS":
        return web.Response(headers={"Access-Control-Allow-Methods": ALLOW_METHODS, "Access-Control-Max-Age": "600"})
    try:
        return await handler(request)
    except BinderError as error:
        return answer(request, error, error.status)
    except web.HTTPNotFound:
        return answer(request, NotFound(GONE), 404)
    except web.HTTPRedirection:
        raise
    except web.HTTPException as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return answer(request, BinderError(error.reason), error.status, headers)
    except Exception:
        logger.exception("request broke", extra={"path": request.raw_path.partition("?")[0][:200]})
        return answer(request, BinderError(BROKEN), 500)


def answer(request: web.Request, error: BinderError, status: int, headers: dict[str, str] | None = None) -> web.Response:
    """A page for a browser, JSON for everything else."""
    more = dict(headers or {})
    if error.retry_after is not None:
        more["Retry-After"] = str(round(error.retry_after))
    if not request.app[SITE].config.web.api_only and accept.html_preferred(",".join(request.headers.getall("Accept", []))):
        return pages.error_page(request, error, status, more)
    catalogues = request.app[CATALOGUES]
    language = catalogues.choose(request)
    message = maintenance.instead(request, language, error.code) or catalogues.told(language, error.message)
    body = {"status": status, "code": error.code, "message": message, "retryable": error.retryable}
    return web.json_response(body, status=status, headers=more)
