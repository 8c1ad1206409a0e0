"""Builds on another machine: a Binder, one that builds for it with an engine of its own, and a registry between them; all real."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.kernel import kernel
from tests.e2e.stand import Stand, git_spec, ready
from tests.e2e.test_crash import Viewer, said
from tests.e2e.test_ssh import holding
from tests.real import tlsregistry
from tests.repos import GitServer, Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.conftest import Origin

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
TOKEN, SECRET = "planted-builder-token", "planted-repository-secret"
SLOW = "for n in 1 2 3 4 5 6; do echo line-$n; sleep 1; done"


class Fleet:
    """The two: `binder` also builds by itself, as ``here``; `far` builds for it."""

    def __init__(self, folder: Path, registry: tlsregistry.TlsRegistry) -> None:
        ca, certificate, key = tlsregistry.certificates(folder / "tls")
        (folder / "token").write_text(TOKEN + "\n")
        account = str(registry.account)
        there = {"kind": "remote", "address": f"127.0.0.1:{registry.port}", "push_account_file": account, "pull_account_file": account}
        there |= {"ca_file": str(registry.ca)}
        token = {"token_file": str(folder / "token")}
        self.far = Stand.new(registry=there)
        port = self.far.port + 7
        self.far.configure(building_for={"address": "127.0.0.1", "port": port, "certificate_file": str(certificate), "key_file": str(key)} | token)
        self.far.up()
        self.binder = Stand.new(registry=there, builders=[{"name": "far", "url": f"https://127.0.0.1:{port}", "ca_file": str(ca)} | token])
        self.binder.up()

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.binder.api("GET", "api/builders")["builders"]}

    @contextmanager
    def closed(self, name: str) -> Iterator[None]:
        """No new builds there."""
        assert self.binder.json("builders", "close", name)
        try:
            yield
        finally:
            self.binder.api("POST", f"api/builders/{name}/open")

    def containers(self, stand: Stand) -> list[str]:
        return stand.podman("ps", "--all", "--filter=label=io.binder-onprem.kind=build", "--format={{.Names}}").split()

    def destroy(self) -> None:
        for stand in (self.binder, self.far):
            stand.destroy()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with tlsregistry.running(tmp_path_factory.mktemp("registry")) as registry:
        fleet = Fleet(tmp_path_factory.mktemp("fleet"), registry)
        try:
            yield fleet
        finally:
            fleet.destroy()


def slow(origin: Origin) -> str:
    """The link to a repository that nobody has built, and that takes seconds."""
    name = f"slow-{secrets.token_hex(3)}"
    repository = origin.make(name, {"postBuild": f"#!/bin/bash\n{SLOW}\n"})
    (repository.path / "postBuild").chmod(0o755)
    repository.save()
    return origin.spec(name)


async def until(what: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        await asyncio.sleep(0.2)


async def test_a_private_repository_is_built_there_with_its_papers(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    (tmp_path / "repos").mkdir()
    with GitServer(tmp_path / "repos", f"bot:{SECRET}") as server, fleet.closed("here"):
        Repository.make(server.folder, "private", {"requirements.txt": "six\n", "n.txt": "here", "postBuild": "#!/bin/sh\nenv; hostname\n"})
        fleet.binder.json("credentials", "add", f"http://127.0.0.1:{server.port}", "--username", "bot", "--secret-file", str(tmp_path / "secret"))
        event = await ready(fleet.binder, git_spec(server.url("private")))
        async with kernel(event) as inside:
            assert (await inside.run("import six; print(open('n.txt').read())")) == "here\n"
    (image,) = [row for row in fleet.binder.json("images", "list") if "private" in row["reference"]]
    papers = fleet.binder.json("images", "show", image["id"])
    assert (papers["signature"], papers["sbom"]["signed"], papers["sbom"]["components"]["pypi"] > 20) == ("good", True, True)
    (build,) = fleet.binder.api("GET", "api/builds")["builds"]
    log = fleet.binder.command("builds", "log", build["id"]).stdout
    assert "This is built on far." in log
    assert fleet.rows()["far"] | {"places": 2, "running": 0, "state": "ok"} == fleet.rows()["far"]
    assert fleet.containers(fleet.far) == []
    assert holding([place for place in fleet.far.home.iterdir() if not place.is_socket()], [SECRET]) == []
    assert not [line for line in (fleet.far.home / "logs").rglob("*.log") if TOKEN in line.read_text(errors="replace")]


async def test_one_that_is_lost_in_the_middle_costs_nobody_the_build(fleet: Fleet, origin: Origin) -> None:
    with fleet.closed("here"):
        viewer = Viewer(fleet.binder, slow(origin))
        await viewer.until(said("line-2"))
    assert fleet.containers(fleet.far)
    fleet.far.kill("daemon")
    await viewer.until(said("This is built on here."))
    await viewer.ready()
    await until(lambda: fleet.rows()["far"]["state"] == "ok")
    assert fleet.containers(fleet.far) == []  # the new process has cleared away what the old one had


async def test_the_binder_itself_dies_in_the_middle_and_nothing_is_built_twice(fleet: Fleet, origin: Origin) -> None:
    with fleet.closed("here"):
        viewer = Viewer(fleet.binder, slow(origin))
        await viewer.until(said("line-2"))
        fleet.binder.kill("daemon")
        await viewer.until(said("again"))
        assert len(fleet.containers(fleet.far)) <= 1
        await viewer.ready()  # closed machines stay so over restarts
    assert fleet.binder.api("GET", "api/builds")["builds"][0]["attempt"] == 2
    await until(lambda: fleet.containers(fleet.far) == [])


async def test_a_build_that_is_cancelled_leaves_nothing_there(fleet: Fleet, origin: Origin) -> None:
    with fleet.closed("here"):
        viewer = Viewer(fleet.binder, slow(origin))
        await viewer.until(said("line-2"))
        (build,) = [row for row in fleet.binder.api("GET", "api/builds")["builds"] if row["ended"] is None]
        fleet.binder.api("DELETE", f"api/builds/{build['id']}")
        await viewer.until(lambda event: event["phase"] == "failed")
    await until(lambda: fleet.containers(fleet.far) == [] and not any((fleet.far.home / "builds").iterdir()), 15)


def test_what_is_wrong_is_said_where_one_looks(fleet: Fleet) -> None:
    fleet.far.keeper.stop("daemon")
    try:
        row = fleet.rows()["far"]
        assert (row["state"], row["message"]) == ("away", "far does not answer.")
        found = {one["subject"]: one for one in fleet.binder.json("check")["findings"]}
        assert found["builder far"]["level"] == "warn"
    finally:
        fleet.far.keeper.start("daemon")
