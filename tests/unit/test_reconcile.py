from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem import config
from binder_onprem.errors import EngineUnavailable
from binder_onprem.model import Session
from binder_onprem.reconcile import Kind, Leftover, Reconcile, Removal, leftovers, ripe
from tests.unit.parts import Images, Jupyter, Works
from tests.unit.virtual import now, virtual

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Box:
    name: str
    labels: dict[str, str] = field(default_factory=dict)
    created: float = 0.0


def box(launch: str) -> Box:
    return Box(f"binder-{launch}", {"io.binder-onprem.launch": launch})


def session(user: str, *, server: bool = True) -> Session:
    return Session(user, ready=server, started=1.0, last_activity=1.0, launch_id=user, server=server)


class Engine:
    def __init__(self) -> None:
        self.boxes: list[Box] = []
        self.error: BaseException | None = None

    async def labelled(self, labels: Mapping[str, str]) -> list[Box]:
        assert labels == {"io.binder-onprem.kind": "session"}
        return list(self.boxes)

    async def remove(self, name: str) -> None:
        if self.error:
            raise self.error
        self.boxes = [one for one in self.boxes if one.name != name]


class Proxy:
    def __init__(self) -> None:
        self.table: dict[str, str] = {}

    async def routes(self) -> dict[str, str]:
        return dict(self.table)

    async def drop(self, path: str) -> None:
        self.table.pop(path, None)


def house(**more: Any) -> tuple[Jupyter, Engine, Proxy, Works, Reconcile]:
    hub, engine, proxy, builder = Jupyter(), Engine(), Proxy(), Works(Images())
    routes = more.get("routes", proxy)
    limits = config.Session(start_timeout=60)
    return hub, engine, proxy, builder, Reconcile(hub, engine, routes, builder=builder, running=lambda: frozenset({"b"}), limits=limits, now=now)


def test_leftovers() -> None:
    found = leftovers([session("a"), session("b", server=False)], [box("a"), box("b"), box("c"), Box("x")], {"/a/": "a", "/b/": "b", "/d/": "d"})
    assert found == {
        Leftover(Kind.SESSION, "b", "b"),
        Leftover(Kind.CONTAINER, "binder-b", "b"),
        Leftover(Kind.CONTAINER, "binder-c", "c"),
        Leftover(Kind.CONTAINER, "x"),
        Leftover(Kind.ROUTE, "/b/"),
        Leftover(Kind.ROUTE, "/d/"),
    }


def test_ripe_needs_two_sightings_in_a_row_and_time() -> None:
    one = Leftover(Kind.SESSION, "a")
    since, old = ripe({}, frozenset({one}), 1000, 90)
    assert (since, old) == ({one: 1000}, ())
    assert ripe(since, frozenset({one}), 1089, 90)[1] == ()
    assert ripe(since, frozenset({one}), 1090, 90)[1] == (one,)
    assert ripe({}, frozenset({one}), 5000, 0)[1] == ()
    assert ripe(since, frozenset(), 2000, 90) == ({}, ())


@virtual
async def test_leftovers_go_and_the_rest_stays() -> None:
    hub, engine, proxy, builder, reconcile = house()
    hub.users = {"a": session("a"), "b": session("b", server=False)}
    engine.boxes = [box("a"), box("c")]
    proxy.table = {"/a/": "a", "/d/": "d"}
    assert await reconcile.reconcile() == ()
    await asyncio.sleep(90)
    would = await reconcile.reconcile(dry_run=True)
    assert {removal.leftover.name for removal in would} == {"b", "binder-c", "/d/"}
    assert not any(removal.removed for removal in would)
    done = await reconcile.reconcile()
    assert all(removal.removed for removal in done)
    assert (set(hub.users), engine.boxes, proxy.table) == ({"a"}, [box("a")], {"/a/": "a"})
    assert await reconcile.reconcile() == ()
    assert builder.swept == [frozenset({"b"})] * 3


@virtual
async def test_what_is_just_starting_is_not_touched() -> None:
    hub, engine, _, _, reconcile = house()
    for _ in range(20):
        hub.users = {"a": session("a", server=False)}
        engine.boxes = [box("a")]
        await reconcile.reconcile()
        await asyncio.sleep(60)
        hub.users = {"a": session("a")}
        await reconcile.reconcile()
        await asyncio.sleep(60)
    assert not hub.stopped
    assert engine.boxes


@virtual
async def test_what_a_launch_holds_is_not_touched() -> None:
    hub, _, _, _, reconcile = house()
    hub.users = {"a": session("a", server=False)}
    await reconcile.reconcile()
    await asyncio.sleep(90)
    assert await reconcile.reconcile(held=lambda: frozenset({"a"})) == (Removal(Leftover(Kind.SESSION, "a", "a"), removed=False),)
    assert await reconcile.reconcile() == (Removal(Leftover(Kind.SESSION, "a", "a"), removed=True),)


@virtual
async def test_one_failure_keeps_nothing_else_from_going() -> None:
    hub, engine, _, _, reconcile = house(routes=None)
    hub.users = {"b": session("b", server=False)}
    engine.boxes = [box("c")]
    engine.error = EngineUnavailable("down")
    await reconcile.reconcile()
    await asyncio.sleep(90)
    assert [removal.removed for removal in await reconcile.reconcile()] == [True, False]
    engine.error = None
    assert [removal.removed for removal in await reconcile.reconcile()] == [True]
    with pytest.raises(ValueError, match="no routes"):
        await reconcile._remove(Leftover(Kind.ROUTE, "/x/"), {})
