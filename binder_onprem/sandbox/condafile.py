"""``environment.yml`` as repositories write it, read without believing anything about it: plain text in, a flat list of words out.

Called by `condapypi`, in the sandbox, on hostile files. YAML is read as events: no tag is resolved, no alias followed, every value stays the text
that stands there, and the number of values is bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

VALUES: Final = 5000
DEPTH: Final = 6
_SELECTOR: Final = re.compile(r"#[ \t]*\[([^\]\n]{1,80})\][ \t]*$")
_SEL: Final = re.compile(r"sel\((.{1,80})\)")
_HERE: Final = frozenset({"linux", "linux64", "linux-64", "unix", "x86_64", "x86"})
_ELSEWHERE: Final = frozenset({"win", "win32", "win64", "osx", "osx64", "macos", "arm64", "aarch64", "ppc64le", "s390x"})


@dataclass(frozen=True, slots=True)
class CondaFile:
    """What the file asks for.

    Attributes:
        packages: Conda's match specifications, as written.
        pip: Lines of a requirements file.
        channels: As written.
        variables: Environment variables of the environment.
        left: Lines that selectors leave out on this system.
    """

    packages: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    left: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reading:
    name: str
    left: list[str] = field(default_factory=list)


def read(name: str, text: str) -> CondaFile:
    """Read the file.

    Args:
        name: Of the file, for messages.
        text: Its content, at most a mebibyte.

    Raises:
        BuildFailed: It is no YAML, or not of an environment's form, or uses what no list of packages needs; says which.
    """
    reading = _Reading(name)
    lines = [line for line in text.split("\n") if _wanted(line, reading)]
    data = _tree(name, "\n".join(lines))
    if data in (None, ""):
        data = {}
    if not isinstance(data, dict):
        raise _bad(name, "it must be a mapping with `dependencies`")
    packages, pip = _dependencies(data.get("dependencies") or [], reading)
    channels = tuple(_texts(data.get("channels") or [], name, "channels"))
    return CondaFile(packages, pip, channels, _variables(data.get("variables") or {}, name), tuple(reading.left))


def _bad(name: str, why: str) -> BuildFailed:
    return BuildFailed(f"{name} does not hold: {why}. Correct it and try again.")


def _wanted(line: str, reading: _Reading) -> bool:
    """Whether a comment like ``# [win]`` leaves the line in on this system."""
    match = _SELECTOR.search(line)
    if match is None or _holds(match[1]) is not False:
        return True
    reading.left.append(" ".join(line[: match.start()].strip().lstrip("-").split())[:60])
    return False


def _holds(selector: str) -> bool | None:
    """Whether a selector of one or two words holds here; None when it is not understood, which counts as no selector."""
    words = selector.lower().split()
    negated = len(words) == 2 and words[0] == "not"  # noqa: PLR2004 - not, word
    word = words[-1] if len(words) == 1 or negated else ""
    if word not in _HERE | _ELSEWHERE:
        return None
    return (word in _HERE) is not negated


def _tree(name: str, text: str) -> Any:
    """Mappings, lists and texts of the document."""
    import ruamel.yaml  # noqa: PLC0415 - repo2docker's own; few repositories need it, and every build would pay for it

    reader = ruamel.yaml.YAML(typ="safe", pure=True)
    try:
        events = _bounded(name, reader.parse(text))
        for _ in range(2):  # the stream's and the document's beginning
            next(events)
        first = next(events)
        return _node(name, first, events, 0) if not isinstance(first, ruamel.yaml.events.StreamEndEvent) else None
    except StopIteration:
        return None
    except (ruamel.yaml.error.YAMLError, RecursionError, ValueError, AttributeError, IndexError) as error:
        where = getattr(error, "problem_mark", None)
        raise _bad(name, f"line {where.line + 1} is not YAML" if where else "it is not YAML") from None


def _bounded(name: str, events: Any) -> Iterator[Any]:
    for number, event in enumerate(events):
        if number > VALUES:
            raise _bad(name, f"it has more than {VALUES} values")
        if type(event).__name__ == "AliasEvent" or getattr(event, "anchor", None):
            raise _bad(name, "it uses anchors or aliases, which are not read here")
        tag = getattr(event, "tag", None)
        if tag and str(tag) != "!":
            raise _bad(name, "it uses tags, which are not read here")
        yield event


def _node(name: str, event: Any, events: Iterator[Any], depth: int) -> Any:
    kind = type(event).__name__
    if depth > DEPTH:
        raise _bad(name, "it is nested too deeply")
    if kind == "ScalarEvent":
        return str(event.value)
    found: list[Any] = []
    ending = "SequenceEndEvent" if kind == "SequenceStartEvent" else "MappingEndEvent"
    for following in events:
        if type(following).__name__ == ending:
            break
        found.append(_node(name, following, events, depth + 1))
    if kind == "SequenceStartEvent":
        return found
    keys = [key if isinstance(key, str) else "" for key in found[::2]]
    return dict(zip(keys, found[1::2], strict=True))


def _texts(value: Any, name: str, key: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _bad(name, f"`{key}` must be a list of words")
    return value


def _dependencies(value: Any, reading: _Reading) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not isinstance(value, list):
        raise _bad(reading.name, "`dependencies` must be a list")
    packages: list[str] = []
    pip: list[str] = []
    for item in value:
        if isinstance(item, str):
            packages.append(item.strip())
        elif isinstance(item, dict):
            _mapped(item, reading, packages, pip)
        else:
            raise _bad(reading.name, "`dependencies` must be a list of packages")
    return tuple(filter(None, packages)), tuple(filter(None, pip))


def _mapped(item: dict[str, Any], reading: _Reading, packages: list[str], pip: list[str]) -> None:
    """An entry with a colon: ``pip:`` with a list, or micromamba's ``sel(linux): package``."""
    for key, value in item.items():
        if key == "pip":
            pip += [line.strip() for line in _texts(value or [], reading.name, "pip")]
        elif (selector := _SEL.fullmatch(key)) and isinstance(value, str):
            if _holds(selector[1]) is False:
                reading.left.append(value[:60])
            else:
                packages.append(value.strip())
        else:
            raise _bad(reading.name, f"{key[:40]!r} in `dependencies` is not understood")


def _variables(value: Any, name: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _bad(name, "`variables` must be a mapping of words")
    return tuple(value.items())
