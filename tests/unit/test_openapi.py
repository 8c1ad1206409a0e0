"""Whatever the description allows and whatever it does not: the application answers as described, and never with a fault of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.config import SchemathesisConfig

from tests.unit.test_web_papers import Papers
from tests.unit.webstand import ADMIN, ruled

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = 6
"""Of each operation."""
ENDLESS = frozenset({"/api/events"})
"""A stream that does not end by itself; its own tests read it."""
MEANING = [200, 201, 204, 302, 303, 400, 401, 403, 404, 409, 422, 429, 503]
"""A value of the right form may still mean nothing: a network that is none, a notice without words."""
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


async def host() -> dict[str, Any]:
    lists: dict[str, Any] = {name: [] for name in ("storage", "parts", "findings", "certificates")}
    return lists | {"memory": {}, "load": [0.0], "processors": 1, "versions": {}}


def examined(url: str) -> tuple[int, list[str]]:
    """All operations with generated calls: how many there are, and what was not as described."""
    checks = {"positive_data_acceptance": {"expected-statuses": MEANING}}
    config = SchemathesisConfig.from_dict({"headers": {"Authorization": f"Bearer {ADMIN}"}, "checks": checks})
    schema = schemathesis.openapi.from_url(f"{url}openapi.json", config=config)
    operations = [found.ok() for found in schema.get_all_operations()]
    return len(operations), [fault for one in operations if one.path not in ENDLESS and (fault := _fault(one))]


def _fault(operation: Any) -> str | None:
    @SETTINGS
    @given(operation.as_strategy())
    def one(case: Any) -> None:
        case.call_and_validate(timeout=60)

    try:
        one()
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - every kind of fault is told, of all operations
        return f"{operation.label}: {error.exceptions if isinstance(error, BaseExceptionGroup) else error}"
    return None


async def test_every_answer_is_as_described(tmp_path: Path) -> None:
    async with ruled(tmp_path, desk={"host": host}) as at:
        at.site.line.supply = Papers()  # type: ignore[misc]
        count, faults = await asyncio.to_thread(examined, at.url)
    assert count > 50
    assert not faults, "\n\n".join(faults)[:20000]
