from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.attempt import TRIES
from binder_onprem.errors import (
    BuildCancelled,
    BuildFailed,
    BuildInterrupted,
    BuildTimeout,
    DiskFull,
    EngineUnavailable,
    LimitHit,
    NotFound,
    QuotaExceeded,
    RegistryUnavailable,
    StoreUnavailable,
)
from binder_onprem.events import Phase, Progress, Stage
from binder_onprem.model import BuildState
from tests.unit.parts import DIGEST, House, image, record, repo
from tests.unit.virtual import now, virtual

if TYPE_CHECKING:
    from pathlib import Path


async def collect(house: House, of: Any = None, **more: Any) -> list[Progress]:
    of = of or repo()
    return [event async for event in house.builds.follow(image(of), of, **more)]


def lines(events: list[Progress]) -> list[tuple[int, str]]:
    return [(event.number, event.message) for event in events if event.number]


@virtual
async def test_two_people_one_build_and_both_see_all_of_it(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    first = asyncio.create_task(collect(house))
    second = asyncio.create_task(collect(house))
    await asyncio.sleep(3.2)
    late = asyncio.create_task(collect(house))
    told = [lines(events) for events in await asyncio.gather(first, second, late)]
    assert told[0] == told[1] == told[2] == [(n + 1, f"line {n}\n") for n in range(5)]
    assert len(house.builder.started) == 1
    (build,) = house.store.records.values()
    assert (build.state, build.digest, build.attempt) == (BuildState.BUILT, DIGEST, 1)
    assert house.store.used == {image().at(DIGEST): build.ended}
    await house.down()


@virtual
async def test_events_carry_the_build_and_its_stage(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    events = await collect(house)
    (build,) = house.store.records
    assert {event.data["build"] for event in events} == {build}
    assert {event.stage for event in events} == {Stage.BUILD}
    assert Phase.BUILT not in {event.phase for event in events}
    await house.down()


@virtual
async def test_viewers_that_leave_stop_nothing(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    async with aclosing(house.builds.follow(image(), repo())) as events:
        async for event in events:
            if event.number == 2:
                break
    await asyncio.sleep(20)
    (build,) = house.store.records.values()
    assert build.state is BuildState.BUILT
    await house.down()


@virtual
@pytest.mark.parametrize("error", [BuildFailed("No such package."), LimitHit("Out of memory: the limit is 4 GiB.")])
async def test_a_failed_build_says_why_and_the_next_click_tries_again(tmp_path: Path, error: BuildFailed) -> None:
    house = House(tmp_path)
    house.builder.fails = [error]
    await house.up()
    with pytest.raises(type(error), match=error.message):
        await collect(house)
    (build_id,) = house.store.records
    replayed = [event async for event in house.builds.replay(build_id, after=4)]
    assert [(event.number, event.phase, event.message) for event in replayed] == [
        (5, Phase.BUILDING, "line 4\n"),
        (6, Phase.FAILED, error.message + "\n"),
    ]
    await collect(house)
    assert len(house.builder.started) == 2
    await house.down()


@virtual
async def test_a_repeated_launch_is_told_the_failure_it_was_watching(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.builder.fails = [BuildFailed("No such package.")]
    await house.up()
    began = now()
    for _ in range(2):
        with pytest.raises(BuildFailed, match="No such package"):
            await collect(house, since=began)
    assert len(house.builder.started) == 1
    await house.down()


@virtual
async def test_a_fault_of_ours_ends_one_build_only(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.builder.fails = [ZeroDivisionError(), TimeoutError()]
    await house.up()
    for _ in range(2):
        with pytest.raises(BuildFailed, match="not in the repository"):
            await collect(house)
    await collect(house)
    await house.down()


@virtual
async def test_parts_that_do_not_answer_are_waited_for(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.builder.fails = [EngineUnavailable("Podman does not answer."), RegistryUnavailable("The registry does not answer.")]
    await house.up()
    events = await collect(house)
    said = [event.message for event in events if "Trying again" in event.message]
    assert said == ["Podman does not answer. Trying again in 5 s.\n", "The registry does not answer. Trying again in 10 s.\n"]
    assert [number for number, _ in lines(events)] == list(range(1, 18))
    await house.down()


@virtual
async def test_a_part_that_never_answers_is_not_waited_for_until_the_limit(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.builder.fails = [EngineUnavailable("Podman refuses.") for _ in range(TRIES)]
    await house.up()
    began = now()
    with pytest.raises(BuildFailed, match=r"Podman refuses\."):
        await collect(house)
    assert 120 < now() - began < 300
    await house.down()


@virtual
async def test_a_full_disk_is_told_at_once_and_not_filled_again(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.builder.fails = [DiskFull("disk full: 4 MB free, needs 400.")]
    await house.up()
    began = now()
    with pytest.raises(BuildFailed, match=r"disk full: 4 MB free"):
        await collect(house)
    assert now() - began < 10, "the first pause between two tries is 5 s"
    await house.down()


@virtual
async def test_a_build_ends_at_its_limit(tmp_path: Path) -> None:
    house = House(tmp_path, build={"timeout": 120})
    house.builder.pace = 1000
    await house.up()
    began = now()
    with pytest.raises(BuildTimeout, match="2 min"):
        await collect(house)
    assert 120 <= now() - began < 121
    assert not house.builder.running
    await house.down()


@virtual
async def test_cancelling_while_queued_running_and_ended(tmp_path: Path) -> None:
    house = House(tmp_path, build={"concurrency": 1})
    await house.up()
    watching = [asyncio.create_task(collect(house, repo(f"o/r{n}"))) for n in range(2)]
    await asyncio.sleep(2)
    running, queued = house.store.records
    ends = [await house.builds.cancel(build_id, "an administrator") for build_id in (queued, running, running)]
    assert {end.state for end in ends} == {BuildState.CANCELLED}
    for watcher in watching:
        with pytest.raises(BuildCancelled, match="cancelled by an administrator"):
            await watcher
    assert not house.builder.running
    with pytest.raises(NotFound):
        await house.builds.cancel("f" * 16, "x")
    await house.down()


@virtual
async def test_queue_positions_limit_and_estimates(tmp_path: Path) -> None:
    house = House(tmp_path, build={"concurrency": 1, "queue": 2})
    await house.up()
    await collect(house, repo("o/first"))  # 6 s: the estimate of those that follow
    watching = [asyncio.create_task(collect(house, repo(f"o/r{n}"))) for n in range(2)]
    await asyncio.sleep(0.5)
    third = asyncio.create_task(collect(house, repo("o/r2")))
    await asyncio.sleep(0.5)
    with pytest.raises(QuotaExceeded):
        await collect(house, repo("o/r3"))
    await asyncio.gather(*watching)
    told = [(event.data["position"], event.data["estimate"]) for event in await third if event.phase is Phase.WAITING]
    assert told == [(2, 12.0), (1, 6.0)]
    assert house.builder.most == 1
    await house.down()


@virtual
async def test_a_hundred_different_builds(tmp_path: Path) -> None:
    house = House(tmp_path, build={"concurrency": 3})
    await house.up()
    await asyncio.gather(*(collect(house, repo(f"o/r{n}"), client=f"c{n % 7}") for n in range(100)))
    assert house.builder.most == 3
    assert {build.state for build in house.store.records.values()} == {BuildState.BUILT}
    assert not house.builds.places()
    assert not house.builds.running
    await house.down()


async def resumed(house: House, after: int) -> list[tuple[int, str]]:
    """What a client that has seen `after` lines is shown."""
    return [line for line in lines(await collect(house, since=0.0)) if line[0] > after]


@virtual
@pytest.mark.parametrize("moment", [0.0, 0.5, 1.5, 3.5, 5.5])
async def test_killed_at_any_step_there_is_no_gap_and_no_repeat(tmp_path: Path, moment: float) -> None:
    house = House(tmp_path)
    await house.up()
    seen: list[tuple[int, str]] = []

    async def watch() -> None:
        async for event in house.builds.follow(image(), repo(), since=0.0):
            seen.extend(lines([event]))

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(moment + 0.01)
    watcher.cancel()
    await asyncio.wait({watcher})
    await house.killed()
    await house.up()
    again = await resumed(house, len(seen))
    assert [number for number, _ in seen + again] == list(range(1, len(seen + again) + 1))
    (build,) = house.store.records.values()
    assert (build.state, build.attempt) == (BuildState.BUILT, 2 if seen else 1)
    if seen:
        assert "The service was restarted; the build begins again.\n" in [message for _, message in seen + again]
    await house.down()


@virtual
async def test_killed_twice_it_counts_as_interrupted(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    asyncio.create_task(collect(house)).add_done_callback(lambda task: task.exception())
    for _ in range(2):
        await asyncio.sleep(2.5)
        await house.killed()
        await house.up()
    with pytest.raises(BuildInterrupted, match="interrupted twice"):
        await collect(house, since=0.0)
    assert len(house.builder.started) == 2
    await house.down()


@virtual
async def test_stopped_in_order_it_goes_on_and_that_was_no_attempt(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    for _ in range(3):
        watcher = asyncio.create_task(collect(house))
        await asyncio.sleep(2.5)
        await house.down()
        watcher.cancel()
        (build,) = house.store.records.values()
        assert (build.state, build.attempt) == (BuildState.QUEUED, 1)
        house.builds = house._builds()
        await house.up()
    await collect(house)
    await house.down()


@virtual
async def test_pushed_but_not_recorded_it_is_built(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.store.records["0" * 16] = record(state=BuildState.PUSHING, started=1.0)
    house.registry.digests[image()] = DIGEST
    await house.builds.resume()
    (build,) = house.store.records.values()
    assert (build.state, build.digest) == (BuildState.BUILT, DIGEST)
    assert [event.phase async for event in house.builds.replay(build.id)] == [Phase.BUILT]


@virtual
async def test_a_registry_that_is_down_at_the_start_means_building_again(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.store.records["0" * 16] = record(state=BuildState.RUNNING, started=1.0)
    house.registry.errors = [RegistryUnavailable("down")]
    await house.up()
    await asyncio.sleep(20)
    assert house.store.records["0" * 16].state is BuildState.BUILT
    await house.down()


@virtual
async def test_died_between_the_record_and_the_last_line(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.store.records["0" * 16] = record(state=BuildState.FAILED, ended=2.0, error="limit", message="Out of memory.")
    assert [(event.number, event.phase, event.message) async for event in house.builds.replay("0" * 16)] == [(1, Phase.FAILED, "Out of memory.\n")]
    with pytest.raises(LimitHit):
        await collect(house, since=1.0)


@virtual
async def test_the_end_is_told_only_when_it_is_recorded(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    watcher = asyncio.create_task(collect(house))
    await asyncio.sleep(4.5)
    house.store.down = True
    await asyncio.sleep(60)
    assert not watcher.done()
    house.store.down = False
    await watcher
    await house.down()


@virtual
async def test_a_thousand_rounds_of_clicks_and_cancels(tmp_path: Path) -> None:
    house = House(tmp_path, build={"concurrency": 2, "log": 1 << 20})
    house.builder.lines = 1
    await house.up()
    chance = random.Random(7)  # noqa: S311 - the same every time

    async def click() -> str:
        await asyncio.sleep(chance.uniform(0, 3))
        try:
            await asyncio.wait_for(collect(house, repo(f"o/r{chance.randrange(2)}")), chance.choice([0.5, 100]))
        except BuildCancelled:
            return "cancelled"
        except TimeoutError:
            return "left"
        return "built"

    async def cancel() -> None:
        await asyncio.sleep(chance.uniform(0, 3))
        for build in [build for build, _ in house.builds.places()]:
            await asyncio.wait_for(house.builds.cancel(build.id, "x"), 100)

    outcomes: set[str] = set()
    for _ in range(1000):
        outcomes.update((await asyncio.gather(click(), click(), cancel()))[:2])
    await asyncio.sleep(100)
    assert outcomes == {"built", "cancelled", "left"}
    assert not house.builds.places()
    assert not house.builder.running
    assert not house.builds._kept
    assert all(build.state.terminal for build in house.store.records.values())
    assert house.builder.most <= 2
    await house.down()


@virtual
async def test_old_builds_are_forgotten_with_their_logs(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    await collect(house)
    assert len(list((tmp_path / "logs/builds").iterdir())) == 1
    assert await house.builds.expire(now()) == 0
    assert await house.builds.expire(now() + 40 * 86400) == 1
    assert not list((tmp_path / "logs/builds").iterdir())
    await house.down()


@virtual
async def test_the_engine_is_waited_for_before_the_first_build(tmp_path: Path) -> None:
    house = House(tmp_path)
    sweep, down = house.builder.sweep, [EngineUnavailable("down"), EngineUnavailable("down")]

    async def stumbling(running: frozenset[str]) -> None:
        if down:
            raise down.pop()
        await sweep(running)

    house.builder.sweep = stumbling  # type: ignore[method-assign]
    began = now()
    await house.up()
    await collect(house)
    assert now() - began > 10
    assert house.builder.swept == [frozenset()]
    await house.down()


@virtual
async def test_cancelled_before_its_first_step(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    watcher = asyncio.create_task(collect(house))
    while not house.builds.running:  # noqa: ASYNC110 - the moment matters
        await asyncio.sleep(0)
    (build_id,) = house.builds.running
    assert not house.builds._live[build_id].begun
    assert (await house.builds.cancel(build_id, "x")).state is BuildState.CANCELLED
    with pytest.raises(BuildCancelled):
        await watcher
    assert not house.builder.started
    await house.down()


@virtual
async def test_who_comes_while_a_build_is_being_stopped_gets_a_new_one(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    watcher = asyncio.create_task(collect(house))
    await asyncio.sleep(2.5)
    house.store.down = True  # so that its end takes a while
    (build_id,) = house.builds.running
    stopping = asyncio.create_task(house.builds.cancel(build_id, "x"))
    await asyncio.sleep(1)
    house.store.down = False
    again = asyncio.create_task(collect(house))
    assert (await stopping).state is BuildState.CANCELLED
    with pytest.raises(BuildCancelled):
        await watcher
    await again
    assert len(house.builder.started) == 2
    await house.down()


@virtual
async def test_stopped_while_an_end_is_being_recorded(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    watcher = asyncio.create_task(collect(house))
    await asyncio.sleep(5.5)
    house.store.down = True
    await asyncio.sleep(1)
    began = now()
    await house.down()
    assert now() - began < 10, "the first pause between two tries is 5 s"
    watcher.cancel()
    house.store.down = False
    house.builds = house._builds()
    await house.up()
    (build,) = house.store.records.values()
    assert build.state is BuildState.BUILT, "the registry has it"
    await house.down()


@virtual
async def test_stopped_while_the_database_is_down(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    watcher = asyncio.create_task(collect(house))
    await asyncio.sleep(2.5)
    house.store.down = True
    began = now()
    await house.down()
    assert now() - began < 10, "the first pause between two tries is 5 s"
    watcher.cancel()
    (build,) = house.store.records.values()
    assert build.state is BuildState.RUNNING


@virtual
async def test_a_full_disk_does_not_keep_a_build_from_ending(tmp_path: Path) -> None:
    house = House(tmp_path, build={"timeout": 60})
    await house.up()
    watcher = asyncio.create_task(collect(house))
    await asyncio.sleep(1.5)
    (live,) = house.builds._live.values()

    def full(*_: object) -> None:
        raise StoreUnavailable("The build's log cannot be written; the disk may be full.")

    live.log._store = full  # type: ignore[method-assign]
    with pytest.raises(BuildTimeout):
        await watcher
    assert house.store.records[live.record.id].state is BuildState.FAILED
    await house.down()


@virtual
async def test_a_record_that_somebody_else_ended(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    watcher = asyncio.create_task(collect(house))
    await asyncio.sleep(2.5)
    (build,) = house.store.records.values()
    house.store.records[build.id] = replace(build, state=BuildState.FAILED, ended=now(), message="Ended by hand.")
    with pytest.raises(BuildFailed, match="Ended by hand"):
        await watcher
    await house.down()


@virtual
async def test_a_record_that_somebody_else_moved(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    watcher = asyncio.create_task(collect(house))
    await asyncio.sleep(2.5)
    (build,) = house.store.records.values()
    house.store.records[build.id] = replace(build, state=BuildState.PUSHING)
    await watcher
    assert house.store.records[build.id].state is BuildState.BUILT
    await house.down()


@virtual
async def test_estimates_outlive_a_restart(tmp_path: Path) -> None:
    house = House(tmp_path, build={"concurrency": 1})
    await house.up()
    await collect(house)
    await house.down()
    house.builds = house._builds()
    await house.up()
    first, second = await asyncio.gather(collect(house, repo("o/one")), collect(house, repo("o/two")))
    assert [event.data["estimate"] for event in first + second if event.phase is Phase.WAITING][-1] == 6.0
    await house.down()


@virtual
async def test_a_start_that_was_broken_off_is_finished_before_the_first_build(tmp_path: Path) -> None:
    house = House(tmp_path)
    for n, state in enumerate((BuildState.RUNNING, BuildState.PUSHING, BuildState.QUEUED)):
        house.store.records[f"{n:016}"] = record(f"{n:016}", state, of=repo(f"o/r{n}"))
    house.registry.digest = lambda _: asyncio.sleep(1000)  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(house.builds.resume(), 7)
    house.task = asyncio.create_task(house.builds.run())
    await asyncio.sleep(60)
    assert {(build.state, build.attempt) for build in house.store.records.values()} == {(BuildState.BUILT, 2), (BuildState.BUILT, 1)}
    assert len(house.builder.started) == 3
    await house.builds.resume()
    await house.down()


@virtual
async def test_a_build_anew_though_its_image_is_there(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    await collect(house)
    made = await house.builds.rebuild(image(), repo(), client="administrator")
    assert (made.fresh, made.state, made.asker) == (True, BuildState.QUEUED, "administrator")
    assert (await house.builds.rebuild(image(), repo(), client="administrator")).id == made.id
    watched = [event async for event in house.builds.replay(made.id)]
    assert watched[-1].phase is Phase.BUILT
    assert house.builder.started.count(made.id) == 1
    await house.down()


@virtual
async def test_killed_in_the_middle_of_a_build_anew_it_is_built_though_the_image_is_there(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.up()
    await collect(house)
    made = await house.builds.rebuild(image(), repo(), client="administrator")
    await asyncio.sleep(2)
    await house.killed()
    await house.up()
    assert [event async for event in house.builds.replay(made.id)][-1].phase is Phase.BUILT
    assert house.builder.started.count(made.id) == 2
    assert (await house.store.build(made.id)).attempt == 2  # type: ignore[union-attr]
    await house.down()


@virtual
async def test_to_the_front_and_there_after_a_kill(tmp_path: Path) -> None:
    house = House(tmp_path, build={"concurrency": 1})
    await house.up()
    watching = [asyncio.create_task(collect(house, repo(f"o/r{n}"), client=f"c{n}")) for n in range(4)]
    await asyncio.sleep(0.5)
    first, second, third, fourth = house.store.records
    await house.builds.prioritise(third)
    await asyncio.sleep(0.1)
    moved = await house.builds.prioritise(fourth)
    assert moved.front
    assert {build.id: place.position for build, place in house.builds.places() if place} == {fourth: 1, third: 2, second: 3}
    assert (await house.builds.prioritise(first)).front is None
    with pytest.raises(NotFound):
        await house.builds.prioritise("f" * 16)
    for watcher in watching:
        watcher.cancel()
    await house.killed()
    await house.up()
    await asyncio.sleep(60)
    assert house.builder.started == [first, fourth, third, first, second]
    await house.down()


@virtual
async def test_a_move_that_cannot_be_recorded_moves_nothing(tmp_path: Path) -> None:
    house = House(tmp_path, build={"concurrency": 1})
    await house.up()
    watching = [asyncio.create_task(collect(house, repo(f"o/r{n}"), client=f"c{n}")) for n in range(3)]
    await asyncio.sleep(0.5)
    *_, last = house.store.records
    house.store.down = True
    with pytest.raises(StoreUnavailable):
        await house.builds.prioritise(last)
    house.store.down = False
    assert {build.id: place.position for build, place in house.builds.places() if place}[last] == 2
    await asyncio.gather(*watching)
    await house.down()


@virtual
async def test_paused_nothing_begins_what_runs_goes_on_and_who_waits_is_told(tmp_path: Path) -> None:
    house = House(tmp_path, build={"concurrency": 1})
    await house.up()
    running = asyncio.create_task(collect(house, repo("o/r0")))
    await asyncio.sleep(0.5)
    house.paused = True
    house.builds.look()
    waiting = asyncio.create_task(collect(house, repo("o/r1")))
    await running
    await asyncio.sleep(100)
    assert len(house.builder.started) == 1
    house.paused = False
    house.builds.look()
    told = [event.message for event in await waiting if event.phase is Phase.WAITING]
    assert told[0] == "Builds are paused by the administrator; yours begins when they go on... (number 1 in the queue)\n"
    assert told[1:] == ["Waiting for build to start... (number 1 in the queue, about 6 s)\n"]
    assert len(house.builder.started) == 2
    await house.down()
