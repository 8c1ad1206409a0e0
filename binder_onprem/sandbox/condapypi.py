"""An ``environment.yml`` in PyPI's words, where a site wants that: which of its packages PyPI has, under which name and in which versions.

Called by `examine`, in the sandbox, before repo2docker is imported. Pure apart from reading ``pypi.toml`` and the repository's files. Whatever cannot
be said in PyPI's words is named, and then nothing is built this way.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.model import fingerprint
from binder_onprem.plan import CONDA_BY_UV, Plan, Step
from binder_onprem.sandbox import condafile, requirements
from binder_onprem.sandbox.buildpack import HOME, Environment, apt, legacy, post_build
from binder_onprem.sandbox.scripts import install_script

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAMES: Final = Path(__file__).with_name("pypi.toml")
FILES: Final = ("environment.yml", "environment.yaml")
BEFORE: Final = ("Dockerfile", "Project.toml", "JuliaProject.toml", "REQUIRE", "default.nix")
"""What repo2docker goes by even where there is an environment.yml."""
TOLD: Final = 8
OWN_VARIABLES: Final = frozenset({"PATH", "HOME", "USER", "SHELL", "REPO_DIR", "R2D_ENTRYPOINT", "VIRTUAL_ENV", "LD_PRELOAD", "LD_LIBRARY_PATH"})
_SPEC: Final = re.compile(
    r"(?:(?P<channel>[^\s\[\]=<>!~]+)::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]*)\s*(?:\[(?P<keys>[^\]]*)\]|(?P<rest>[=<>!~ ,0-9*|].*)?)"
)
_KEY: Final = re.compile(r"""\s*(version|build|channel|subdir)\s*=\s*(?:'([^']*)'|"([^"]*)"|([^\s,'"]+))\s*(?:,|$)""")
_CLAUSE: Final = re.compile(r"(?P<operator>===?|=|~=|!=|<=|>=|<|>)?\s*(?P<version>[0-9A-Za-z.!+_*-]+)")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
VARIABLE_CHARACTERS: Final = 2048


@dataclass(frozen=True, slots=True)
class Names:
    """Conda's names → requirements of PyPI, and why others have none.

    Attributes:
        pypi: Requirement by conda's name.
        ignored: Why it is not needed, by name.
        foreign: Debian's package by name, "" where there is none.
    """

    pypi: Mapping[str, str]
    ignored: Mapping[str, str]
    foreign: Mapping[str, str]

    @classmethod
    def read(cls, further: Mapping[str, str]) -> Names:
        """The package's own table with the site's names over it; a name of the site's without a requirement is one that is not needed."""
        table = tomllib.loads(NAMES.read_text(encoding="utf-8"))
        site = {canonical(name): requirement.strip() for name, requirement in further.items()}
        known = {name: name for name in table["same"].split()} | {canonical(name): value for name, value in table["renamed"].items()}
        ignored = table["ignored"] | {name: "the site says so" for name, requirement in site.items() if not requirement}
        foreign = {name: value for name, value in table["foreign"].items() if name not in site}
        return cls(known | {name: requirement for name, requirement in site.items() if requirement}, ignored, foreign)


