"""Builds on other machines: which one gets a build, what goes over the wire, and what happens when one is lost."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from binder_onprem import errors
from binder_onprem.buildhost import Yard, application
from binder_onprem.building.elsewhere import wire
from binder_onprem.building.elsewhere.dispatch import AWAY_SECONDS, Away, Dispatch, Seen, chosen
from binder_onprem.building.elsewhere.remote import Knowledge, RemoteBuilder
from binder_onprem.config import BuilderHost, Config
from binder_onprem.content import Content, File
from binder_onprem.credential import Credential
from binder_onprem.errors import BuildFailed, DiskFull, EngineUnavailable, LimitHit
from binder_onprem.events import Phase
from binder_onprem.model import BuildRecord, BuildState, ImageRef, RepoSpec, ResolvedRepo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from binder_onprem.building.supply.bill import Part
    from binder_onprem.interfaces import BuildLog

REPO = ResolvedRepo(RepoSpec("git", "p", "http://x.test/y", "HEAD", "me-repo"), "c" * 40, "p", "u", access="credential-1")
BUILD = BuildRecord("0123456789abcdef", ImageRef("r.test:5000/binder/me-repo", "t"), REPO, BuildState.RUNNING, 5.0, asker="me")
MADE = wire.Made("r.test:5000/binder-base@sha256:1", "r.test:5000/binder-sandbox@sha256:2", "recipe", "code")
DIGEST = "sha256:" + "1" * 64
TOKEN = "planted-token"


def machines(*names: str, **busy: int) -> list[Seen]:
    return [Seen(name, busy.get(name, 0), 2) for name in names]


class TestChosen:
    def test_a_repository_has_its_machine_and_keeps_it_when_others_come(self) -> None:
        repositories = [f"r/binder/{number}" for number in range(200)]
        before = {repository: chosen(repository, machines("a", "b", "c")) for repository in repositories}
        after = {repository: chosen(repository, machines("a", "b", "c", "d")) for repository in repositories}
        assert set(before.values()) == {"a", "b", "c"}
        moved = [repository for repository in repositories if before[repository] != after[repository]]
        assert moved
        assert {after[repository] for repository in moved} == {"d"}

    def test_one_without_a_place_is_passed_over_until_none_has_one(self) -> None:
        first = chosen("r", machines("a", "b"))
        other = "b" if first == "a" else "a"
        assert chosen("r", machines("a", "b", **{str(first): 2})) == other
        assert chosen("r", machines("a", "b", **{str(first): 3, other: 2})) == other
        assert chosen("r", [Seen(str(first), 4, 8), Seen(other, 3, 2)]) == first

    def test_one_that_is_away_comes_last_and_one_that_is_closed_never(self) -> None:
        first = str(chosen("r", machines("a", "b")))
        other = "b" if first == "a" else "a"
        assert chosen("r", [Seen(first, 0, 2, away=True), Seen(other, 2, 2)]) == other
        assert chosen("r", [Seen(first, 0, 2, away=True)]) == first
        assert chosen("r", machines("a", "b"), {first}) == other
        assert chosen("r", machines("a"), {"a"}) is None


class TestWire:
    def test_an_order_arrives_as_it_was_given(self) -> None:
        content = Content("files", (File("http://x.test/a", "a", 5),), inside="b")
        for build in (BUILD, dataclasses.replace(BUILD, repo=dataclasses.replace(REPO, content=content), fresh=True, front=2.0)):
            order = wire.Order(build, MADE, listed=True)
            assert wire.read_order(wire.order(order)) == order

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"build": 5}', "[" * 100_000, '{"build":{},"made":{},"listed":true}'])
    def test_nonsense_is_nonsense(self, text: str) -> None:
        with pytest.raises(EngineUnavailable):
            wire.read_order(text)
        with pytest.raises(EngineUnavailable):
            wire.read_state(text.encode())

    def test_every_error_arrives_as_its_own_kind(self) -> None:
        kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BinderError)]
        assert len(kinds) > 30
        for kind in kinds:
            found = wire.raised(json.loads(json.dumps(wire.failure(kind("words", retry_after=3)))))
            assert (type(found), found.message if found else "", found.retry_after if found else None) == (kind, "words", 3)

    @pytest.mark.parametrize("value", [{}, {"kind": "SystemExit", "message": "x"}, {"kind": "BuildFailed"}, {"kind": ["x"], "message": "x"}])
    def test_what_is_no_error_of_ours_is_none(self, value: dict[str, Any]) -> None:
        assert wire.raised(value) is None
        assert wire.raised(wire.failure(ValueError("secret"))) is None

    def test_a_credential_goes_without_who_may_use_it(self) -> None:
        credential = Credential("i", "https://x.test:443", "u", "s", frozenset({"somebody"}), stored=True)
        assert wire.read_credential(wire.credential(credential)) == Credential("i", "https://x.test:443", "u", "s")
        assert wire.read_credential(wire.credential(None)) is None
        with pytest.raises(EngineUnavailable):
            wire.read_credential({"x": 1})


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    async def write(self, phase: Phase, message: str) -> None:  # noqa: ARG002
        self.lines.append(message)


async def nothing() -> None:
    pass


class Machine:
    """A builder as the dispatch sees it."""

    def __init__(self, *outcomes: str | Exception) -> None:
        self.outcomes, self.asked, self.places, self.url = list(outcomes), 0, 2, "https://x.test"

    async def build(self, build: BuildRecord, log: BuildLog, pushing: Callable[[], Awaitable[None]]) -> str:  # noqa: ARG002
        self.asked += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def sweep(self, running: frozenset[str]) -> None:  # noqa: ARG002
        if isinstance(self.outcomes[0], Exception):
            raise self.outcomes[0]

    async def state(self) -> wire.State:
        if isinstance(self.outcomes[0], Exception):
            raise self.outcomes[0]
        return wire.State(wire.FORM, "code", (), 3)


class TestDispatch:
    def dispatch(self, closed: frozenset[str] = frozenset(), **others: Machine) -> Dispatch:
        self.now = 0.0
        return Dispatch(None, others, lambda: closed, now=lambda: self.now)  # type: ignore[arg-type]

    async def test_a_lost_machine_costs_no_build_and_is_left_alone_for_a_while(self) -> None:
        first = str(chosen(BUILD.image.repository, machines("a", "b")))
        other = "b" if first == "a" else "a"
        found = {first: Machine(Away("it is gone"), DIGEST), other: Machine(DIGEST, DIGEST)}
        dispatch, log = self.dispatch(**found), Log()
        assert await dispatch.build(BUILD, log, nothing) == DIGEST
        assert log.lines == [f"This is built on {first}.", "it is gone", f"This is built on {other}."]
        assert await dispatch.build(BUILD, log, nothing) == DIGEST
        assert (found[first].asked, found[other].asked) == (1, 2)
        self.now = AWAY_SECONDS + 1
        await dispatch.build(BUILD, log, nothing)
        assert found[first].asked == 2

    async def test_what_the_repository_is_to_blame_for_is_tried_nowhere_else(self) -> None:
        found = {"a": Machine(BuildFailed("x"), DIGEST), "b": Machine(BuildFailed("x"), DIGEST)}
        with pytest.raises(BuildFailed):
            await self.dispatch(**found).build(BUILD, Log(), nothing)
        assert sorted(machine.asked for machine in found.values()) == [0, 1]

    async def test_a_full_disk_is_told_only_where_no_other_machine_has_room(self) -> None:
        first = str(chosen(BUILD.image.repository, machines("a", "b")))
        other = "b" if first == "a" else "a"
        found = {first: Machine(DiskFull("disk full"), DiskFull("disk full")), other: Machine(DIGEST, DiskFull("disk full"))}
        dispatch = self.dispatch(**found)
        assert await dispatch.build(BUILD, Log(), nothing) == DIGEST
        with pytest.raises(DiskFull):
            await dispatch.build(BUILD, Log(), nothing)

    async def test_without_any_machine_it_waits(self) -> None:
        with pytest.raises(EngineUnavailable, match="No machine that builds"):
            await self.dispatch(a=Machine(Away("gone"))).build(BUILD, Log(), nothing)
        with pytest.raises(EngineUnavailable, match="No machine that builds"):
            await self.dispatch(frozenset({"a"}), a=Machine(DIGEST)).build(BUILD, Log(), nothing)

    async def test_the_sweep_of_the_others_goes_on_and_rows_tell(self) -> None:
        dispatch = self.dispatch(frozenset({"b"}), a=Machine(Away("a does not answer.")), b=Machine(DIGEST))
        await dispatch.sweep(frozenset())
        rows = {row["name"]: row for row in await dispatch.rows()}
        assert (rows["a"]["state"], rows["a"]["message"]) == ("away", "a does not answer.")
        assert (rows["b"]["state"], rows["b"]["places"]) == ("closed", 3)
        with pytest.raises(EngineUnavailable):
            await dispatch.ping()


class ScriptedBuilder:
    """Builds as a script says, on the machine that builds."""

    def __init__(self, script: Callable[[BuildRecord, BuildLog, Callable[[], Awaitable[None]]], Awaitable[str]]) -> None:
        self.build = script

    async def sweep(self, running: frozenset[str]) -> None:
        self.swept = running


class Papers:
    def __init__(self, *, lists: bool = False, error: Exception | None = None) -> None:
        self.lists, self.error, self.certified = lists, error, list[Any]()

    async def certify(self, build: BuildRecord, buildpack: str, digest: str, found: Sequence[Part] | None, log: BuildLog) -> None:  # noqa: ARG002
        if self.error:
            raise self.error
        self.certified.append((build.id, buildpack, digest, found))


class Pair:
    """A machine that builds on loopback, and the Binder's side of it."""

    def __init__(self, url: str, session: aiohttp.ClientSession, folder: Path, yard: Yard) -> None:
        (folder / "token").write_text(TOKEN)
        self.yard, self.session, self.papers = yard, session, Papers()
        self.settings = BuilderHost.model_construct(name="far", url=url, ca_file=None, token_file=folder / "token")
        self.told: list[Any] = []

    def builder(self, made: wire.Made = MADE) -> RemoteBuilder:
        async def used(reference: str) -> None:
            self.told.append(reference)

        async def replaced(old: str, new: str) -> None:
            self.told.append((old, new))

        async def credential(credential_id: str) -> Credential | None:
            self.told.append(credential_id)
            return Credential(credential_id, "http://x.test:80", "bot", "planted-secret")

        return RemoteBuilder(self.settings, self.session, made, Knowledge(used, replaced, credential), self.papers)

    def script(self, script: Callable[..., Awaitable[str]]) -> None:
        async def ready(made: wire.Made) -> Any:  # noqa: ARG001
            return type("Standing", (), {"builder": ScriptedBuilder(script)})()

        self.yard._ready = ready  # type: ignore[method-assign]


