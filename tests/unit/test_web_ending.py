"""What the holder of a session's token is told of its end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from binder_onprem import config
from binder_onprem.drains import Drains
from binder_onprem.model import Session
from binder_onprem.reaper import Reaper
from binder_onprem.web.ending import Ending
from tests.unit.webstand import stand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAME = "o-r-0123456789abcdef"
TOKEN = "t" * 43
OWN = {"Authorization": f"token {TOKEN}"}


class House:
    """A hub with one session, a clock set by hand, and files."""

    def __init__(self) -> None:
        self.session: Session | None = Session(NAME, ready=True, started=1000.0, last_activity=1000.0, launch_id=NAME[-16:])
        self.now, self.is_busy, self.listed = 0.0, False, 0
        self.path: Path | None = None
        self.data, self.breaks = b"archive", False
        limits = config.Session(idle=900, age=3600)
        self.reaper = Reaper(self, self, limits, wall=lambda: 1000.0 + self.now, now=lambda: self.now)  # type: ignore[arg-type]
        self.until: float | None = None
        machines = Drains(self, wall=lambda: 1000.0 + self.now, now=lambda: self.now)
        self.ending = Ending(self.reaper, self, self, self.current, machines)  # type: ignore[arg-type]

    async def drains(self) -> dict[str, float | None]:
        return {NAME[-16:]: self.until}

    async def sessions(self) -> list[Session]:
        self.listed += 1
        return [self.session] if self.session else []

    async def current(self, session: Session) -> tuple[Session, str] | None:
        return (self.session, TOKEN) if self.session and self.session.name == session.name else None

    async def busy(self, session: Session) -> bool:
        assert session == self.session
        return self.is_busy

    @asynccontextmanager
    async def changed(self, container: str) -> AsyncIterator[asyncio.StreamReader]:
        assert container == f"binder-{NAME[-16:]}"
        reader = asyncio.StreamReader()
        reader.feed_data(self.data)
        reader.feed_eof()
        yield reader
        if self.breaks:
            raise TimeoutError

    def kept(self, session: str, token: str) -> tuple[Path, float] | None:
        return (self.path, 5000.0) if self.path and (session, token) == (NAME, TOKEN) else None


async def ask(url: str, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as client, client.request(method, url, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_when_and_why_and_keeping_it(tmp_path: Path) -> None:
    house = House()
    async with stand(tmp_path, ending=house.ending) as at:
        url = f"{at.url}api/session/{NAME}"
        status, said = await ask(url, headers=OWN)
        assert (status, said["ended"], said["reason"], said["seconds"], said["warn"]) == (200, False, "idle", 900, 300)
        house.now = 700.0
        assert (await ask(f"{url}?token={TOKEN}"))[1]["seconds"] == 200
        house.is_busy = True
        assert (await ask(url, headers=OWN))[1]["seconds"] == 900
        house.is_busy, house.now = False, 1500.0
        assert (await ask(url, headers=OWN))[1]["seconds"] == 100
        assert (await ask(f"{url}/keep", "POST", OWN))[1]["seconds"] == 900
        assert house.session
        house.session, house.now = replace(house.session, last_activity=4400.0), 3500.0
        assert (await ask(url, headers=OWN))[1] | {"kept": None} == said | {"reason": "age", "seconds": 100}
        await ask(f"{url}/keep", "POST", OWN)
        assert (await ask(url, headers=OWN))[1]["reason"] == "age"
        house.session = replace(house.session, ready=False)
        assert (await ask(url, headers=OWN))[1]["seconds"] is None


async def test_whose_machine_is_maintained_is_told_when_that_ends_it(tmp_path: Path) -> None:
    house = House()
    async with stand(tmp_path, ending=house.ending) as at:
        url = f"{at.url}api/session/{NAME}"

        async def said() -> tuple[Any, ...]:
            house.now += 10.0
            body = (await ask(url, headers=OWN))[1]
            return body["reason"], body["seconds"], body["maintenance"]

        assert await said() == ("idle", 890, None)
        house.until = 2000.0
        assert await said() == ("idle", 880, 2000.0), "it may end earlier by itself, and is told of both"
        house.until = 1100.0
        assert await said() == ("maintenance", 70, 1100.0)
        house.now = 200.0
        assert await said() == ("maintenance", 0, 1100.0)
        house.until = None
        assert await said() == ("idle", 680, None), "it was called off"


@pytest.mark.parametrize("tail", ["", "/files"])
async def test_nobody_else_is_told(tmp_path: Path, tail: str) -> None:
    house = House()
    async with stand(tmp_path, ending=house.ending) as at:
        for headers in ({}, {"Authorization": "token x"}, {"Authorization": f"Basic {TOKEN}"}):
            assert (await ask(f"{at.url}api/session/{NAME}{tail}", headers=headers))[0] == 403
        for name in ("x", "o-r-fedcba9876543210", "%2e%2e", "a%00b"):
            assert (await ask(f"{at.url}api/session/{name}{tail}", headers=OWN))[0] == 404
        assert house.listed == 1
    async with stand(tmp_path) as at:
        assert (await ask(f"{at.url}api/session/{NAME}{tail}", headers=OWN))[0] == 404


async def test_files_of_one_that_runs_and_a_download_that_breaks_off(tmp_path: Path) -> None:
    house = House()
    async with stand(tmp_path, ending=house.ending) as at, aiohttp.ClientSession() as client:
        url = f"{at.url}api/session/{NAME}/files?token={TOKEN}"
        async with client.get(url) as answer:
            assert answer.headers["Content-Disposition"] == f'attachment; filename="{NAME}.tar.gz"'
            assert (answer.content_type, await answer.read()) == ("application/gzip", b"archive")
        house.breaks = True
        with pytest.raises(aiohttp.ClientError):
            async with client.get(url) as answer:
                await answer.read()


async def test_where_no_files_are_kept_nobody_waits_for_them(tmp_path: Path) -> None:
    house = House()
    assert house.session
    house.session = replace(house.session, server=False, ready=False)
    out_of_reach = replace(house.ending, files=None)
    for ending, said in ((house.ending, {"ending": {"keep": 0}}), (out_of_reach, {})):
        async with stand(tmp_path, ending=ending, config=said) as at:
            assert (await ask(f"{at.url}api/session/{NAME}", headers=OWN))[0] == 404
    assert house.session
    house.session = replace(house.session, project="0123456789abcdef")
    async with stand(tmp_path, ending=house.ending) as at:
        assert (await ask(f"{at.url}api/session/{NAME}", headers=OWN))[0] == 404, "its project keeps them"


async def test_files_of_one_that_has_ended(tmp_path: Path) -> None:
    house = House()
    async with stand(tmp_path, ending=house.ending) as at, aiohttp.ClientSession() as client:
        url = f"{at.url}api/session/{NAME}"
        assert (await ask(url, headers=OWN))[0] == 200
        house.session = replace(house.session, server=False, ready=False)  # type: ignore[type-var]
        said = (await ask(url, headers=OWN))[1]
        assert (said["ended"], said["files"], said["kept"]) == (True, False, None), "it ended by itself, and the next pass keeps its files"
        assert (await ask(f"{url}/files", headers=OWN))[0] == (await ask(f"{url}/keep", "POST", OWN))[0] == 404
        assert (await ask(url, headers={"Authorization": "token x"}))[0] == 403
        house.session = None
        assert (await ask(url, headers=OWN))[0] == (await ask(f"{url}/files", headers=OWN))[0] == 404
        house.path = tmp_path / "kept"
        house.path.write_bytes(b"what was kept")
        said = (await ask(url, headers=OWN))[1]
        assert (said["ended"], said["kept"]) == (True, {"bytes": 13, "until": 5000.0})
        assert (await ask(url, headers={"Authorization": "token x"}))[0] == 404
        async with client.get(f"{url}/files", headers=OWN) as answer:
            assert (answer.content_type, await answer.read()) == ("application/gzip", b"what was kept")
