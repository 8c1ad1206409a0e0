"""A host as a bug report shows it: commands, journals, settings, without secrets and without people's names.

Run on each host by `deploy support`, which gives the order by standard input and takes the report from standard output; called by
`binder-onprem support` on a machine that is a Binder by itself. Writes nothing: the disk may be what is full.
"""

from __future__ import annotations

import base64
import json
import os
import pwd
import sqlite3
import sys
import time
import zlib
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from binder_onprem.support.pseudonyms import anonymous, names_in, people
from binder_onprem.support.redaction import net, redacted, values_of, words_of
from binder_onprem.support.running import Said, read, run
from binder_onprem.support.sources import PATTERNS, Ask, Order, asks, logs, named, secrets, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ITEM: Final = 4 * 1024**2
"""Bytes of one command or file."""
LEAST: Final = 4096
"""Bytes of room that are worth asking for."""
SECRET: Final = 256 * 1024
"""Bytes of a file with secrets."""
LEFT: Final = 0.25
"""Part of the time that is kept for redaction."""
SYSTEM: Final = 1000
"""User ids below are programs'."""
NOBODY: Final = 65534
LINE: Final = 300
"""Characters of a log's line that are reckoned with."""


class Budget:
    """What is left of time and room.

    Args:
        order: Says how much there is.
    """

    def __init__(self, order: Order) -> None:
        self._end = time.monotonic() + order.seconds * (1 - LEFT)
        self._room = order.room

    def seconds(self, wanted: float) -> float:
        """For the next command."""
        return max(0.0, min(wanted, self._end - time.monotonic()))

    def room(self) -> int:
        """For the next file; what it takes is told by `spend`."""
        return min(ITEM, self._room) if self._room > LEAST else 0

    def spend(self, text: str) -> None:
        """Of the room."""
        self._room = max(0, self._room - len(text))


def report(order: Order) -> dict[str, Any]:
    """The host: `files` by their names in the report, and in `notes` what is missing of them and why."""
    start = time.monotonic()
    budget, notes = Budget(order), list[str]()
    shown = {path: read(path, ITEM).text for path in settings(order)}
    known = net(_known(order, shown))
    files = {f"settings{path}": text for path, text in shown.items()}
    for text in files.values():
        budget.spend(text)
    for ask in asks(order, _units()):
        said = _asked(ask, budget)
        head = f"$ {' '.join(ask.words)}\n" if ask.name.endswith(".txt") else ""
        if said.text:
            files[ask.name] = f"{files.get(ask.name, '')}{head}{said.text}{'' if not head or said.text.endswith(chr(10)) else chr(10)}"
        notes += [f"{ask.name}: {ask.words[0]}: {said.why}"] if said.why else []
    for path in logs(order):
        said = read(path, min(budget.room(), order.lines * LINE), links=False)
        files[f"logs/{path.name}"] = "\n".join(said.text.split("\n")[-order.lines - 1 :])
        budget.spend(files[f"logs/{path.name}"])
        notes += [f"logs/{path.name}: {said.why}"] if said.why else []
    gathered = time.monotonic() - start
    return {**_cleaned(order, files, notes, known), "seconds": round(gathered, 1), "seconds_redacting": round(time.monotonic() - start - gathered, 1)}


def _asked(ask: Ask, budget: Budget) -> Said:
    seconds, room = budget.seconds(ask.seconds), budget.room()
    if not seconds or not room:
        return Said("", "not asked, as there was no time left" if room else "not asked, as the report has its size")
    usual = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root", "TZ": "UTC"}
    said = run(ask.words, seconds, room, {**usual, "SYSTEMD_COLORS": "0", "COLUMNS": "200", **dict(ask.env)})
    budget.spend(said.text)
    return said


def _units() -> tuple[str, ...]:
    """Names of units of ours, those that never ran, too."""
    env = {"PATH": "/usr/bin:/bin"}
    kinds, plain = "--type=service,timer,target", ("--no-legend", "--plain", "--no-pager")
    listed = (
        run(("systemctl", verb, kinds, *more, *plain, *PATTERNS), 20, ITEM, env).text
        for verb, more in (("list-units", ("--all",)), ("list-unit-files", ()))
    )
    names = {line.split()[0] for text in listed for line in text.splitlines() if line.split()}
    return tuple(sorted(name for name in names if "@." not in name and name.endswith((".service", ".timer", ".target"))))


def _known(order: Order, shown: dict[Path, str]) -> Iterator[str]:
    """Secrets of this host."""
    for text in shown.values():
        yield from values_of(text)
    for path in {*secrets(order), *named(shown)}:
        yield from words_of(read(path, SECRET).text)


def _cleaned(order: Order, files: dict[str, str], notes: list[str], known: tuple[str, ...]) -> dict[str, Any]:
    clean = {name: redacted(text, known) for name, text in files.items()}
    clean_notes = [redacted(note, known) for note in notes]
    if not order.key:
        return {"files": clean, "notes": clean_notes}
    # Settings name accounts of programs where logs name people, except the Binder's own, which name who may do what.
    told = [text for name, text in clean.items() if not name.startswith("settings/") or name.endswith("/config.yaml")]
    users, services = _hub(order, "users"), _hub(order, "services")
    names = people({name for text in told for name in names_in(text)} | users, _programs() | services)
    return {
        "files": {name: anonymous(text, names, order.key) for name, text in clean.items()},
        "notes": [anonymous(note, names, order.key) for note in clean_notes],
    }


def _programs() -> frozenset[str]:
    """Accounts of the system that are no person's."""
    return frozenset(entry.pw_name for entry in pwd.getpwall() if entry.pw_uid < SYSTEM or entry.pw_uid == NOBODY)


def _hub(order: Order, table: Literal["users", "services"]) -> frozenset[str]:
    """Everybody, or every program, whom the hub knows, where there is one."""
    file = Path(order.home, "hub", "jupyterhub.sqlite")
    if not file.exists():
        return frozenset()
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=2)) as database:
        return frozenset(str(row[0]) for row in database.execute(f"SELECT name FROM {table}"))  # noqa: S608 - one of two words of ours
    return frozenset()


def packed(found: dict[str, Any]) -> str:
    """A report as one line of ASCII."""
    return base64.b64encode(zlib.compress(json.dumps(found).encode(), 6)).decode()


def main(given: dict[str, Any]) -> None:
    """Look at this host as the order says; the report goes to standard output."""
    os.nice(10)
    sys.stdout.write(packed(report(Order.of(given))))
