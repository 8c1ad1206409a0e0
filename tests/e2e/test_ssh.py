"""A link to a repository behind ssh, from click to session; afterwards the site's key is nowhere but in its own file."""

from __future__ import annotations

import base64
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.e2e.kernel import kernel
from tests.e2e.stand import git_spec, launch
from tests.repos import Repository, sshd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.stand import Stand

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    with sshd.serving(tmp_path_factory.mktemp("ssh") / "d") as running:
        yield running


@pytest.fixture
def keyed(stand: Stand, server: sshd.Sshd) -> Iterator[Stand]:
    """The stand with a key for ssh, as long as the test lasts."""
    before = dict(stand.settings)
    stand.configure(providers=[{"kind": "git", "ssh_key_file": str(server.key), "known_hosts_file": str(server.known_hosts)}])
    restart(stand)
    yield stand
    del stand.settings["providers"]
    stand.configure(**before)
    restart(stand)


def restart(stand: Stand) -> None:
    stand.kill("daemon")
    stand.up()


def holding(places: list[Path], marks: list[str]) -> list[str]:
    """Files below the places that hold one of the texts."""
    words = [word for mark in marks for word in ("-e", mark)]
    found = subprocess.run(["grep", "-rlaF", *words, *map(str, places)], capture_output=True, text=True, check=False)
    assert found.returncode < 2 or "No such file" in found.stderr, found.stderr
    return found.stdout.splitlines()


async def test_a_repository_behind_ssh(keyed: Stand, server: sshd.Sshd, tmp_path: Path) -> None:
    repository = Repository.make(tmp_path, "private", {"requirements.txt": "six\n", "postBuild": "#!/bin/sh\nenv; ls -la / /tmp\n", "n.txt": "here"})
    link = git_spec(server.url(repository.path))
    end, before = await launch(keyed, link)
    log = "".join(event["message"] for event in before)
    assert end["phase"] == "ready", log[-3000:]
    assert [line for line in server.asked.read_text().splitlines() if line] == [f"git-upload-pack '{repository.path}'"] * 2  # asked, then cloned
    async with kernel(end) as inside:
        assert (await inside.run("print(open('n.txt').read())")) == "here\n"
    lines = server.key.read_text().splitlines()[1:-1]
    secret = [lines[1][:40], lines[-2][:40]]
    assert holding([server.key], secret) == [str(server.key)]  # what is looked for can be found
    assert not [mark for mark in (*secret, "PRIVATE KEY") if mark in log]
    assert base64.b64decode("".join(lines))
    # containers' layers, build logs, plans, databases, whatever was written
    places = [keyed.home / name for name in ("storage", "logs", "builds", "binder.sqlite", "binder.sqlite-wal", "hub", "run", "etc")]
    assert holding([place for place in places if place.exists()], secret) == []
    assert not list(keyed.home.glob("builds/*.ssh"))


async def test_without_a_key_the_way_out_is_told(stand: Stand, server: sshd.Sshd) -> None:
    failed, _ = await launch(stand, git_spec(server.url("/x.git")))
    assert "has no ssh key" in failed["message"]
