"""On what terms one launch gets its session: what departs from the site's own limits, decided before the start and carried to the container.

Pure; made by `admission` from the settings for the repository, narrowed by what the site's hook says, read by `hub` and the reaper.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
VARIABLES: Final = 64
VALUE_CHARACTERS: Final = 4096
RESERVED: Final = re.compile(
    r"(?i)(?:JUPYTER|JPY|BINDER_|LD_|NB_)[A-Z0-9_]*|PATH|HOME|SHELL|USER|PYTHONPATH|PYTHONHOME|PYTHONSTARTUP|ENV|BASH_ENV|(?:http|https|no|all)_proxy"
)
"""Names that would change who may use a session, or what runs in it before its people do."""
NUMBERS: Final = ("memory", "cpus", "idle", "age")


@dataclass(frozen=True, slots=True)
class Home:
    """A project that takes the place of a session's home.

    Attributes:
        id: Its volume's.
        slot: Which ids its files have.
        path: Of the home in the session.
        full: Hardly anything can be written in it.
    """

    id: str
    slot: int
    path: str
    full: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """What one session has in place of the site's limits; None: the site's own.

    Attributes:
        memory: Bytes, swap included.
        cpus: Processors.
        idle: Seconds without activity until it ends.
        age: Seconds until it ends in any case.
        environment: Further variables, by name.
        project: What the session's home is; None: it ends with the session.
    """

    memory: int | None = None
    cpus: float | None = None
    idle: float | None = None
    age: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    project: Home | None = None

    def options(self) -> dict[str, Any]:
        """As they travel to the spawner: what is not the site's own."""
        told: dict[str, Any] = {name: value for name in NUMBERS if (value := getattr(self, name)) is not None}
        told |= {"project": asdict(self.project)} if self.project else {}
        return told | ({"environment": dict(self.environment)} if self.environment else {})

    def narrowed(self, wanted: Mapping[str, float], variables: Mapping[str, str], site: Terms) -> Terms:
        """These with what somebody else wants less of; nobody gets more than they had.

        Args:
            wanted: Of memory, cpus, idle, age what is to change.
            variables: Further variables; a name that is there already is replaced.
            site: The site's own limits, all of them given.
        """
        least: dict[str, Any] = {name: _least(wanted[name], getattr(self, name), getattr(site, name)) for name in NUMBERS if name in wanted}
        return replace(self, **least, environment={**self.environment, **variables})


def _least(*values: float | None) -> float:
    return min(value for value in values if value is not None)


def unfit(variables: Mapping[Any, Any]) -> str | None:
    """Why variables cannot be given to a session, in a word or two; None when they can."""
    if len(variables) > VARIABLES:
        return f"more than {VARIABLES} variables"
    for name, value in variables.items():
        if not isinstance(name, str) or not VARIABLE.fullmatch(name):
            return "a name that is none of a variable"
        if RESERVED.fullmatch(name):
            return f"{name}, which is the session's own"
        if not isinstance(value, str) or len(value) > VALUE_CHARACTERS or "\0" in value:
            return f"{name}, which is not a text of at most {VALUE_CHARACTERS} characters"
    return None
