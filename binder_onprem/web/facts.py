"""Small answers about the site: providers, the interface's description, metrics."""

from __future__ import annotations

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from binder_onprem.web import clients, openapi
from binder_onprem.web.keys import SITE


async def repoproviders(request: web.Request) -> web.Response:
    """``/api/repoproviders``."""
    return web.json_response(request.app[SITE].displays)


async def old_config(request: web.Request) -> web.Response:
    """``/_config``, which old clients of BinderHub read."""
    shown = request.app[SITE].displays
    labels = {
        item["id"]: {
            "text": item["repo"]["label"],
            "tag_text": "Git ref (branch, tag, or commit)",
            "ref_prop_disabled": not item["ref"]["enabled"],
            "label_prop_disabled": not item["ref"]["enabled"],
        }
        for item in shown
    }
    return web.json_response(labels)


async def metrics_text(_request: web.Request) -> web.Response:
    """``/metrics``."""
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def description(request: web.Request) -> web.Response:
    """``/openapi.json``."""
    config = request.app[SITE].config
    return web.json_response(openapi.document(clients.public_url(request, config), api_only=config.web.api_only))
