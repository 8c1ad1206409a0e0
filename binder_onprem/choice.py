"""What a link asks for beyond the repository: names of things that the administrator lists, never paths or sizes. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from binder_onprem.errors import InvalidSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
PREFIX: Final = "env."
VALUE: Final = 256
"""Characters of a variable's value."""
SEVERAL: Final = 16
"""Data sets, or variables, of one link."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A link's choice.

    Attributes:
        profile: Name of a resource profile; "" for the site's first one.
        image: Name of a prebuilt image; "" for the repository's own.
        data: Names of data sets, sorted, each once.
        env: Variables of the session, sorted by name.
        project: Name of a project of whoever opens the link; "" for a session that leaves nothing.
    """

    profile: str = ""
    image: str = ""
    data: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    project: str = ""

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """As parameters of a query, always in the same order."""
        named = tuple((key, value) for key, value in (("profile", self.profile), ("image", self.image), ("project", self.project)) if value)
        data = (("data", ",".join(self.data)),) if self.data else ()
        return (*named, *data, *((f"{PREFIX}{name}", value) for name, value in self.env))

    @property
    def query(self) -> str:
        """As a query without ``?``, "" for none."""
        return urlencode(self.pairs)


def parse(parameters: Iterable[tuple[str, str]]) -> Choice:
    """Read it from a link's query; other parameters are none of it.

    Args:
        parameters: Decoded, in order.

    Raises:
        InvalidSpec: A name or value has no form that any could have, or one is given twice.
    """
    single: dict[str, str] = {}
    env: dict[str, str] = {}
    data: set[str] = set()
    for key, value in parameters:
        if key in ("profile", "image", "project"):
            _put(single, key, _name(key, value), key)
        elif key == "data":
            data.update(_name(key, name) for name in value.split(",") if name)
        elif key.startswith(PREFIX):
            _put(env, _variable(key.removeprefix(PREFIX), value), value, key)
    if len(env) > SEVERAL or len(data) > SEVERAL:
        raise InvalidSpec(f"This link asks for too much: at most {SEVERAL} data sets and {SEVERAL} variables.")
    named = {key: single.get(key, "") for key in ("profile", "image", "project")}
    return Choice(**named, data=tuple(sorted(data)), env=tuple(sorted(env.items())))


def _put(found: dict[str, str], key: str, value: str, said: str) -> None:
    if found.setdefault(key, value) != value:
        raise InvalidSpec(f"This link gives {said[:70]} twice, with different values.")


def _name(key: str, value: str) -> str:
    if value and not NAME.fullmatch(value):
        raise InvalidSpec(f"{key} in this link has no valid name: lower-case letters, digits, dashes and underscores, at most 40.")
    return value


def _variable(name: str, value: str) -> str:
    if not VARIABLE.fullmatch(name):
        raise InvalidSpec("A variable in this link (env.…) has no valid name: letters, digits and underscores, at most 64.")
    if len(value) > VALUE or not value.isprintable():
        raise InvalidSpec(f"The variable {name} in this link may have {VALUE} printable characters.")
    return name
