"""``/openapi.json``: the HTTP interface as OpenAPI 3.1, kept beside the routes; a test compares both."""

from __future__ import annotations

from typing import Any, Final

from binder_onprem import __version__
from binder_onprem.web import credentials, hooks, own_description, policy, projects
from binder_onprem.web.admin import description
from binder_onprem.web.schemas import BOOLEAN, NULLABLE_NUMBER, NULLABLE_TEXT, NUMBER, TEXT
from binder_onprem.web.schemas import answer as _answer
from binder_onprem.web.schemas import array as _array
from binder_onprem.web.schemas import object_ as _object
from binder_onprem.web.schemas import operation as _operation
from binder_onprem.web.schemas import path as _path
from binder_onprem.web.schemas import query as _query

SCHEMAS: Final[dict[str, Any]] = {
    "Error": _object({"status": {"type": "integer"}, "code": TEXT, "message": TEXT, "retryable": BOOLEAN}),
    "Event": {
        "type": "object",
        "description": "One event of a launch. `ready` and `failed` are terminal; `ready` has all of BinderHub's fields.",
        "properties": {
            "phase": {"enum": ["waiting", "fetching", "building", "built", "launching", "ready", "failed", "unknown"]},
            "message": TEXT,
            "build": {**TEXT, "description": "Id of the build, for /api/builds/{id}"},
            "position": {"type": "integer", "description": "In the queue of builds, or where `waiting_for` is given in that of launches"},
            "waiting_for": {"enum": ["total", "repository", "user", "group"], "description": "Of what there is no free place"},
            "estimate": {**NUMBER, "description": "Seconds until the build starts"},
            "imageName": TEXT,
            "url": TEXT,
            "token": TEXT,
            "image": TEXT,
            "repo_url": TEXT,
            "binder_ref_url": TEXT,
            "binder_launch_host": TEXT,
            "binder_request": TEXT,
            "binder_persistent_request": TEXT,
            "status_code": {"type": "integer"},
            "code": TEXT,
            "retryable": BOOLEAN,
            "retry_after": {"type": "integer", "description": "Seconds"},
        },
        "required": ["message", "phase"],
    },
    "Build": _object(
        {
            "id": {**TEXT, "pattern": "^[0-9a-f]{16}$"},
            "state": {"enum": ["queued", "running", "pushing", "built", "failed", "cancelled"]},
            "repo_url": TEXT,
            "commit": TEXT,
            "provider": TEXT,
            "spec": TEXT,
            "image": TEXT,
            "digest": NULLABLE_TEXT,
            "created": {**NUMBER, "description": "Unix seconds, as all times"},
            "started": NULLABLE_NUMBER,
            "ended": NULLABLE_NUMBER,
            "seconds": NUMBER,
            "attempt": {"type": "integer"},
            "error": NULLABLE_TEXT,
            "message": NULLABLE_TEXT,
            "position": {"type": ["integer", "null"], "description": "In the queue, from 1"},
            "estimate": {**NULLABLE_NUMBER, "description": "Seconds until it starts"},
            "fresh": {**BOOLEAN, "description": "Made anew whatever is there"},
            "front": {**NULLABLE_NUMBER, "description": "When it was moved to the front of the queue"},
        }
    ),
    "Ending": _object(
        {
            "name": TEXT,
            "ended": BOOLEAN,
            "reason": {"enum": ["idle", "age", "maintenance", None]},
            "seconds": {**NULLABLE_NUMBER, "description": "Until it ends if nothing happens; null while it starts"},
            "maintenance": {**NULLABLE_NUMBER, "description": "Unix seconds at which it ends at the latest, where its machine is maintained"},
            "warn": {**NUMBER, "description": "Seconds before its end that its page warns"},
            "files": {**BOOLEAN, "description": "Whether its changed files can be had"},
            "kept": {"type": ["object", "null"], "description": "Of one that has ended: `bytes` of the archive, kept `until` (Unix seconds)"},
        }
    ),
    "Builds": _object({"builds": _array("Build")}),
    "Pruned": _object({"dry_run": BOOLEAN, "images": {"type": "array", "items": {"type": "object"}}}),
    "Reaped": _object({"dry_run": BOOLEAN, "actions": {"type": "array", "items": {"type": "object"}}}),
    "Health": _object({"ok": BOOLEAN, "checks": {"type": "array", "items": _object({"service": TEXT, "ok": BOOLEAN})}}),
    "Versions": {"type": "object", "properties": {"builder_info": {"type": "object"}, "binderhub": TEXT, "builder": TEXT}},
    "EventMessage": {
        "type": "object",
        "description": "One of server-sent events",
        "properties": {"data": {**TEXT, "contentMediaType": "application/json", "contentSchema": {"$ref": "#/components/schemas/Event"}}},
        "required": ["data"],
    },
    **policy.SCHEMAS,
    **hooks.SCHEMAS,
    **credentials.SCHEMAS,
    **projects.SCHEMAS,
    "Providers": {"type": "array", "items": {"type": "object", "description": "BinderHub's display_config"}},
}


