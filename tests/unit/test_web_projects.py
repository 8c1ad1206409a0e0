"""Projects as the web shows them: to their owner, and to nobody else; what a link may open without being asked about."""

from __future__ import annotations

import io
import json
import re
import tarfile
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from binder_onprem.engine.sessionarchive import SessionArchive
from binder_onprem.projects import Projects
from binder_onprem.web.ending import Ending
from tests.unit.test_cli_admin import run
from tests.unit.test_projects import MIB, Disk, Engine, Table
from tests.unit.test_store_projects import OTHER, THESIS
from tests.unit.test_web_accounts import AUTH, Hub, People, World, fetch
from tests.unit.webstand import ADMIN, ruled, stand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from binder_onprem.model import Session

COMMIT = "c" * 40
MINE = replace(THESIS, made=True, size=64 * MIB, bytes=61 * MIB, used=1_700_000_000.0)
HIS = replace(OTHER, made=True, size=64 * MIB, name="diary")


class Running(Hub):
    """A hub whose sessions can be set."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[Session] = []
        self.users: dict[str, Any] = {}

    async def sessions(self) -> list[Session]:
        return list(self.running)

    async def stop(self, session: Session) -> None:
        self.running.remove(session)
        self.stopped.append(session)


class Place(World):
    """A site with projects."""

    table: Table
    disk: Disk
    home: Path
    files: Path


class Folders(Disk):
    """Volumes whose files are one directory."""

    def __init__(self, files: Path) -> None:
        super().__init__()
        self.files = files

    async def mount(self, volume: str) -> Path:
        await super().mount(volume)
        return self.files


@asynccontextmanager
async def opened(folder: Path, **limits: Any) -> AsyncIterator[Place]:
    people, hub = People(), Running()
    config = {"auth": AUTH, "projects": {"enabled": True, "quota": "64MiB", **limits}}
    async with ruled(folder, records=hub, config=config, accounts=people) as at:
        place = Place(at, people, hub)
        place.files = folder / "files"
        place.files.mkdir()
        place.table, place.disk = Table(), Folders(place.files)
        seam: Any = hub
        at.site.line.projects = Projects(at.site.config.projects, place.table, place.disk, seam, Engine(seam))  # type: ignore[misc]
        archive = SessionArchive(SimpleNamespace(), folder / "kept", at.site.config.ending, hub.current)  # type: ignore[arg-type, attr-defined]
        object.__setattr__(at.site, "ending", Ending(seam, seam, archive, seam.current))
        for project in (MINE, HIS):
            place.table.rows[project.id] = project
            place.disk.whole[project.id] = "i"
        yield place


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(Hub, "current", None, raising=False)
    async with opened(tmp_path) as found:
        yield found


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer token-of-{name}"}


async def test_the_page_shows_ones_own_and_says_when_it_is_nearly_full(place: Place) -> None:
    async with place.browser("ada") as ada, place.browser("bob") as bob:
        status, text, _ = await fetch(ada, "GET", f"{place.at.url}projects")
        assert (status, "thesis" in text, "diary" in text) == (200, True, False)
        assert "61.0 / 64.0 MiB" in text
        assert "Nearly full" in text
        assert f'href="/v2/gh/o/r/{COMMIT}?project=thesis"' in text
        assert 'href="/v2/gh/o/r/HEAD?project=thesis"' in text
        assert "All its files go, for ever." in text
        status, text, _ = await fetch(bob, "GET", f"{place.at.url}projects", headers={"Accept-Language": "fr"})
        assert (status, "thesis" in text, "diary" in text, "Vos projets" in text) == (200, False, True, True)
        assert "Nearly full" not in text
    async with place.browser() as nobody:
        assert (await fetch(nobody, "GET", f"{place.at.url}projects"))[0] == 302


async def test_forms_need_the_pages_proof_and_act_on_ones_own_only(place: Place) -> None:
    place.hub.running = [replace(place.hub.session, project=MINE.id, owner="ada")]  # type: ignore[attr-defined, type-var]
    url = f"{place.at.url}projects/thesis"
    async with place.browser("ada") as ada, place.browser("bob") as bob:
        assert "a session is open" in (await fetch(ada, "GET", f"{place.at.url}projects"))[1]
        for action in ("stop", "delete"):
            assert (await fetch(ada, "POST", f"{url}/{action}"))[0] == 403
            assert (await fetch(bob, "POST", f"{url}/{action}", data={"_xsrf": place.proof(bob)}))[0] == 404
        assert len(place.table.rows) == 2
        assert (await fetch(ada, "POST", f"{url}/stop", data={"_xsrf": place.proof(ada)}))[0] == 303
        assert [session.project for session in place.hub.stopped] == [MINE.id]
        status, _, headers = await fetch(ada, "POST", f"{url}/delete", data={"_xsrf": place.proof(ada)})
        assert (status, headers["Location"]) == (303, "/projects")
        assert list(place.table.rows) == [HIS.id]
        assert list(place.disk.whole) == [HIS.id]
        audit = (await fetch(ada, "GET", f"{place.at.url}api/audit", headers={"Authorization": f"Bearer {ADMIN}"}))[1]
        assert json.loads(audit)["entries"][0]["action"] == "project.delete"


async def test_programs_list_stop_and_delete_their_persons(place: Place) -> None:
    async with place.browser() as client:
        url = f"{place.at.url}api/user/projects"
        status, text, _ = await fetch(client, "GET", url, headers=bearer("ada"))
        (row,) = json.loads(text)["projects"]
        assert (status, row["name"], row["bytes"], row["size"], row["full"], row["running"]) == (200, "thesis", 61 * MIB, 64 * MIB, True, False)
        for name in ("bob", "program", "nobody"):
            for method, path in (("DELETE", ""), ("POST", "/stop"), ("GET", "/files")):
                assert (await fetch(client, method, f"{url}/thesis{path}", headers=bearer(name)))[0] in (403, 404)
        assert (await fetch(client, "POST", f"{url}/thesis/stop", headers=bearer("ada")))[0] == 204
        assert (await fetch(client, "DELETE", f"{url}/thesis", headers=bearer("ada")))[0] == 204
        assert (await fetch(client, "DELETE", f"{url}/thesis", headers=bearer("ada")))[0] == 404


async def test_the_administrator_sees_and_deletes_everybodys(place: Place) -> None:
    admin = {"Authorization": f"Bearer {ADMIN}"}
    async with place.browser() as client:
        url = f"{place.at.url}api/projects"
        assert (await fetch(client, "GET", url, headers=bearer("ada")))[0] == 403
        assert (await fetch(client, "DELETE", f"{url}/{HIS.id}", headers=bearer("bob")))[0] == 403
        rows = json.loads((await fetch(client, "GET", url, headers=admin))[1])["projects"]
        assert {(row["owner"], row["name"]) for row in rows} == {("ada", "thesis"), ("bob", "diary")}
        assert (await fetch(client, "DELETE", f"{url}/thesis", headers=admin))[0] == 404  # by id alone: names are their owners'
        assert (await fetch(client, "DELETE", f"{url}/{HIS.id}", headers=admin))[0] == 204
        assert list(place.table.rows) == [MINE.id]


async def test_who_is_removed_leaves_no_project(place: Place) -> None:
    admin = {"Authorization": f"Bearer {ADMIN}"}
    async with place.browser() as client:
        assert (await fetch(client, "DELETE", f"{place.at.url}api/users/bob", headers=admin))[0] == 204
        assert len(place.table.rows) == 2
        assert (await fetch(client, "DELETE", f"{place.at.url}api/users/bob?projects=true", headers=admin))[0] == 204
        assert list(place.table.rows) == [MINE.id]


async def test_its_files_are_downloaded(place: Place) -> None:
    (place.files / "notes").mkdir()
    (place.files / "notes" / "a.txt").write_text("work", encoding="utf-8")
    async with place.browser("ada") as ada, ada.get(f"{place.at.url}projects/thesis/files") as answer:
        assert answer.status == 200
        assert 'filename="thesis.tar.gz"' in answer.headers["Content-Disposition"]
        with tarfile.open(fileobj=io.BytesIO(await answer.read())) as archive:
            assert [name for name in archive.getnames() if name.endswith(".txt")] == ["changed-files/notes/a.txt"]


@pytest.mark.parametrize(
    ("spec", "asks"), [("gh/o/r/HEAD", False), (f"gh/o/r/{COMMIT}", False), ("gh/o/r/" + "d" * 40, True), ("gh/o/r/refs%2Fpull%2F1", True)]
)
async def test_a_link_to_what_she_has_not_chosen_is_asked_about(place: Place, spec: str, asks: bool) -> None:  # noqa: FBT001
    """Commits of forks are reached below the name of the repository."""
    url = f"{place.at.url}v2/{spec}?project=thesis&urlpath=lab"
    async with place.browser("ada") as ada, place.browser("bob") as bob:
        text = (await fetch(ada, "GET", url))[1]
        assert ("Open my project with it" in text, "build_token" in text) == (asks, not asks)
        assert "build_token" in (await fetch(bob, "GET", url))[1]  # he has no project of this name yet
        assert "build_token" in (await fetch(ada, "GET", url.replace("thesis", "another")))[1]
        form = {"link": spec, "query": "project=thesis&urlpath=lab"}
        allow = f"{place.at.url}projects/thesis/allow"
        assert (await fetch(ada, "POST", allow, data=form))[0] == 403
        status, _, headers = await fetch(ada, "POST", allow, data=form | {"_xsrf": place.proof(ada)})
        assert (status, headers["Location"].startswith(f"/v2/{spec}?project=thesis&urlpath=lab&allowed=")) == (302, True)
        assert "build_token" in (await fetch(ada, "GET", place.at.url.rstrip("/") + headers["Location"]))[1]
        stolen = headers["Location"].replace(spec, "gh/o/r/" + "e" * 40)
        assert "Open my project with it" in (await fetch(ada, "GET", place.at.url.rstrip("/") + stolen))[1]
        assert (await fetch(ada, "POST", allow, data={"link": "x\r\ny", "_xsrf": place.proof(ada)}))[0] == 400


async def test_the_form_offers_a_project_to_who_may_have_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hub, "current", None, raising=False)
    async with opened(tmp_path, users=["ada"]) as place, place.browser("ada") as ada, place.browser("bob") as bob:
        text = (await fetch(ada, "GET", f"{place.at.url}?project=thesis"))[1]
        assert re.search(r'<input id="project"[^>]* value="thesis"', text)
        assert 'id="project"' not in (await fetch(bob, "GET", place.at.url))[1]
        assert (await fetch(bob, "GET", f"{place.at.url}v2/gh/o/r/HEAD?project=x"))[0] == 403
        location = (await fetch(ada, "GET", f"{place.at.url}launch?provider=gh&repo=o%2Fr&project=thesis"))[2]["Location"]
        assert location.endswith("?project=thesis")


async def test_where_there_are_none_that_is_said(tmp_path: Path) -> None:
    async with stand(tmp_path) as at, aiohttp.ClientSession() as client:
        for method, path in (("GET", "projects"), ("GET", "api/user/projects"), ("DELETE", "api/user/projects/x"), ("POST", "projects/x/stop")):
            assert (await fetch(client, method, at.url + path))[0] == 404
        assert (await fetch(client, "GET", f"{at.url}v2/gh/o/r/HEAD?project=x"))[0] == 400
        assert (await fetch(client, "GET", f"{at.url}v2/gh/o/r/HEAD?project=../x"))[0] == 400


async def test_the_command_line_lists_and_deletes(place: Place) -> None:
    assert "thesis" in (await run(place.at, "projects", "list")).output
    rows = json.loads((await run(place.at, "projects", "list", "--json")).stdout)
    assert {row["id"] for row in rows} == {MINE.id, HIS.id}
    assert "would be deleted" in (await run(place.at, "projects", "delete", "bob/diary", "--dry-run")).output
    assert (await run(place.at, "projects", "delete", "bob/diary")).exit_code == 1  # nobody said yes
    assert (await run(place.at, "projects", "delete", "bob/thesis", "--yes")).exit_code == 5
    assert len(place.table.rows) == 2
    assert json.loads((await run(place.at, "projects", "delete", "bob/diary", "--yes", "--json")).stdout)["deleted"]
    assert list(place.table.rows) == [MINE.id]
