"""The administrator's part of ``/openapi.json``."""

from __future__ import annotations

from typing import Any, Final

from binder_onprem.ruling import TEXT_LIMIT
from binder_onprem.web.schemas import BOOLEAN, NULLABLE_NUMBER, NULLABLE_TEXT, NUMBER, TEXT, answer, array, object_, operation, path, query

INTEGER: Final = {"type": "integer"}
NULLABLE_INTEGER: Final = {"type": ["integer", "null"]}
TEXTS: Final = {"type": "array", "items": TEXT}
ROOM: Final = {**TEXT, "maxLength": TEXT_LIMIT}
SECONDS: Final = {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 3162240000, "description": "From now until it ends by itself"}
DIGEST: Final = path("id", "Its digest", pattern="^sha256:[0-9a-f]{64}$")
BUILD: Final = path("id", "16 hexadecimal digits", pattern="^[0-9a-f]{16}$")
BUILDER: Final = path("name", "As the settings call it")
BAN: Final = path("id", "16 hexadecimal digits", pattern="^[0-9a-f]{16}$")
GONE: Final = {"404": answer("No such thing (any more)", "Error")}
WRONG: Final = {"400": answer("A parameter or the body does not hold", "Error")}
IMAGE: Final = path("id", "Its digest or the beginning of that, its reference percent-encoded, or the last part of its repository")
MEANT: Final = {**GONE, "400": answer("Several images are meant", "Error")}
HTML: Final = {"200": answer("A page", "text", "text/html")}
AUDITED: Final = (
    query("kind", "string", "What administrators did, or launches", enum=["actions", "launches"], default="actions"),
    query("action", "string", "Only actions that begin so, as `image.`"),
    query("who", "string", "Only this account or address"),
    query("since", "number", "Only from then on, Unix seconds", minimum=0, exclusiveMaximum=1e12),
)

