"""Text of programs we do not trust, made fit to be shown: one physical line per line, no terminal command but colours, bounded.

Pure; called by `eventlog` for every line of a build's output, and by `launch` for what is recorded of a link.
"""

from __future__ import annotations

import re
from typing import Final

# Each alternative is linear: no nested repetition, bounded look-ahead.
ESCAPE: Final = re.compile(
    r"(?P<colour>\x1b\[[0-9;:]{0,64}m)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # other control sequences
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # titles, links, clipboard and other strings
    r"|\x1b[ -/]*[0-~]?"  # two-character commands
)
CONTROL: Final = re.compile("[\x01-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
"""Dropped: control characters besides tab, and what turns the direction of text."""
ROOM: Final = 4
"""A line is cut to so many times its limit before it is looked at closely."""
_ACCOUNT: Final = re.compile(
    r"(?P<scheme>[a-z]{2,6})(?P<mark>(?::|%3a)(?:/|%2f){2})(?P<account>(?:(?!/|%2f|@|%40).){1,500})(?P<at>@|%40)", re.IGNORECASE
)
_PASSWORD: Final = re.compile(":|%3a", re.IGNORECASE)
RESET: Final = "\x1b[0m"


def clean(text: str, limit: int) -> list[str]:
    """Lines of `text`, without line feeds; of a progress display redrawn by carriage returns, the last state.

    Args:
        text: Anything, lone surrogates included.
        limit: Bytes a line will be cut to, so that no work is spent on what would be thrown away.
    """
    lines = text.removesuffix("\n").split("\n")
    return [_line(line, ROOM * limit) for line in lines]


def _line(line: str, room: int) -> str:
    if line.isascii() and line.isprintable():
        return line[:room]
    last = next((part for part in reversed(line.rsplit("\r", 8)) if part.strip()), "")[:room]
    text = ESCAPE.sub(lambda match: match["colour"] or "", last.replace("\0", "\ufffd"))
    return CONTROL.sub("", text).encode(errors="replace").decode()


def cut(line: str, limit: int) -> str:
    """The line if it has at most `limit` bytes in UTF-8, else its beginning with a marker."""
    if len(line) * 4 <= limit:
        return line
    data = line.encode()
    if len(data) <= limit:
        return line
    head = data[:limit].decode(errors="ignore")
    colours = RESET if "\x1b" in head else ""
    return f"{head.rpartition(chr(27))[0] if chr(27) in head[-70:] else head}{colours} [line cut at {limit} bytes]"


def without_account(link: str) -> str:
    """A link, percent-encoded or not, without user names and passwords of the URL in it; ssh's user alone is part of an address."""
    return _ACCOUNT.sub(_hidden, link)


def _hidden(found: re.Match[str]) -> str:
    if found["scheme"].lower() == "ssh" and not _PASSWORD.search(found["account"]):
        return found[0]
    return f"{found['scheme']}{found['mark']}…{found['at']}"
