"""The lock files follow pyproject.toml and package.json, and name no host."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~; ]", line)[0].lower().replace("_", "-") for line in requirements}


def locked(file: str) -> set[str]:
    return {line.split("==")[0] for line in (ROOT / file).read_text(encoding="utf-8").splitlines() if "==" in line and not line.startswith(" ")}


def test_every_dependency_is_locked() -> None:
    project = PYPROJECT["project"]
    assert names(project["dependencies"]) <= locked("requirements.lock")
    optional = project["optional-dependencies"]
    assert names(project["dependencies"] + optional["test"] + optional["lint"]) <= locked("requirements-test.lock")
    assert names(PYPROJECT["build-system"]["requires"]) | {"uv"} <= locked("requirements-install.lock")


@pytest.mark.parametrize("folder", [".", "tests/clients"])
def test_npm_is_locked(folder: str) -> None:
    wanted = json.loads((ROOT / folder / "package.json").read_text(encoding="utf-8"))["dependencies"]
    lock = json.loads((ROOT / folder / "package-lock.json").read_text(encoding="utf-8"))
    assert lock["packages"][""]["dependencies"] == wanted
    assert all("integrity" in entry and "resolved" not in entry for name, entry in lock["packages"].items() if name)


@pytest.mark.parametrize("file", ["requirements.lock", "requirements-test.lock", "requirements-install.lock"])
def test_python_locks_have_hashes_and_no_host(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert "://" not in text
    assert len(locked(file)) <= text.count("--hash=sha256:")
