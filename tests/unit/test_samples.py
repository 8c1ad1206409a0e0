"""The sample repository, by real git over its real server."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from binder_onprem.config import Config, Listen
from binder_onprem.host import samples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def url() -> Iterator[str]:
    with samples.server(0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}{samples.PATH}"
        server.shutdown()
        thread.join()


def git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], capture_output=True, text=True, timeout=30, check=False)


def test_the_commit_is_the_same_each_time(url: str) -> None:
    assert git("ls-remote", url, "main").stdout.split()[0] == samples.repository().head().decode()
    assert samples.repository().head() == samples.repository().head()


@pytest.mark.parametrize("depth", [[], ["--depth", "1"]])
def test_it_can_be_cloned(url: str, tmp_path: Path, depth: list[str]) -> None:
    assert git("clone", *depth, url, str(tmp_path / "clone")).returncode == 0
    notebook = json.loads((tmp_path / "clone" / samples.NOTEBOOK).read_text())
    assert {"requirements.txt", "README.md"} <= {file.name for file in (tmp_path / "clone").iterdir()}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), "cell", "exec")


def test_the_commit_can_be_fetched_alone(url: str, tmp_path: Path) -> None:
    place = str(tmp_path)
    git("-C", place, "init", "--quiet")
    assert git("-C", place, "fetch", "--depth", "1", url, samples.repository().head().decode()).returncode == 0


def test_nobody_can_push(url: str, tmp_path: Path) -> None:
    place = str(tmp_path / "clone")
    git("clone", url, place)
    git("-C", place, "commit", "--allow-empty", "--message=x")
    pushed = git("-C", place, "push")
    assert pushed.returncode != 0
    assert "403" in pushed.stderr
    assert git("ls-remote", url, "main").stdout.split()[0] == samples.repository().head().decode()


def test_silent_connections_leave_room(url: str) -> None:
    port = int(url.split(":")[2].split("/", maxsplit=1)[0])
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(samples.CONNECTIONS - 1)]
    try:
        assert git("ls-remote", url).returncode == 0
    finally:
        for connection in silent:
            connection.close()


def test_the_link_opens_the_notebook() -> None:
    link = samples.sample_link(Config(listen=Listen(port=9000)))
    assert link.startswith("http://127.0.0.1:9000/v2/git/")
    assert unquote(link.split("/v2/git/")[1].split("/")[0]) == "http://127.0.0.1:9005/sample.git"
    assert link.endswith("/main?urlpath=lab/tree/index.ipynb")
