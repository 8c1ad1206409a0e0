"""The part of ``/openapi.json`` about who has logged in and what is hers."""

from __future__ import annotations

from typing import Any, Final

from binder_onprem.web.schemas import BOOLEAN, NULLABLE_NUMBER, NULLABLE_TEXT, TEXT, answer, array, object_, operation, path, query

TEXTS: Final = {"type": "array", "items": TEXT}
GONE: Final = {"404": answer("No such thing (any more), or nobody has to log in here", "Error")}
WHO: Final = {**GONE, "403": answer("Nobody has logged in, or the request is not from a page of ours", "Error")}

SCHEMAS: Final[dict[str, Any]] = {
    "User": object_({"name": NULLABLE_TEXT, "groups": TEXTS, "roles": {"type": "array", "items": {"enum": ["launch", "build", "admin"]}}}),
    "OwnSession": object_(
        {
            "name": TEXT,
            "owner": NULLABLE_TEXT,
            "mine": BOOLEAN,
            "ready": BOOLEAN,
            "started": NULLABLE_NUMBER,
            "last_activity": NULLABLE_NUMBER,
            "repo_url": TEXT,
            "maintenance": {**NULLABLE_NUMBER, "description": "Unix seconds at which it ends at the latest, where its machine is maintained"},
            "project": {**NULLABLE_TEXT, "description": "Id of the project that is its home: its files stay"},
            "launch": {**NULLABLE_TEXT, "description": "Path that leads to the same again"},
            "url": {**NULLABLE_TEXT, "description": "Opens it, with its token"},
        }
    ),
    "OwnSessions": object_({"sessions": array("OwnSession")}),
}

PATHS: Final[dict[str, Any]] = {
    "/api/user": {
        "get": operation("Who asks, and what that account may do", {"200": answer("The account; `name` is null for nobody", "User"), **WHO})
    },
    "/api/user/sessions": {"get": operation("One's own sessions", {"200": answer("Sessions", "OwnSessions"), **WHO})},
    "/api/user/sessions/{name}": {"delete": operation("Stop a session of one's own", {"204": answer("It is gone"), **WHO}, path("name", "Its name"))},
    "/api/users/{name}": {
        "delete": operation(
            "End somebody's sessions, log-ins and tokens",
            {"204": answer("They are gone"), **GONE},
            path("name", "The account"),
            query("credentials", "boolean", "Remove the account's credentials for private repositories, too"),
            query("projects", "boolean", "Delete the account's projects with their files, too"),
            admin=True,
        )
    },
}
