"""What a Dockerfile may do."""

from __future__ import annotations

import pytest

from binder_onprem.building.dockerfile import qualified, screen
from binder_onprem.errors import BuildFailed, LimitHit

BASE = "127.0.0.1:8589/binder-base@sha256:" + "a" * 64
ALLOWED = ("docker.io/library", "registry.example:5000/team/")


@pytest.mark.parametrize(
    "text",
    [
        "FROM binder-base\nRUN ls\n",
        "from binder-base:latest\nrun ls\n",
        f"FROM {BASE}\n",
        "FROM localhost/binder-onprem/base\n",
        "ARG B=binder-base\nFROM ${B}\n",
        "ARG TAG=3.12\nFROM python:$TAG AS one\nFROM binder-base\nCOPY --from=one /a /b\nCOPY --from=0 --chown=1000:1000 /a /b\n",
        "FROM python:3.12\n",
        "FROM registry.example:5000/team/image:1\n",
        'FROM scratch\nADD files.tar.gz /\nADD --chown=1000 ["a b", "/c/"]\n',
        '# a comment\n\nFROM binder-base\nRUN a && \\\n    # in between\n\n    b\nLABEL x=y\nUSER jovyan\nCMD ["x"]\n',
        "FROM binder-base\r\nRUN ls\r\n",
        "# syntax=docker/dockerfile:1.7\n# check=skip=all\n# escape=\\\nFROM binder-base\n",
        "FROM --platform=linux/amd64 binder-base AS x\nFROM x\n",
        "FROM binder-base\nRUN curl -o x https://example.org/x\nENV URL=https://example.org\n",
    ],
)
def test_allowed(text: str) -> None:
    assert screen(text, ALLOWED, BASE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no FROM"),
        ("RUN ls", "before FROM"),
        ("FROM quay.io/x/y", "FROM quay.io/x/y is not allowed"),
        ("FROM evil/x", "FROM evil/x"),
        ("FROM docker.io/libraryevil/x", "not allowed"),
        ("FROM registry.example:5000/other/x", "not allowed"),
        ("FROM $UNKNOWN", "not allowed"),
        ("ARG A=quay.io/x\nFROM $A/y", "FROM quay.io/x/y"),
        ("FROM binder-base@sha256:x evil", "form of FROM"),
        ("FROM binder-base\nFROM https://example.org/x", "not allowed"),
        ("# syntax=example.org/frontend\nFROM binder-base", "syntax="),
        ("# syntax=docker/dockerfile:1 evil\nFROM binder-base", "syntax="),
        ("#escape=`\nFROM binder-base", "directive"),
        ("FROM binder-base\nRUN --mount=type=bind,from=quay.io/x,target=/y ls", "line 2: an option of RUN"),
        ("FROM binder-base\nRUN --mount=type=cache,target=/y --mount=type=bind,from=x,target=/z ls", "option of RUN"),
        ("FROM binder-base\nRUN --mount=type=cache, \\\n  from=x,target=/y ls", "option of RUN"),
        ("FROM binder-base\nRUN --mount=type=cache,target=$X ls", "option of RUN"),
        ("FROM binder-base\nSHELL bash", "list of words"),
        ("FROM binder-base\nSHELL []", "list of words"),
        ("FROM binder-base\nRUN --mount=type=secret,id=x ls", "option of RUN"),
        ("FROM binder-base\nRUN --network=host ls", "option of RUN"),
        ("FROM binder-base\nRUN --security=insecure ls", "option of RUN"),
        ("FROM binder-base\nRUN \\\n  --network=host \\\n  ls", "option of RUN"),
        ("FROM binder-base\nrun\t--network=host ls", "option of RUN"),
        ("FROM binder-base\nADD http://169.254.169.254/x /y", "ADD of a URL"),
        ('FROM binder-base\nADD ["http://169.254.169.254/x", "/y"]', "ADD of a URL"),
        ('FROM binder-base\nADD ["http:\\u002f\\u002fx", "/y"]', "ADD of a URL"),
        ("FROM binder-base\nARG A=http\nADD ${A}://x /y", "ADD of a URL"),
        ("FROM binder-base\nADD h\\ttp://x /y", "ADD of a URL"),
        ("FROM binder-base\nADD git@github.example:a/b /y", "ADD of a URL"),
        ("FROM binder-base\nADD a/b.git#main /y", "ADD of a URL"),
        ("FROM binder-base\nADD a \\\n\nCOPY http://x /y", "ADD of a URL"),
        ("FROM binder-base\nADD a \\\n# c\nCOPY http://x /y", "ADD of a URL"),
        ("FROM binder-base\nRUN cat <<EOF\nADD http://x /y\nEOF", "here-document"),
        ("FROM binder-base\nRUN x \\", "backslash"),
        ("FROM binder-base\n# harmless \\\nADD http://x /y", "line 3: ADD of a URL"),
        ("FROM binder-base\nADD http:\\\n  //x/y /z", "goes on in the next line"),
        ("FROM binder-base\nADD --keep-git-dir=true x /y", "may have --chown"),
        ("FROM binder-base\nCOPY --from=docker.io/library/python /a /b", "earlier stage"),
        ("FROM binder-base\nCOPY --from=0 /a /b", "earlier stage"),
        ("FROM binder-base\nCOPY --from=later /a /b\nFROM binder-base AS later", "earlier stage"),
        ("FROM binder-base\nCOPY --from=$X /a /b", "is not allowed"),
        ("FROM binder-base\nONBUILD ADD http://x /y", "ONBUILD"),
        ("FROM binder-base\nINCLUDE x", "INCLUDE"),
        ("FROM binder-base\nRUN a\x0bADD http://x /y", "control character"),
        ("FROM binder-base\nRUN a\u2028ADD http://x /y", "control character"),
        ("FROM binder-base\nRUN a\rADD http://x /y", "control character"),
        ("FROM binder-base\nRUN a\0", "control character"),
    ],
)
def test_refused(text: str, words: str) -> None:
    with pytest.raises(BuildFailed, match=words):
        screen(text, ALLOWED, BASE)