GONE: Final = {"404": _answer("No such thing (any more)", "Error")}
DRY_RUN: Final = _query("dry_run", "boolean", "Only say what would be done")
BUILD: Final = _path("id", "16 hexadecimal digits, the `build` of an event")
HTML: Final = {"200": _answer("A page", "text", "text/html")}
SVG: Final = {"200": _answer("A picture", "text", "image/svg+xml")}
NAMED: Final = (
    _path("name", "The session's, the last segment of its URL"),
    _query("token", "string", "The session's own token, unless it is in `Authorization: token …`"),
)
OWN: Final = {"403": _answer("Not the session's token", "Error")}
LINK: Final = (
    _path("provider", "A provider's prefix, as `id` in /api/repoproviders"),
    _path("spec", "Repository and ref in the provider's form; may contain slashes, and percent-encoding is kept as it is"),
)

PATHS: Final[dict[str, Any]] = {
    "/build/{provider}/{spec}": {
        "get": _operation(
            "Launch: a stream of events",
            {
                "200": _answer("Server-sent events, each `data:` an Event; errors are `failed` events", "EventMessage", "text/event-stream"),
                "204": _answer("The launch had ended; do not reconnect"),
                "429": _answer("Too many open streams", "EventMessage", "text/event-stream"),
            },
            *LINK,
            _query("build_token", "string", "Token of a page of ours: the launch does not count against the rate limit"),
            _query("build_only", "boolean", "Build only: `ready` then has `imageName`. Refused unless in API-only mode"),
            _query("resume", "boolean", "Give events ids, and continue after Last-Event-ID"),
            _query("last_id", "string", "Same as the header Last-Event-ID, for browsers that cannot set it"),
            _query("lang", "string", "Language of what is said to people, as `fr`; lines of the log stay as they are"),
            {"name": "Last-Event-ID", "in": "header", "schema": TEXT},
        )
    },
    "/api/repoproviders": {"get": _operation("Kinds of repositories", {"200": _answer("BinderHub's display_config of each", "Providers")})},
    "/_config": {"get": _operation("Providers' labels, for old clients", {"200": _answer("By prefix", "Versions")})},
    "/versions": {"get": _operation("Versions", {"200": _answer("BinderHub's form", "Versions")})},
    "/health": {"get": _operation("Health", {"200": _answer("All is well", "Health"), "503": _answer("Something is not", "Health")})},
    "/metrics": {"get": _operation("Metrics", {"200": _answer("Prometheus' text format", "text", "text/plain")})},
    "/api/builds": {
        "get": _operation(
            "Builds, newest first",
            {"200": _answer("Builds", "Builds"), "400": _answer("A parameter does not hold", "Error")},
            _query("limit", "integer", "At the most", minimum=1, maximum=1000, default=50),
            _query("open", "boolean", "Only those that have not ended, oldest first"),
            _query("state", "string", "Only those in this state", enum=["queued", "running", "pushing", "built", "failed", "cancelled"]),
            _query("text", "string", "Only those whose repository, link or commit holds this"),
            _query("before", "string", "Only those older than the build of this id: the next page", pattern="^[0-9a-f]{16}$"),
            admin=True,
        )
    },
    "/api/builds/{id}": {
        "get": _operation("A build", {"200": _answer("The build", "Build"), **GONE}, BUILD),
        "delete": _operation("Cancel a build", {"200": _answer("The build as it is then", "Build"), **GONE}, BUILD, admin=True),
    },
    "/api/builds/{id}/log": {
        "get": _operation(
            "A build's log",
            {"200": _answer("Its lines", "text", "text/plain"), "429": _answer("Too many open streams", "Error"), **GONE},
            BUILD,
            _query("follow", "boolean", "Go on until the build ends"),
        )
    },
    "/api/hooks/{name}": {
        "post": _operation(
            "Tell of a push: the environment is built before anybody clicks",
            {
                "200": _answer("Nothing is to be done, or the build has ended", "PushAnswer"),
                "202": _answer("It is being built", "PushAnswer"),
                "400": _answer("The body does not hold", "Error"),
                "403": _answer("Not signed as it should be, or not for this repository", "Error"),
                **GONE,
            },
            _path("name", "As in the settings"),
        )
    },
    "/api/outbox": {"get": _operation("Events that wait for receivers", {"200": _answer("The outbox", "Outbox")}, admin=True)},
    "/api/outbox/retry": {"post": _operation("Send once more what was put aside", {"200": _answer("How many", "Revived")}, admin=True)},
    "/api/waiting": {"get": _operation("Launches that wait for a place, and the quotas", {"200": _answer("Who waits", "WaitingList")}, admin=True)},
    "/api/sessions/reap": {"post": _operation("End overdue sessions now", {"200": _answer("What was done", "Reaped")}, DRY_RUN, admin=True)},
    "/api/images/prune": {"post": _operation("Delete images beyond the budget now", {"200": _answer("What went", "Pruned")}, DRY_RUN, admin=True)},
    "/api/session/{name}": {
        "get": _operation("When a session ends, and why", {"200": _answer("How it stands", "Ending"), **OWN, **GONE}, *NAMED),
    },
    "/api/session/{name}/keep": {
        "post": _operation("Its person goes on working: counts as activity", {"200": _answer("How it stands then", "Ending"), **OWN, **GONE}, *NAMED),
    },
    "/api/session/{name}/files": {
        "get": _operation(
            "The files it has changed, or those kept of one that has ended",
            {"200": _answer("A gzipped tar", "text", "application/gzip"), "429": _answer("Too many downloads", "Error"), **OWN, **GONE},
            *NAMED,
        ),
    },
    **credentials.PATHS,
    **projects.PATHS,
    "/": {"get": _operation("The form that makes links and badges", HTML)},
    "/about": {"get": _operation("What this service is", HTML)},
    "/v2/{provider}/{spec}": {"get": _operation("The page of a launch", {**HTML, **GONE}, *LINK)},
    "/badge.svg": {"get": _operation("Badge", SVG)},
    "/badge_logo.svg": {"get": _operation("Badge with logo", SVG)},
    "/openapi.json": {"get": _operation("This description", {"200": {"description": "OpenAPI 3.1", "content": {"application/json": {}}}})},
}


PEOPLE: Final = ("/", "/about", "/v2/{provider}/{spec}", "/badge.svg", "/badge_logo.svg")
"""Pages and pictures, which a build service does not have."""


def document(server: str, *, api_only: bool = False) -> dict[str, Any]:
    """The description.

    Args:
        server: Our URL as the client sees it.
        api_only: Without what is for people.
    """
    paths = {path: item for path, item in (PATHS | description.PATHS | own_description.PATHS).items() if not (api_only and path in PEOPLE)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "binder-onprem", "version": __version__, "description": "BinderHub's HTTP interface, and what goes beyond it."},
        "servers": [{"url": server.rstrip("/") or "/"}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS | description.SCHEMAS | own_description.SCHEMAS,
            "securitySchemes": {"admin": {"type": "http", "scheme": "bearer"}},
        },
    }
