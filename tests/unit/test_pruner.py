from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem import config
from binder_onprem.errors import InUse, NotFound
from binder_onprem.model import Session
from binder_onprem.pruner import Pruned, Pruner, surplus
from tests.unit.parts import House, record
from tests.unit.virtual import now, virtual

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Stored:
    reference: str
    layers: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        return sum(size for _, size in self.layers)


def stored(name: str, own: int = 100) -> Stored:
    """On a base layer that all share."""
    return Stored(f"r/{name}@sha256:{name}", (("base", 1000), (name, own)))


def local(name: str, containers: int = 0, digest: str = "@sha256:") -> SimpleNamespace:
    return SimpleNamespace(id=name, references=[f"r/{name}:tag", f"r/{name}{digest}{name}"], size=1100, shared=1000, containers=containers)


def going(images: list[Stored], used: dict[str, float], budget: int, in_use: set[str] | None = None, keep: float = 10) -> list[tuple[str, int]]:
    by_name = {f"r/{name}@sha256:{name}": when for name, when in used.items()}
    found = surplus(images, by_name, lambda reference: reference[2] in (in_use or set()), budget=budget, keep=keep, now=1000)
    return [(reference[2], freed) for reference, freed in found]


def test_shared_layers_count_once() -> None:
    images = [stored("a"), stored("b"), stored("c")]
    assert going(images, {"a": 1, "b": 2, "c": 3}, 1300) == []
    assert going(images, {"a": 1, "b": 2, "c": 3}, 1299) == [("a", 100)]
    assert going(images, {"a": 1, "b": 2, "c": 3}, 0) == [("a", 100), ("b", 100), ("c", 1100)]


def test_a_layer_twice_in_one_image() -> None:
    assert going([Stored("r/a@sha256:a", (("x", 5), ("x", 5)))], {}, 4) == [("a", 5)]


def test_least_recent_first_never_used_before_all_and_used_ones_never() -> None:
    images = [stored("a"), stored("b"), stored("c"), stored("d")]
    assert going(images, {"a": 3, "b": 2, "c": 1}, 1100) == [("d", 100), ("c", 100), ("b", 100)]
    assert going(images, {"a": 3, "b": 2, "c": 1}, 1100, in_use={"d", "b"}) == [("c", 100), ("a", 100)]
    assert going(images, {"a": 3, "b": 2, "c": 991, "d": 990}, 0) == [("b", 100), ("a", 100), ("d", 100)]


def test_a_full_disk_counts_whatever_the_budget() -> None:
    images, last = [stored("a"), stored("b"), stored("c")], {f"r/{name}@sha256:{name}": 1.0 for name in "abc"}

    def gone(short: int) -> list[str]:
        return [reference[2] for reference, _ in surplus(images, last, lambda _: False, budget=10**9, keep=10, now=1000, short=short)]

    assert [gone(short) for short in (0, 1, 100, 101)] == [[], ["a"], ["a"], ["a", "b"]]


def pruner(house: House, **more: Any) -> Pruner:
    line = house.line
    limits = config.Images(budget=1100, keep=10)
    more.setdefault("leases", line.leases)
    return Pruner(house.registry, house.local, hub=house.hub, builds=house.builds, store=house.store, limits=limits, now=now, **more)


@virtual
async def test_both_places_and_the_collection(tmp_path: Path) -> None:
    house = House(tmp_path)
    collected = []

    async def collect() -> bool:
        collected.append(now())
        return len(collected) > 1

    house.registry.stored = [stored(name) for name in "abcdef"]
    house.local.stored = [local("a"), local("b"), local("g", containers=1), local("h", digest=":")]
    house.hub.users["u"] = Session("u", ready=True, started=1.0, last_activity=1.0, image="r/b@sha256:b")
    house.store.used = {"r/f@sha256:f": now()}
    passes = pruner(house, protected=("r/c", "r/d@sha256:d"), collect=collect)
    would = await passes.prune(dry_run=True)
    assert [(one.place, one.reference[2], one.removed) for one in would] == [
        ("registry", "a", False),
        ("registry", "e", False),
        ("local", "a", False),
    ]
    assert not house.registry.deleted
    assert not collected
    done = await passes.prune()
    assert done[0] == Pruned("registry", "r/a@sha256:a", 100, removed=True)
    assert [(one.place, one.reference[2], one.removed) for one in done] == [("registry", "a", True), ("registry", "e", True), ("local", "a", True)]
    assert len(collected) == 1
    for _ in range(2):  # the first collection had to wait for another time
        assert await passes.prune() == ()
        assert len(collected) == 2


