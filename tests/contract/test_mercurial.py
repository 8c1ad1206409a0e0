"""Mercurial's own server and client: what the provider asks and what the sandbox clones."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from binder_onprem.config import Config
from binder_onprem.egress.addresses import AddressRules
from binder_onprem.errors import BinderError, BuildFailed, ProviderUnavailable, RefNotFound
from binder_onprem.providers import checked_session, table
from binder_onprem.providers.links import escaped
from binder_onprem.sandbox import mercurial
from binder_onprem.sandbox.mercurial import clone
from tests.repos.mercurial import committed, hg, served
from tests.unit.test_providers import sources

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"a.ipynb": b"{}", "data/x.csv": b"1,2\n"}
MIB = 1024**2


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


async def commit_of(url: str, ref: str) -> str:
    site = Config.model_validate({"providers": [{"kind": "mercurial"}]})
    rules = AddressRules(("127.0.0.0/8",), site.network.pool)
    async with checked_session(site, rules, sources()) as session:
        provider = table(site, sources(), rules, session)["hg"]
        return (await provider.resolve(provider.parse(f"{escaped(url)}/{ref}"))).commit


async def test_what_a_server_says_of_names(tmp_path: Path) -> None:
    node = committed(tmp_path, FILES)
    hg(tmp_path, "tag", "v1.0")
    tip = hg(tmp_path, "id", "-i", "--debug")
    with served(tmp_path) as url:
        for ref, commit in (("HEAD", tip), ("default", tip), ("topic", tip), ("v1.0", node), (node[:12], node), (node, node)):
            assert await commit_of(url, ref) == commit
        with pytest.raises(RefNotFound):
            await commit_of(url, "nothing")
        with pytest.raises((RefNotFound, ProviderUnavailable)):
            await commit_of(url.replace("/r", "/absent"), "HEAD")


def cloned(url: str, node: str, target: Path, stall: float = 20) -> list[str]:
    said: list[str] = []
    clone(url, node, target, said.append, stall, 64 * MIB)
    return said


def test_a_clone_is_the_files_of_the_changeset(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    node = committed(tmp_path / "r", FILES)
    (tmp_path / "r" / "later").write_bytes(b"x")
    hg(tmp_path / "r", "commit", "--addremove", "-m", "2")
    with served(tmp_path / "r") as url:
        said = cloned(url, node, tmp_path / "src")
        with pytest.raises(RefNotFound):
            cloned(url, "1" * 40, tmp_path / "none")
        with pytest.raises(RefNotFound):
            cloned(url.replace("/r", "/absent"), node, tmp_path / "none2")
    assert {str(path.relative_to(tmp_path / "src")): path.read_bytes() for path in (tmp_path / "src").rglob("*") if path.is_file()} == FILES
    assert said
    assert str(tmp_path) not in "\n".join(said)


def test_subrepositories_are_refused_in_words(tmp_path: Path) -> None:
    """Each could name another protocol, or a command."""
    (tmp_path / "r").mkdir()
    committed(tmp_path / "r", FILES)
    (tmp_path / "r" / "sub").mkdir()
    committed(tmp_path / "r" / "sub", {"inner": b"x"})
    (tmp_path / "r" / ".hgsub").write_text("sub = sub\n")
    hg(tmp_path / "r", "add", ".hgsub")
    hg(tmp_path / "r", "commit", "-m", "s")
    node = hg(tmp_path / "r", "log", "-r", "tip", "-T", "{node}")
    with served(tmp_path / "r") as url, pytest.raises(BuildFailed, match="subrepositories"):
        cloned(url, node, tmp_path / "src")


@pytest.mark.parametrize("url", ["ssh://-oProxyCommand=touch/x", "--config=alias.clone=!touch x", "file:///etc", "bundle:x"])
def test_urls_that_the_provider_lets_nobody_name_do_nothing_here_either(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BinderError):
        cloned(url, "1" * 40, tmp_path / "src")
    assert not (tmp_path / "x").exists()


def test_a_server_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The sandbox's file system is the clone's alone; here everybody writes.
    monkeypatch.setattr(mercurial.os, "statvfs", lambda _: SimpleNamespace(f_bfree=0))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(ProviderUnavailable, match="did not answer in 2 s"):
            cloned(f"http://127.0.0.1:{silent.getsockname()[1]}/r", "1" * 40, tmp_path / "src", stall=2)
        assert time.monotonic() - began < 30
