"""What `/metrics` says after things have happened: names and values, and nothing of a repository."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from prometheus_client import REGISTRY, generate_latest

from binder_onprem import config, daemon, metrics
from binder_onprem.errors import BuildFailed, NotFound
from binder_onprem.events import Phase
from binder_onprem.model import BuildState, Session
from binder_onprem.office import Office
from binder_onprem.pruner import Pruner
from binder_onprem.reaper import Reaper
from binder_onprem.store.database import engine_of
from binder_onprem.store.rulings import SqlRulings
from tests.unit.parts import House, image, repo
from tests.unit.virtual import now, virtual
from tests.unit.webstand import Play, stand, usual

if TYPE_CHECKING:
    from pathlib import Path

BUILDS = "binderhub_build_count_total"
SECONDS = "binderhub_build_time_seconds"


def value(name: str, /, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Counted:
    """By how much values grow in a block."""

    def __init__(self, *samples: tuple[str, dict[str, str]]) -> None:
        self._samples = samples
        self._before = self._now()

    def _now(self) -> list[float]:
        return [value(name, **labels) for name, labels in self._samples]

    @property
    def by(self) -> list[float]:
        return [after - before for after, before in zip(self._now(), self._before, strict=True)]


async def follow(house: House, of: Any) -> None:
    async for event in house.builds.follow(image(of), of):
        assert event.phase is not Phase.FAILED


@virtual
async def test_builds(tmp_path: Path) -> None:
    house = House(tmp_path, build={"concurrency": 1})
    await house.up()
    counted = Counted(
        (BUILDS, {"status": "success", "provider": "GitHub"}),
        (f"{SECONDS}_count", {"status": "success"}),
        (f"{SECONDS}_sum", {"status": "success"}),
        (BUILDS, {"status": "cancelled", "provider": "GitHub"}),
        (f"{SECONDS}_count", {"status": "cancelled"}),
    )
    first, second = (asyncio.create_task(follow(house, repo(name))) for name in ("one", "two"))
    await asyncio.sleep(1)
    assert (value("binderhub_inprogress_builds"), value("binder_onprem_builds_queued")) == (1, 1)
    waiting = next(record for record in house.store.records.values() if record.state is BuildState.QUEUED)
    await house.builds.cancel(waiting.id, by="the administrator")
    await asyncio.gather(first, second, return_exceptions=True)
    assert (value("binderhub_inprogress_builds"), value("binder_onprem_builds_queued")) == (0, 0)
    built = next(record for record in house.store.records.values() if record.state is BuildState.BUILT)
    assert counted.by == [1, 1, pytest.approx(built.ended - built.started), 1, 0]  # type: ignore[operator]  # what never ran took no time
    await house.down()


@virtual
async def test_builds_that_fail(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.builder.fails = [BuildFailed("no")]
    await house.up()
    counted = Counted((BUILDS, {"status": "failure", "provider": "GitHub"}), (f"{SECONDS}_count", {"status": "failure"}))
    with pytest.raises(BuildFailed):
        await follow(house, repo())
    assert counted.by == [1, 1]
    await house.down()


@virtual
async def test_sessions_and_why_they_end(tmp_path: Path) -> None:
    hub = House(tmp_path).hub
    for user in ("one", "two"):
        hub.users[user] = Session(user, ready=True, started=now(), last_activity=now(), launch_id=user)
    hub.users["none"] = Session("none", ready=False, started=None, last_activity=None, server=False)
    reaper = Reaper(hub, hub, config.Session(idle=10), wall=now, now=now)
    counted = Counted(("binder_onprem_reaped_total", {"reason": "idle"}))
    await reaper.reap()
    assert value("binder_onprem_sessions") == 2
    await asyncio.sleep(11)
    await reaper.reap(dry_run=True)
    assert counted.by == [0]
    await reaper.reap()
    assert counted.by == [2]


@virtual
async def test_images_that_go(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.registry.stored = [SimpleNamespace(reference="r/a@sha256:1", size=9, layers=(("x", 9),))]
    limits = config.Images.model_validate({"budget": 1, "keep": 5})
    pruner = Pruner(house.registry, None, hub=house.hub, builds=house.builds, store=house.store, leases=house.line.leases, limits=limits, now=now)
    counted = Counted(("binder_onprem_pruned_images_total", {"place": "registry"}))
    await asyncio.sleep(6)
    assert [image.removed for image in await pruner.prune()] == [True]
    assert counted.by == [1]


async def test_launches_over_http_and_no_repository_in_any_label(tmp_path: Path) -> None:
    counted = Counted(
        ("binderhub_launch_count_total", {"status": "success", "provider": "github"}),
        ("binderhub_launch_count_total", {"status": "failure", "provider": "github"}),
        ("binderhub_launch_time_seconds_count", {"status": "success", "retries": "0"}),
    )
    play = Play()
    async with stand(tmp_path, play) as at, aiohttp.ClientSession() as client:
        for script in (usual(), [NotFound("no")]):
            play.script = script
            async with client.get(f"{at.url}build/gh/o/secret-repository/HEAD", headers={"Accept": "text/event-stream"}) as answer:
                await answer.read()
        async with client.get(f"{at.url}metrics") as answer:
            text = await answer.text()
    assert counted.by == [1, 1, 1]
    assert 'binderhub_launch_count_total{provider="github",status="success"}' in text
    assert "secret-repository" not in text
    for name in ("binderhub_build_time_seconds", "binder_onprem_pass_seconds", "binder_onprem_reaped", "binder_onprem_sessions"):
        assert f"# HELP {name}" in text


def test_passes_and_githubs_remaining_requests(tmp_path: Path) -> None:
    counted = Counted(("binder_onprem_pass_seconds_sum", {"name": "reap", "status": "success"}))
    office = Office(config.Config(home=tmp_path), SqlRulings(engine_of("sqlite+aiosqlite://")))
    office.passed("reap", True, 2.5)  # noqa: FBT003 - as periodic calls it
    assert counted.by == [2.5]
    nothing: Any = SimpleNamespace(provider=object())
    known: list[Any] = [SimpleNamespace(provider=SimpleNamespace(rate_remaining=left)) for left in (None, 40, 30)]
    assert daemon._github([*known, nothing]) == 30
    assert math.isnan(daemon._github(known[:1]))


def test_labels_are_of_small_fixed_sets() -> None:
    declared = {name: list(getattr(found, "_labelnames", ())) for name, found in vars(metrics).items() if name.isupper()}
    small = {"status", "provider", "retries", "reason", "place", "name", "route", "builder"}
    assert {label for labels in declared.values() for label in labels} <= small
    assert b"repo=" not in generate_latest()
