"""Private repositories at GitHub and GitLab as their servers answer: found, opened and cloned by a person's own token, and what a token is told."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.access import Access, Owner
from binder_onprem.config import Config
from binder_onprem.egress.addresses import AddressRules
from binder_onprem.errors import CredentialInsufficient, CredentialRefused, ProviderUnavailable, RefNotFound
from binder_onprem.host.sources import Sources
from binder_onprem.model import Client, ImageRef
from binder_onprem.providers import anonymous, checked_session, table
from binder_onprem.sandbox.clone import Clone, Source
from binder_onprem.sealing import Sealing
from binder_onprem.store import open_engine, opened
from binder_onprem.store.credentials import SqlCredentials
from tests.repos import Forge, Token, Trouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from binder_onprem.model import ResolvedRepo

ANN, BOB = Client("192.0.2.1", "ann", groups=frozenset({"staff"})), Client("192.0.2.2", "bob")
PRIVATE, OPEN = "owner/private", "owner/open"
READS = Token(reads=frozenset({PRIVATE}))
LINKS = {"gh": "owner/{}/{}", "gl": "owner%2F{}/{}"}


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[Forge]:
    (tmp_path / "repos").mkdir()
    with Forge(tmp_path / "repos") as running:
        running.make(PRIVATE, {"n.txt": "here"})
        running.make(OPEN, {"n.txt": "for all"}, private=False)
        running.tokens["anns"] = READS
        yield running


class Site:
    """Its providers, and what opens private repositories."""

    def __init__(self, providers: Any, access: Access) -> None:
        self.providers, self.access = providers, access

    async def resolve(self, prefix: str, client: Client, name: str = "private", ref: str = "main") -> ResolvedRepo:
        provider = self.providers[prefix]
        return await self.access.resolve(provider, provider.parse(LINKS[prefix].format(name, ref)), client)

    async def told(self, prefix: str, client: Client, name: str = "private", ref: str = "main") -> str:
        """The message of a failure that looks like a repository's absence."""
        with pytest.raises(RefNotFound) as caught:
            await self.resolve(prefix, client, name, ref)
        return caught.value.message


@asynccontextmanager
async def site(forge: Forge, home: Path, token: str = "") -> AsyncIterator[Site]:
    """With a token of the site's for both hosts' APIs, where one is given."""
    (home / "secrets").mkdir()
    (home / "token").write_text(token)
    shared = {"url": forge.origin, **({"token_file": str(home / "token")} if token else {})}
    parts = [{"kind": "github", "api": f"{forge.origin}/api/v3", **shared}, {"kind": "gitlab", **shared}]
    config = Config.model_validate({"home": home, "providers": parts, "resolve": {"ttl": 0}})
    sources = Sources(b"", None, "", None, None, None, None, (), frozenset())
    rules, sealing = AddressRules(("127.0.0.0/8",), config.network.pool), Sealing(config)
    sealing.ready()
    async with (
        checked_session(config, rules, sources) as session,
        open_engine(config.database_url) as engine,
        opened(SqlCredentials, engine) as kept,
    ):
        look = anonymous(config, sources, rules, session).look
        yield Site(table(config, sources, rules, session), Access(config, kept, sealing, look, lambda: 1.0))


def cloned(home: Path, repo: ResolvedRepo, forge: Forge, token: str) -> Path:
    """A clone by git, with the token lent for it."""
    lent = home / "lent"
    lent.mkdir()
    told = {"origin": forge.origin, "username": "oauth2", "password": token, "submodules": False}
    (lent / "credential").write_text(json.dumps(told))
    Clone(Source(repo.url, repo.commit, 20, 10**8, credential=str(lent)), home / "src", lambda _line: None).make()
    return home / "src"


@pytest.mark.parametrize("prefix", ["gh", "gl"])
@pytest.mark.parametrize("ref", ["main", "HEAD", "master", "commit"])
async def test_a_persons_token_opens_and_clones_her_private_repository(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str, ref: str
) -> None:
    ref = forge.commit(PRIVATE) if ref == "commit" else ref
    async with site(forge, tmp_path) as here:
        absent = await here.told(prefix, ANN, ref=ref)
        row = await here.access.add(Owner("user", "ann"), forge.origin, "", "anns")
        repo = await here.resolve(prefix, ANN, ref=ref)
        assert (repo.access, repo.commit) == (row.id, forge.commit(PRIVATE))
        assert "/private-" in ImageRef.of(repo, "r/binder", "f" * 64).name
        assert await here.told(prefix, BOB, ref=ref) in {absent, await here.told(prefix, BOB, name="nothing-here", ref=ref)}
        assert (await here.resolve(prefix, BOB, name="open", ref="main")).access == ""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (cloned(tmp_path, repo, forge, "anns") / "n.txt").read_text() == "here"


@pytest.mark.parametrize("prefix", ["gh", "gl"])
async def test_a_token_that_its_host_refuses_is_told_to_whom_it_belongs(forge: Forge, tmp_path: Path, prefix: str) -> None:
    async with site(forge, tmp_path) as here:
        absent = await here.told(prefix, BOB)
        await here.access.add(Owner("user", "ann"), forge.origin, "", "anns")
        await here.resolve(prefix, ANN)
        forge.tokens.clear()
        with pytest.raises(CredentialRefused, match=r"Your token for .* was refused there") as refused:
            await here.resolve(prefix, ANN)
        assert "Replace it on the page" in refused.value.message
        assert forge.origin in refused.value.message
        assert await here.told(prefix, BOB) == absent
        # That there is no such repository is told in the same words: the host has taken no look at what was asked for.
        assert await here.told(prefix, ANN, "nothing-here") == refused.value.message
        await here.access.add(Owner("group", "staff"), forge.origin, "", "staffs")
        assert await here.told(prefix, ANN) == refused.value.message
        forge.tokens["staffs"] = READS
        await here.resolve(prefix, ANN)


