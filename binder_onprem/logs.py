"""One JSON line per event, with the launch it belongs to and without any credential.

`configure` is called once by each process of ours. Modules log by ``logging.getLogger(__name__)`` and give fields by ``extra``.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

launch: ContextVar[str | None] = ContextVar("launch", default=None)
"""Launch id of the task that logs."""

LIMIT: Final = 4096
"""Characters of a field that are kept; hostile text must not fill the journal."""

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_SECRETS: Final = (
    (
        re.compile(r"(?i)\b([a-z0-9_-]*(?:token|secret|password|passwd|api_?key|signature|_xsrf))([\"']?\s*[=:]\s*[\"']?)[^\s&\"',;]+"),
        r"\1\2[redacted]",
    ),
    (re.compile(r"(?i)\b(authorization[\"']?\s*[:=]\s*[\"']?)(?:(?:basic|bearer|token)\s+)?[^\s\"',;]+"), r"\1[redacted]"),
    (re.compile(r"(?i)\b((?:basic|bearer)\s+)[a-z0-9+/=_.~-]{8,}"), r"\1[redacted]"),
    (re.compile(r"(?i)([a-z][a-z0-9+.-]*://)[^\s/@]+@"), r"\1[redacted]@"),
)


def redact(text: str) -> str:
    """The text without what looks like a credential: in URLs, headers, queries and assignments; cut at `LIMIT` characters."""
    if len(text) > LIMIT:
        text = text[:LIMIT] + "…"
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {str(key): _clean(item) for key, item in list(value.items())[:100]}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in list(value)[:100]]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(str(value))


class JsonLines(logging.Formatter):
    """A record as one physical line: ``time``, ``level``, ``logger``, ``event``, ``launch`` and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """JSON escapes line ends, so no field can forge a line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": redact(record.getMessage()),
        }
        if (launch_id := launch.get()) is not None:
            line["launch"] = launch_id
        line |= {name: _clean(value) for name, value in record.__dict__.items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info)[-LIMIT:])
        return json.dumps(line, ensure_ascii=False)


@contextmanager
def of_launch(launch_id: str) -> Iterator[None]:
    """What is logged inside belongs to this launch."""
    token = launch.set(launch_id)
    try:
        yield
    finally:
        launch.reset(token)


def configure(level: str) -> None:
    """Send everything to standard error, where the supervisor keeps it.

    Args:
        level: ``debug`` … ``error``, for our own loggers; other libraries start at warning.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("binder_onprem").setLevel(level.upper())
    # urllib3 and podman-py log URLs with queries; at warning they tell what matters.
    logging.captureWarnings(capture=True)
