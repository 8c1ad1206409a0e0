"""Which repositories the fast Python buildpack takes, and which layers it plans."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from binder_onprem.errors import BuildFailed
from binder_onprem.plan import Plan
from binder_onprem.sandbox.buildpack import decide

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = '[build-system]\nrequires = ["hatchling"]\n[project]\nname = "x"\nversion = "1"\n'


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "steps"),
    [
        ({}, ["content"]),
        ({"n.ipynb": "{}"}, ["content"]),
        ({"requirements.txt": "numpy\n"}, ["python packages", "content"]),
        ({"requirements.txt": "# nothing\n"}, ["content"]),
        ({"binder/requirements.txt": "numpy\n", "environment.yml": "x"}, ["python packages", "content"]),
        ({".binder/requirements.txt": "numpy\n", "Dockerfile": "FROM x"}, ["python packages", "content"]),
        ({"binder/x": "", "requirements.txt": "numpy\n", "setup.py": ""}, ["content"]),
        ({"apt.txt": "tree\n", "postBuild": "#!/bin/sh"}, ["apt packages", "content", "postBuild"]),
        ({"requirements.txt": "numpy\n-e .\n", "setup.cfg": ""}, ["python packages", "content", "python packages of the repository"]),
        ({"pyproject.toml": PACKAGE}, ["content", "the package"]),
        ({"pyproject.toml": PACKAGE + 'dependencies = ["numpy"]\n'}, ["dependencies of the package", "content", "the package"]),
        ({"pyproject.toml": PACKAGE + 'dynamic = ["dependencies"]\n'}, ["content", "the package"]),
        ({"setup.py": "x"}, ["content", "the package"]),
        ({"setup.py": "x", "requirements.txt": "-e .[test]\n"}, ["content", "python packages of the repository"]),
        ({"pyproject.toml": "[tool.ruff]\n"}, ["content"]),
        ({"runtime.txt": "python-3.11\n"}, ["content"]),
        ({"runtime.txt": "python-3\n"}, ["content"]),
        ({"runtime.txt": "python-3.11-2024-01-01\n"}, ["content"]),
        ({"Pipfile": '[packages]\nnumpy = "*"\n', "setup.py": "", "requirements.txt": "x"}, ["python packages", "content"]),
        ({"Pipfile": '[packages]\nme = {path = ".", editable = true}\n'}, ["content", "python packages of the repository"]),
        ({"DESCRIPTION": "x", "binder/apt.txt": "tree"}, ["apt packages", "content"]),
    ],
)
def test_taken(tmp_path: Path, files: dict[str, str], steps: list[str]) -> None:
    plan, _ = decide(tree(tmp_path, files), "3.11")
    assert plan is not None
    assert plan.kind == "layers"
    assert [step.name for step in plan.steps] == steps


@pytest.mark.parametrize(
    "files",
    [
        {"Dockerfile": "FROM x"},
        {"binder/Dockerfile": "FROM x", "requirements.txt": ""},
        {"environment.yml": "", "requirements.txt": ""},
        {"environment.yaml": ""},
        {"binder/environment.yml": ""},
        {"Project.toml": ""},
        {"JuliaProject.toml": ""},
        {"REQUIRE": ""},
        {"default.nix": ""},
        {"DESCRIPTION": ""},
        {"runtime.txt": "r-2024-01-01"},
        {"runtime.txt": "r-4.1-2024-01-01", "requirements.txt": "x"},
        {"runtime.txt": "python-3.8"},
        {"runtime.txt": "python-2.7", "requirements.txt": "x"},
        {"runtime.txt": "nonsense runtime with words"},
        {"Pipfile": '[requires]\npython_version = "3.9"\n'},
        {"pyproject.toml": PACKAGE + 'requires-python = ">=3.13"\n'},
        {"Dockerfile": "FROM andrewosh/binder-base\n", "binder/requirements.txt": "x"},
    ],
)
def test_left_to_repo2docker(tmp_path: Path, files: dict[str, str]) -> None:
    assert decide(tree(tmp_path, files), "3.11")[0] is None


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"binder/x": "", ".binder/x": ""}, "both a 'binder' and a '.binder'"),
        ({"apt.txt": "tree\n--allow-downgrades\n"}, "apt.txt"),
        ({"apt.txt": "tree; rm -rf /\n"}, "apt.txt"),
        ({"apt.txt": "$(id)\n"}, "apt.txt"),
        ({"pyproject.toml": "["}, "not valid TOML"),
        ({"Pipfile.lock": "["}, "Pipfile.lock cannot be read"),
        ({"Pipfile.lock": '{"default": [1]}'}, "pipenv's form"),
        ({"requirements.txt": "-r ../../etc/passwd\n"}, "leads out of the repository"),
        ({"requirements.txt": "-r absent.txt\n"}, "not a file in the repository"),
        ({"requirements.txt": "x" * 2_000_000}, "larger than 1 MiB"),
        ({"pyproject.toml": PACKAGE + 'requires-python = "whatever"\n'}, "requires-python"),
    ],
)
def test_refused_with_the_reason(tmp_path: Path, files: dict[str, str], words: str) -> None:
    with pytest.raises(BuildFailed, match=words) as caught:
        decide(tree(tmp_path, files), "3.11")
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize("name", ["binder", ".binder"])
def test_a_folder_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/etc")
    with pytest.raises(BuildFailed, match="leads out of the repository"):
        decide(tmp_path, "3.11")


@pytest.mark.parametrize("name", ["requirements.txt", "apt.txt", "runtime.txt", "postBuild", "pyproject.toml", "Pipfile"])
def test_a_file_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/etc/passwd")
    with pytest.raises(BuildFailed, match="leads out of the repository"):
        decide(tmp_path, "3.11")


def test_links_inside_the_repository_are_followed(tmp_path: Path) -> None:
    tree(tmp_path, {"env/r.txt": "numpy\n"})
    (tmp_path / "requirements.txt").symlink_to("env/r.txt")
    plan, _ = decide(tmp_path, "3.11")
    assert plan
    assert "numpy" in plan.steps[0].script


def test_a_notebook_changes_no_key_and_a_requirement_does(tmp_path: Path) -> None:
    files = {"requirements.txt": "numpy\n", "apt.txt": "tree\n", "n.ipynb": "1"}
    keys = [
        [step.key for step in decide(tree(tmp_path, files | more), "3.11")[0].steps] for more in ({}, {"n.ipynb": "2"}, {"requirements.txt": "scipy"})
    ]
    assert keys[0] == keys[1]
    assert keys[0][0] == keys[2][0]
    assert keys[0][1] != keys[2][1]
    assert keys[0][2] == ""


def test_a_requirement_cannot_end_the_here_document(tmp_path: Path) -> None:
    plan, _ = decide(tree(tmp_path, {"requirements.txt": "numpy\nEND_\nEND_0000\n"}), "3.11")
    assert plan
    body = plan.steps[0].script
    end = body.split("<<'", 1)[1].split("'", 1)[0]
    assert body.count(f"\n{end}\n") == 1


def test_notices(tmp_path: Path) -> None:
    _, notices = decide(tree(tmp_path, {"binder/apt.txt": "", "requirements.txt": "", "environment.yml": ""}), "3.11")
    assert notices == ("Ignored because the directory 'binder' exists: requirements.txt, environment.yml.",)
    _, notices = decide(tree(tmp_path, {"binder/runtime.txt": "python-3.8"}), "3.11")
    assert "asks for Python 3.8, the base image has 3.11" in notices[1]


def test_start_is_named_for_the_entry_point(tmp_path: Path) -> None:
    plan, _ = decide(tree(tmp_path, {"binder/start": "#!/bin/sh\n"}), "3.11")
    assert plan
    assert ("R2D_ENTRYPOINT", "/home/jovyan/binder/start") in plan.env


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    plan, _ = decide(tree(tmp_path / "repository", {"requirements.txt": "numpy\n", "apt.txt": "tree", "start": ""}), "3.11")
    assert plan
    plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan
    assert json.loads((tmp_path / "plan.json").read_text())["kind"] == "layers"


@pytest.mark.parametrize("name", ["postBuild", "start", "binder/postBuild"])
def test_scripts_with_windows_line_ends_are_said_at_once(tmp_path: Path, name: str) -> None:
    tree(tmp_path, {name: "x"})
    (tmp_path / name).write_bytes(b"#!/bin/bash\r\ntrue\r\n")
    with pytest.raises(BuildFailed, match=rf"{name} has Windows line ends"):
        decide(tmp_path, "3.11")
    (tmp_path / name).write_bytes(b"#!/bin/bash\ntrue\r\n")
    assert decide(tmp_path, "3.11")[0]
