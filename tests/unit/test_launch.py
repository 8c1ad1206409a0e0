from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.choice import Choice
from binder_onprem.errors import (
    Banned,
    BuildFailed,
    EngineUnavailable,
    InvalidSpec,
    ProviderUnavailable,
    QuotaExceeded,
    RateLimited,
    Refused,
    RegistryUnavailable,
    SpawnFailed,
    StoreUnavailable,
    UnknownProvider,
    Untrusted,
)
from binder_onprem.events import Phase, Progress, Ready, Stage
from binder_onprem.launch import LOCAL_NOTICE, launch
from binder_onprem.model import LaunchRequest
from tests.unit.parts import DIGEST, House, image, record, request
from tests.unit.virtual import now, virtual

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE = image().at(DIGEST)


async def run(house: House, of: LaunchRequest | None = None) -> list[Progress | Ready]:
    return [event async for event in launch(of or request(), house.line)]


def keyed(events: list[Progress | Ready]) -> list[tuple[str, int, str]]:
    return [(event.stage.value, event.number, event.message) for event in events if isinstance(event, Progress) and event.number]


@virtual
async def test_from_the_click_to_the_session(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    events = await run(house)
    assert keyed(events) == [
        ("1", 1, "Looking up https://git.test/owner/repo at HEAD...\n"),
        *[("2", n + 1, f"line {n}\n") for n in range(5)],
        ("3", 1, "Built image, launching...\n"),
        ("3", 2, "Launching server...\n"),
        ("3", 3, "Server requested\n"),
        ("3", 4, "Server ready\n"),
    ]
    ready = events[-1]
    assert isinstance(ready, Ready)
    assert ready.image == REFERENCE
    assert (ready.request, ready.persistent_request) == ("v2/gh/owner/repo/HEAD", "v2/gh/owner/repo/" + "a" * 40)
    built = next(event for event in events if isinstance(event, Progress) and event.phase is Phase.BUILT)
    assert built.data == {"imageName": REFERENCE}
    (audit,) = house.store.audits.values()
    assert (audit.outcome, audit.image, audit.commit, audit.client, audit.build, audit.start) == ("ready", REFERENCE, "a" * 40, "192.0.2.1", 6.0, 1.0)
    assert house.store.used[REFERENCE] == audit.began + 6
    await house.down()


@virtual
async def test_the_second_click_does_not_build(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    await run(house)
    events = await run(house, request(key="2" * 32))
    assert [message for _, _, message in keyed(events)][1] == "Found built image, launching...\n"
    assert len(house.builder.started) == 1
    await house.down()


@virtual
async def test_two_click_at_once_one_build_two_sessions(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    first, second = await asyncio.gather(run(house), run(house, request(key="2" * 32)))
    assert keyed(first) == keyed(second)
    assert len(house.builder.started) == 1
    assert len(house.hub.users) == 2
    await house.down()


@virtual
@pytest.mark.parametrize("moment", [0.5, 2.5, 5.5, 6.5, 6.99])
async def test_killed_anywhere_the_stream_goes_on(tmp_path: Path, moment: float) -> None:
    house = House(tmp_path)
    await house.up()
    seen: list[Progress | Ready] = []

    async def watch() -> None:
        async with aclosing(launch(request(), house.line)) as events:
            async for event in events:
                seen.append(event)  # noqa: PERF401 - one by one, because it is cancelled

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(moment)
    watcher.cancel()
    await asyncio.wait({watcher})
    await house.killed()
    house.git.commits["owner/repo"] = "b" * 40  # somebody pushed meanwhile: this launch stays where it was
    await house.up()
    before = keyed(seen)
    again = await run(house)
    after = [event for event in keyed(again) if event[:2] > before[-1][:2]]
    whole = [event[:2] for event in before + after]
    assert whole == sorted(set(whole))
    for stage in Stage:
        numbers = [number for one, number in whole if one == stage.value]
        assert numbers == list(range(1, len(numbers) + 1))
    assert isinstance(again[-1], Ready)
    assert again[-1].image == REFERENCE
    assert len(house.hub.users) == 1
    await house.down()


@virtual
async def test_refused_before_anything_is_asked(tmp_path: Path) -> None:
    house = House(tmp_path, admission={"banned": ["gh/owner/.*"], "rate": 1})
    with pytest.raises(Banned):
        await run(house)
    unknown = LaunchRequest("nope", "x/y/z", request().client, "3" * 32)
    with pytest.raises(UnknownProvider, match="nope"):
        await run(house, unknown)
    with pytest.raises(RateLimited):
        await run(house, request("other/repo/HEAD", "4" * 32))
    assert house.git.asked == 0
    assert [audit.outcome for audit in house.store.audits.values()] == ["banned", "unknown_provider", "rate_limited"]


@virtual
async def test_no_room_no_build(tmp_path: Path) -> None:
    house = House(tmp_path, session={"total": 1})
    await house.up()
    await run(house)
    house.git.commits["owner/repo"] = "b" * 40
    with pytest.raises(QuotaExceeded, match="Too many users on this BinderHub"):
        await run(house, request(key="2" * 32))
    assert len(house.builder.started) == 1
    assert isinstance((await run(house))[-1], Ready), "its own session does not stand in a launch's way"
    await house.down()


@virtual
async def test_one_place_left_and_ten_clicks(tmp_path: Path) -> None:
    house = House(tmp_path, session={"total": 3})
    house.registry.digests[image()] = DIGEST
    results: list[Any] = await asyncio.gather(*(run(house, request(key=f"{n:032}")) for n in range(10)), return_exceptions=True)
    assert sum(isinstance(result, list) for result in results) == 3
    assert sum(isinstance(result, QuotaExceeded) for result in results) == 7
    assert not house.room.starting


@virtual
async def test_a_registry_that_is_down_is_never_an_absent_image(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.registry.always = RegistryUnavailable("The registry does not answer.")
    began = now()
    with pytest.raises(RegistryUnavailable):
        await run(house)
    assert now() - began <= 10
    assert not house.store.records


@virtual
async def test_a_registry_that_hangs_is_not_waited_for_long(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.registry.digest = lambda _: asyncio.sleep(1000)  # type: ignore[method-assign,assignment,return-value]
    began = now()
    with pytest.raises(RegistryUnavailable):
        await run(house)
    assert now() - began <= 10


@virtual
async def test_a_registry_that_stumbles(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.registry.errors = [RegistryUnavailable("a"), RegistryUnavailable("b")]
    house.registry.digests[image()] = DIGEST
    assert isinstance((await run(house))[-1], Ready)


@virtual
@pytest.mark.parametrize("hangs", [False, True])
async def test_the_registry_is_down_but_the_image_is_here(tmp_path: Path, *, hangs: bool) -> None:
    house = House(tmp_path)
    await house.up()
    await run(house)
    await asyncio.sleep(5)
    if hangs:
        house.registry.digest = lambda _: asyncio.sleep(1000)  # type: ignore[method-assign,assignment,return-value]
    house.registry.always = RegistryUnavailable("The registry does not answer.")
    house.local.stored = [SimpleNamespace(references=[REFERENCE])]
    events = await run(house, request(key="2" * 32))
    assert [event.message for event in events if isinstance(event, Progress) and not event.number] == [LOCAL_NOTICE]
    assert isinstance(events[-1], Ready)
    await house.down()


@virtual
@pytest.mark.parametrize(
    ("part", "error"),
    [
        ("git", ProviderUnavailable("The host does not answer.")),
        ("builder", BuildFailed("No such package.")),
        ("hub", SpawnFailed("It did not start.")),
    ],
)
async def test_what_fails_is_said_once_and_recorded(tmp_path: Path, part: str, error: Any) -> None:
    house = House(tmp_path)
    getattr(house, part).fails.append(error)
    await house.up()
    with pytest.raises(type(error), match=error.message):
        await run(house)
    (audit,) = house.store.audits.values()
    assert audit.outcome == error.code
    assert not house.room.starting
    assert not house.line.leases.held
    await house.down()


@virtual
async def test_who_leaves_is_recorded_as_having_left(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    line = house.line
    async with aclosing(launch(request(), line)) as events:
        async for event in events:
            if isinstance(event, Progress) and event.stage is Stage.LAUNCH and event.number == 3:
                assert line.leases.held
                break
    (audit,) = house.store.audits.values()
    assert audit.outcome == "left"
    assert not line.leases.held
    assert not house.room.starting
    await house.down()


@virtual
async def test_a_notice_of_the_provider_and_a_fault_of_ours(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.registry.digests[image()] = DIGEST
    resolve = house.git.resolve

    async def noticed(spec: Any) -> Any:
        return replace(await resolve(spec), notice="HEAD is taken.")

    house.git.resolve = noticed  # type: ignore[method-assign]
    assert ("1", 2, "HEAD is taken.\n") in keyed(await run(house))
    house.hub.fails = [ZeroDivisionError()]
    with pytest.raises(ZeroDivisionError):
        await run(house, request(key="5" * 32))
    assert [audit.outcome for audit in house.store.audits.values()] == ["ready", "error"]


@virtual
async def test_the_store_down_at_the_end_hides_nothing(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.git.fails = [ProviderUnavailable("The host does not answer.")]
    house.store.down = True
    with pytest.raises(ProviderUnavailable):
        await run(house)


@virtual
async def test_parse_errors_pass(tmp_path: Path) -> None:
    house = House(tmp_path)

    def refuse(_: str) -> Any:
        raise InvalidSpec("Not of the form user/repo/ref.")

    house.git.parse = refuse  # type: ignore[method-assign]
    with pytest.raises(InvalidSpec):
        await run(house)


@virtual
async def test_joined_build_of_an_older_launch_is_followed_even_if_built_meanwhile(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.store.records["0" * 16] = record()
    await house.up()
    assert isinstance((await run(house))[-1], Ready)
    assert house.builder.started == ["0" * 16]
    await house.down()


@virtual
async def test_the_engine_down_as_well_and_a_record_that_is_gone(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    await run(house)
    house.registry.always = RegistryUnavailable("The registry does not answer.")

    async def down(_: str) -> bool:
        raise EngineUnavailable("Podman does not answer.")

    house.local.exists = down  # type: ignore[method-assign]
    await asyncio.sleep(5)
    with pytest.raises(RegistryUnavailable):
        await run(house, request(key="2" * 32))

    async def gone(_: object) -> None:
        return None

    house.store.built = gone  # type: ignore[method-assign,assignment]
    with pytest.raises(StoreUnavailable, match="record is gone"):
        await run(house)
    await house.down()


@virtual
async def test_a_prebuilt_image_is_started_without_a_build(tmp_path: Path) -> None:
    prebuilt = f"other.example/stats@sha256:{'d' * 64}"
    house = House(tmp_path, choice={"images": {"stats": {"image": prebuilt}}, "environment": ["COURSE"]})
    await house.up()
    events = await run(house, replace(request(), choice=Choice(image="stats", env=(("COURSE", "1"),))))
    ready = events[-1]
    assert isinstance(ready, Ready)
    assert ready.image == prebuilt
    assert house.builder.started == []
    await house.down()


@virtual
@pytest.mark.parametrize(("choice", "error"), [(Choice(image="other"), InvalidSpec), (Choice(env=(("PATH", "/x"),)), Refused)])
async def test_what_may_not_be_chosen_costs_nothing(tmp_path: Path, choice: Choice, error: type[Exception]) -> None:
    house = House(tmp_path)
    await house.up()
    with pytest.raises(error):
        await run(house, replace(request(), choice=choice))
    assert house.builder.started == []
    await house.down()


@virtual
async def test_an_image_that_is_not_trusted_is_not_started(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    asked: list[str] = []

    class Doubt:
        async def verify(self, reference: str) -> None:
            asked.append(reference)
            raise Untrusted("not signed")

    here = image().at(DIGEST)
    line = replace(house.line, supply=Doubt(), config=house.line.config)  # type: ignore[arg-type]
    line = replace(line, config=line.config.model_copy(update={"listen": line.config.listen.model_copy(update={"port": registry_port(here)})}))
    with pytest.raises(Untrusted):
        [event async for event in launch(request(), line)]
    assert len(asked) == 1
    assert house.hub.users == {}
    await house.down()


def registry_port(reference: str) -> int:
    """The public port of a site whose registry has this image."""
    return int(reference.partition("/")[0].rpartition(":")[2]) - 4