@virtual
async def test_an_image_whose_build_is_open_stays(tmp_path: Path) -> None:
    house = House(tmp_path)
    build = record()
    house.store.records[build.id] = build
    await house.builds.resume()
    house.registry.stored = [Stored(build.image.at("sha256:x"), (("x", 5000),))]
    assert await pruner(house).prune() == ()


@virtual
async def test_a_launch_and_a_prune_of_the_same_image(tmp_path: Path) -> None:
    house = House(tmp_path)
    passes = pruner(house)
    leases = passes._leases
    house.registry.stored = [stored("a", 5000)]
    house.local.stored = []
    last_used = house.store.last_used

    async def late() -> dict[str, float]:
        house.store.used["r/a@sha256:a"] = now()  # a launch comes after the decision
        return {} if not house.registry.errors and not late_calls.append(1) and len(late_calls) == 1 else await last_used()

    late_calls: list[int] = []
    house.store.last_used = late  # type: ignore[method-assign]
    assert [one.removed for one in await passes.prune()] == [False]
    house.store.last_used = last_used  # type: ignore[method-assign]
    await asyncio.sleep(20)

    async with leases.hold("r/a"):
        assert await passes.prune() == ()
    order: list[str] = []
    delete = house.registry.delete

    async def slow(reference: str) -> None:
        order.append("delete")
        await asyncio.sleep(5)
        await delete(reference)
        order.append("deleted")

    async def launch() -> None:
        await asyncio.sleep(1)
        async with leases.hold("r/a"):
            order.append("launch")

    house.registry.delete = slow  # type: ignore[method-assign]
    _, done = await asyncio.gather(launch(), passes.prune())
    assert [one.removed for one in done] == [True]
    assert order == ["delete", "deleted", "launch"]


@virtual
async def test_two_who_remove_and_two_who_hold(tmp_path: Path) -> None:
    leases = House(tmp_path).line.leases
    async with leases.removing("r") as alone, leases.removing("r") as second:
        assert (alone, second) == (True, False)
    async with leases.hold("r"), leases.hold("r"), leases.removing("r") as alone:
        assert not alone
    assert not leases.held


@virtual
async def test_a_pinned_image_stays_whatever_the_budget(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.registry.stored = [stored(name) for name in "abc"]
    house.local.stored = [local(name) for name in "abc"]
    pins = {"r/a@sha256:a", "r/b@sha256:b"}
    gone = await pruner(house, pinned=lambda: frozenset(pins)).prune()
    assert {image.reference for image in gone} == {"r/c@sha256:c"}
    pins.clear()
    assert {image.reference for image in await pruner(house, pinned=lambda: frozenset(pins)).prune()} >= {"r/a@sha256:a"}


@virtual
async def test_deleting_one_is_refused_while_somebody_needs_it(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.registry.stored = [stored(name) for name in "abcd"]
    house.local.stored = [local(name) for name in "abcd"]
    house.hub.users["u"] = Session("u", ready=True, started=1.0, last_activity=1.0, image="r/a@sha256:a")
    for name in "abcd":
        await house.store.touch(f"r/{name}@sha256:{name}", now())
    line = house.line
    one = pruner(house, pinned=lambda: frozenset({"r/b@sha256:b"}), leases=line.leases)
    with pytest.raises(InUse, match="in use by a session"):
        await one.delete("r/a@sha256:a")
    with pytest.raises(InUse, match="pinned"):
        await one.delete("r/b@sha256:b")
    async with line.leases.hold("r/c"):
        with pytest.raises(InUse):
            await one.delete("r/c@sha256:c")
    assert await one.delete("r/c@sha256:c") == 1100
    assert house.registry.deleted == ["r/c@sha256:c"]
    assert not await house.local.exists("r/c@sha256:c")
    for absent in ("r/c@sha256:c", "r/d", ""):
        with pytest.raises(NotFound):
            await one.delete(absent)
