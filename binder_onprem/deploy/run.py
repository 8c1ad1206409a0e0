"""A playbook run by ansible-runner: its events go to a handler as they come, its log to a directory that only this account may read."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.deploy.story import Story, after
from binder_onprem.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

SSH: Final = "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=15 -o ServerAliveCountMax=4"
"""Ansible's own, but without compression, which makes what is compressed already slow to send, and with an end of the waiting for a host whose
power is gone: without it a play would stand still for hours."""
KEPT: Final = 20
"""Logs of the last runs that stay."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for.

    Attributes:
        verb: Name of the playbook, without ``.yml``.
        playbooks: Their directory.
        inventory: File or directory.
        check: Tell what would change, change nothing.
        limit: Ansible's pattern of hosts; "" for all.
        extra: Variables beyond the inventory's.
        vault: File with the password of the inventory's vault, if there is one.
    """

    verb: str
    playbooks: Path
    inventory: Path
    check: bool = False
    limit: str = ""
    extra: tuple[tuple[str, Any], ...] = ()
    vault: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went.

    Attributes:
        story: What happened on the hosts.
        code: ansible-playbook's exit code; 0 for done.
        log: File with everything it printed.
        seconds: How long it took.
    """

    story: Story
    code: int
    log: Path
    seconds: float


def logs() -> Path:
    """Directory of the logs of this account's runs."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "binder-onprem" / "deploy"


def run(order: Order, told: Callable[[Story], None]) -> Outcome:
    """Run a playbook; `told` gets the story after each event.

    Raises:
        ConfigError: The inventory cannot be read or names no host.
    """
    import ansible_runner  # noqa: PLC0415 - the other commands start faster without it

    if not order.inventory.exists():
        raise ConfigError(f"There is no inventory {order.inventory}. Copy one of the samples in inventory/, and name its hosts.")
    start = time.monotonic()
    place = _directory(order.verb)
    story = Story()

    def handle(event: dict[str, Any]) -> bool:
        nonlocal story
        story = after(story, event)
        told(story)
        return True

    done = ansible_runner.run(
        private_data_dir=str(place),
        project_dir=str(order.playbooks),
        playbook=f"{order.verb}.yml",
        inventory=str(order.inventory.absolute()),
        cmdline=shlex.join(_options(order)) or None,
        limit=order.limit or None,
        extravars=dict(order.extra) or None,
        envvars=_environment(),
        event_handler=handle,
        quiet=True,
        ident="run",
    )
    log = place / "artifacts" / "run" / "stdout"
    if not story.hosts:
        raise ConfigError(_nothing(log))
    return Outcome(story, int(done.rc or 0), log, time.monotonic() - start)


def _options(order: Order) -> list[str]:
    options = ["--check", "--diff"] if order.check else []
    return [*options, *(["--vault-password-file", str(order.vault.absolute())] if order.vault else [])]


def _environment() -> dict[str, str]:
    """For ansible-playbook: the programs of our own environment first, no colours in the log, facts once in a run, hosts ten at a time."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_GATHERING": os.environ.get("ANSIBLE_GATHERING", "smart"),
        "ANSIBLE_FORKS": os.environ.get("ANSIBLE_FORKS", "10"),
        "ANSIBLE_PIPELINING": os.environ.get("ANSIBLE_PIPELINING", "1"),
        "ANSIBLE_SSH_ARGS": os.environ.get("ANSIBLE_SSH_ARGS", SSH),
    }


def _directory(verb: str) -> Path:
    """A new directory for a run; old ones go."""
    base = logs()
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = base / f"{time.strftime('%Y%m%d-%H%M%S')}-{verb}-{os.getpid()}"
    place.mkdir(mode=0o700)
    for old in sorted(path for path in base.iterdir() if path.is_dir())[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def _nothing(log: Path) -> str:
    """The sentence for a run that reached no host."""
    said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = [line.strip() for line in said.splitlines() if "ERROR" in line or "WARNING" in line]
    return f"No host was reached by this inventory. {' '.join(lines)[:600]} The full log: {log}"