@pytest.mark.parametrize("prefix", ["gh", "gl"])
@pytest.mark.parametrize("owner", [Owner("site"), Owner("group", "staff")])
async def test_a_token_of_the_sites_that_is_refused_is_the_administrators(forge: Forge, tmp_path: Path, prefix: str, owner: Owner) -> None:
    async with site(forge, tmp_path) as here:
        absent = await here.told(prefix, BOB)
        await here.access.add(owner, forge.origin, "", "revoked")
        with pytest.raises(CredentialRefused, match=r"This site's token for .* Tell the administrator"):
            await here.resolve(prefix, ANN)
        said = await here.told(prefix, BOB)
        assert (said == absent) == (owner.kind == "group")


@pytest.mark.parametrize("prefix", ["gh", "gl"])
async def test_a_token_that_may_not_read_it_says_so_to_its_owner_alone(forge: Forge, tmp_path: Path, prefix: str) -> None:
    forge.tokens["anns"] = Token(sees=frozenset({PRIVATE}))
    async with site(forge, tmp_path) as here:
        absent = await here.told(prefix, BOB)
        row = await here.access.add(Owner("user", "ann"), forge.origin, "", "anns")
        with pytest.raises(CredentialInsufficient, match="may not read this repository"):
            await here.resolve(prefix, ANN)
        await here.access.remove(row.id)
        # A token that everybody may use must not tell everybody which repositories there are.
        await here.access.add(Owner("site"), forge.origin, "", "anns")
        assert await here.told(prefix, BOB) == await here.told(prefix, BOB, "nothing-here") == absent


@pytest.mark.parametrize("prefix", ["gh", "gl"])
async def test_a_host_that_is_asked_too_often_with_a_token_says_when_to_come_back(forge: Forge, tmp_path: Path, prefix: str) -> None:
    async with site(forge, tmp_path) as here:
        await here.access.add(Owner("user", "ann"), forge.origin, "", "anns")
        forge.trouble["owner"] = Trouble(status=429)
        with pytest.raises(ProviderUnavailable, match="asked too often"):
            await here.resolve(prefix, ANN)


@pytest.mark.parametrize("prefix", ["gh", "gl"])
async def test_what_only_the_sites_token_may_read_is_not_there_for_anybody(forge: Forge, tmp_path: Path, prefix: str) -> None:
    forge.tokens["sites"] = READS
    async with site(forge, tmp_path, token="sites") as here:
        absent = await here.told(prefix, BOB, "nothing-here")
        commit = forge.commit(PRIVATE)
        for ref in ("main", "HEAD", "master", "no-such-branch", commit):
            assert await here.told(prefix, BOB, ref=ref) == absent
        repo = await here.resolve(prefix, BOB, "open")
        assert (repo.access, repo.commit) == ("", forge.commit(OPEN))
        row = await here.access.add(Owner("user", "ann"), forge.origin, "", "anns")
        assert (await here.resolve(prefix, ANN)).access == row.id
        assert await here.told(prefix, BOB) == absent


@pytest.mark.parametrize("prefix", ["gh", "gl"])
async def test_a_token_of_the_sites_that_the_api_does_not_admit(forge: Forge, tmp_path: Path, prefix: str) -> None:
    forge.tokens["sites"], forge.forbids = READS, {"sites"}
    async with site(forge, tmp_path, token="sites") as here:
        with pytest.raises(ProviderUnavailable, match="does not let this site's token read this repository"):
            await here.resolve(prefix, BOB, "open")
        assert await here.told(prefix, BOB) == await here.told(prefix, BOB, "nothing-here")
        del forge.tokens["sites"]
        with pytest.raises(ProviderUnavailable, match="refuses this site's token"):
            await here.resolve(prefix, BOB, "open")


@pytest.mark.parametrize("prefix", ["gh", "gl"])
async def test_while_the_api_does_not_answer_a_commit_is_believed_of_nobody_who_could_not_read_it(forge: Forge, tmp_path: Path, prefix: str) -> None:
    commit = forge.commit(PRIVATE)
    async with site(forge, tmp_path) as here:
        row = await here.access.add(Owner("user", "ann"), forge.origin, "", "anns")
        forge.trouble["api"] = Trouble(status=503)
        assert (await here.resolve(prefix, ANN, ref=commit)).access == row.id
        with pytest.raises(RefNotFound):
            await here.resolve(prefix, BOB, ref=commit)


def test_a_token_revoked_between_look_up_and_clone(forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    lent = tmp_path / "lent"
    lent.mkdir()
    (lent / "credential").write_text(json.dumps({"origin": forge.origin, "username": "oauth2", "password": "gone", "submodules": False}))
    source = Source(f"{forge.origin}/{PRIVATE}", forge.commit(PRIVATE), 20, 10**8, credential=str(lent))
    with pytest.raises(RefNotFound, match="does not take the token any more"):
        Clone(source, tmp_path / "src", lambda _line: None).make()
