"""Private repositories at a real git server that asks for an account: who may read them, and what a clone leaves of the secret: nothing."""

from __future__ import annotations

import base64
import json
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from binder_onprem.access import Access, Owner
from binder_onprem.config import Config
from binder_onprem.egress.addresses import AddressRules
from binder_onprem.errors import AddressRefused, BuildFailed, ProviderUnavailable, RefNotFound
from binder_onprem.host.sources import Sources
from binder_onprem.model import Client
from binder_onprem.providers import anonymous, checked_session, table
from binder_onprem.providers.links import escaped
from binder_onprem.sandbox.clone import Clone, Source
from binder_onprem.sealing import Sealing
from binder_onprem.store import open_engine, opened
from binder_onprem.store.credentials import SqlCredentials
from tests.repos import GitServer, Repository, Trouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from binder_onprem.providers import Cached

POOL = "10.213.0.0/16"
CANARY = "canary-70k3n-%40-x"
ACCOUNT = f"bot:{CANARY}"
BASIC = base64.b64encode(ACCOUNT.encode()).decode()
ANN, BOB = Client("192.0.2.1", "ann"), Client("192.0.2.2", "bob")
FILES: dict[str, str | bytes] = {"n.txt": "here"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    (tmp_path / "repos").mkdir()
    with GitServer(tmp_path / "repos", ACCOUNT) as running:
        yield running


@asynccontextmanager
async def site(home: Path) -> AsyncIterator[tuple[dict[str, Cached], Access]]:
    (home / "secrets").mkdir()
    config, sources = Config.model_validate({"home": home}), Sources(b"", None, "", None, None, None, None, (), frozenset())
    rules, sealing = AddressRules(("127.0.0.0/8",), POOL), Sealing(config)
    sealing.ready()
    async with (
        checked_session(config, rules, sources) as session,
        open_engine(config.database_url) as engine,
        opened(SqlCredentials, engine) as kept,
    ):
        yield table(config, sources, rules, session), Access(config, kept, sealing, anonymous(config, sources, rules, session).look, lambda: 1.0)


async def test_who_may_read_it_is_asked_of_its_host_each_time(server: GitServer, tmp_path: Path) -> None:
    repository = Repository.make(server.folder, "private", FILES)
    origin = f"http://127.0.0.1:{server.port}"
    async with site(tmp_path) as (providers, access):
        git = providers["git"]

        async def tried(client: Client, ref: str, url: str = server.url("private")) -> str:
            return (await access.resolve(git, git.parse(f"{escaped(url)}/{ref}"), client)).access

        with pytest.raises(RefNotFound) as absent:
            await tried(BOB, "HEAD", server.url("nothing-here"))
        row = await access.add(Owner("user", "ann"), origin, "bot", CANARY)
        for ref in ("HEAD", "main", repository.commit):
            assert await tried(ANN, ref) == row.id
            with pytest.raises(RefNotFound) as refused:
                await tried(BOB, ref)
            assert refused.value.message == absent.value.message
        server.trouble["private"] = Trouble(status=503)
        with pytest.raises(ProviderUnavailable):  # nothing remembered serves instead
            await tried(ANN, "HEAD")
        with pytest.raises((ProviderUnavailable, RefNotFound)):
            await tried(BOB, "HEAD")
        del server.trouble["private"]
        await access.remove(row.id)
        with pytest.raises(RefNotFound):
            await tried(ANN, "HEAD")


async def test_a_secret_does_not_follow_a_redirect_to_another_host(server: GitServer, tmp_path: Path) -> None:
    Repository.make(server.folder, "private", FILES)
    other = tmp_path / "other"
    other.mkdir()
    Repository.make(other, "private", FILES)
    with GitServer(other, ACCOUNT) as elsewhere:
        server.trouble["private"] = Trouble(redirect=f"{elsewhere.url('private')}/info/refs?service=git-upload-pack")
        async with site(tmp_path) as (providers, access):
            git = providers["git"]
            await access.add(Owner("site"), f"http://127.0.0.1:{server.port}", "bot", CANARY)
            with pytest.raises((RefNotFound, AddressRefused)):
                await access.resolve(git, git.parse(f"{escaped(server.url('private'))}/HEAD"), ANN)
            assert elsewhere.asked, "it was asked, without the secret"


async def test_github_and_gitlab_are_read_by_git(server: GitServer, tmp_path: Path) -> None:
    (server.folder / "owner").mkdir()
    repository = Repository.make(server.folder / "owner", "private", FILES)
    (server.folder / "owner" / "private.git").symlink_to("private")
    origin = f"http://127.0.0.1:{server.port}"
    parts = [{"kind": "github", "url": origin, "api": f"{origin}/api"}, {"kind": "gitlab", "url": origin}]
    config, sources = Config.model_validate({"providers": parts}), Sources(b"", None, "", None, None, None, None, (), frozenset())
    rules = AddressRules(("127.0.0.0/8",), POOL)
    async with site(tmp_path) as (_, access), checked_session(config, rules, sources) as session:
        row = await access.add(Owner("site"), origin, "bot", CANARY)
        known = table(config, sources, rules, session)
        found = await access.resolve(known["gh"], known["gh"].parse("owner/private/main"), BOB)
        assert (found.access, found.commit, found.path) == (row.id, repository.commit, f"owner/private/{repository.commit}")
        found = await access.resolve(known["gl"], known["gl"].parse("owner%2Fprivate/main"), BOB)
        assert (found.access, found.ref_url) == (row.id, f"{origin}/owner/private/-/tree/{repository.commit}")


def cloned(tmp_path: Path, url: str, commit: str, origin: str, *, submodules: bool = False) -> tuple[Path, list[str]]:
    """A clone with the canary lent for `origin`; where it lies, and its log."""
    lent, home, log = tmp_path / "lent", tmp_path / "out", list[str]()
    lent.mkdir()
    home.mkdir(exist_ok=True)
    told = {"origin": origin, "username": "bot", "password": CANARY, "submodules": submodules}
    (lent / "credential").write_text(json.dumps(told))
    try:
        Clone(Source(url, commit, 20, 10**8, credential=str(lent)), home / "src", log.append).make()
    finally:
        assert list(lent.iterdir()) == []
        lent.rmdir()
        leftovers(tmp_path, log)
    return home / "src", log


def leftovers(tmp_path: Path, log: list[str]) -> None:
    """The secret is in no file and in no line."""
    places = [str(place) for place in (tmp_path / "out", tmp_path / "home") if place.exists()]
    for mark in (CANARY, BASIC):
        found = subprocess.run(["grep", "-rlaF", "-e", mark, *places], capture_output=True, text=True, check=False)
        assert found.returncode == 1, found
        assert mark not in "\n".join(log)


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def test_a_clone_leaves_nothing_of_the_secret(server: GitServer, sandbox: Path) -> None:
    repository = Repository.make(server.folder, "private", FILES)
    top, _ = cloned(sandbox, server.url("private"), repository.commit, f"http://127.0.0.1:{server.port}")
    assert (top / "n.txt").read_text() == "here"
    assert "127.0.0.1" in (top / ".git" / "config").read_text()


def test_another_port_gets_nothing(server: GitServer, sandbox: Path) -> None:
    repository = Repository.make(server.folder, "private", FILES)
    with pytest.raises(RefNotFound):
        cloned(sandbox, server.url("private"), repository.commit, f"http://127.0.0.1:{server.port + 1}")


def with_submodule(folder: Path, url: str, inner: Repository) -> Repository:
    outer = Repository.make(folder, "outer", {".gitmodules": f'[submodule "in"]\n\tpath = in\n\turl = {url}\n'})
    outer.git("update-index", "--add", "--cacheinfo", f"160000,{inner.commit},in")
    outer.git("commit", "--quiet", "--message=in")
    return outer


@pytest.mark.parametrize("everybody", [True, False])
def test_a_submodule_is_opened_by_what_everybody_may_use_only(server: GitServer, sandbox: Path, everybody: bool) -> None:  # noqa: FBT001
    """Else who can read the outer repository would get, in its image, what only the one who clicked can read."""
    inner = Repository.make(server.folder, "inner", FILES)
    outer = with_submodule(server.folder, server.url("inner"), inner)
    origin = f"http://127.0.0.1:{server.port}"
    if everybody:
        top, _ = cloned(sandbox, server.url("outer"), outer.commit, origin, submodules=True)
        assert (top / "in" / "n.txt").read_text() == "here"
    else:
        with pytest.raises(BuildFailed, match="submodule"):
            cloned(sandbox, server.url("outer"), outer.commit, origin)


def test_a_submodule_of_another_host_gets_nothing(server: GitServer, sandbox: Path) -> None:
    elsewhere = sandbox / "elsewhere"
    elsewhere.mkdir()
    inner = Repository.make(elsewhere, "inner", FILES)
    with GitServer(elsewhere, ACCOUNT) as other:
        outer = with_submodule(server.folder, other.url("inner"), inner)
        with pytest.raises(BuildFailed, match="submodule"):
            cloned(sandbox, server.url("outer"), outer.commit, f"http://127.0.0.1:{server.port}", submodules=True)
        assert other.asked


def test_a_name_that_begins_with_the_repositorys_gets_nothing(server: GitServer, sandbox: Path) -> None:
    inner = Repository.make(server.folder, "outer-secret", FILES)
    outer = with_submodule(server.folder, f"{server.url('outer')}/../outer-secret", inner)
    with pytest.raises(BuildFailed, match="submodule"):
        cloned(sandbox, server.url("outer"), outer.commit, f"http://127.0.0.1:{server.port}")
