"""What happens here, told to others: one JSON object an event, checked by its schema, kept in a file and handed to webhooks.

Called at the end of what happened, by the line, the builds, the reaper and the administrator's desk; it never fails and never keeps anybody
waiting for a receiver. What is told is written in the order of the calls, whoever makes them and whoever of them leaves. Schemas lie in
``schemas/``; the capsule (``timestamp``, ``schema``, ``version``) is BinderHub's, which is why its own small form is written here and not
jupyter-events', whose capsule is another.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from binder_onprem.errors import StoreUnavailable
from binder_onprem.model import BuildState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from binder_onprem.config import Events
    from binder_onprem.model import BuildRecord, LaunchAudit, LaunchRequest, Session
    from binder_onprem.ruling import Entry

logger = logging.getLogger(__name__)

SCHEMAS: Final = Path(__file__).parent / "schemas"
LAUNCH: Final = "binderhub.jupyter.org/launch"
TEXT_CHARACTERS: Final = 2048
LINE_BYTES: Final = 256 * 1024
PRIVATE: Final = "/private-"
"""In the name of the image of a repository that a credential opened, see `ImageRef.of`."""


class Outbox(Protocol):
    """What waits for receivers, durable."""

    async def add(self, receivers: Sequence[str], body: str, now: float, most: int, of: BuildRecord | None = None) -> bool:
        """Keep an event for each; False when so many wait already. `of`: the build that is told by it. Raises `StoreUnavailable`."""
        ...


@cache
def validators() -> dict[str, tuple[int, Any]]:
    """Schema id → its version and what checks it."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - takes long to import, and few sites have events

    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(SCHEMAS.glob("*.json"))]
    return {schema["$id"]: (schema["version"], Draft202012Validator(schema)) for schema in found}


def capsule(schema: str, data: Mapping[str, Any], now: float) -> dict[str, Any]:
    """An event as it is written. Raises ValueError when the schema does not know it."""
    version, validator = validators()[schema]
    if error := next(validator.iter_errors(data), None):
        raise ValueError(f"{schema}: {error.message[:200]}")
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"timestamp": moment, "schema": schema, "version": version, **data}


class _File(RotatingFileHandler):
    """Lines that are on the disk when they are written."""

    def write(self, line: str) -> None:
        """Append it. Raises OSError."""
        record = logging.makeLogRecord({"msg": line})
        if self.shouldRollover(record):
            self.doRollover()
        if self.stream is None:
            self.stream = self._open()
        self.stream.write(line + "\n")
        self.stream.flush()
        os.fsync(self.stream.fileno())


