"""What a Dockerfile may do here: read its text, refuse what reaches beyond the build's confinement.

Called by `prepare` on the host, on hostile text of bounded size; pure, runs nothing, fetches nothing. Whatever an instruction's form leaves in
doubt is refused, because the engine's parser is not this one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from dockerfile_parse import DockerfileParser

from binder_onprem.building.instructions import shell_words, told_otherwise, without_caches
from binder_onprem.errors import BuildFailed, LimitHit

if TYPE_CHECKING:
    from collections.abc import Collection

BYTES: Final = 256 * 1024
BASE_NAMES: Final = ("binder-base", "localhost/binder-base", "binder-onprem/base", "localhost/binder-onprem/base")
"""Names by which a Dockerfile may call this site's base image, with any tag."""
_INSTRUCTIONS: Final = frozenset(
    {"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER", "RUN", "SHELL", "STOPSIGNAL"}
    | {"USER", "VOLUME", "WORKDIR"}
)
_DIRECTIVE: Final = re.compile(
    # The usual syntax and the usual escape say nothing that is not so anyway; no comment reaches the engine.
    r"^#\s*(?:syntax\s*=(?!\s*(?:docker\.io/)?docker/dockerfile(?:[:@][\w.:-]+)?\s*$)|escape\s*=(?!\s*\\\s*$))",
    re.IGNORECASE | re.MULTILINE,
)
_CONTINUES: Final = re.compile(r"\\[ \t]*$")
_SPLIT: Final = re.compile(r"\S\\[ \t]*\n")
_HERE: Final = re.compile(r"(?<!<)<<-?[ \t]*[\"']?[A-Za-z_]")
_CONTROL: Final = re.compile(r"[^\S \t\n]|[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]")
_FROM: Final = re.compile(r"(?:--platform=[\w/$-]+\s+)?(?P<image>\S+)(?:\s+as\s+(?P<stage>[a-z0-9][a-z0-9_.-]*))?", re.IGNORECASE)
_FLAG: Final = re.compile(r"--(chown|chmod|from|link|checksum)(?:=([\w.:/@-]+))?")
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_REMOTE: Final = re.compile(r"://|^git@|\.git(#|$)|^(github|gitlab|bitbucket)\.", re.IGNORECASE)


@dataclass(slots=True)
class _Seen:
    """What stands above the instruction at hand."""

    stages: list[str] = field(default_factory=list)
    arguments: dict[str, str] = field(default_factory=dict)
    shell: tuple[str, ...] = ()
    shells: dict[str, tuple[str, ...]] = field(default_factory=dict)


def screen(dockerfile: str, allowed: Collection[str], base: str = "") -> str:
    """Check a Dockerfile and give it back with full names of images, so that the engine has nothing to guess.

    Args:
        dockerfile: Its text.
        allowed: Registries or prefixes of images that it may stand on, ``docker.io/library``.
        base: This site's base image, as the engine is to pull it; the Dockerfile may call it ``binder-base`` as well.

    Raises:
        LimitHit: It is too large.
        BuildFailed: It does what is not allowed; says in which line, and what to do instead.
    """
    if len(dockerfile.encode("utf-8", "surrogateescape")) > BYTES:
        raise LimitHit(f"The Dockerfile is larger than {BYTES // 1024} KiB, which is the limit.")
    dockerfile = dockerfile.removeprefix("\ufeff").replace("\r\n", "\n")
    _form(dockerfile)
    lines, numbers = _cleaned(dockerfile)
    seen = _Seen()
    for entry in _structure("\n".join(lines)):
        line = numbers[entry["startline"]]
        if entry["instruction"] in ("FROM", "COPY", "ADD") and _SPLIT.search(entry["content"]):
            raise _refused(line, "a word that goes on in the next line", "Put a blank before the backslash.")
        if entry["instruction"] == "FROM":
            image = _from(entry["value"], line, seen, tuple(allowed), base)
            lines[entry["startline"] : entry["endline"] + 1] = [image, *[""] * (entry["endline"] - entry["startline"])]
        else:
            _instruction(entry["instruction"], entry["value"], line, seen)
            other = told_otherwise(entry["instruction"], entry["value"], seen.shell)
            if entry["instruction"] == "SHELL":
                seen.shell = shell_words(entry["value"], line)
            if other is not None:
                lines[entry["startline"] : entry["endline"] + 1] = [other, *[""] * (entry["endline"] - entry["startline"])]
    if not seen.stages:
        raise BuildFailed("The Dockerfile has no FROM. Begin it with one that names this site's base image: FROM binder-base.")
    return "".join(f"{line}\n" for line in lines if line)


