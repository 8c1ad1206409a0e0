"""One Binder and one git server for all end-to-end tests of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import async_playwright, expect

from tests.e2e.stand import Stand, git_spec
from tests.repos import BUILDERS, GitServer, Repository

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from playwright.async_api import Page

expect.set_options(timeout=20_000)
CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")


def choices(data: Path) -> dict[str, Any]:
    """What links may choose there; only one profile is for everybody, so that no page asks."""
    inner, closed = data / "inner", data.parent / "closed"
    for folder, mode in ((data, 0o700), (inner, 0o755), (closed, 0o750)):
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)
        (folder / "answer").write_text("42\n", encoding="utf-8")
    gpu = f"{data.parent.name}.example/gpu=0"
    profiles = {
        "usual": {"pids": 500},
        "broken": {"devices": ["/dev/no-such-device"], "roles": ["admin"]},
        "gpu": {"devices": [gpu], "roles": ["admin"]},
    }
    # What is above `census` is its owner's only, as on many file servers.
    sets = {"census": {"path": str(inner), "title": "Census"}, "closed": {"path": str(closed)}}
    return {"profiles": profiles, "data": sets, "environment": ["COURSE", "LAB_*"]}


@pytest.fixture(scope="session")
def stand() -> Iterator[Stand]:
    """A Binder that is up."""
    if os.geteuid():
        pytest.skip("a Binder of its own needs root: run the tests by `make test`")
    if running := os.environ.get("BINDER_ONPREM_TEST_HOME"):  # while writing tests: one that is up already, and stays
        yield Stand.at(Path(running))
        return
    stand = Stand.new(conda={"from_pypi": True}, supply={"verify": True})
    stand.configure(choice=choices(stand.home / "census"))
    try:
        stand.up()
        yield stand
    finally:
        stand.destroy()


class Origin:
    """A real git server on loopback, and repositories on it."""

    def __init__(self, server: GitServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.repositories: dict[str, Repository] = {}

    def repository(self, name: str) -> Repository:
        """One of `BUILDERS`, made once."""
        if name not in self.repositories:
            self.repositories[name] = BUILDERS[name](self.folder)
        return self.repositories[name]

    def make(self, name: str, files: dict[str, str | bytes]) -> Repository:
        """A repository of a test's own."""
        self.repositories[name] = Repository.make(self.folder, name, files)
        return self.repositories[name]

    def spec(self, name: str, ref: str = "HEAD") -> str:
        """Link to it, without the ``/v2/``."""
        if name in BUILDERS:
            self.repository(name)
        return git_spec(self.server.url(name), ref)


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    """The git server."""
    folder = tmp_path_factory.mktemp("origin")
    with GitServer(folder) as server:
        yield Origin(server, folder)


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """A page in Debian's Chromium; any request to another host than loopback fails the test."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *FLAGS])
        page = await browser.new_page(viewport={"width": 1280, "height": 900}, locale="en-GB")
        foreign: list[str] = []
        page.on("request", lambda request: foreign.append(request.url) if not _local(request.url) else None)
        yield page
        await browser.close()
    assert not foreign


def _local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "about:"))
