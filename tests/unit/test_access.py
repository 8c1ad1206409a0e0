"""Private repositories: whose credential opens what, on both databases; what is opened for one is not opened for another."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.access import MOST, Access, Owner
from binder_onprem.config import Config
from binder_onprem.credential import Credential, credentials_for, in_the_clear, origin_of, origin_of_repository, subject
from binder_onprem.errors import HostUnfit, InvalidSpec, NotFound, ProviderUnavailable, QuotaExceeded, RefNotFound
from binder_onprem.launch import launch
from binder_onprem.model import Client, ImageRef, RepoSpec, ResolvedRepo
from binder_onprem.sealing import KEY, Sealing
from binder_onprem.store import open_engine, opened
from binder_onprem.store.credentials import SqlCredentials
from tests.unit.parts import House, record, repo, request
from tests.unit.virtual import virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from binder_onprem.store import SqlStore

ORIGIN = "https://git.test:443"
CANARY = "canary-d41d8cd98f00"
ANN, BOB = Client("192.0.2.1", "ann", groups=frozenset({"staff"})), Client("192.0.2.2", "bob")
ANYBODY = Client("192.0.2.3")
COMMIT = "a" * 40


def made(name: str, users: tuple[str, ...] = (), groups: tuple[str, ...] = (), origin: str = ORIGIN) -> Credential:
    return Credential(name, origin, "u", CANARY, frozenset(users), frozenset(groups))


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("git.uni.example", "https://git.uni.example:443"),
        (" GIT.uni.example:8443 ", "https://git.uni.example:8443"),
        ("https://git.uni.example/", "https://git.uni.example:443"),
        ("http://10.0.0.1:3000", "http://10.0.0.1:3000"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]:443"),
    ],
)
def test_a_host_is_written_in_one_way(text: str, origin: str) -> None:
    assert origin_of(text) == origin


@pytest.mark.parametrize("text", ["", "ssh://x", "a b", "x/y", "u:p@x", "https://u@x", "x:0x1", "x:99999", "x?q", "x\ny", "https://", "*.x", "x\0"])
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(InvalidSpec):
        origin_of(text)


def test_only_what_is_cloned_over_http_has_an_origin() -> None:
    assert origin_of_repository("https://git.test/a/b.git") == ORIGIN
    assert origin_of_repository("ssh://git@git.test/a") is None
    assert origin_of_repository("doi:10.1/2") is None


def test_a_secret_goes_over_https_or_to_a_network_of_ones_own() -> None:
    assert [in_the_clear(origin) for origin in (ORIGIN, "http://127.0.0.1:1", "http://10.1.2.3:80", "http://[::1]:80")] == [False] * 4
    assert [in_the_clear(origin) for origin in ("http://git.test:80", "http://8.8.8.8:80", "http://localhost:80")] == [True] * 3


def test_ones_own_first_then_the_groups_then_everybodys() -> None:
    everybody, staff, ann, bob, elsewhere = (
        made("e"),
        made("s", (), ("staff",)),
        made("a", ("ann",)),
        made("b", ("bob",)),
        made("x", origin="https://x:443"),
    )
    every = (elsewhere, everybody, staff, ann, bob)
    assert [one.id for one in credentials_for(ORIGIN, ANN, every)] == ["a", "s", "e"]
    assert [one.id for one in credentials_for(ORIGIN, BOB, every)] == ["b", "e"]
    assert [one.id for one in credentials_for(ORIGIN, ANYBODY, every)] == ["e"]
    assert credentials_for("https://git.test:8443", ANN, every) == ()
    plain = replace(everybody, origin="http://git.test:80")
    assert credentials_for(plain.origin, ANN, (plain,)) == ()


def test_a_program_is_not_the_person_of_its_name() -> None:
    program = Client("192.0.2.1", "ann", service=True)
    assert subject(program) == "service:ann"
    assert credentials_for(ORIGIN, program, (made("a", ("ann",)),)) == ()


def test_a_credential_does_not_show_its_secret() -> None:
    assert CANARY not in repr(made("a"))
    assert CANARY not in f"{made('a')}"


def test_a_private_image_has_a_name_of_its_own() -> None:
    public = repo()
    private = replace(public, access="1" * 16)
    names = {ImageRef.of(one, "r/binder", "f" * 64).repository for one in (public, private, replace(private, access="2" * 16))}
    assert len(names) == 2
    looks_so = replace(public, spec=replace(public.spec, slug=f"private-{public.spec.slug}"))
    assert ImageRef.of(looks_so, "r/binder", "f" * 64).repository not in names


def test_the_key_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    sealing = Sealing(Config(home=tmp_path))
    with pytest.raises(HostUnfit):
        sealing.seal(CANARY)
    sealing.ready()
    file = tmp_path / "secrets" / KEY
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    sealed, before = sealing.seal(CANARY), file.read_text()
    sealing.ready()
    assert file.read_text() == before
    assert CANARY not in sealed
    assert sealing.unseal(sealed) == CANARY
    sealing.add_key()
    assert sealing.unseal(sealed) == CANARY
    sealing.forget_old_keys()
    assert sealing.unseal(sealed) is None
    file.write_text("nonsense\n")
    with pytest.raises(HostUnfit):
        sealing.unseal(sealed)


def test_the_configuration_refuses_what_would_send_a_secret_in_the_clear() -> None:
    part = Config.model_validate({"credentials": [{"host": "git.test", "secret_file": "/x"}]}).credentials[0]
    assert (part.host, part.username) == (ORIGIN, "oauth2")
    for host in ("http://git.test", "git.test/path", "user@git.test"):
        with pytest.raises(ValueError, match="credentials"):
            Config.model_validate({"credentials": [{"host": host, "secret_file": "/x"}]})


@dataclass
class Host:
    """A host with one private repository, as `look` sees it, and as a provider that believes full commits."""

    accepts: set[str] = field(default_factory=lambda: {CANARY})
    asked: list[str] = field(default_factory=list)
    down: bool = False
    prefix: str = "gh"
    name: str = "GitHub"
    display_config: dict[str, Any] = field(default_factory=dict)

    @property
    def clonable(self) -> Host:
        return self

    def parse(self, path: str) -> RepoSpec:
        return RepoSpec("gh", path, "https://git.test/owner/repo", path.rpartition("/")[2], "owner-repo")

    def asks(self, spec: RepoSpec) -> bool:
        return spec.ref != COMMIT

    def at(self, spec: RepoSpec, commit: str, notice: str | None) -> ResolvedRepo:
        return ResolvedRepo(spec, commit, f"owner/repo/{commit}", spec.url, notice)

    async def resolve(self, spec: RepoSpec) -> ResolvedRepo:
        if spec.ref == COMMIT:
            return self.at(spec, COMMIT, None)
        raise RefNotFound("not there")

    async def look(self, at: str, _ref: str, credential: Credential | None) -> tuple[str, str | None]:
        assert at == "https://git.test/owner/repo"
        if self.down:
            raise ProviderUnavailable("down")
        self.asked.append(credential.id if credential else "")
        if credential is None or credential.secret not in self.accepts:
            raise RefNotFound("not there")
        return COMMIT, None


@pytest.fixture
async def kept(url: str) -> AsyncIterator[SqlCredentials]:
    async with open_engine(url) as engine, opened(SqlCredentials, engine) as table:
        yield table


@pytest.fixture
def host() -> Host:
    return Host()


def access_to(home: Path, kept: Any, host: Host, **sections: Any) -> Access:
    (home / "secrets").mkdir(exist_ok=True)
    config = Config.model_validate({"home": home, **sections})
    sealing = Sealing(config)
    sealing.ready()
    return Access(config, kept, sealing, host.look, lambda: 1000.0)


@pytest.fixture
def access(kept: SqlCredentials, host: Host, tmp_path: Path) -> Access:
    return access_to(tmp_path, kept, host)


async def test_what_is_stored_is_sealed_and_comes_back(access: Access, kept: SqlCredentials) -> None:
    row = await access.add(Owner("user", "ann"), "git.test", "", CANARY)
    assert row.origin == ORIGIN
    assert CANARY not in repr(await kept.credentials())
    assert CANARY not in (await kept.credentials())[0].sealed
    found = await access.credential(row.id)
    assert found == Credential(row.id, ORIGIN, "oauth2", CANARY, frozenset({"ann"}), frozenset(), stored=True)
    again = await access.add(Owner("user", "ann"), "https://git.test", "me", CANARY + "2")
    assert [one.id for one in await access.listed()] == [again.id]
    assert await access.credential(row.id) is None
    with pytest.raises(NotFound):
        await access.remove(again.id, Owner("user", "bob"))
    await access.remove(again.id, Owner("user", "ann"))
    assert await access.listed() == []


@pytest.mark.parametrize("secret", ["", " ", "a\nb", "a\0b", "x" * 5000])
async def test_secrets_that_would_break_a_line_are_refused_without_being_shown(access: Access, secret: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        await access.add(Owner("site"), "git.test", "", secret)
    assert len(secret) < 2 or secret not in refused.value.message
    with pytest.raises(InvalidSpec, match="https only"):
        await access.add(Owner("site"), "http://git.test", "", CANARY)


async def test_an_owner_has_so_many_at_the_most(access: Access) -> None:
    for number in range(MOST):
        await access.add(Owner("user", "ann"), f"h{number}.test", "", CANARY)
    with pytest.raises(QuotaExceeded):
        await access.add(Owner("user", "ann"), "one-more.test", "", CANARY)
    await access.add(Owner("user", "bob"), "git.test", "", CANARY)


async def test_a_row_moved_to_somebody_else_opens_nothing(access: Access, kept: SqlCredentials, host: Host) -> None:
    row = await access.add(Owner("user", "ann"), "git.test", "", CANARY)
    await kept.drop_credential(row.id)
    await kept.put_credential(replace(row, owner="bob"))
    with pytest.raises(RefNotFound):
        await access.resolve(host, host.parse("owner/repo/HEAD"), BOB)
    assert await access.readable() == frozenset()


async def test_a_rotation_keeps_everything_readable_and_the_old_key_is_worth_nothing(access: Access, kept: SqlCredentials, tmp_path: Path) -> None:
    rows = [await access.add(owner, "git.test", "", CANARY) for owner in (Owner("site"), Owner("group", "staff"), Owner("user", "ann"))]
    file = tmp_path / "secrets" / KEY
    old = file.read_text()
    assert await access.rotate() == 3
    assert len(file.read_text().split()) == 1
    assert await access.readable() == {row.id for row in rows}
    file.write_text(old)
    assert await access.readable() == frozenset()
    file.write_text("0" * 64 + "\n")
    with pytest.raises(HostUnfit):
        await access.rotate()
    assert len(file.read_text().split()) == 2, "the keys that are needed stay"
    assert len(await kept.credentials()) == 3


async def test_each_launch_is_opened_by_the_clients_own(access: Access, kept: SqlCredentials, host: Host) -> None:
    spec = host.parse("owner/repo/HEAD")
    wrong = await access.add(Owner("user", "ann"), "git.test", "", "wrong")
    staff = await access.add(Owner("group", "staff"), "git.test", "", CANARY)
    assert (await access.resolve(host, spec, ANN)).access == staff.id
    assert host.asked == [wrong.id, staff.id]
    for client in (BOB, ANYBODY):
        with pytest.raises(RefNotFound, match="not there"):
            await access.resolve(host, spec, client)
    assert host.asked == [wrong.id, staff.id], "nobody else's credential is sent"
    assert {row.id: row.used for row in await kept.credentials()} == {wrong.id: None, staff.id: 1000.0}
    host.accepts.clear()
    with pytest.raises(RefNotFound):
        await access.resolve(host, spec, ANN)
    host.accepts.add(CANARY)
    host.down = True
    with pytest.raises(ProviderUnavailable):
        await access.resolve(host, spec, ANN)


async def test_a_commit_is_not_believed_unseen_where_there_are_private_repositories(access: Access, host: Host) -> None:
    spec = host.parse(f"owner/repo/{COMMIT}")
    assert (await access.resolve(host, spec, BOB)).access == ""
    assert host.asked == []
    row = await access.add(Owner("user", "ann"), "git.test", "", CANARY)
    with pytest.raises(RefNotFound):
        await access.resolve(host, spec, BOB)
    assert (await access.resolve(host, spec, ANN)).access == row.id


async def test_the_configurations_are_read_at_each_use(kept: SqlCredentials, host: Host, tmp_path: Path) -> None:
    file = tmp_path / "token"
    access = access_to(tmp_path, kept, host, credentials=[{"host": "git.test", "secret_file": str(file), "groups": ["staff"]}])
    spec = host.parse("owner/repo/HEAD")
    with pytest.raises(RefNotFound):
        await access.resolve(host, spec, ANN)
    file.write_text(CANARY + "\n")
    found = await access.resolve(host, spec, ANN)
    assert CANARY not in found.access
    assert (await access.credential(found.access)) is not None
    with pytest.raises(RefNotFound):
        await access.resolve(host, spec, BOB)


class Table:
    """The table in memory, for virtual time."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}

    async def credentials(self) -> list[Any]:
        return list(self.rows.values())

    async def put_credential(self, row: Any) -> None:
        self.rows[row.id] = row

    async def drop_credential(self, credential_id: str) -> bool:
        return self.rows.pop(credential_id, None) is not None

    async def credential_used(self, credential_id: str, now: float) -> None:
        self.rows[credential_id] = replace(self.rows[credential_id], used=now)

    async def reseal(self, sealed: Any) -> int:
        self.rows = {name: replace(row, sealed=sealed(row.sealed)) for name, row in self.rows.items()}
        return len(self.rows)


