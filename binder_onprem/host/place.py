"""Whether a directory can be a site's home. Asked by `up` before it writes anything, and by `check`; ``.ci/bootstrap`` knows the first two rules.

The path becomes part of unix sockets' addresses, of an overlay's mount options, of units and of scripts' first lines: each of them has
characters of its own that mean something else, and the first ends after 107 bytes.
"""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

LONGEST: Final = 75
"""Bytes: the longest socket below it is the supervisor's while it starts."""
ALLOWED: Final = re.compile(r"/[A-Za-z0-9/._@+-]+")


def objection(home: Path) -> str:
    """Why it cannot, and what to do; "" if it can.

    Args:
        home: Absolute path; need not exist.
    """
    text = str(home)
    if not ALLOWED.fullmatch(text):
        return f"The path {text!r} has characters other than letters A to Z, digits and . _ @ + - /. Choose another directory for the home."
    if len(text) > LONGEST:
        return f"The path {text} has {len(text)} characters; sockets below it have room for {LONGEST}. Choose a shorter one for the home."
    if home.exists() and not home.is_dir():
        return f"{text} is a file. Choose a directory for the home."
    closed = next((parent for parent in reversed(home.parents) if parent.is_dir() and not _passable(parent)), None)
    if closed:
        return f"{closed} lets nobody but its owner pass, and some parts run as a user of their own. Choose another home, or: chmod o+x {closed}"
    return ""


def _passable(directory: Path) -> bool:
    return bool(directory.stat().st_mode & stat.S_IXOTH)