def test_too_large() -> None:
    with pytest.raises(LimitHit, match="256 KiB"):
        screen("FROM binder-base\n" + "#" * 300_000, ())


def test_names_are_made_full() -> None:
    assert screen("FROM \\\n binder-base AS b\nRUN x\nFROM python\n", ALLOWED, BASE) == f"FROM {BASE} AS b\nRUN x\nFROM docker.io/library/python\n"


def test_a_stage_may_not_pose_as_a_registry() -> None:
    with pytest.raises(BuildFailed):
        screen("FROM binder-base AS quay.io/x\nFROM quay.io/x", ALLOWED, BASE)


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("python:3", "docker.io/library/python:3"),
        ("a/b", "docker.io/a/b"),
        ("quay.io/a", "quay.io/a"),
        ("localhost/a", "localhost/a"),
        ("h:5000/a", "h:5000/a"),
    ],
)
def test_full_names(image: str, full: str) -> None:
    assert qualified(image) == full


def test_shells_caches_and_health_checks_are_said_so_that_the_engine_knows_them() -> None:
    text = (
        'FROM binder-base AS a\nSHELL ["/bin/bash", "-c"]\nRUN [[ 1 == 1 ]] && \\\n  echo "x"\nRUN ["ls"]\nHEALTHCHECK --interval=5s \\\n CMD x\n'
        "FROM a\nRUN b\nFROM binder-base\nRUN c\n"
        'RUN --mount=type=cache,target=/x,sharing=locked --mount=type=cache,target=/y \\\n  pip install x\nRUN --mount=type=cache,target=/x ["d"]\n'
    )
    assert screen(text, (), BASE).splitlines() == [
        f"FROM {BASE} AS a",
        'RUN ["/bin/bash", "-c", "[[ 1 == 1 ]] &&   echo \\"x\\""]',
        'RUN ["ls"]',
        "FROM a",
        'RUN ["/bin/bash", "-c", "b"]',
        f"FROM {BASE}",
        "RUN c",
        'RUN ["/bin/sh", "-c", "pip install x"]',
        'RUN ["d"]',
    ]
