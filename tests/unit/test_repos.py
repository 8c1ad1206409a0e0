"""The server that tests stand on: real git against it, and each way to misbehave."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.repos import BUILDERS, GitServer, Trouble, contents

SMALL = sorted(set(BUILDERS) - {"huge", "inflating", "many"})


def git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("name", SMALL)
def test_every_repository_can_be_cloned(tmp_path: Path, name: str) -> None:
    repo = BUILDERS[name](tmp_path / "served")
    with GitServer(tmp_path / "served") as server:
        done = git("clone", "--recurse-submodules", server.url(name), str(tmp_path / "clone"))
    assert done.returncode == 0, done.stderr
    assert git("-C", str(tmp_path / "clone"), "rev-parse", "HEAD").stdout.strip() == repo.commit
    assert (tmp_path / "clone" / "inner" / "inside.txt").exists() == (name == "submodule")


def test_parametric_ones_have_what_they_say(tmp_path: Path) -> None:
    assert len(contents.many(tmp_path, 250).git("ls-files").splitlines()) == 250
    assert contents.huge(tmp_path, 4096).git("cat-file", "-s", "HEAD:huge.bin") == "4096"
    assert contents.inflating(tmp_path, 4096).git("cat-file", "-s", "HEAD:zeros.bin") == "4096"


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (Trouble(status=500), "500"),
        (Trouble(status=404), "not found"),
        (Trouble(redirect="http://127.0.0.1:1/x"), "127.0.0.1"),
        (Trouble(reset=True, posts=True), "fatal"),
    ],
)
def test_trouble_reaches_the_client(tmp_path: Path, trouble: Trouble, said: str) -> None:
    BUILDERS["bare"](tmp_path / "served")
    with GitServer(tmp_path / "served") as server:
        server.trouble["bare"] = trouble
        done = git("clone", server.url("bare"), str(tmp_path / "clone"))
    assert done.returncode != 0
    assert said in done.stderr


def test_slow_answers_do_not_hold_the_end_of_a_test(tmp_path: Path) -> None:
    BUILDERS["bare"](tmp_path / "served")
    began = time.monotonic()
    with GitServer(tmp_path / "served") as server:
        server.trouble["bare"] = Trouble(delay=60)
        client = subprocess.Popen(["git", "ls-remote", server.url("bare")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not server.asked:
            time.sleep(0.01)
    client.wait(10)
    assert time.monotonic() - began < 20


def test_account_is_asked_for(tmp_path: Path) -> None:
    BUILDERS["bare"](tmp_path / "served")
    with GitServer(tmp_path / "served", account="u:p") as server:
        assert git("-c", "credential.helper=", "-c", "core.askPass=true", "ls-remote", server.url("bare")).returncode != 0
        assert git("ls-remote", server.url("bare").replace("://", "://u:p@")).returncode == 0
