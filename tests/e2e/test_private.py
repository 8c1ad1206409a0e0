"""A private repository, from a credential of the site's to a session with its files; the secret is nowhere, and without it nobody gets in."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from tests.e2e.kernel import kernel
from tests.e2e.stand import git_spec, launch
from tests.e2e.test_ssh import holding
from tests.repos import GitServer, Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.stand import Stand

pytestmark = pytest.mark.real
CANARY = "canary-3f1c9b7e55aa"
WORDS = "does not exist or is private"


async def test_a_private_repository(stand: Stand, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(CANARY + "\n")
    (tmp_path / "repos").mkdir()
    with GitServer(tmp_path / "repos", f"bot:{CANARY}") as server:
        script = "#!/bin/sh\nenv; ls -la / /tmp; cat .git/config\n"
        repository = Repository.make(server.folder, "private", {"postBuild": script, "requirements.txt": "six\n", "n.txt": "here"})
        link = git_spec(server.url("private"))
        failed, _ = await launch(stand, link)
        assert WORDS in failed["message"]
        added = stand.json("credentials", "add", f"http://127.0.0.1:{server.port}", "--username", "bot", "--secret-file", str(secret))
        try:
            end, before = await launch(stand, link)
            log = "".join(event["message"] for event in before)
            assert end["phase"] == "ready", log[-3000:]
            async with kernel(end) as inside:
                assert (await inside.run("print(open('n.txt').read())")) == "here\n"
                assert CANARY not in await inside.run("import os, subprocess; print(os.environ, subprocess.getoutput('cat .git/config'))")
            (shown,) = stand.json("credentials", "list")
            assert (shown["id"], shown["used"] is not None) == (added["id"], True)
            marks = [CANARY, base64.b64encode(f"bot:{CANARY}".encode()).decode()]
            assert not [mark for mark in marks if mark in log]
            assert holding([secret], marks) == [str(secret)]  # what is looked for can be found
            assert holding([place for place in stand.home.iterdir() if not place.is_socket()], marks) == []
            assert not list(stand.home.glob("builds/*.ssh"))
            assert stand.json("credentials", "rotate")["rotated"] == 1
            assert (await launch(stand, link))[0]["phase"] == "ready"
            server.account = "bot:another"  # the token was revoked at its host
            refused, _ = await launch(stand, link)
            assert (refused["phase"], f"This site's token for http://127.0.0.1:{server.port} was refused there" in refused["message"]) == (
                "failed",
                True,
            )
            server.account = f"bot:{CANARY}"
        finally:
            stand.json("credentials", "remove", added["id"])
        refused, _ = await launch(stand, link)
        assert WORDS in refused["message"]
        # Its commit is known, its image is there: it is not had without the credential.
        refused, _ = await launch(stand, git_spec(server.url("private"), repository.commit))
        assert refused["phase"] == "failed"
        assert WORDS in refused["message"]
