"""Python requirements as repositories write them, turned into one text that uv understands.

Called by `buildpack`, in the sandbox, on hostile files. Standard library only, because its import is part of every build's time. Never runs or
installs anything, never reads outside the repository.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from binder_onprem.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FILE_BYTES: Final = 1024**2
FILES: Final = 50
_CONTINUED: Final = re.compile(r"\\\n\s*")
_COMMENT: Final = re.compile(r"(^|\s)#.*$")
_OPTION: Final = re.compile(r"(--[a-z-]+|-[a-z])(?:\s*=\s*|\s+|(?<=^-[a-z])|$)(.*)", re.DOTALL)
_VCS: Final = re.compile(r"(git|hg|svn|bzr)\+")
_EGG: Final = re.compile(r"[#&]egg=([A-Za-z0-9._-]+)(\[[A-Za-z0-9._,-]+\])?")
_ARCHIVE: Final = re.compile(r"\.(whl|zip|tar\.gz|tar\.bz2|tgz)(\[[^\]]*\])?$")
_SHORT: Final = {"-r": "--requirement", "-c": "--constraint", "-e": "--editable", "-i": "--index-url", "-f": "--find-links"}
_KEPT: Final = frozenset({"--index-url", "--extra-index-url", "--find-links", "--no-index", "--no-binary", "--only-binary"})
_ARGUMENTS: Final = {"--pre": "--prerelease=allow", "--require-hashes": "--require-hashes"}
_IGNORED: Final = frozenset({"--prefer-binary", "--use-feature", "--use-pep517", "--process-dependency-links", "--no-use-wheel"})


@dataclass(slots=True)
class Requirements:
    """What a requirements file and those it includes ask for.

    Attributes:
        lines: Packages by name or URL, and options that uv reads from a file.
        local: Requirements that lie in the repository itself, ``-e .``; installed once the content is there.
        constraints: Lines of constraint files.
        arguments: Options that uv wants on its command line.
        notices: Sentences for the page.
    """

    lines: list[str] = field(default_factory=list)
    local: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.lines or self.local)

    def argue(self, *words: str) -> None:
        """Add command line options, once each."""
        if words[-1] not in self.arguments:
            self.arguments.extend(words)


def text(root: Path, path: Path) -> str:
    """A small text file of the repository, whatever its encoding (PowerShell writes UTF-16). Arguments and errors as of `content`."""
    return _decoded(content(root, path)).replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


def content(root: Path, path: Path) -> bytes:
    """A small file of the repository as it is.

    Args:
        root: The repository, resolved.
        path: The file; links may lead anywhere inside the repository.

    Raises:
        BuildFailed: It leads out of the repository, is no file, or is too large.
    """
    real = path.resolve()
    name = path.relative_to(root) if path.is_relative_to(root) else path.name
    if not real.is_relative_to(root):
        raise BuildFailed(f"{name} leads out of the repository, so it is not read. Put the file itself into the repository.")
    if not real.is_file():
        raise BuildFailed(f"{name} is asked for but is not a file in the repository.")
    with real.open("rb") as file:
        data = file.read(FILE_BYTES + 1)
    if len(data) > FILE_BYTES:
        raise BuildFailed(f"{name} is larger than 1 MiB, which no list of packages should be.")
    return data


def _decoded(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read(root: Path, path: Path) -> Requirements:
    """Read a requirements file with everything it includes.

    Args:
        root: The repository, resolved.
        path: The file.

    Raises:
        BuildFailed: A file it names is missing or outside the repository, or there are too many of them.
    """
    found = Requirements()
    _read(found, root, path, set())
    return _indexed(found)


def listed(root: Path, path: Path, lines: Iterable[str]) -> Requirements:
    """The same for lines that stand in another file, as in the ``pip`` list of an environment.yml.

    Args:
        root: The repository, resolved.
        path: The file they stand in; what they name is relative to it.
        lines: Of a requirements file.

    Raises:
        BuildFailed: As `read`.
    """
    found = Requirements()
    _lines(found, root, path, "\n".join(lines), set())
    return _indexed(found)


def _indexed(found: Requirements) -> Requirements:
    if any(line.startswith("--extra-index-url") for line in found.lines):
        # As pip does it: the best version of all indexes, not of the first that has the name.
        found.argue("--index-strategy", "unsafe-best-match")
    return found


def _read(found: Requirements, root: Path, path: Path, seen: set[Path]) -> None:
    if path in seen:
        return
    seen.add(path)
    if len(seen) > FILES:
        raise BuildFailed(f"The requirements include more than {FILES} files.")
    _lines(found, root, path, text(root, path), seen)


def _lines(found: Requirements, root: Path, path: Path, content: str, seen: set[Path]) -> None:
    for line in logical_lines(content):
        option = _OPTION.fullmatch(line) if line.startswith("-") else None
        if option:
            _option(found, root, path, seen, _SHORT.get(option[1], option[1]), _unquoted(option[2].strip()))
        else:
            _requirement(found, root, line)


def logical_lines(written: str) -> Iterator[str]:
    """Lines without comments, continuation and blank ones."""
    for line in _CONTINUED.sub(" ", written).split("\n"):
        bare = _COMMENT.sub("", line).strip()
        if bare:
            yield bare


def _option(  # noqa: PLR0913, PLR0917 - a line and where it stands
    found: Requirements, root: Path, path: Path, seen: set[Path], name: str, value: str
) -> None:
    if name in ("--requirement", "--constraint"):
        _include(found, root, path, seen, name, value)
    elif name == "--editable":
        _editable(found, value)
    elif name in _KEPT:
        found.lines.append(f"{name} {value}".strip())
    elif name in _ARGUMENTS:
        found.argue(_ARGUMENTS[name])
    elif name == "--trusted-host":
        found.argue("--allow-insecure-host", value)
    elif name not in _IGNORED:
        found.notices.append(f"{path.relative_to(root)}: the option {name[:40]} is ignored.")


def _unquoted(value: str) -> str:
    """An option's value as pip reads it: ``-r "more of it.txt"``."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _include(  # noqa: PLR0913, PLR0917 - a line and where it stands
    found: Requirements, root: Path, path: Path, seen: set[Path], name: str, value: str
) -> None:
    if "://" in value:
        found.argue("--requirements" if name == "--requirement" else "--constraints", value)
    elif name == "--requirement":
        _read(found, root, path.parent / value, seen)
    else:
        found.constraints.extend(logical_lines(text(root, path.parent / value)))


def _editable(found: Requirements, value: str) -> None:
    if not _VCS.match(value):
        found.local.append(f"-e {value}")
        return
    egg = _EGG.search(value)
    # uv installs no editable checkouts of other repositories; what is installed is the same.
    found.lines.append(f"{egg[1]}{egg[2] or ''} @ {value[: egg.start()]}" if egg else value)


def _requirement(found: Requirements, root: Path, line: str) -> None:
    target = line.split(" @ ", 1)[1].strip() if " @ " in line else line
    (found.local if is_local(root, target) else found.lines).append(line)


def is_local(root: Path, target: str) -> bool:
    """Whether a requirement is a path in the repository rather than a name or a URL."""
    if target.startswith((".", "/", "file:")):
        return True
    if "://" in target:
        return False
    bare = target.split(";", 1)[0].strip()
    return bool(_ARCHIVE.search(bare)) or ("/" in bare and (root / bare.split("[", 1)[0]).exists())
