"""Instructions of a Dockerfile that the engine has no word for in an OCI image, said in words that it has. Pure; called by `dockerfile`.

``SHELL`` becomes the exec form of every RUN that follows it; a cache mount, which is empty in a build that shares nothing, goes; a health check,
which no image of ours keeps, goes.
"""

from __future__ import annotations

import json
import re
from typing import Final

from binder_onprem.errors import BuildFailed

USUAL: Final = ("/bin/sh", "-c")
_CACHE: Final = re.compile(r"--mount=type=cache(?:,[\w./=-]+)*(?:\s+|$)")


def without_caches(value: str) -> str:
    """A RUN's value without the cache mounts at its beginning."""
    rest = value.lstrip()
    while match := _CACHE.match(rest):
        rest = rest[match.end() :]
    return rest


def told_otherwise(name: str, value: str, shell: tuple[str, ...]) -> str | None:
    """The instruction as the engine is to read it, one line; "" when it goes, None when it stays as it is written.

    Args:
        name: Of the instruction.
        value: What follows it, continued lines joined.
        shell: Words of the SHELL that holds here, () for the usual one.
    """
    if name in ("SHELL", "HEALTHCHECK"):
        return ""
    rest = without_caches(value)
    if name != "RUN" or (not shell and rest == value.lstrip()):
        return None
    # Exec form: its JSON leaves the engine's parser nothing to find.
    return "RUN " + json.dumps(_words(rest) or [*(shell or USUAL), rest])


def shell_words(value: str, line: int) -> tuple[str, ...]:
    """The words of SHELL. Raises BuildFailed."""
    words = _words(value)
    if not words:
        raise BuildFailed(f'Dockerfile, line {line}: SHELL takes a list of words, like SHELL ["/bin/bash", "-c"]. Correct it.')
    return tuple(words)


def _words(value: str) -> list[str] | None:
    try:
        words = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return words if isinstance(words, list) and words and all(isinstance(word, str) for word in words) else None
