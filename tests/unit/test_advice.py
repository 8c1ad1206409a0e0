"""Well-known failures of a step, in the words of those who meet them."""

from __future__ import annotations

import pytest

from binder_onprem.building import advice
from binder_onprem.building.advice import USUAL, Advice
from binder_onprem.web import locale

FRENCH = locale.read().sentences["fr"]


def told(*lines: str) -> str:
    heard = Advice()
    for line in lines:
        heard.hear(line)
    return heard.sentence()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fatal: unable to access 'https://github.com/x/': CONNECT tunnel failed, response 403", "builds do not reach"),
        ("  cause: Hash mismatch for `six==1.16.0`", "Correct the hash"),
        ("error: Distribution not found at: file:///home/conda/feedstock_root/build_artifacts/six/work", "name and version"),
        ("error: Couldn't parse requirement in `/var/tmp/x/requirements.txt` at position 0", "name==version"),
        ("  x No solution found when resolving dependencies:", "other versions"),
        ("x.c:1:10: fatal error: ffi.h: No such file or directory", "apt.txt"),
        ("error: [Errno 2] No such file or directory: 'x86_64-linux-gnu-gcc'", "apt.txt"),
        ("./postBuild: line 3: sudo: command not found", "no sudo"),
        ("./postBuild: line 3: conda: command not found", "no conda"),
        ("Jupyter command `jupyter-nbextension` not found.", "Remove that line"),
        ("./postBuild: line 3: npm: command not found", "Node.js"),
        ("E: Unable to locate package no-such-package", "does not have"),
        ("E: Version '99' for 'tree' was not found", "Leave the version out"),
        ("  cause: Call to `setuptools.build_meta:__legacy__.build_wheel` failed (exit status: 1)", "ready-made"),
        ("anything else", USUAL),
    ],
)
def test_what_to_do(line: str, words: str) -> None:
    assert words in told("before", line, "after")


def test_only_the_end_of_the_log_counts() -> None:
    assert told("sudo: command not found", *["something else"] * advice.LINES) == USUAL
    assert told("x" * advice.LETTERS + "sudo: command not found") == USUAL
    assert told() == USUAL


def test_each_has_its_french() -> None:
    for _, sentence in advice._KNOWN:
        assert FRENCH.translate(f"PostBuild: failed with exit status 1. {sentence}").endswith(FRENCH.translate(sentence))
        assert FRENCH.translate(sentence) != sentence
        assert FRENCH.translate(f"RUN x: failed. {sentence}").startswith("RUN x\xa0: échec. ")
    assert FRENCH.translate(f"The build failed. {USUAL}").startswith("La construction")
