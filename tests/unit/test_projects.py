"""People's projects: who gets which, one session at a time, and nothing lost or left wherever it is killed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.choice import Choice
from binder_onprem.config import Projects as Limits
from binder_onprem.errors import BinderError, Busy, HostUnfit, HubUnavailable, InUse, InvalidSpec, LimitHit, NotFound, QuotaExceeded, Refused
from binder_onprem.events import Progress, Ready
from binder_onprem.launch import launch
from binder_onprem.model import Client, LaunchRequest
from binder_onprem.project import SLOTS, Project, admit, admit_new, first_id, free_slot, home_of, on_disk
from binder_onprem.projects import LABEL, Projects, named
from binder_onprem.terms import Home
from tests.unit.parts import House, Jupyter, request
from tests.unit.test_store_projects import OTHER, THESIS
from tests.unit.virtual import now, virtual

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AUTH = {"kind": "native"}
SETTINGS = {"auth": AUTH, "projects": {"enabled": True, "quota": "64MiB", "most": 2, "total": "256MiB"}}
MIB = 1024**2


class Table:
    """What is kept."""

    def __init__(self) -> None:
        self.rows: dict[str, Project] = {}

    async def projects(self, owner: str | None = None) -> Sequence[Project]:
        await asyncio.sleep(0)
        return [row for row in self.rows.values() if owner in (None, row.owner)]

    async def add(self, project: Project) -> None:
        await asyncio.sleep(0)
        assert not [row for row in self.rows.values() if (row.owner, row.name) == (project.owner, project.name) or row.slot == project.slot]
        self.rows[project.id] = project

    async def change(self, project_id: str, values: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        if project_id in self.rows:
            self.rows[project_id] = replace(self.rows[project_id], **values)

    async def drop(self, project_id: str) -> None:
        await asyncio.sleep(0)
        self.rows.pop(project_id, None)


class Disk:
    """Volumes; `fails` is raised by the next one that is made."""

    def __init__(self) -> None:
        self.whole: dict[str, str] = {}
        self.up: set[str] = set()
        self.fails: BinderError | None = None
        self.busy = False
        self.left = 2**30
        self.seconds = 1.0

    async def home(self, image: str) -> str:
        assert "@sha256:" in image
        return "/home/jovyan"

    def there(self, volume: str) -> bool:
        return volume in self.whole

    async def make(self, volume: str, slot: int, size: int, image: str) -> None:
        assert (slot >= 0, size) == (True, 64 * MIB)
        assert volume not in self.whole, "somebody's files"
        await asyncio.sleep(self.seconds)
        if self.fails:
            raise self.fails
        self.whole[volume] = image

    async def mount(self, volume: str) -> Path:
        await asyncio.sleep(0)
        if volume not in self.whole:
            raise NotFound("gone from the disk")
        self.up.add(volume)
        return Path("/projects") / volume

    async def unmount(self, volume: str) -> bool:
        await asyncio.sleep(0)
        self.up.discard(volume)
        return True

    async def mounted(self) -> frozenset[str]:
        return frozenset(self.up)

    async def used(self, volume: str) -> int | None:
        return 7 if volume in self.up else None

    async def free(self, volume: str) -> int:
        assert volume in self.up
        return self.left

    async def remove(self, volume: str) -> bool:
        await asyncio.sleep(0)
        if self.busy:
            return False
        self.up.discard(volume)
        self.whole.pop(volume, None)
        return True

    async def sweep(self) -> None:
        await asyncio.sleep(0)


class Engine:
    """Containers by name, with their labels."""

    def __init__(self, hub: Jupyter) -> None:
        self.hub = hub
        self.stray: dict[str, dict[str, str]] = {}

    async def labelled(self, labels: Mapping[str, str]) -> list[Any]:
        await asyncio.sleep(0)
        there = {name: {LABEL: session.project, "io.binder-onprem.kind": "session"} for name, session in self.hub.users.items()} | self.stray
        return [SimpleNamespace(name=name, labels=own) for name, own in there.items() if labels.items() <= own.items()]

    async def remove(self, name: str) -> None:
        await asyncio.sleep(0)
        self.stray.pop(name, None)


class Site:
    """A house with projects."""

    def __init__(self, home: Path) -> None:
        self.house = House(home, **SETTINGS)
        self.table, self.disk, self.engine = Table(), Disk(), Engine(self.house.hub)
        self.begin()

    def begin(self) -> None:
        """Start anew over what there is."""
        hub: Any = self.house.hub
        self.projects = Projects(self.house.config.projects, self.table, self.disk, hub, self.engine, now=now, patience=60)
        self.house.projects = self.projects

    async def launch(self, of: LaunchRequest) -> list[Any]:
        return [event async for event in launch(of, self.house.line)]

    async def ready(self, of: LaunchRequest) -> Ready:
        return (await self.launch(of))[-1]  # type: ignore[no-any-return]

    @property
    def one(self) -> Project:
        (found,) = self.table.rows.values()
        return found


def asked(name: str = "thesis", who: str = "ada", key: str = "k" * 32, path: str = "owner/repo/HEAD") -> LaunchRequest:
    return replace(request(path, key), client=Client("192.0.2.1", who), choice=Choice(project=name))


@virtual
async def test_a_project_is_made_once_and_is_the_home_ever_after(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.house.up()
    events = await site.launch(asked())
    said = [event.message for event in events if isinstance(event, Progress)]
    assert "Making your project thesis with the files of the repository...\n" in said
    project = site.one
    assert (project.owner, project.name, project.made, project.size, project.newest) == ("ada", "thesis", True, 64 * MIB, "gh/owner/repo/HEAD")
    assert (project.commit, project.persistent, project.image) == ("a" * 40, "gh/owner/repo/" + "a" * 40, events[-1].image)
    (name, terms) = next(iter(site.house.hub.terms.items()))
    assert terms.project == Home(project.id, 0, "/home/jovyan")
    assert site.disk.up == {project.id}
    await site.house.hub.stop(site.house.hub.users[name])
    await site.projects.look()
    assert site.disk.up == set()
    assert site.one.bytes == 7
    site.house.git.commits["owner/repo"] = "b" * 40
    events = await site.launch(asked(key="2" * 32))
    assert any("new in commit bbbbbbbbbb is not put into them" in event.message for event in events if isinstance(event, Progress))
    assert (site.one.id, site.one.commit, site.one.newest) == (project.id, "b" * 40, "gh/owner/repo/HEAD")
    assert len(site.disk.whole) == 1
    await site.house.down()


@virtual
async def test_a_second_click_goes_to_the_session_that_runs_whenever_it_comes(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.house.up()

    async def later(seconds: float, key: str) -> Ready:
        await asyncio.sleep(seconds)
        return await site.ready(asked(key=key))

    found = await asyncio.gather(*(later(seconds, str(number) * 32) for number, seconds in enumerate((0.0, 0.0, 3.0, 7.0, 8.5, 30.0), start=1)))
    assert len({ready.server.name for ready in found}) == 1
    assert {ready.server.url for ready in found} == {f"http://binder.test/jupyter/user/{found[0].server.name}/"}
    assert len(site.house.hub.users) == 1
    other = await site.ready(asked(who="bob", key="9" * 32))
    assert other.server.name != found[0].server.name
    assert len(site.disk.whole) == 2
    await site.house.down()


@virtual
@pytest.mark.parametrize("moment", [0.5, 6.5, 7.2, 7.9, 8.5, 8.99])
async def test_killed_at_any_moment_the_next_launch_gets_the_same_project(tmp_path: Path, moment: float) -> None:
    site = Site(tmp_path)
    await site.house.up()

    async def watch() -> None:
        async with aclosing(launch(asked(), site.house.line)) as events:
            async for _ in events:
                pass

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(moment)
    watcher.cancel()
    await asyncio.wait({watcher})
    before = set(site.disk.whole)
    await site.house.killed()
    site.begin()
    await site.house.up()
    await site.projects.look()
    for session in list(site.house.hub.users.values()):
        await site.house.hub.stop(session)
    await site.ready(asked())
    assert site.one.made
    assert before <= {site.one.id} == set(site.disk.whole)
    await site.house.down()


@virtual
async def test_another_repositorys_sessions_never_get_the_files(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.house.up()
    await site.ready(asked())
    with pytest.raises(Refused, match=r"belongs to https://git\.test/owner/repo"):
        await site.launch(asked(path="evil/repo/HEAD", key="2" * 32))
    assert len(site.house.builder.started) == 1  # refused before anything is spent
    await site.house.down()


@virtual
async def test_what_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.house.up()
    site.disk.fails = LimitHit("do not fit")
    with pytest.raises(LimitHit):
        await site.launch(asked())
    assert not site.table.rows
    site.disk.fails = None
    for number, name in enumerate(("one", "two"), start=1):
        await site.ready(asked(name, key=str(number) * 32))
        for session in list(site.house.hub.users.values()):
            await site.house.hub.stop(session)
    with pytest.raises(QuotaExceeded, match="You have 2 projects"):
        await site.launch(asked("three", key="3" * 32))
    await site.house.down()


@virtual
async def test_a_volume_that_is_lost_is_never_replaced_by_an_empty_one(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.table.rows[THESIS.id] = replace(THESIS, made=True, size=64 * MIB, repo_url="https://git.test/owner/repo")
    await site.house.up()
    with pytest.raises(NotFound, match="gone from the disk"):
        await site.launch(asked())
    assert not site.disk.whole
    assert site.table.rows
    await site.house.down()


@virtual
async def test_a_container_that_nobody_knows_any_more_goes_before_the_next_session(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.house.up()
    await site.ready(asked())
    site.engine.stray["binder-left"] = {LABEL: site.one.id, "io.binder-onprem.kind": "session"}
    for session in list(site.house.hub.users.values()):
        await site.house.hub.stop(session)
    await site.projects.look()
    assert site.disk.up == {site.one.id}  # it still has it
    await site.ready(asked(key="2" * 32))
    assert not site.engine.stray
    await site.house.down()


@virtual
async def test_a_session_that_never_starts_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.house.up()
    await site.ready(asked())
    ((name, session),) = site.house.hub.users.items()
    site.house.hub.users[name] = replace(session, ready=False)
    with pytest.raises(Busy, match="neither starts nor ends"):
        await site.launch(asked(key="2" * 32))
    await site.house.down()


@virtual
async def test_deleting_ends_the_session_and_is_finished_by_the_pass(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.house.up()
    await site.ready(asked())
    site.disk.busy = True
    with pytest.raises(InUse, match="as soon as that ends"):
        await site.projects.delete(site.one)
    assert not site.house.hub.users
    with pytest.raises(Refused, match="is being deleted"):
        await site.launch(asked(key="2" * 32))
    site.disk.busy = False
    site.begin()
    await site.projects.look()
    assert (site.table.rows, site.disk.whole) == ({}, {})
    await site.ready(asked(key="3" * 32))
    await site.house.down()


@virtual
async def test_what_is_being_opened_is_not_deleted_and_what_is_read_stays_mounted(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.house.up()
    opening = asyncio.create_task(site.ready(asked()))
    await asyncio.sleep(7.5)
    with pytest.raises(InUse, match="being opened"):
        await site.projects.delete(site.one)
    await opening
    async with site.projects.reading(site.one):
        for session in list(site.house.hub.users.values()):
            await site.house.hub.stop(session)
        await site.projects.look()
        assert site.disk.up == {site.one.id}
        with pytest.raises(InUse):
            await site.projects.delete(site.one)
    await site.projects.look()
    assert not site.table.rows
    await site.house.down()


@virtual
async def test_who_begins_to_read_while_the_pass_looks_is_not_disturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)
    await site.house.up()
    await site.ready(asked())
    for session in list(site.house.hub.users.values()):
        await site.house.hub.stop(session)
    taken, looking = site.projects._taken, asyncio.Event()

    async def slow(project: Project) -> bool:
        looking.set()
        await asyncio.sleep(1)
        return await taken(project)

    monkeypatch.setattr(site.projects, "_taken", slow)
    look = asyncio.create_task(site.projects.look())
    await looking.wait()
    async with site.projects.reading(site.one):
        await look
        assert site.disk.up == {site.one.id}
    await site.house.down()


@virtual
async def test_one_that_cannot_be_deleted_keeps_no_other_from_it(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.house.up()
    for number, name in enumerate(("one", "two"), start=1):
        await site.ready(asked(name, key=str(number) * 32))
    stuck = next(project for project in site.table.rows.values() if project.name == "one")

    async def stop(session: Any) -> None:
        if session.project == stuck.id:
            raise HubUnavailable("The session does not stop; the next pass tries again.")
        await site.house.hub.stop(session)

    site.projects._stop = stop
    with pytest.raises(HubUnavailable):
        await site.projects.delete_all("ada")
    assert site.table.rows == {stuck.id: replace(stuck, leaving=True)}
    bob = await site.ready(asked(who="bob", key="9" * 32))
    await site.house.hub.stop(site.house.hub.users[bob.server.name])
    await site.projects.look()
    assert site.disk.up == {stuck.id}
    site.projects._stop = site.house.hub.stop
    await site.projects.look()
    assert {project.owner for project in site.table.rows.values()} == {"bob"}
    await site.house.down()


@virtual
async def test_what_is_whole_on_the_disk_is_never_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk may fail just after the volume got its name."""
    site = Site(tmp_path)
    await site.house.up()

    async def make(volume: str, _slot: int, _size: int, image: str) -> None:
        site.disk.whole[volume] = image
        raise HostUnfit("could not be written")

    monkeypatch.setattr(site.disk, "make", make)
    with pytest.raises(HostUnfit):
        await site.launch(asked())
    assert set(site.disk.whole) == {site.one.id}
    await site.ready(asked(key="2" * 32))
    assert site.one.made
    await site.house.down()