def _last(path: Path) -> str:
    """The last line of a file, "" where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(-min(LINE_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
            return file.read().rstrip(b"\n").rpartition(b"\n")[2].decode(errors="replace")
    except OSError:
        return ""


def _facts(line: str) -> Mapping[str, Any] | None:
    """What a line says without its time; of builds alone, which may be told once more."""
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return {key: value for key, value in event.items() if key != "timestamp"} if "build" in event else None


class Journal:
    """Where events are told.

    Args:
        rules: File, webhooks, what is private.
        names: Prefix of a provider → its name.
        outbox: Keeps events for webhooks.
        now: Unix seconds.
        stir: Called when something has been put into the outbox.
    """

    def __init__(
        self, rules: Events, names: Mapping[str, str], outbox: Outbox, now: Callable[[], float], stir: Callable[[], None] = lambda: None
    ) -> None:
        self._rules = rules
        self._names = names
        self._outbox = outbox
        self._now = now
        self._stir = stir
        self._private = [re.compile(text, re.IGNORECASE) for text in rules.private]
        self._file: _File | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="events")
        self._left: Mapping[str, Any] | None = None
        self._turn = asyncio.Lock()
        self._writing: set[asyncio.Task[None]] = set()
        if self.listening:
            validators()  # reading them takes a while: not while somebody waits

    @property
    def listening(self) -> bool:
        """Whether anybody wants to know."""
        return bool(self._rules.file or self._rules.webhooks)

    async def tell(self, schema: str, data: Mapping[str, Any], of: BuildRecord | None = None) -> None:
        """Write an event after those told before it, and keep it for the webhooks; whatever fails is logged.

        Args:
            schema: Its id.
            data: What it says.
            of: The build that is told by it, which is remembered together with what the webhooks get.
        """
        if not self.listening:
            return
        try:
            event = capsule(schema, {key: value[:TEXT_CHARACTERS] if isinstance(value, str) else value for key, value in data.items()}, self._now())
        except (ValueError, KeyError) as error:
            logger.warning("event not told", extra={"schema": schema, "error": str(error)[:200]})
            return
        # A task of its own: a teller who is cancelled in the middle must not leave an event in the file that no receiver hears of.
        task = asyncio.create_task(self._told(schema, json.dumps(event, ensure_ascii=False), of))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        await asyncio.shield(task)

    async def _told(self, schema: str, line: str, of: BuildRecord | None) -> None:
        async with self._turn:  # first come, first served; else the slower of two calls would be overtaken between file and outbox
            try:
                if self._rules.file:
                    await asyncio.get_running_loop().run_in_executor(self._thread, self._write, line)
                receivers = [name for name, hook in self._rules.webhooks.items() if not hook.events or schema in hook.events]
                if receivers or of:
                    if not await self._outbox.add(receivers, line, self._now(), self._rules.outbox, of):
                        logger.warning("event not sent, too many wait", extra={"schema": schema})
                    self._stir()
            except (OSError, StoreUnavailable) as error:
                logger.warning("event not told", extra={"schema": schema, "error": str(error)[:200]})

    def _write(self, line: str) -> None:
        if self._file is None and self._rules.file:
            self._rules.file.parent.mkdir(parents=True, exist_ok=True)
            self._file = _File(self._rules.file, maxBytes=int(self._rules.size), backupCount=self._rules.keep, encoding="utf-8", delay=True)
            self._left = _facts(_last(self._rules.file))
        if self._file and not self._there(line):
            self._file.write(line)

    def _there(self, line: str) -> bool:
        """Whether it is what the last process wrote before it was killed, and had not remembered to have told."""
        facts, left = _facts(line), self._left
        if facts is None or left is None or facts["build"] != left["build"]:
            return False
        self._left = None
        return facts == left

    async def close(self) -> None:
        """Write what is under way, then close the file."""
        await asyncio.gather(*self._writing)
        self._thread.shutdown()
        if self._file:
            self._file.close()

    def _spec(self, provider: str, spec: str, *, private: bool) -> str:
        link = f"{provider}/{spec}"
        hidden = private or any(pattern.match(link) for pattern in self._private)
        return "private-" + hashlib.sha256(link.encode()).hexdigest()[:16] if hidden else spec

    # What happens.

    async def launched(self, request: LaunchRequest, audit: LaunchAudit, *, private: bool = False) -> None:
        """A launch has ended; one whose viewers left is no event. `private`: a credential opened its repository."""
        if not self.listening or audit.outcome == "left":
            return
        spec = self._spec(request.provider, request.path, private=private)
        common = {"launch_id": audit.launch_id, "provider": request.provider, "spec": spec, "ref": audit.commit, "client": audit.client}
        if audit.outcome != "ready":
            spent = [seconds for seconds in (audit.resolve, audit.build, audit.start) if seconds is not None]
            await self.tell("binder-onprem/launch-failure", common | {"code": audit.outcome, "seconds": round(sum(spent), 3)})
            return
        told = {"provider": self._names.get(request.provider, "Git"), "spec": spec, "ref": audit.commit or "", "status": "success"}
        origin = request.host.partition("://")[2].strip("/")
        page = {"request_origin": request.origin} if request.origin else {}
        await self.tell(LAUNCH, told | {"build_token": request.client.trusted, "origin": origin} | page)
        await self.tell(
            "binder-onprem/spawn",
            common | {"image": (audit.image or "").rpartition("@")[2] if private else audit.image or "", "seconds": audit.start},
        )

    async def built(self, record: BuildRecord) -> None:
        """A build was queued, has started or has ended. A process that is killed in the middle tells it at its next start."""
        if not self.listening or record.state is BuildState.PUSHING:
            return
        spec = record.repo.spec
        seconds = round(record.ended - record.started, 3) if record.ended and record.started else None
        hidden = self._spec(spec.provider, spec.path, private=record.repo.private)
        told = {"build": record.id, "state": record.state.value, "provider": spec.provider, "spec": hidden, "ref": record.repo.commit}
        image = record.image.name if hidden == spec.path else record.image.tag
        more = {"image": image, "digest": record.digest, "error": record.error, "attempt": record.attempt, "seconds": seconds}
        await self.tell("binder-onprem/build", told | more, record)

    async def culled(self, session: Session, reason: str) -> None:
        """A session has ended."""
        told = {"session": session.name, "launch_id": session.launch_id, "reason": reason, "image": session.image}
        if self._private or PRIVATE in (session.image or ""):  # the name tells the repository's
            told |= {"session": (session.launch_id or "")[:16], "image": (session.image or "").rpartition("@")[2]}
        await self.tell("binder-onprem/cull", told)

    async def ordered(self, entry: Entry) -> None:
        """An administrator did something."""
        told = {"who": entry.who, "action": entry.action, "subject": entry.subject, "outcome": entry.outcome or "", "details": dict(entry.details)}
        await self.tell("binder-onprem/admin", told)