def _cleaned(dockerfile: str) -> tuple[list[str], list[int]]:
    """Lines without comments and blank ones, with their numbers.

    Parsers differ on whether these end an instruction that goes on over several lines; here no parser ever sees one.
    """
    lines, numbers, inside = [], [], False
    for number, line in enumerate(dockerfile.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        inside = bool(_CONTINUES.search(line))
        lines.append(line)
        numbers.append(number)
    if inside:
        raise BuildFailed("The last line of the Dockerfile ends with a backslash. Remove it.")
    return lines, numbers


def _form(dockerfile: str) -> None:
    if _DIRECTIVE.search(dockerfile):
        raise BuildFailed("The Dockerfile has a '# syntax=' or '# escape=' directive of its own kind, which is not allowed here. Remove that line.")
    found = _CONTROL.search(dockerfile)
    if found:
        line = dockerfile.count("\n", 0, found.start()) + 1
        raise BuildFailed(f"The Dockerfile has a control character or an unusual blank in line {line}. Remove it.")


def _structure(dockerfile: str) -> list[dict[str, Any]]:
    parser = DockerfileParser(fileobj=BytesIO())
    parser.content = dockerfile
    return list(parser.structure)


def _refused(line: int, what: str, instead: str) -> BuildFailed:
    return BuildFailed(f"Dockerfile, line {line}: {what} is not allowed here. {instead}")


def _from(value: str, line: int, seen: _Seen, allowed: tuple[str, ...], base: str) -> str:
    match = _FROM.fullmatch(value.strip())
    if not match:
        raise _refused(line, "this form of FROM", "Write FROM image, or FROM image AS name.")
    image = _substituted(match["image"], seen.arguments)
    stage = match["stage"]
    if image.lower() in seen.stages or image == "scratch":
        full = image
    elif _is_base(image, base):
        full = base or image
    else:
        full = qualified(image)
        if not re.fullmatch(r"[\w.:/@-]+", image) or not any(_below(full, prefix) for prefix in allowed):
            instead = "Use FROM binder-base, this site's base image" + (f", or an image of: {', '.join(allowed)}." if allowed else ".")
            raise _refused(line, f"FROM {image[:120]}", instead)
    if seen.stages:
        seen.shells[seen.stages[-1]] = seen.shell
    seen.shell = seen.shells.get(image.lower(), ())
    seen.stages.append(stage.lower() if stage else f"stage {len(seen.stages)}")
    return f"FROM {full}" + (f" AS {stage}" if stage else "")


def _substituted(word: str, arguments: dict[str, str]) -> str:
    """The image's name with the defaults of ARGs put in; what is unknown stays, and is refused as no image's name."""
    return _VARIABLE.sub(lambda match: arguments.get(match[1] or match[2], match[0]), word)


def _is_base(image: str, base: str) -> bool:
    if image == base:
        return True
    repository = base.split("@", 1)[0]
    name = image.split("@", 1)[0]
    head, _, tail = name.rpartition(":")
    name = head if head and "/" not in tail else name
    return name in {*BASE_NAMES, repository} - {""}


def qualified(image: str) -> str:
    """An image's name with its registry: ``python:3.12`` is ``docker.io/library/python:3.12``."""
    first, slash, _ = image.partition("/")
    if not slash:
        return f"docker.io/library/{image}"
    return image if "." in first or ":" in first or first == "localhost" else f"docker.io/{image}"


def _below(image: str, prefix: str) -> bool:
    prefix = prefix.rstrip("/")
    return bool(prefix) and (image == prefix or image.startswith((f"{prefix}/", f"{prefix}:", f"{prefix}@")))


def _instruction(name: str, value: str, line: int, seen: _Seen) -> None:
    if name not in _INSTRUCTIONS:
        raise _refused(line, f"the instruction {name[:40]!r}", "Use the instructions of an ordinary Dockerfile, without ONBUILD.")
    if not seen.stages:
        _argument(name, value, line, seen)
    if name in ("RUN", "COPY", "ADD") and _HERE.search(value):
        raise _refused(line, "a here-document", "Put the text into a file of the repository, and COPY it.")
    if name == "RUN" and without_caches(value).startswith("-"):
        raise _refused(line, "an option of RUN (--mount of another type than cache, --network, --security)", "Write RUN with the command only.")
    if name in ("COPY", "ADD"):
        _copy(name, value, line, seen)


def _argument(name: str, value: str, line: int, seen: _Seen) -> None:
    if name != "ARG":
        raise _refused(line, f"{name} before FROM", "Begin with FROM.")
    key, equals, default = value.partition("=")
    if equals and re.fullmatch(r"\w+", key) and re.fullmatch(r"[\w.:/@-]*", default.strip("\"'")):
        seen.arguments[key] = default.strip("\"'")


def _copy(name: str, value: str, line: int, seen: _Seen) -> None:
    rest = value.strip()
    while rest.startswith("-"):
        word, _, rest = rest.partition(" ")
        rest = rest.strip()
        flag = _FLAG.fullmatch(word)
        if not flag:
            raise _refused(line, f"{word[:60]!r}", f"{name} may have --chown and --chmod.")
        if flag[1] == "from" and not _stage(flag[2] or "", seen):
            raise _refused(line, f"COPY {word[:60]}", "COPY --from takes the name or number of an earlier stage of the same Dockerfile.")
    if name == "ADD":
        _add(rest, line)


def _stage(name: str, seen: _Seen) -> bool:
    # Neither the stage at hand nor a later one: there the engine would take the word for an image's name.
    earlier = seen.stages[:-1]
    return name.lower() in earlier or (name.isascii() and name.isdigit() and int(name) < len(earlier))


def _add(sources: str, line: int) -> None:
    try:
        words = json.loads(sources) if sources.startswith("[") else sources.split()
    except ValueError:
        words = []
    plain = words and all(isinstance(word, str) and not re.search(r"[$\"'\\`<]", word) for word in words)
    if not plain or any(_REMOTE.search(word) for word in words):
        raise _refused(line, "ADD of a URL or of a name put together", "Use COPY for files of the repository, and RUN curl for what is fetched.")
