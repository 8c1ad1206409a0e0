"""``/api/docs``: the interface's description as a page, made of the same document that programs read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from binder_onprem.web import clients, openapi, pages
from binder_onprem.web.keys import SITE

if TYPE_CHECKING:
    from aiohttp import web


async def docs(request: web.Request) -> web.Response:
    """The handler."""
    document = openapi.document(clients.public_url(request, request.app[SITE].config))
    schemas = {name: json.dumps(schema, indent=2, ensure_ascii=False) for name, schema in sorted(document["components"]["schemas"].items())}
    return pages.render(request, "docs.html", title=document["info"]["title"], operations=operations(document), schemas=schemas)


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Each operation as the page shows it, by path."""
    found = []
    for path, methods in sorted(document["paths"].items()):
        for method, operation in methods.items():
            body = next(iter(operation.get("requestBody", {}).get("content", {}).values()), None)
            found.append(
                {
                    "id": f"{method}-{path.strip('/').replace('/', '-').translate({ord(c): None for c in '{}'}) or 'root'}",
                    "method": method.upper(),
                    "path": path,
                    "summary": operation["summary"],
                    "admin": "security" in operation,
                    "parameters": operation.get("parameters", []),
                    "body": _schema_name(body["schema"]) if body else "",
                    "answers": [
                        {"status": status, "description": answer["description"], "schema": _answer_schema(answer)}
                        for status, answer in operation["responses"].items()
                    ],
                }
            )
    return found


def _answer_schema(answer: dict[str, Any]) -> str:
    return next((_schema_name(content.get("schema", {})) for content in answer.get("content", {}).values()), "")


def _schema_name(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]
