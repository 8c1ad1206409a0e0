"""Bans, maintenance and what is in force by the configuration, as routes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

from aiohttp import web
from pydantic import Field

from binder_onprem.config.frozen import Frozen
from binder_onprem.errors import NotFound
from binder_onprem.model import Role
from binder_onprem.ruling import NAME_LIMIT, TEXT_LIMIT, BanKind, Mode
from binder_onprem.web import clients
from binder_onprem.web.admin.desk import body, desk_of, ordered, who
from binder_onprem.web.keys import SITE

if TYPE_CHECKING:
    from binder_onprem.config import Config
    from binder_onprem.ruling import Ban, Maintenance

YEARS: float = 100 * 366 * 86400.0
Text = Annotated[str, Field(max_length=TEXT_LIMIT)]
Seconds = Annotated[float, Field(gt=0, le=YEARS, allow_inf_nan=False)]


class BanOrder(Frozen):
    """Body of ``POST /api/bans``."""

    kind: BanKind
    value: Annotated[str, Field(min_length=1, max_length=max(NAME_LIMIT, 300))]
    reason: Text = ""
    seconds: Seconds | None = None


class MaintenanceOrder(Frozen):
    """Body of ``PUT /api/maintenance``."""

    mode: Mode = Mode.LAUNCHES
    message: Text = ""
    message_fr: Text = ""
    seconds: Seconds | None = None


async def bans(request: web.Request) -> web.Response:
    """``GET /api/bans``: those of the configuration, then those made here."""
    await clients.require(request, Role.ADMIN)
    found = [ban_fields(ban) for ban in desk_of(request).rules.bans]
    return web.json_response({"bans": [*configured(request.app[SITE].config), *found]})


async def ban(request: web.Request) -> web.Response:
    """``POST /api/bans``."""
    order = await _order(request, BanOrder)
    details = {"reason": order.reason, "seconds": order.seconds}
    async with ordered(request, "ban.add", f"{order.kind} {order.value}", **details) as client:
        until = None if order.seconds is None else time.time() + order.seconds
        made = await desk_of(request).rules.ban(order.kind, order.value, order.reason, until, who(client))
    return web.json_response(ban_fields(made), status=201)


async def unban(request: web.Request) -> web.Response:
    """``DELETE /api/bans/<id>``."""
    ban_id, desk = request.match_info["id"], desk_of(request)
    await clients.require(request, Role.ADMIN)
    found = next((one for one in desk.rules.bans if one.id == ban_id), None)
    if found is None:
        raise NotFound("There is no such ban (any more). What the configuration bans is changed there.")
    async with ordered(request, "ban.remove", f"{found.kind} {found.value}"):
        await desk.rules.unban(ban_id)
    return web.Response(status=204)


async def _order(request: web.Request, kind: type[Any]) -> Any:
    await clients.require(request, Role.ADMIN)
    return await body(request, kind)


def configured(config: Config) -> list[dict[str, Any]]:
    """The configuration's bans in the form of the others, without id."""
    rows = [(BanKind.SPEC, pattern, "") for pattern in config.admission.banned]
    rows += [(BanKind.NETWORK, network, label) for network, label in config.admission.ban_networks.items()]
    shared = {"id": None, "created": None, "until": None, "by": None, "source": "configuration"}
    return [{"kind": kind.value, "value": value, "reason": reason, **shared} for kind, value, reason in rows]


def ban_fields(ban: Ban) -> dict[str, Any]:
    """A ban as JSON."""
    return {
        "kind": ban.kind.value,
        "value": ban.value,
        "reason": ban.reason,
        "id": ban.id,
        "created": ban.created,
        "until": ban.until,
        "by": ban.by,
        "source": "runtime",
    }


async def quotas(request: web.Request) -> web.Response:
    """``GET /api/quotas``: the limits of the configuration that are in force."""
    await clients.require(request, Role.ADMIN)
    config = request.app[SITE].config
    return web.json_response(
        {
            "sessions": {"total": config.session.total, "per_repo": config.session.per_repo},
            "session": {"memory": int(config.session.memory), "cpus": config.session.cpus, "disk": int(config.session.disk)},
            "session_seconds": {"idle": config.session.idle, "age": config.session.age},
            "builds": {"concurrency": config.build.concurrency, "queue": config.build.queue, "seconds": config.build.timeout},
            "launches": {"rate": config.admission.rate, "rate_per_user": config.admission.rate_per_user, "period": config.admission.period},
            "quota": config.quota.model_dump(mode="json"),
            "high_quota": list(config.admission.high_quota),
            "specs": [entry.model_dump(mode="json", exclude_none=True) for entry in config.admission.specs],
            "images": {"budget": int(config.images.budget)},
            "allowed": list(config.admission.allowed),
        }
    )


async def maintenance(request: web.Request) -> web.Response:
    """``GET /api/maintenance``."""
    await clients.require(request, Role.ADMIN)
    return web.json_response({"maintenance": _now(request)})


async def maintain(request: web.Request) -> web.Response:
    """``PUT /api/maintenance``."""
    order: MaintenanceOrder = await _order(request, MaintenanceOrder)
    words = {"en": order.message.strip(), "fr": order.message_fr.strip()}
    async with ordered(request, "maintenance.on", order.mode.value, **words, seconds=order.seconds) as client:
        until = None if order.seconds is None else time.time() + order.seconds
        await desk_of(request).rules.maintain(order.mode, words, until, who(client))
    return web.json_response({"maintenance": _now(request)})


async def end_maintenance(request: web.Request) -> web.Response:
    """``DELETE /api/maintenance``."""
    async with ordered(request, "maintenance.off"):
        await desk_of(request).rules.end_maintenance()
    return web.json_response({"maintenance": _now(request)})


def _now(request: web.Request) -> dict[str, Any] | None:
    found = desk_of(request).rules.maintenance
    return maintenance_fields(found) if found else None


def maintenance_fields(found: Maintenance) -> dict[str, Any]:
    """A maintenance as JSON."""
    words = {"message": found.words.get("en", ""), "message_fr": found.words.get("fr", "")}
    return {"mode": found.mode.value, **words, "since": found.since, "until": found.until, "by": found.by}
