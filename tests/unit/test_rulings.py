"""What the administrator rules: bans and maintenance as decisions, over real tables on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from binder_onprem.errors import Banned, InvalidSpec, NotFound, StoreUnavailable, UnderMaintenance
from binder_onprem.model import BuildState, Client, LaunchAudit, LaunchRequest, Role
from binder_onprem.rules import Rules
from binder_onprem.ruling import Ban, BanKind, Entry, Maintenance, Mode, checked_value, matches
from binder_onprem.store import SqlStore, open_engine, opened
from binder_onprem.store.rulings import SqlRulings
from tests.unit.parts import DIGEST, record, repo, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOW = 1000.0


@pytest.fixture
async def tables(url: str) -> AsyncIterator[tuple[SqlRulings, SqlStore]]:
    async with open_engine(url) as engine, opened(SqlRulings, engine) as rulings, opened(SqlStore, engine) as store:
        yield rulings, store


def by(address: str = "192.0.2.1", user: str | None = None, *roles: Role) -> LaunchRequest:
    return LaunchRequest("gh", "owner/repo/HEAD", Client(address, user, roles=frozenset(roles or {Role.LAUNCH})))


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("gh/owner/*", "gh/owner/repo/HEAD", True),
        ("gh/OWNER/*", "gh/owner/repo/HEAD", True),
        ("gh/owner/*", "gh/owner2/repo", False),
        ("*/repo/*", "gh/owner/repo/HEAD", True),
        ("gh/*/*/main", "gh/a/b/main", True),
        ("gh/*/*/main", "gh/a/main", False),
        ("gh/a", "gh/a/b", False),
        ("a/b*b", "a/b", False),
        ("*/*", "gh/x", True),
        ("gh/[a-z]+/.*", "gh/owner/repo", False),
    ],
)
def test_patterns(pattern: str, text: str, fits: bool) -> None:  # noqa: FBT001 - the table's column
    assert matches(pattern, text) is fits


def test_hostile_patterns_cost_nothing() -> None:
    assert not matches("gh/" + "*a" * 150 + "b", "gh/" + "a" * 100_000)


@pytest.mark.parametrize(
    ("kind", "value", "form"),
    [
        (BanKind.NETWORK, "192.0.2.7/24", "192.0.2.0/24"),
        (BanKind.NETWORK, "2001:db8::1", "2001:db8::1/128"),
        (BanKind.SPEC, " gh/owner/* ", "gh/owner/*"),
        (BanKind.USER, "ada@uni.example", "ada@uni.example"),
    ],
)
def test_values_have_a_normal_form(kind: BanKind, value: str, form: str) -> None:
    assert checked_value(kind, value) == form


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (BanKind.NETWORK, "192.0.2.0/33"),
        (BanKind.NETWORK, "example.org"),
        (BanKind.SPEC, "gh"),
        (BanKind.SPEC, "gh/a b"),
        (BanKind.SPEC, "gh/" + "a" * 300),
        (BanKind.USER, "\n"),
        (BanKind.USER, "a" * 256),
    ],
)
def test_values_that_do_not_hold(kind: BanKind, value: str) -> None:
    with pytest.raises(InvalidSpec):
        checked_value(kind, value)


@pytest.mark.parametrize(
    ("kind", "value", "who", "banned"),
    [
        (BanKind.NETWORK, "192.0.2.0/24", by(), True),
        (BanKind.NETWORK, "192.0.2.0/24", by("::ffff:192.0.2.9"), True),
        (BanKind.NETWORK, "192.0.2.0/24", by("198.51.100.1"), False),
        (BanKind.NETWORK, "192.0.2.0/24", by("local"), False),
        (BanKind.USER, "ada", by(user="ada"), True),
        (BanKind.USER, "ada", by(user="bob"), False),
        (BanKind.USER, "ada", by(), False),
        (BanKind.SPEC, "gh/owner/*", by(), True),
        (BanKind.SPEC, "gl/*", by(), False),
    ],
)
async def test_a_ban_holds_at_once_until_it_ends(
    tables: tuple[SqlRulings, SqlStore],
    kind: BanKind,
    value: str,
    who: LaunchRequest,
    banned: bool,  # noqa: FBT001 - the table's column
) -> None:
    clock = [NOW]
    rules = Rules(tables[0], now=lambda: clock[0])
    made = await rules.ban(kind, value, "Too much.", NOW + 60, "ada")
    other = Rules(tables[0], now=lambda: clock[0])
    await other.read()
    for each in (rules, other):
        assert each.bans == (made,)
        if banned:
            with pytest.raises(Banned, match="Too much"):
                each.admit(who)
        else:
            each.admit(who)
    clock[0] = NOW + 60
    rules.admit(who)
    assert rules.bans == ()


async def test_percent_encoding_is_no_way_around_a_ban(tables: tuple[SqlRulings, SqlStore]) -> None:
    rules = Rules(tables[0])
    await rules.ban(BanKind.SPEC, "gl/group/project/*", "", None, "")
    with pytest.raises(Banned):
        rules.admit(LaunchRequest("gl", "group%2Fproject/main", Client("192.0.2.1")))


async def test_a_ban_that_cannot_be_kept_does_not_hold(tables: tuple[SqlRulings, SqlStore], monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules(tables[0])

    async def down(_ban: Ban) -> None:
        raise StoreUnavailable("down")

    monkeypatch.setattr(tables[0], "ban", down)
    with pytest.raises(StoreUnavailable):
        await rules.ban(BanKind.SPEC, "gh/*", "", None, "")
    rules.admit(request())


async def test_bans_go(tables: tuple[SqlRulings, SqlStore]) -> None:
    rules = Rules(tables[0])
    made = await rules.ban(BanKind.SPEC, "gh/*", "", None, "")
    await rules.unban(made.id)
    rules.admit(request())
    with pytest.raises(NotFound):
        await rules.unban(made.id)
    with pytest.raises(InvalidSpec, match="future"):
        await rules.ban(BanKind.SPEC, "gh/*", "", 1.0, "")
    with pytest.raises(NotFound, match="keeps no rules"):
        await Rules().ban(BanKind.SPEC, "gh/*", "", None, "")


async def test_maintenance_in_each_mode(tables: tuple[SqlRulings, SqlStore]) -> None:
    clock, rung = [NOW], []
    rules = Rules(tables[0], now=lambda: clock[0], changed=lambda: rung.append(clock[0]))
    words = {"en": "New disks.", "fr": "Nouveaux disques."}
    await rules.maintain(Mode.NOTICE, words, None, "ada")
    rules.admit(by())
    assert not rules.paused
    await rules.maintain(Mode.BUILDS, words, None, "ada")
    rules.admit(by())
    assert rules.paused
    await rules.maintain(Mode.LAUNCHES, words, NOW + 90, "ada")
    with pytest.raises(UnderMaintenance, match=r"New disks\.") as refused:
        rules.admit(by())
    assert (refused.value.retry_after, refused.value.status) == (90, 503)
    rules.admit(by("192.0.2.1", None, Role.ADMIN))
    again = Rules(tables[0], now=lambda: clock[0])
    await again.read()
    assert again.maintenance == rules.maintenance == Maintenance(Mode.LAUNCHES, words, NOW, NOW + 90, "ada")
    assert again.maintenance
    assert [again.maintenance.told(language) for language in ("en", "fr", "de")] == ["New disks.", "Nouveaux disques.", "New disks."]
    clock[0] = NOW + 90
    rules.admit(by())
    assert (rules.maintenance, rules.paused) == (None, False)
    clock[0] = NOW
    await rules.end_maintenance()
    rules.admit(by())
    assert len(rung) == 4
    with pytest.raises(InvalidSpec, match="needs words"):
        await rules.maintain(Mode.NOTICE, {"en": "", "fr": ""}, None, "")


async def test_the_pause_survives_and_keeps_its_beginning(tables: tuple[SqlRulings, SqlStore]) -> None:
    clock = [NOW]
    rules = Rules(tables[0], now=lambda: clock[0])
    await rules.pause("ada")
    clock[0] += 5
    await rules.pause("bob")
    again = Rules(tables[0])
    await again.read()
    assert again.queue == {"since": NOW, "by": "ada"}
    assert again.paused
    await again.resume()
    await rules.read()
    assert not rules.paused


async def test_pins(tables: tuple[SqlRulings, SqlStore]) -> None:
    rules = Rules(tables[0])
    await rules.pin("r/a@sha256:1")
    await rules.pin("r/a@sha256:1")
    await rules.replaced("r/a@sha256:1", "r/a@sha256:2")
    await rules.replaced("r/b@sha256:1", "r/b@sha256:2")
    again = Rules(tables[0])
    await again.read()
    assert again.pins == rules.pins == {"r/a@sha256:2"}
    await again.unpin("r/a@sha256:2")
    await again.unpin("r/a@sha256:2")
    assert await tables[0].pins() == frozenset()


async def test_the_audit_in_pages_and_filtered(tables: tuple[SqlRulings, SqlStore]) -> None:
    audit, _ = tables
    for number in range(5):
        await audit.record(
            Entry(NOW + number, f"who{number % 2}", "192.0.2.1", ("image.pin", "ban.add")[number % 2], f"s{number}\0", details={"n": number})
        )
    first = await audit.entries(limit=2)
    rest = await audit.entries(before=first[-1].number, limit=9)
    assert [entry.details["n"] for entry in (*first, *rest)] == [4, 3, 2, 1, 0]
    assert "\0" not in first[0].subject
    assert [entry.details["n"] for entry in await audit.entries(action="ban.")] == [3, 1]
    assert await audit.entries(action="%") == []
    assert [entry.details["n"] for entry in await audit.entries(who="who0", since=NOW + 2)] == [4, 2]
    assert len(await audit.entries(who="192.0.2.1")) == 5
    await audit.forget(NOW + 3)
    assert len(await audit.entries()) == 2


async def test_numbers_of_the_audit_are_never_used_again(tables: tuple[SqlRulings, SqlStore]) -> None:
    audit, _ = tables
    await audit.record(Entry(NOW, "a", "", "x"))
    (last,) = await audit.entries()
    await audit.forget(NOW + 1)
    await audit.record(Entry(NOW, "a", "", "x"))
    assert (await audit.entries())[0].number > last.number


async def test_launches_in_pages_and_by_id(tables: tuple[SqlRulings, SqlStore]) -> None:
    audit, store = tables
    for number in range(3):
        await store.audit(LaunchAudit(f"{number:016}", "gh", f"o/r{number}/HEAD", "192.0.2.1", NOW + number, "ready"))
    found = await audit.launches(limit=2)
    assert [launch.path for _, launch in found] == ["o/r2/HEAD", "o/r1/HEAD"]
    assert [launch.path for _, launch in await audit.launches(before=found[-1][0])] == ["o/r0/HEAD"]
    assert await audit.launches(who="nobody") == []
    assert len(await audit.launches(since=NOW + 1, who="192.0.2.1")) == 2
    assert {key: launch.path for key, launch in (await audit.launched([f"{1:016}", "f" * 16])).items()} == {f"{1:016}": "o/r1/HEAD"}
    assert len(await audit.launched([f"{number:016}" for number in range(1200)])) == 3


async def test_builds_are_found(tables: tuple[SqlRulings, SqlStore]) -> None:
    audit, store = tables
    for number in range(4):
        state = BuildState.BUILT if number % 2 else BuildState.FAILED
        await store.add(record(f"{number:016}", state, of=repo(f"o/r{number}"), digest=DIGEST if number == 3 else None))
    assert [int(one.id) for one in await audit.search(limit=2)] == [3, 2]
    assert [int(one.id) for one in await audit.search(before=f"{2:016}")] == [1, 0]
    assert [int(one.id) for one in await audit.search(state="built")] == [3, 1]
    assert [int(one.id) for one in await audit.search(text="O/R2")] == [2]
    assert await audit.search(text="%") == []
    assert await audit.search(before="x' OR 1=1") == []
    assert {digest: int(one.id) for digest, one in (await audit.made([DIGEST, "sha256:0"])).items()} == {DIGEST: 3}


async def test_the_front_of_the_queue_is_kept(tables: tuple[SqlRulings, SqlStore]) -> None:
    _, store = tables
    queued = await store.add(record("1" * 16, fresh=True))
    assert await store.prioritise(queued.id, 5.0)
    found = await store.build(queued.id)
    assert found == replace(queued, front=5.0, fresh=True)
    assert found
    assert await store.move(found, replace(found, state=BuildState.RUNNING))
    assert not await store.prioritise(queued.id, 6.0)
    assert not await store.prioritise("2" * 16, 6.0)


async def test_many_orders_at_once(tables: tuple[SqlRulings, SqlStore]) -> None:
    rules = Rules(tables[0])
    made = await asyncio.gather(*(rules.ban(BanKind.SPEC, f"gh/o{number}/*", "", None, "") for number in range(20)))
    assert len(await tables[0].bans()) == len(rules.bans) == 20
    await asyncio.gather(*(rules.unban(ban.id) for ban in made))
    assert await tables[0].bans() == []
