"""Repositories as strangers write them: every kind of environment file that the fast path takes, every kind of ref, honest words for the rest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from binder_onprem.plan import CONDA_BY_UV
from tests.e2e.kernel import kernel
from tests.e2e.stand import launch, ready

if TYPE_CHECKING:
    from tests.e2e.conftest import Origin
    from tests.e2e.stand import Stand

pytestmark = pytest.mark.real

SETUP = 'from setuptools import setup\nsetup(name="ours", version="1", py_modules=["ours"], install_requires=["idna"])\n'
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "ours"
version = "1.0"
dependencies = ["idna"]
[tool.setuptools]
py-modules = ["ours"]
"""
CONDA = """
channels: [conda-forge]
dependencies:
  - python
  - six=1.16=pyh6c4a22f_0
  - pip:
    - toolz
variables: {COURSE: "101"}
"""
EXTENSION = 'from setuptools import Extension, setup\nsetup(name="ours", version="1", ext_modules=[Extension("ours", ["ours.c"])])\n'
SOURCE = """\
#include <Python.h>
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "ours", 0, -1, 0};
PyMODINIT_FUNC PyInit_ours(void) { return PyModule_Create(&module); }
"""
WORKING: dict[str, tuple[dict[str, str | bytes], str]] = {
    "pipfile": ({"Pipfile": '[packages]\nsix = "*"\n'}, "import six"),
    "pyproject": ({"pyproject.toml": PROJECT, "ours.py": "X = 1\n"}, "import ours, idna"),
    "setup": ({"setup.py": SETUP, "ours.py": "X = 1\n"}, "import ours, idna"),
    "binderfolder": ({"binder/requirements.txt": "toolz\n", "requirements.txt": "no-such-package-0\n"}, "import toolz"),
    "nested": ({"requirements.txt": "-r more/a.txt\n-e .\n", "more/a.txt": "toolz\n", "setup.py": SETUP, "ours.py": "X = 1\n"}, "import toolz, ours"),
    "compiled": ({"setup.py": EXTENSION, "ours.c": SOURCE}, "import ours; assert ours.__file__.endswith('.so')"),
    "accents": ({"données/été.txt": "é", "requirements.txt": "# commentaire é\nidna\n"}, "import idna; assert open('données/été.txt').read() == 'é'"),
    "empty": ({"README": ""}, "pass"),
    "conda": ({"environment.yml": CONDA}, "import six, toolz, os; assert six.__version__ == '1.16.0' and os.environ['COURSE'] == '101'"),
}
FAILING: dict[str, tuple[dict[str, str | bytes], str]] = {
    "condabomb": ({"environment.yml": "a: &a [x]\ndependencies: [*a]\n"}, "anchors"),
    "nonsense": ({"requirements.txt": "this is no requirement !!\n"}, "ackage"),
    "foreignbase": ({"Dockerfile": "FROM docker.io/library/python:3\n"}, "not allowed"),
    "mount": ({"Dockerfile": "FROM binder-onprem/base\nRUN --mount=type=bind,from=x,target=/x true\n"}, "RUN"),
    "nosudo": ({"postBuild": "#!/bin/sh\nset -e\nsudo apt-get install tree\n"}, "apt.txt"),
    "brokenstart": ({"start": "#!/bin/bash\nexit 3\n"}, "did not start"),
}
EXECUTABLE = ("start", "postBuild")


def made(origin: Origin, name: str, files: dict[str, str | bytes]) -> str:
    repository = origin.make(name, files)
    for file in set(EXECUTABLE) & set(files):
        repository.git("update-index", "--chmod=+x", file)
        repository.git("commit", "--quiet", "--message=executable")
    return origin.spec(name)


@pytest.mark.parametrize("name", WORKING)
async def test_environment_files(stand: Stand, origin: Origin, name: str) -> None:
    files, code = WORKING[name]
    async with kernel(await ready(stand, made(origin, name, files))) as session:
        assert await session.run(f"{code}\nprint('fine')") == "fine\n"


async def test_an_environment_yml_from_pypi_says_that_it_is(stand: Stand, origin: Origin) -> None:
    end, before = await launch(stand, made(origin, "condasaid", {"environment.yml": "dependencies: [six, mkl]\n"}))
    said = "".join(event["message"] for event in before)
    assert "is built from PyPI by uv" in said
    assert "mkl is left out" in said
    labels = json.loads(stand.podman("image", "inspect", "--format={{json .Labels}}", end["image"]))
    assert labels["io.binder-onprem.buildpack"] == CONDA_BY_UV


@pytest.mark.parametrize("name", FAILING)
async def test_what_cannot_work_says_why(stand: Stand, origin: Origin, name: str) -> None:
    files, words = FAILING[name]
    end, _ = await launch(stand, made(origin, name, files))
    assert end["phase"] == "failed"
    assert words in end["message"]
    assert str(stand.home) not in end["message"]


@pytest.mark.parametrize(("ref", "content"), [("feature/one", "feature"), ("v1.0", "main"), ("light", "main"), ("HEAD", "main"), ("master", "main")])
async def test_refs(stand: Stand, origin: Origin, ref: str, content: str) -> None:
    async with kernel(await ready(stand, origin.spec("branches", ref))) as session:
        assert (await session.run("print(open('where.txt').read())")).strip() == content


async def test_a_short_commit_and_one_that_does_not_exist(stand: Stand, origin: Origin) -> None:
    commit = origin.repository("branches").commit
    assert (await ready(stand, origin.spec("branches", commit[:9])))["binder_persistent_request"].endswith(commit)
    end, _ = await launch(stand, origin.spec("branches", "no-such-branch"))
    assert (end["code"], "no-such-branch" in end["message"]) == ("ref_not_found", True)
    end, _ = await launch(stand, origin.spec("branches", "0" * 40))
    assert end["phase"] == "failed"


async def test_submodules_are_there(stand: Stand, origin: Origin) -> None:
    async with kernel(await ready(stand, origin.spec("submodule"))) as session:
        assert (await session.run("print(open('inner/inside.txt').read())")).strip() == "inside"
