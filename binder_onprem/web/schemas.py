"""The words that `openapi` and `admin.description` describe the interface in."""

from __future__ import annotations

from typing import Any, Final

TEXT: Final = {"type": "string"}
NUMBER: Final = {"type": "number"}
BOOLEAN: Final = {"type": "boolean"}
NULLABLE_NUMBER: Final = {"type": ["number", "null"]}
NULLABLE_TEXT: Final = {"type": ["string", "null"]}


def object_(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A schema of an object whose properties are all there."""
    return {"type": "object", "properties": properties, "required": sorted(properties), **more}


def array(name: str) -> dict[str, Any]:
    """A schema of an array of a named schema."""
    return {"type": "array", "items": ref(name)}


def ref(name: str) -> dict[str, str]:
    """A named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def answer(description: str, kind: str | None = None, media: str = "application/json") -> dict[str, Any]:
    """A response; `kind` is a named schema or ``text``."""
    if kind is None:
        return {"description": description}
    return {"description": description, "content": {media: {"schema": TEXT if kind == "text" else ref(kind)}}}


def query(name: str, kind: str, description: str, **schema: Any) -> dict[str, Any]:
    """A query parameter; `schema` has further keywords."""
    return {"name": name, "in": "query", "description": description, "schema": {"type": kind, **schema}}


def path(name: str, description: str, **schema: Any) -> dict[str, Any]:
    """A path parameter; `schema` has further keywords."""
    return {"name": name, "in": "path", "required": True, "description": description, "schema": TEXT | schema}


def operation(summary: str, answers: dict[str, Any], *parameters: dict[str, Any], admin: bool = False, body: str = "") -> dict[str, Any]:
    """An operation; `admin`: for administrators only; `body`: the named schema of its JSON."""
    refused = {"403": answer("Not the administrator", "Error")} if admin else {}
    described: dict[str, Any] = {"summary": summary, "responses": answers | refused | {"default": answer("Any other error", "Error")}}
    if parameters:
        described["parameters"] = list(parameters)
    if admin:
        described["security"] = [{"admin": []}]
    if body:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": ref(body)}}}
    return described