@virtual
async def test_one_whose_first_launch_was_not_finished_is_not_called_lost(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.table.rows[THESIS.id] = replace(THESIS, made=False)
    with pytest.raises(NotFound, match="first launch was not finished"):
        async with site.projects.reading(site.one):
            pass
    site.table.rows[THESIS.id] = replace(THESIS, made=True)
    with pytest.raises(NotFound, match="gone from the disk"):
        async with site.projects.reading(site.one):
            pass


@virtual
async def test_a_full_one_starts_all_the_same_and_says_so(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.house.up()
    site.disk.left = 2**20
    events = await site.launch(asked())
    assert "Your project thesis is full: remove files, or nothing more is saved in it.\n" in [getattr(event, "message", "") for event in events]
    (terms,) = site.house.hub.terms.values()
    assert terms.project
    assert terms.project.full
    await site.house.down()


@virtual
async def test_the_list_shows_what_runs_and_how_much_is_used(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.house.up()
    ready = await site.ready(asked())
    ((project, session),) = await site.projects.listed("ada")
    assert (project.bytes, session and session.name) == (7, ready.server.name)
    assert await site.projects.listed("bob") == []
    assert named(await site.projects.listed(), "thesis") == named(await site.projects.listed(), project.id)
    with pytest.raises(NotFound):
        named(await site.projects.listed("bob"), "thesis")
    await site.house.down()


def test_ids_never_overlap() -> None:
    assert [first_id(slot) for slot in (0, 1, SLOTS - 1)] == [0x60000000, 0x60010000, 0x6FFF0000]
    assert free_slot({0, 1, 3}) == 2
    with pytest.raises(QuotaExceeded):
        free_slot(range(SLOTS))


@pytest.mark.parametrize(("home", "found"), [("/home/jovyan", "/home/jovyan"), ("/srv//x/", "/srv/x"), ("/work", "/work")])
def test_the_home_is_where_sessions_begin(home: str, found: str) -> None:
    assert home_of({"WorkingDir": home}) == found


@pytest.mark.parametrize("home", [None, "", "/", "//", "x", "/a/../etc", "/proc", "/sys/x", "/dev/x", "/a\nb", "/" + "x" * 1001])
def test_an_image_without_a_home_says_what_to_do(home: str | None) -> None:
    with pytest.raises(InvalidSpec, match="WORKDIR"):
        home_of({"WorkingDir": home})


def test_who_is_admitted() -> None:
    admit(None, "https://h/x")
    admit(THESIS, THESIS.repo_url)
    admit_new("ada", 5, [THESIS, OTHER], most=2, total=2**42)
    assert on_disk(2**30) == 2**30 + 2**26 + 16 * 2**20
    with pytest.raises(QuotaExceeded, match="may have 1"):
        admit_new("ada", 5, [THESIS, OTHER], most=1, total=2**42)
    with pytest.raises(QuotaExceeded, match="no room"):
        admit_new("ada", 5, [THESIS, OTHER], most=2, total=2**41)
    assert Limits().enabled is False
