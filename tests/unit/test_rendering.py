"""Completing Dockerfiles for the site."""

from __future__ import annotations

from binder_onprem.building.dockerfile import screen
from binder_onprem.building.rendering import mirrors, on_tools, tools, tools_image, with_arguments
from binder_onprem.host.sources import Sources


def sources(conda: str | None, npm: str | None = None, julia: str | None = None) -> Sources:
    return Sources(b"", None, "", npm, conda, None, None, (), frozenset(), julia)


def test_arguments_get_the_values_that_repo2docker_gives() -> None:
    text = "FROM x\nARG NB_USER\narg NB_UID \nARG NB_UID=5\nARG OTHER\n"
    assert with_arguments(text) == "FROM x\nARG NB_USER=jovyan\narg NB_UID=1000\nARG NB_UID=5\nARG OTHER\n"


def test_what_repo2docker_rendered_stands_on_the_tools_and_knows_the_mirrors() -> None:
    given = sources("https://conda.example/", "https://npm.example/", "https://julia.example")
    lines = on_tools("FROM base\nRUN x\n", "base", given).splitlines()
    assert lines[0] == f"FROM {tools_image('base')}"
    assert {"ARG CONDA_CHANNEL_ALIAS=https://conda.example/", "ARG MAMBA_CHANNEL_ALIAS=https://conda.example/"} < set(lines)
    assert {"ENV NPM_CONFIG_REGISTRY=https://npm.example/", "ENV JULIA_PKG_SERVER=https://julia.example"} < set(lines)
    assert lines[-1] == "RUN x"


def test_the_tools_are_those_that_the_scripts_call() -> None:
    text = tools("binder-base@sha256:1")
    assert screen(text, (), "binder-base@sha256:1") == text
    assert {"wget", "bzip2", "unzip", "xz-utils", "build-essential"} <= set(text.split())
    assert tools_image("a") != tools_image("b")


def test_a_mirror_that_would_break_the_line_is_left_out_and_an_account_too() -> None:
    assert "CHANNEL" not in on_tools("FROM base\nRUN x\n", "base", sources("https://conda.example/\nRUN evil"))
    assert mirrors(sources("https://me:secret@conda.example/x")) == {"conda": "https://conda.example/x"}
