"""Commands and files, each bounded in time and bytes: of what is too long the end is kept, from a whole line on."""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

BLOCK: Final = 65536
PATIENCE: Final = 2.0
"""Seconds in which a killed program has to be gone; one that hangs in the kernel is left behind."""


@dataclass(frozen=True, slots=True)
class Said:
    """What there was to read.

    Attributes:
        text: Output of a program, on both channels, or a file's contents.
        why: Why that is not all, or how it failed; "" where it is all.
    """

    text: str
    why: str = ""


def run(words: Sequence[str], seconds: float, room: int, env: Mapping[str, str]) -> Said:
    """Run a program to its end, or to ours.

    Args:
        words: Program and arguments, no secret among them: others see these.
        seconds: Until it and its children are killed.
        room: Bytes that are kept.
        env: All of its environment.
    """
    try:
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(env), start_new_session=True, cwd="/"
        )
    except OSError as error:
        return Said("", f"does not run: {error.strerror}")
    data, cut, late = _drained(child, time.monotonic() + seconds, room)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        child.wait(PATIENCE)
    if late:
        return Said(_text(data, cut=cut), f"was ended after {seconds:.0f} s")
    if child.returncode:
        return Said(_text(data, cut=cut), f"exit code {child.returncode}")
    return Said(_text(data, cut=cut), f"only the last {room} bytes" if cut else "")


def _drained(child: subprocess.Popen[bytes], end: float, room: int) -> tuple[bytes, bool, bool]:
    """What it says: the last bytes, whether there were more, whether time was over before it closed its output."""
    assert child.stdout  # noqa: S101 - asked for
    data, cut = bytearray(), False
    with child.stdout as output:
        while (left := end - time.monotonic()) > 0:
            if not select.select([output], [], [], left)[0]:
                break
            block = os.read(output.fileno(), BLOCK)
            if not block:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(min(left, PATIENCE))
                return bytes(data[-room:]), cut or len(data) > room, False
            data += block
            if len(data) > 2 * room + BLOCK:
                del data[:-room]
                cut = True
    return bytes(data[-room:]), cut or len(data) > room, True


def read(path: Path, room: int, *, links: bool = True) -> Said:
    """A file; what is no file is not read.

    Args:
        path: Where.
        room: Bytes at its end that are read.
        links: Follow one; not where programs write that may be deceived.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)), "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                return Said("", "is no file")
            cut = facts.st_size > room
            file.seek(max(0, facts.st_size - room))
            return Said(_text(file.read(room), cut=cut), f"only the last {room} bytes" if cut else "")
    except OSError as error:
        return Said("", f"cannot be read: {error.strerror}")


def _text(data: bytes, *, cut: bool) -> str:
    """As text; a line whose beginning is missing goes, as half a secret would not be known for one."""
    text = data.decode(errors="replace").replace("\r\n", "\n").replace("\0", "�")
    return text.partition("\n")[2] if cut else text
