"""Programs that may use this site: names and tokens in a file that the administrator keeps.

Read at each request, so that a token added or taken away holds at once. One line for each: a name, a space, a token of at least 16 characters;
lines that are empty or begin with ``#`` are left out, and so is what has another form (`check` says so).
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

LINE: Final = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63})\s+(?P<token>[\x21-\x7e]{16,512})")
SERVICE: Final = "service:"
"""Before the name: no account of a person begins like that."""


def tokens(file: Path) -> dict[str, str]:
    """Name of each token; empty where the file cannot be read."""
    try:
        text = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return {}
    found = (LINE.fullmatch(line.strip()) for line in text.splitlines())
    return {match["token"]: match["name"] for match in found if match}


def named(token: str, file: Path | None) -> str | None:
    """``service:name`` of the program that has this token, or None."""
    if file is None:
        return None
    presented = token.encode(errors="replace")
    matches = [name for known, name in tokens(file).items() if hmac.compare_digest(presented, known.encode())]
    return f"{SERVICE}{matches[0]}" if matches else None
