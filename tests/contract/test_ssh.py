"""Resolving over ssh, against a real sshd: with the site's key, from known hosts, and nothing but git-upload-pack."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.config import Config
from binder_onprem.egress.addresses import REFUSED, AddressRules
from binder_onprem.errors import AddressRefused, BinderError, ConfigError, InvalidSpec, ProviderUnavailable, RefNotFound
from binder_onprem.host.sources import Sources
from binder_onprem.providers import checked_session, table
from binder_onprem.providers.links import escaped
from binder_onprem.providers.ssh import ABSENT, LOCKED, STRANGER, command
from tests.contract.test_git_servers import repository
from tests.repos import sshd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from binder_onprem.model import ResolvedRepo
    from binder_onprem.providers import Cached

POOL = "10.213.0.0/16"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    with sshd.serving(tmp_path_factory.mktemp("ssh") / "d") as running:
        yield running


@asynccontextmanager
async def provider(server: sshd.Sshd, *, allow: str = "127.0.0.0/8", seconds: float = 15, **files: Path) -> AsyncIterator[Cached]:
    part: dict[str, Any] = {"kind": "git", "ssh_key_file": server.key, "known_hosts_file": server.known_hosts} | files
    config = Config.model_validate({"providers": [part], "resolve": {"timeout": seconds}})
    sources, rules = Sources(b"", None, "", None, None, None, None, (), frozenset()), AddressRules([allow], POOL)
    async with checked_session(config, rules, sources) as session:
        yield table(config, sources, rules, session)["git"]


async def resolve(git: Cached, url: str, ref: str = "HEAD") -> ResolvedRepo:
    return await git.resolve(git.parse(f"{escaped(url)}/{escaped(ref)}"))


async def refused(git: Cached, url: str) -> BinderError:
    with pytest.raises(BinderError) as error:
        await resolve(git, url)
    return error.value


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
async def test_every_ref(tmp_path: Path, server: sshd.Sshd, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    refs = repository(tmp_path, "r", kind)
    async with provider(server) as git:
        for ref, commit in refs.items():
            found = await resolve(git, server.url(tmp_path / "r.git"), ref)
            assert found.commit == commit, ref
            assert found.url == server.url(tmp_path / "r.git")
    assert set(server.asked.read_text().splitlines()[-len(refs) + 1 :]) == {f"git-upload-pack '{tmp_path}/r.git'"}
    assert server.user + "@" not in caplog.text
    assert "PRIVATE KEY" not in caplog.text


async def test_a_host_whose_key_is_not_known_gets_nothing_of_ours(tmp_path: Path, server: sshd.Sshd) -> None:
    (tmp_path / "empty").touch()
    asked = server.asked.read_text()
    for file in (server.strangers, tmp_path / "empty"):
        async with provider(server, known_hosts_file=file) as git:
            error = await refused(git, server.url("/x.git"))
            assert isinstance(error, AddressRefused)
            assert error.message == STRANGER
    assert server.asked.read_text() == asked


async def test_a_key_that_is_not_let_in_and_a_repository_that_is_not_there(tmp_path: Path, server: sshd.Sshd) -> None:
    async with provider(server, ssh_key_file=server.other) as git:
        error = await refused(git, server.url("/x.git"))
        assert isinstance(error, RefNotFound)
        assert error.message == LOCKED
    async with provider(server) as git:
        error = await refused(git, server.url(tmp_path / "none.git"))
        assert isinstance(error, RefNotFound)
        assert error.message == ABSENT


async def test_the_address_rules_hold(server: sshd.Sshd) -> None:
    async with provider(server, allow="192.0.2.0/24") as git:
        assert (await refused(git, server.url("/x.git"))).message == REFUSED


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 400 no\r\n\r\n", b"SSH-2.0-" + b"x" * 100_000, b"\0" * 1000])
async def test_hosts_that_speak_something_else_end_in_time(server: sshd.Sshd, says: bytes) -> None:
    open_before = len(asyncio.all_tasks())
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        async def serve() -> None:
            loop = asyncio.get_running_loop()
            listener.setblocking(False)  # noqa: FBT003 - its only parameter
            connection, _ = await loop.sock_accept(listener)
            with closing(connection):
                await loop.sock_sendall(connection, says)
                await asyncio.sleep(5)

        serving = asyncio.create_task(serve())
        async with provider(server, seconds=1) as git:
            start = time.monotonic()
            error = await refused(git, f"ssh://u@127.0.0.1:{listener.getsockname()[1]}/x")
            assert isinstance(error, ProviderUnavailable)
            assert time.monotonic() - start < 4
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert len(asyncio.all_tasks()) == open_before


async def test_files_that_are_not_what_they_should_be(tmp_path: Path, server: sshd.Sshd) -> None:
    (tmp_path / "bad").write_text("canary")
    for files in ({"ssh_key_file": tmp_path / "bad"}, {"ssh_key_file": tmp_path / "none"}, {"known_hosts_file": tmp_path / "none"}):
        with pytest.raises(ConfigError) as error:
            async with provider(server, **files):
                pass
        assert "canary" not in error.value.message


@pytest.mark.parametrize("path", ["/a'b", "/a%27b", "/a%5Cb", "/a!b", "/a%21b"])
async def test_what_a_shell_could_read_otherwise(path: str, server: sshd.Sshd) -> None:
    async with provider(server) as git:
        with pytest.raises(InvalidSpec):
            git.parse(f"{escaped('ssh://u@h' + path)}/HEAD")
    with pytest.raises(ValueError, match="path"):
        command(path)


def test_the_one_command() -> None:
    assert command("/a%20b.git") == "git-upload-pack '/a b.git'"
    assert command("/~u/x") == "git-upload-pack '~u/x'"


@pytest.mark.parametrize("name", ["ssh_key_file", "known_hosts_file"])
def test_key_and_known_hosts_belong_together(name: str) -> None:
    with pytest.raises(ValueError, match="belong together"):
        Config.model_validate({"providers": [{"kind": "git", name: "/x"}]})
