"""Pipfile and Pipfile.lock, translated into requirements.

Called by `buildpack`, in the sandbox, on hostile files. Standard library only. Never installs pipenv, never runs anything.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.errors import BuildFailed
from binder_onprem.sandbox.requirements import Requirements, text

if TYPE_CHECKING:
    from pathlib import Path

VERSION: Final = re.compile(r"\d+(\.\d+)*")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MARKERS: Final = ("os_name", "sys_platform", "platform_machine", "platform_python_implementation", "platform_system", "python_version")


def read(root: Path, folder: Path) -> tuple[Requirements, str | None]:
    """Read ``Pipfile.lock`` where there is one, else ``Pipfile``; packages and development packages, as repo2docker installs them.

    Args:
        root: The repository, resolved.
        folder: Where the files lie.

    Returns:
        The requirements, and the Python version asked for, ``3.11``.

    Raises:
        BuildFailed: One of the files is not what it should be; says which.
    """
    lock, pipfile = folder / "Pipfile.lock", folder / "Pipfile"
    locked = _parsed(root, lock, json.loads) if lock.exists() else None
    asked = _parsed(root, pipfile, tomllib.loads) if pipfile.exists() else {}
    try:
        if locked is not None:
            found = _requirements(locked.get("_meta", {}).get("sources", []), locked.get("default", {}), locked.get("develop", {}))
        else:
            found = _requirements(asked.get("source", []), asked.get("packages", {}), asked.get("dev-packages", {}))
        return found, _python((locked or {}).get("_meta", {}).get("requires", {})) or _python(asked.get("requires", {}))
    except (AttributeError, TypeError, KeyError):
        raise BuildFailed("The Pipfile or Pipfile.lock does not have pipenv's form. Run `pipenv lock` and commit both.") from None


def _parsed(root: Path, path: Path, parse: Any) -> dict[str, Any]:
    try:
        data = parse(text(root, path))
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise BuildFailed(f"{path.name} cannot be read. Run `pipenv lock` and commit Pipfile and Pipfile.lock.")
    return data


def _python(requires: dict[str, Any]) -> str | None:
    for key in ("python_full_version", "python_version"):
        match = VERSION.match(str(requires.get(key, "")))
        if match:
            return match.group()
    return None


def _requirements(sources: list[dict[str, Any]], *groups: dict[str, Any]) -> Requirements:
    found = Requirements()
    # The one that every Pipfile names is the default index, for which the site may have a mirror.
    others = [source["url"] for source in sources if source.get("name") != "pypi" and _one_word(source["url"])]
    found.lines.extend(f"--extra-index-url {url}" for url in others)
    if others:
        found.argue("--index-strategy", "unsafe-best-match")
    merged: dict[str, Any] = {}
    for group in groups:
        for name, wanted in group.items():
            merged.setdefault(name, wanted)
    for name, wanted in merged.items():
        if not _NAME.fullmatch(name):
            raise BuildFailed("The Pipfile names a package that has no valid name.")
        _package(found, name, wanted if isinstance(wanted, dict) else {"version": wanted})
    return found


def _package(found: Requirements, name: str, wanted: dict[str, Any]) -> None:
    extras = f"[{','.join(wanted['extras'])}]" if wanted.get("extras") else ""
    markers = [f"({wanted['markers']})"] if wanted.get("markers") else []
    marker = " and ".join([*markers, *(f"{key} {wanted[key]}" for key in _MARKERS if wanted.get(key))])
    tail = f" ; {marker}" if marker else ""
    local = wanted.get("path") or (wanted.get("file") if "://" not in str(wanted.get("file", "")) else None)
    if local:
        path = local if local.startswith((".", "/")) else f"./{local}"
        found.local.append(_one_line(f"-e {path}{extras}" if wanted.get("editable") else f"{name}{extras} @ {path}{tail}"))
    elif wanted.get("git"):
        ref = f"@{wanted['ref']}" if wanted.get("ref") else ""
        found.lines.append(_one_line(f"{name}{extras} @ git+{wanted['git'].removeprefix('git+')}{ref}{tail}"))
    elif wanted.get("file"):
        found.lines.append(_one_line(f"{name}{extras} @ {wanted['file']}{tail}"))
    else:
        version = "" if wanted.get("version", "*") == "*" else wanted["version"]
        hashes = "".join(f" --hash={value}" for value in wanted.get("hashes", []))
        found.lines.append(_one_line(f"{name}{extras}{version}{tail}{hashes}"))


def _one_line(line: str) -> str:
    return " ".join(line.split())


def _one_word(value: str) -> bool:
    return len(value.split()) == 1
