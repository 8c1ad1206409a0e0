"""What ansible-runner's events tell, as values: pure, one event after the other.

An event is a dictionary as ansible-runner gives it to its handler; those of kinds that say nothing here leave the story as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from binder_onprem.logs import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COUNTED: Final = {"runner_on_ok": "ok", "runner_on_skipped": "skipped", "runner_on_failed": "failed", "runner_on_unreachable": "unreachable"}
FACTS: Final = {"preflight_findings": "findings", "status_rows": "status", "canary_rows": "canary", "support_rows": "support"}
"""Facts of the playbooks that are answers, not means."""
UNREACHABLE: Final = "Can you log in there by ssh, with the inventory's user and key? Is the host up, and its Python?"
GONE: Final = "It answered until then: is it down, or cut off? Once it is up again, run the same command again; what is done stays done."
FULL: Final = re.compile(
    r"no space left on device|enough free space|disk quota exceeded|errno 28\b|failed to create temporary directory", re.IGNORECASE
)
ROOM: Final = (
    "A disk of this host is full (or read-only). There: df -h; df -i; then du -xh DIRECTORY | sort -h | tail where 100 % stand. Make room, then run "
    "the same command again; what is done stays done."
)
CENSORED: Final = "'no_log: true' was specified"
HIDDEN: Final = (
    "There are secrets in what it said. On the host, look for the usual causes: a disk that is full or read-only (df -h; df -i; dmesg | tail). "
    "Correct that, then run the same command again; what is done stays done."
)
AGAIN: Final = "Correct that, then run the same command again; what is done stays done."


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that failed on a host.

    Attributes:
        host: The inventory's name.
        role: Of the task; "" for a play's own.
        task: Its name.
        message: What the task said.
        fix: What to do.
        kind: ``failed``, or ``unreachable``.
    """

    host: str
    role: str
    task: str
    message: str
    fix: str
    kind: Literal["failed", "unreachable"]


@dataclass(frozen=True, slots=True)
class Host:
    """How far a host is.

    Attributes:
        role: Where it is now.
        task: Same.
        ok: Tasks that are done.
        changed: Those of them that changed something.
        skipped: Tasks that did not concern it.
        failed: Tasks that failed.
        unreachable: Times it did not answer.
    """

    role: str = ""
    task: str = ""
    ok: int = 0
    changed: int = 0
    skipped: int = 0
    failed: int = 0
    unreachable: int = 0


@dataclass(frozen=True, slots=True)
class Story:
    """What has happened so far.

    Attributes:
        play: Name of the play that goes on.
        role: Role of the task that goes on, or the play's name.
        task: Its name.
        hosts: By name.
        failures: In order.
        answers: What playbooks tell beyond that, by kind and host.
    """

    play: str = ""
    role: str = ""
    task: str = ""
    hosts: Mapping[str, Host] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        """Tasks that changed something, on all hosts."""
        return sum(host.changed for host in self.hosts.values())


def after(story: Story, event: Mapping[str, Any]) -> Story:
    """The story with one more event."""
    kind, data = str(event.get("event", "")), event.get("event_data") or {}
    if kind == "playbook_on_play_start":
        return replace(story, play=str(data.get("name", "")), role="", task="")
    if kind in ("playbook_on_task_start", "playbook_on_handler_task_start"):
        return replace(story, role=str(data.get("role") or story.play), task=str(data.get("task", "")))
    if kind == "runner_on_start":
        name = str(data.get("host", ""))
        at = replace(story.hosts.get(name, Host()), role=story.role, task=story.task)
        return replace(story, hosts={**story.hosts, name: at})
    return _counted(story, kind, data) if kind in COUNTED else story


def _counted(story: Story, kind: str, data: Mapping[str, Any]) -> Story:
    name, result = str(data.get("host", "")), data.get("res") or {}
    ignored = kind == "runner_on_failed" and bool(data.get("ignore_errors"))
    count = "ok" if ignored else COUNTED[kind]
    host = story.hosts.get(name, Host())
    host = replace(host, **{count: getattr(host, count) + 1})
    if kind == "runner_on_ok" and result.get("changed"):
        host = replace(host, changed=host.changed + 1)
    story = replace(story, hosts={**story.hosts, name: host}, answers=_answers(story, name, result))
    if ignored or count not in ("failed", "unreachable"):
        return story
    return replace(story, failures=(*story.failures, _failure(name, "unreachable" if count == "unreachable" else "failed", data, known=host.ok > 0)))


def _answers(story: Story, host: str, result: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    facts = result.get("ansible_facts") or {}
    told = {kind: facts[fact] for fact, kind in FACTS.items() if fact in facts}
    return {**story.answers, **{kind: {**story.answers.get(kind, {}), host: value} for kind, value in told.items()}}


def _failure(host: str, kind: Literal["failed", "unreachable"], data: Mapping[str, Any], *, known: bool) -> Failure:
    message = redact(" ".join(_said(data.get("res") or {})) or "It said nothing; the log has more.")
    return Failure(host, str(data.get("role") or ""), str(data.get("task", "")), message, _fix(message, kind, known=known), kind)


def _fix(message: str, kind: str, *, known: bool) -> str:
    if FULL.search(message):
        return ROOM
    if kind == "failed" and CENSORED in message:
        return HIDDEN
    return AGAIN if kind == "failed" else GONE if known else UNREACHABLE


def _said(result: Mapping[str, Any]) -> Iterator[str]:
    """What a failed result says: its own message, or those of the items that failed."""
    failed = [item for item in result.get("results") or () if item.get("failed")]
    for item in failed:
        label = item.get("_ansible_item_label")
        yield (f"{label}: " if isinstance(label, str) else "") + " ".join(_said(item))
    if failed:
        return
    yield from (str(result[key]).strip() for key in ("censored", "msg", "stderr") if result.get(key))
