"""Every way to a session's end: what is kept, what is told, and that the one does not keep the other from happening."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from binder_onprem import config
from binder_onprem.ends import Ends, Reason
from binder_onprem.errors import HubUnavailable
from binder_onprem.journal import validators
from binder_onprem.model import Session
from binder_onprem.quota import Quota
from binder_onprem.reaper import Reaper
from binder_onprem.reconcile import Reconcile
from tests.unit.parts import Images, Jupyter, Works
from tests.unit.test_quota import LIMIT, Disk
from tests.unit.test_reconcile import Engine, Proxy, box
from tests.unit.virtual import now, virtual


class Desk:
    """Notes what happens, in order; sessions' files can be kept while the hub still knows them."""

    def __init__(self, hub: Jupyter) -> None:
        self.hub, self.notes = hub, list[tuple[str, ...]]()
        self.engine: Engine | None = None
        self.ends = Ends(hub, keep=self.keep, remove=self.remove, told=self.told)

    async def keep(self, session: Session) -> None:
        assert session.name in self.hub.users
        assert self.engine is None or self.engine.boxes, "there is nothing to keep any more"
        self.notes.append(("keep", session.name))

    async def remove(self, name: str) -> None:
        self.notes.append(("remove", name))

    async def told(self, session: Session, reason: str) -> None:
        assert session.name not in self.hub.users
        self.notes.append(("told", session.name, reason))


def session(name: str, **fields: Any) -> Session:
    return Session(**({"name": name, "ready": True, "started": now(), "last_activity": now(), "launch_id": name} | fields))


@virtual
@pytest.mark.parametrize("reason", list(Reason))
async def test_all_but_its_persons_own_wish_keep_the_files(reason: Reason) -> None:
    hub = Jupyter()
    desk = Desk(hub)
    hub.users["u"] = session("u")
    await desk.ends.end(hub.users["u"], reason)
    kept = [] if reason in (Reason.OWN, Reason.START) else [("keep", "u")]
    assert desk.notes == [*kept, ("told", "u", reason.value)]
    assert next(validators()["binder-onprem/cull"][1].iter_errors({"session": "u", "reason": reason.value}), None) is None


@virtual
async def test_what_could_not_be_stopped_has_not_ended() -> None:
    hub = Jupyter()
    desk = Desk(hub)
    hub.users["u"], hub.stop_error = session("u"), HubUnavailable("The hub does not answer.")
    with pytest.raises(HubUnavailable):
        await desk.ends.end(hub.users["u"], Reason.DISK)
    assert desk.notes == [("keep", "u")]


@virtual
async def test_what_never_answers_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Jupyter()
    desk = Desk(hub)
    hub.users["u"] = session("u")

    async def for_ever(_session: Session) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(hub, "stop", for_ever)
    with pytest.raises(HubUnavailable, match="does not stop"):
        await desk.ends.end(hub.users["u"], Reason.ADMINISTRATOR)
    assert desk.notes == [("keep", "u")]


@virtual
async def test_one_whose_files_take_a_minute_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, engine, builder = Jupyter(), Engine(), Works(Images())
    desk = Desk(hub)
    stop = hub.stop

    async def keep(_session: Session) -> None:
        await asyncio.sleep(60)

    async def slow(one: Session) -> None:
        await asyncio.sleep(20)
        await stop(one)

    monkeypatch.setattr(hub, "stop", slow)
    ends = Ends(hub, keep=keep, remove=desk.remove, told=desk.told)
    limits = config.Session(start_timeout=0.001)
    passes = Reconcile(hub, engine, Proxy(), builder=builder, running=frozenset, limits=limits, ends=ends, now=now)
    hub.users["u"] = session("u", ready=False, server=False)
    await passes.reconcile()
    await asyncio.sleep(1)
    (removal,) = await passes.reconcile()
    assert removal.removed
    assert desk.notes == [("remove", "binder-u"), ("told", "u", "without server")]


@virtual
async def test_one_that_crashed_is_kept_by_the_next_pass_and_then_its_container_goes() -> None:
    hub = Jupyter()
    desk = Desk(hub)
    reaper = Reaper(hub, hub, config.Session(), ends=desk.ends, wall=now, now=now)
    hub.users["u"] = session("u")
    await reaper.reap()
    hub.users["u"] = replace(hub.users["u"], ready=False, server=False)
    await reaper.reap()
    assert desk.notes == [("keep", "u"), ("remove", "binder-u"), ("told", "u", "ended by itself")]


@virtual
async def test_one_that_wrote_too_much_is_kept_and_told() -> None:
    hub = Jupyter()
    disk, desk = Disk(hub, much=LIMIT + 1), Desk(hub)
    (over,) = await Quota(disk, disk, hub, LIMIT, ends=desk.ends, now=now).look()
    assert over.stopped
    assert desk.notes == [("keep", "much"), ("told", "much", "disk")]


@virtual
async def test_one_that_ended_while_nobody_looked_is_kept_and_told_by_reconcile() -> None:
    hub, engine, builder = Jupyter(), Engine(), Works(Images())
    desk = Desk(hub)
    desk.engine = engine
    limits = config.Session(start_timeout=0.001)
    passes = Reconcile(hub, engine, Proxy(), builder=builder, running=frozenset, limits=limits, ends=desk.ends, now=now)
    hub.users["u"], engine.boxes = session("u", ready=False, server=False), [box("u")]
    await passes.reconcile()
    assert not desk.notes
    await asyncio.sleep(1)
    await passes.reconcile()
    assert desk.notes == [("keep", "u"), ("remove", "binder-u"), ("told", "u", "without server")]
    assert not engine.boxes