class OpenYard(Yard):
    """One whose images are there already; without slots, so that a test may say how."""


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    yard = OpenYard(Config(), None, None, None, None, "code")  # type: ignore[arg-type]
    runner = web.AppRunner(application(yard, TOKEN), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as session:
        yield Pair(f"http://127.0.0.1:{port}", session, tmp_path, yard)
    await runner.cleanup()


class TestConversation:
    async def test_log_questions_and_digest(self, pair: Pair) -> None:
        pushed: list[str] = []

        async def script(build: BuildRecord, asking: Any, pushing: Any) -> str:
            await asking.write(Phase.FETCHING, "cloning\n")
            credential = await asking.credential()
            await asking.used("e@sha256:1")
            await asking.replaced("o@sha256:1", "n@sha256:2")
            await pushing()
            pushed.append("after")
            return f"{DIGEST}" if (build, credential.secret) == (BUILD, "planted-secret") else "wrong"

        async def pushing() -> None:
            await asyncio.sleep(0.05)
            pushed.append("recorded")

        pair.script(script)
        log = Log()
        assert await pair.builder().build(BUILD, log, pushing) == DIGEST
        assert (log.lines, pushed) == (["cloning\n"], ["recorded", "after"])
        assert pair.told == ["credential-1", "e@sha256:1", ("o@sha256:1", "n@sha256:2")]
        assert pair.yard.running == {}

    @pytest.mark.parametrize("error", [LimitHit("too much"), DiskFull("full", retry_after=4), BuildFailed("no")])
    async def test_errors_arrive(self, pair: Pair, error: errors.BinderError) -> None:
        async def script(*_: Any) -> str:
            raise error

        pair.script(script)
        with pytest.raises(type(error), match=error.message) as found:
            await pair.builder().build(BUILD, Log(), nothing)
        assert found.value.retry_after == error.retry_after

    async def test_a_fault_over_there_tells_nothing_of_its_inside(self, pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
        async def script(*_: Any) -> str:
            raise KeyError("/inner/path")

        pair.script(script)
        with pytest.raises(BuildFailed, match="not in the repository"):
            await pair.builder().build(BUILD, Log(), nothing)
        assert "/inner/path" in caplog.text

    async def test_what_cannot_be_recorded_here_is_not_pushed_there(self, pair: Pair) -> None:
        after: list[int] = []

        async def script(_build: Any, _asking: Any, pushing: Any) -> str:
            await pushing()
            after.append(1)
            return DIGEST

        async def pushing() -> None:
            raise errors.BuildCancelled("ended by somebody else")

        pair.script(script)
        with pytest.raises(errors.BuildCancelled):
            await pair.builder().build(BUILD, Log(), pushing)
        assert after == []

    async def test_cancelled_here_it_ends_there_before_the_same_build_begins_again(self, pair: Pair) -> None:
        seen, begins = list[str](), asyncio.Event()

        async def script(_build: Any, asking: Any, _pushing: Any) -> str:
            seen.append("begins")
            begins.set()
            await asking.write(Phase.BUILDING, "x")
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.1)
                seen.append("cleared")
            return DIGEST

        pair.script(script)
        log = Log()
        for _ in range(2):
            task = asyncio.create_task(pair.builder().build(BUILD, log, nothing))
            async with asyncio.timeout(5):
                await begins.wait()
            begins.clear()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with asyncio.timeout(5), pair.yard._doors.of(BUILD.id):  # held as long as the build is there
            assert seen == ["begins", "cleared"] * 2

    async def test_who_refuses_or_is_another_release_is_away(self, pair: Pair) -> None:
        with pytest.raises(Away, match="another release"):
            await pair.builder(dataclasses.replace(MADE, code="other")).build(BUILD, Log(), nothing)
        pair.settings.token_file.write_text("wrong")
        with pytest.raises(Away, match="refuses the token"):
            await pair.builder().state()
        for path in ("", "sweep", "build"):
            async with pair.session.get(f"{pair.settings.url}/{path}") as answer:
                assert answer.status == 401

    @pytest.mark.parametrize("first", ["", "nonsense", "{}"])
    async def test_a_websocket_without_an_order_is_closed(self, pair: Pair, first: str) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with pair.session.ws_connect(f"{pair.settings.url}/build", headers=headers) as socket:
            await socket.send_str(first)
            assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE

    async def test_nobody_there_is_away(self, pair: Pair) -> None:
        gone = BuilderHost.model_construct(name="far", url="http://127.0.0.1:9", ca_file=None, token_file=pair.settings.token_file)
        pair.settings = gone
        with pytest.raises(Away, match=r"far does not answer\."):
            await pair.builder().build(BUILD, Log(), nothing)
        with pytest.raises(Away):
            await pair.builder().sweep(frozenset())