SCHEMAS: Final[dict[str, Any]] = {
    "Session": object_(
        {
            "name": TEXT,
            "owner": {**NULLABLE_TEXT, "description": "Whose it is, where people log in"},
            "ready": BOOLEAN,
            "server": {**BOOLEAN, "description": "False: an entry is left without a session"},
            "started": NULLABLE_NUMBER,
            "last_activity": NULLABLE_NUMBER,
            "image": NULLABLE_TEXT,
            "launch_id": NULLABLE_TEXT,
            "url": TEXT,
            "repo_url": TEXT,
            "request": {**TEXT, "description": "The link that leads to the same again"},
            "project": {**TEXT, "description": "Id of the project that is its home, or nothing"},
            "link": {**NULLABLE_TEXT, "description": "provider/path that was launched"},
            "client": {**NULLABLE_TEXT, "description": "Account or address that launched it"},
            "commit": NULLABLE_TEXT,
            "cpu": {**NULLABLE_NUMBER, "description": "Processors in use now"},
            "memory": {**NULLABLE_INTEGER, "description": "Bytes in use now"},
            "maintenance": {**NULLABLE_NUMBER, "description": "Unix seconds at which it ends at the latest, where its machine is maintained"},
            "written": {**NULLABLE_INTEGER, "description": "Bytes written to disk, as last counted"},
        }
    ),
    "Sessions": object_({"sessions": array("Session")}),
    "Stopped": object_({"stopped": TEXTS, "failed": TEXTS}),
    "Builder": object_(
        {
            "name": TEXT,
            "url": {**TEXT, "description": "Empty: this machine"},
            "state": {**TEXT, "enum": ["ok", "away", "closed"]},
            "message": {**TEXT, "description": "Why it is away"},
            "running": {**INTEGER, "description": "Builds that run there"},
            "places": {**INTEGER, "description": "Builds that it takes at once"},
        }
    ),
    "Builders": object_({"builders": array("Builder")}),
    "Image": object_(
        {
            "id": {**TEXT, "description": "Its digest"},
            "reference": TEXT,
            "size": {**INTEGER, "description": "Bytes, shared ones included"},
            "shared": {**INTEGER, "description": "Bytes of layers that other images have too"},
            "own": INTEGER,
            "last_used": NULLABLE_NUMBER,
            "sessions": {**INTEGER, "description": "Sessions that use it now"},
            "pinned": BOOLEAN,
            "build": {**NULLABLE_TEXT, "description": "Id of the build that made it"},
            "repo_url": NULLABLE_TEXT,
            "commit": NULLABLE_TEXT,
        }
    ),
    "Images": object_({"images": array("Image")}),
    "Papers": {
        "type": "object",
        "properties": {
            "reference": TEXT,
            "sbom": {"type": ["object", "null"], "description": "Counts by kind, digest, repository, commit, recipe, base image"},
            "signature": {"enum": ["good", "bad", "none"]},
            "scan": {"type": ["object", "null"], "description": "What the site's scan said"},
            "size": INTEGER,
            "last_used": NULLABLE_NUMBER,
        },
        "required": ["reference", "sbom", "scan", "signature"],
    },
    "Document": {"type": "object", "description": "CycloneDX 1.6"},
    "Pinned": object_({"id": TEXT, "pinned": BOOLEAN}),
    "Deleted": object_({"id": TEXT, "size": INTEGER}),
    "Queue": object_(
        {
            "paused": {**BOOLEAN, "description": "No build begins now, by itself or by a maintenance"},
            "paused_by": NULLABLE_TEXT,
            "paused_since": NULLABLE_NUMBER,
            "running": TEXTS,
            "waiting": {**TEXTS, "description": "Ids of builds, the next one first"},
            "maintenance": {"oneOf": [{"$ref": "#/components/schemas/Maintenance"}, {"type": "null"}]},
        }
    ),
    "Maintenance": object_(
        {
            "mode": {"enum": ["notice", "builds", "launches"]},
            "message": TEXT,
            "message_fr": TEXT,
            "since": NUMBER,
            "until": NULLABLE_NUMBER,
            "by": TEXT,
        }
    ),
    "MaintenanceNow": object_({"maintenance": {"oneOf": [{"$ref": "#/components/schemas/Maintenance"}, {"type": "null"}]}}),
    "MaintenanceOrder": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "mode": {"enum": ["notice", "builds", "launches"], "default": "launches"},
            "message": {**ROOM, "description": "Words that people read; a notice needs some"},
            "message_fr": ROOM,
            "seconds": SECONDS,
        },
    },
    "Ban": object_(
        {
            "kind": {"enum": ["spec", "network", "user"]},
            "value": TEXT,
            "reason": TEXT,
            "id": {**NULLABLE_TEXT, "description": "None: the configuration's"},
            "created": NULLABLE_NUMBER,
            "until": NULLABLE_NUMBER,
            "by": NULLABLE_TEXT,
            "source": {"enum": ["configuration", "runtime"]},
        }
    ),
    "Bans": object_({"bans": array("Ban")}),
    "BanOrder": {
        "type": "object",
        "additionalProperties": False,
        "required": ["kind", "value"],
        "properties": {
            "kind": {"enum": ["spec", "network", "user"]},
            "value": {**TEXT, "minLength": 1, "maxLength": 300, "description": "Link with * for any characters, network as CIDR, or account"},
            "reason": {**ROOM, "description": "Told to those it concerns"},
            "seconds": SECONDS,
        },
    },
    "Quotas": {"type": "object", "description": "Limits of the configuration by what they limit; 0: no limit"},
    "Entry": object_(
        {
            "kind": {"enum": ["action", "launch"]},
            "number": INTEGER,
            "at": NUMBER,
            "who": TEXT,
            "address": TEXT,
            "action": TEXT,
            "subject": TEXT,
            "outcome": {**TEXT, "description": "`ordered`, an error's code where it was not done after all; of launches `ready`, `left` or a code"},
            "details": {"type": "object"},
        }
    ),
    "Entries": object_({"entries": array("Entry"), "before": {**NULLABLE_INTEGER, "description": "Where the next page begins"}}),
    "Host": object_(
        {
            "storage": {"type": "array", "items": {"type": "object"}},
            "memory": {"type": "object"},
            "load": {"type": "array", "items": NUMBER},
            "processors": INTEGER,
            "parts": {"type": "array", "items": {"type": "object"}},
            "findings": {"type": "array", "items": {"type": "object"}},
            "certificates": {"type": "array", "items": {"type": "object"}},
            "versions": {"type": "object"},
            "passes": {"type": "object"},
        }
    ),
}