def canonical(name: str) -> str:
    """Lower case, one dash for any run of dashes, dots and underscores."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(slots=True)
class Translation:
    """What has become of a file.

    Attributes:
        lines: Of a requirements file.
        missing: Packages that cannot be had this way, each with the reason.
        notices: Sentences for the page.
    """

    lines: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def file_of(environment: Environment) -> str | None:
    """The name of the file that decides here, None where something else does (as in repo2docker)."""
    runtime = (environment.read("runtime.txt") or "").strip()
    if any(environment.has(name) for name in BEFORE) or legacy(environment) or runtime.startswith("r-"):
        return None
    if not environment.folder and environment.has("DESCRIPTION") and not environment.has("setup.py"):
        return None
    return next((name for name in FILES if environment.has(name)), None)


def plan(environment: Environment, name: str, python: str, further: Mapping[str, str]) -> Plan | Sequence[str]:
    """Plan the layers, or say what stands against it.

    Args:
        environment: The repository's files.
        name: Of the file, from `file_of`.
        python: Version of the base image's Python, ``3.11``.
        further: The site's own names.

    Returns:
        The plan (its `bytes` are left to the caller), or the packages that cannot be had from PyPI, each with the reason.

    Raises:
        BuildFailed: The file, or one that it includes, does not hold.
    """
    asked = condafile.read(name, environment.read(name) or "")
    found = translated(asked.packages, python, Names.read(further))
    if found.missing:
        return found.missing
    pip = requirements.listed(environment.root, environment.path(name), asked.pip)
    pip.lines[:0] = found.lines
    notices = [f"{name} is built from PyPI by uv, as this site wants it, and not by conda: versions may differ from those of the conda channels."]
    channels = [channel for channel in asked.channels if channel != "nodefaults"]
    notices += [f"The channels {', '.join(channels)[:120]} are not used."] if channels else []
    notices += [f"Not for this system, by its selector: {', '.join(asked.left)[:200]}."] if asked.left else []
    variables, refused = _variables(asked.variables)
    notices += [f"These variables are not set: {', '.join(refused)[:200]}."] if refused else []
    env = (("REPO_DIR", HOME), *variables, *environment.entry)
    return Plan(CONDA_BY_UV, "layers", _steps(environment, pip), env, (), (*notices, *found.notices, *pip.notices))


def _steps(environment: Environment, wanted: requirements.Requirements) -> tuple[Step, ...]:
    steps: list[Step | None] = [apt(environment.read("apt.txt"))]
    if wanted.lines:
        script = install_script(wanted.lines, wanted.constraints, wanted.arguments)
        steps.append(Step("packages of environment.yml", "run", fingerprint("jovyan", script), "jovyan", script))
    steps.append(Step("content", "content", "", "jovyan"))
    if wanted.local:
        script = install_script([*wanted.lines, *wanted.local], wanted.constraints, wanted.arguments)
        steps.append(Step("python packages of the repository", "run", "", "jovyan", script))
    steps.append(post_build(environment))
    return tuple(step for step in steps if step)


def _variables(asked: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[str]]:
    good, refused = [], []
    for name, value in asked:
        fine = _VARIABLE.fullmatch(name) and name not in OWN_VARIABLES and len(value) <= VARIABLE_CHARACTERS and value.isprintable()
        if fine:
            good.append((name, value))
        else:
            refused.append(name[:40])
    return good, refused


def translated(packages: Sequence[str], python: str, names: Names) -> Translation:
    """Each of conda's match specifications in PyPI's words.

    Args:
        packages: As written.
        python: Version of the base image's Python.
        names: What is known.
    """
    found = Translation()
    for text in packages:
        _package(found, " ".join(text.split()), python, names)
    if len(found.missing) > TOLD:
        found.missing[TOLD:] = [f"and {len(found.missing) - TOLD} more"]
    return found


def _package(found: Translation, text: str, python: str, names: Names) -> None:
    match = _SPEC.fullmatch(text)
    if match is None:
        found.missing.append(f"{text[:60]!r} (not understood)")
        return
    name, bare = canonical(match["name"]), match["name"]
    version = _version(match)
    if version is None:
        found.missing.append(f"{text[:60]} (PyPI has no such choice of versions)")
    elif name == "python":
        if not _suits(version, python):
            found.missing.append(f"{text[:60]} (the image has Python {python})")
    elif name in names.ignored:
        found.notices.append(f"{bare} is left out: {names.ignored[name]}.")
    elif name in names.pypi:
        _known(found, names.pypi[name], version, text)
    elif name in names.foreign or name.startswith("r-"):
        debian = names.foreign.get(name)
        found.missing.append(f"{bare} (no Python package; in apt.txt: {debian})" if debian else f"{bare} (no Python package)")
    else:
        found.missing.append(f"{bare} (its name on PyPI is not known here)")


def _known(found: Translation, requirement: str, version: str, text: str) -> None:
    """Add a requirement; one that the site gave with a version or an address of its own keeps it."""
    own = re.search(r"[=<>!~@;]", requirement)
    if own and version:
        found.notices.append(f"{text[:60]}: this site takes {requirement}.")
    found.lines.append(requirement if own else requirement + version)


def _version(match: re.Match[str]) -> str | None:
    """The versions in PyPI's words, "" for any; None when they cannot be said. What is said of the build is left out."""
    if match["keys"] is not None:
        keys = {key: a or b or c for key, a, b, c in _KEY.findall(match["keys"])}
        if _KEY.sub("", match["keys"]).strip():
            return None
        return _clauses(keys.get("version", ""), exact=False)
    rest = (match["rest"] or "").strip()
    # name=1.2=build and "name 1.2 build": with a build the version is exact.
    triple = re.fullmatch(r"=?=?\s*([^\s=<>!~,|]+)(?:=|\s+)([^\s=<>!~,|]+)", rest)
    if triple:
        return _clauses(triple[1], exact=True)
    return _clauses(rest, exact=False)


def _clauses(text: str, *, exact: bool) -> str | None:
    if not text or text == "*":
        return ""
    if "|" in text:
        return None
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415 - few repositories need it

    clauses = [_clause(part.strip(), exact=exact) for part in text.split(",") if part.strip() not in ("", "*")]
    if None in clauses:
        return None
    try:
        return ",".join(str(SpecifierSet(clause)) for clause in clauses if clause)
    except InvalidSpecifier:
        return None


def _clause(part: str, *, exact: bool) -> str | None:
    match = _CLAUSE.fullmatch(part)
    if match is None:
        return None
    operator, version = match["operator"] or "", match["version"]
    if version in ("*", ".*"):
        return ""
    starred = version.endswith("*")
    plain = version.rstrip("*").rstrip(".")
    if "*" in plain or not plain:
        return None
    if operator in ("", "=", "==", "==="):
        # One equals sign is a prefix: 1.2 stands for 1.2.*. Without any it is exact, as with two.
        prefix = starred or (operator == "=" and not exact)
        return f"=={plain}{'.*' if prefix else ''}"
    if operator == "!=":
        return f"!={plain}{'.*' if starred else ''}"
    # A star after an inequality says nothing to conda.
    return f"{operator}{plain}"


def _suits(version: str, python: str) -> bool:
    from packaging.specifiers import SpecifierSet  # noqa: PLC0415 - same

    asked = re.fullmatch(r"==(\d+(?:\.\d+){0,2})(\.\*)?", version)
    if asked:
        # An exact patch release stands for its series: what Debian ships has later corrections of the same.
        parts = asked[1].split(".")[:2]
        return parts == python.split(".")[: len(parts)]
    return SpecifierSet(version).contains(f"{python}.99") or SpecifierSet(version).contains(python)


def against(missing: Sequence[str]) -> str:
    """What stands against it, as a sentence for people."""
    return f"It was not built from PyPI because of: {', '.join(missing)}."


def further_of(request: Mapping[str, Any]) -> Mapping[str, str] | None:
    """The site's own names in the sandbox's request; None where the site does not want any of this."""
    given = request.get("pypi")
    return {str(name): str(value) for name, value in given.items()} if isinstance(given, dict) else None