@virtual
async def test_who_has_no_access_does_not_get_an_image_that_exists(tmp_path: Path) -> None:
    host, house = Host(), House(tmp_path)
    access = access_to(tmp_path, Table(), host)
    row = await access.add(Owner("user", "ann"), "git.test", "", CANARY)
    line = replace(house.line, providers={"gh": host}, access=access)
    await house.up()

    async def tried(client: Client, ref: str, key: str) -> str:
        asked = replace(request(key=key * 32), client=client, path=f"owner/repo/{ref}")
        try:
            return [event async for event in launch(asked, line)][-1].image  # type: ignore[union-attr]
        except RefNotFound as error:
            return error.message

    image = await tried(ANN, "HEAD", "1")
    assert "/private-owner-repo-" in image
    assert len(house.builder.started) == 1
    assert [build.repo.access for build in house.store.records.values()] == [row.id]
    refused = [await tried(client, ref, key) for client, key in ((BOB, "2"), (ANYBODY, "3")) for ref in ("HEAD", COMMIT)]
    assert refused == ["not there"] * 4
    assert await tried(ANN, COMMIT, "4") == image
    await access.remove(row.id)
    # Resumed with its own key, or clicked anew: the removed credential opens nothing.
    assert await tried(ANN, "HEAD", "1") == "not there"
    assert await tried(ANN, "HEAD", "5") == "not there"
    # With no credential of the host left a full commit is believed, and named as what is public: that image is not there.
    believed = replace(request(key="6" * 32), client=BOB, path=f"owner/repo/{COMMIT}")
    images = [event.image async for event in launch(believed, line) if hasattr(event, "image")]
    assert "private" not in images[0]
    assert [build.repo.access for build in house.store.records.values()] == [row.id, ""]
    await house.down()


async def test_who_has_looked_up_a_private_repository(store: SqlStore) -> None:
    private = replace(repo(), access="1" * 16)
    asked = replace(request(), client=ANN)
    await store.begin(asked, private, 1.0)
    assert await store.looked_up("ann", private)
    assert not await store.looked_up("bob", private)
    assert not await store.looked_up("ann", replace(private, commit="b" * 40))
    assert not await store.looked_up("ann", replace(private, spec=replace(private.spec, url="https://git.test/other")))
    await store.begin(replace(request(key="9" * 32), client=BOB), repo(), 1.0)
    assert not await store.looked_up("bob", private), "when it was public"
    build = record("0" * 16, of=private)
    await store.add(build)
    assert (await store.build("0" * 16)) == build