PATHS: Final[dict[str, Any]] = {
    "/api/builds/{id}/rebuild": {
        "post": operation(
            "Make the image anew, though it is there; sessions stay",
            {"200": answer("The new build, or the one that is open already", "Build"), "429": answer("Too many builds wait", "Error"), **GONE},
            BUILD,
            admin=True,
        )
    },
    "/api/builds/{id}/prioritise": {
        "post": operation("Move a build to the front of the queue", {"200": answer("The build as it is then", "Build"), **GONE}, BUILD, admin=True)
    },
    "/api/builders": {"get": operation("Machines that build; none is listed where this one is all", {"200": answer("They", "Builders")}, admin=True)},
    "/api/builders/{name}/close": {
        "post": operation("Give a machine no new builds; what runs goes on", {"200": answer("All of them", "Builders"), **GONE}, BUILDER, admin=True)
    },
    "/api/builders/{name}/open": {"post": operation("Give it builds again", {"200": answer("All of them", "Builders")}, BUILDER, admin=True)},
    "/api/queue": {"get": operation("The queue", {"200": answer("What runs, what waits", "Queue")}, admin=True)},
    "/api/queue/pause": {"post": operation("Let no build begin; what runs goes on", {"200": answer("The queue", "Queue")}, admin=True)},
    "/api/queue/resume": {"post": operation("Let builds begin again", {"200": answer("The queue", "Queue")}, admin=True)},
    "/api/sessions": {
        "get": operation("Sessions, newest first", {"200": answer("Sessions", "Sessions")}, admin=True),
        "delete": operation(
            "Stop all sessions of a repository",
            {"200": answer("Which were stopped, which could not be", "Stopped"), **WRONG},
            {**query("repo", "string", "Beginning of their links, as gh/owner/name", pattern="^[^/]+/.*[^/]$", maxLength=2048), "required": True},
            admin=True,
        ),
    },
    "/api/sessions/{name}": {"delete": operation("Stop a session", {"204": answer("It is gone"), **GONE}, path("name", "Its name"), admin=True)},
    "/api/images": {"get": operation("Images, the last used first", {"200": answer("Images", "Images")}, admin=True)},
    "/api/images/{id}": {
        "get": operation("What is in an image and who signed it", {"200": answer("Its papers", "Papers"), **MEANT}, IMAGE, admin=True),
        "delete": operation(
            "Delete an image", {"200": answer("What went", "Deleted"), "409": answer("It is pinned or in use", "Error"), **GONE}, DIGEST, admin=True
        ),
    },
    "/api/images/{id}/sbom": {
        "get": operation(
            "What is in an image", {"200": answer("CycloneDX", "Document", "application/vnd.cyclonedx+json"), **MEANT}, IMAGE, admin=True
        )
    },
    "/api/images/{id}/sign": {
        "post": operation("Sign an image with the site's key", {"200": answer("Its papers then", "Papers"), **MEANT}, IMAGE, admin=True)
    },
    "/api/images/{id}/pin": {
        "put": operation("Keep an image whatever the budget", {"200": answer("It is pinned", "Pinned"), **GONE}, DIGEST, admin=True),
        "delete": operation("Keep it no longer", {"200": answer("It is not pinned", "Pinned"), **GONE}, DIGEST, admin=True),
    },
    "/api/bans": {
        "get": operation("Bans in force, of the configuration and made here", {"200": answer("Bans", "Bans")}, admin=True),
        "post": operation("Ban a link, a network or an account", {"201": answer("The ban", "Ban"), **WRONG}, admin=True, body="BanOrder"),
    },
    "/api/bans/{id}": {"delete": operation("Remove a ban", {"204": answer("It is gone"), **GONE}, BAN, admin=True)},
    "/api/quotas": {"get": operation("Limits in force", {"200": answer("Limits", "Quotas")}, admin=True)},
    "/api/maintenance": {
        "get": operation("Maintenance that is announced or in force", {"200": answer("It, or null", "MaintenanceNow")}, admin=True),
        "put": operation(
            "Announce a maintenance or put it in force", {"200": answer("It", "MaintenanceNow"), **WRONG}, admin=True, body="MaintenanceOrder"
        ),
        "delete": operation("End it", {"200": answer("null", "MaintenanceNow")}, admin=True),
    },
    "/api/audit": {
        "get": operation(
            "Who did what, newest first",
            {"200": answer("A page", "Entries"), **WRONG},
            *AUDITED,
            query("limit", "integer", "At the most", minimum=1, maximum=1000, default=100),
            query("before", "integer", "Only entries with a smaller number: the next page", minimum=0, maximum=10**18 - 1),
            admin=True,
        )
    },
    "/api/audit/export": {
        "get": operation(
            "The whole audit as JSON lines",
            {"200": answer("An Entry on each line", "text", "application/x-ndjson"), "429": answer("Too many open streams", "Error"), **WRONG},
            *AUDITED,
            admin=True,
        )
    },
    "/api/host": {"get": operation("This machine: room, memory, parts, findings", {"200": answer("The machine", "Host"), **GONE}, admin=True)},
    "/api/events": {
        "get": operation(
            "What changes, live",
            {
                "200": answer("Server-sent events: `queue`, `builds`, `sessions`, `host`, `audit`, each with JSON", "text", "text/event-stream"),
                "429": answer("Too many open streams", "Error"),
            },
            admin=True,
        )
    },
    "/api/docs": {"get": operation("This description as a page", HTML)},
    "/admin": {
        "get": operation(
            "The administrator's page, or its sign-in",
            HTML
            | {
                "302": {"description": "To the log-in, where people have accounts and `account` is in the query"},
                "403": answer("The account may not, or another page asks", "text", "text/html"),
                "503": answer("Accounts cannot be asked now", "text", "text/html"),
            },
        )
    },
    "/admin/sign-in": {
        "post": {
            "summary": "Sign in with the site's admin token",
            "requestBody": {
                "required": True,
                "content": {"application/x-www-form-urlencoded": {"schema": {"type": "object", "properties": {"token": TEXT}}}},
            },
            "responses": {
                "303": {"description": "Signed in; a cookie is set"},
                "403": answer("Not the token", "text", "text/html"),
                "429": answer("Too many tries", "text", "text/html"),
                "default": answer("Any other error", "Error"),
            },
        }
    },
    "/admin/sign-out": {"post": operation("Sign out", {"303": answer("Signed out; the cookie is gone")})},
}
