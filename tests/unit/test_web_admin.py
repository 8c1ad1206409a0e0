"""The administrator's API: every order is recorded first, and does what it says."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from binder_onprem.errors import EngineUnavailable, HubUnavailable, StoreUnavailable
from binder_onprem.events import Phase, Progress, Stage
from binder_onprem.model import BuildRecord, BuildState, LaunchAudit, Session
from binder_onprem.queueing import Place
from binder_onprem.ruling import Entry
from binder_onprem.store import SqlStore, open_engine, opened
from binder_onprem.web.admin import docs, images, live, sessions
from tests.unit.webstand import ADMIN, BUILD, DIGEST, IMAGE, RECORD, SESSION, Play, Records, ruled, stand, usual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.unit.webstand import Stand

TOKEN = {"Authorization": f"Bearer {ADMIN}"}
ORDERS = [
    ("POST", f"api/builds/{BUILD}/rebuild", None),
    ("POST", f"api/builds/{BUILD}/prioritise", None),
    ("DELETE", f"api/builds/{BUILD}", None),
    ("POST", "api/queue/pause", None),
    ("POST", "api/queue/resume", None),
    ("DELETE", "api/sessions/o-r-1", None),
    ("DELETE", "api/sessions?repo=gh/o/r", None),
    ("PUT", f"api/images/{DIGEST}/pin", None),
    ("DELETE", f"api/images/{DIGEST}/pin", None),
    ("DELETE", f"api/images/{DIGEST}", None),
    ("POST", "api/bans", {"kind": "spec", "value": "gh/o/*"}),
    ("PUT", "api/maintenance", {"mode": "notice", "message": "m"}),
    ("DELETE", "api/maintenance", None),
    ("POST", "api/sessions/reap", None),
    ("POST", "api/images/prune", None),
]
READ = [
    "api/queue",
    "api/sessions",
    "api/images",
    "api/bans",
    "api/quotas",
    "api/maintenance",
    "api/audit",
    "api/audit/export",
    "api/host",
    "api/events",
]


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


async def call(  # noqa: PLR0913, PLR0917 - the last two have defaults
    client: aiohttp.ClientSession, at: Stand, method: str, path: str, body: Any = None, headers: Any = TOKEN
) -> tuple[int, Any]:
    async with client.request(method, at.url + path, json=body, headers=headers) as answer:
        text = await answer.text()
        return answer.status, json.loads(text) if text.startswith(("{", "[")) else text


async def audit(at: Stand) -> list[Entry]:
    assert at.site.desk
    return list(reversed(await at.site.desk.audit.entries()))


@pytest.mark.parametrize(("method", "path", "body"), [*ORDERS, *(("GET", path, None) for path in READ), ("DELETE", f"api/bans/{'0' * 16}", None)])
async def test_only_administrators(client: aiohttp.ClientSession, tmp_path: Path, method: str, path: str, body: Any) -> None:
    async with ruled(tmp_path) as at:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "binder-admin=x"}):
            status, answer = await call(client, at, method, path, body, headers)
            assert (status, answer["code"]) == (403, "refused")
        assert await audit(at) == []
        assert (at.records.record, at.records.stopped, at.records.deleted) == (RECORD, [], [])


@pytest.mark.parametrize(("method", "path", "body"), ORDERS)
async def test_every_order_is_recorded(client: aiohttp.ClientSession, tmp_path: Path, method: str, path: str, body: Any) -> None:
    async with ruled(tmp_path) as at:
        at.records.session = None if path.endswith(DIGEST) else SESSION
        status, _ = await call(client, at, method, path, body)
        assert status < 300
        (entry,) = await audit(at)
        assert (entry.who, entry.address, entry.outcome) == ("administrator", "127.0.0.1", "ordered")
        assert abs(entry.at - time.time()) < 60


@pytest.mark.parametrize(("method", "path", "body"), ORDERS)
async def test_what_cannot_be_recorded_is_not_done(client: aiohttp.ClientSession, tmp_path: Path, method: str, path: str, body: Any) -> None:
    async with ruled(tmp_path) as at:
        desk: Any = at.site.desk

        async def down(_entry: Entry) -> None:
            raise StoreUnavailable("down")

        desk.audit.record = down
        status, answer = await call(client, at, method, path, body)
        assert (status, answer["code"]) == (503, "store")
        assert (at.records.record, at.records.stopped, at.records.deleted) == (RECORD, [], [])
        assert (desk.rules.bans, desk.rules.pins, desk.rules.maintenance, desk.rules.paused) == ((), frozenset(), None, False)


async def test_what_was_not_done_after_all_is_recorded_as_that(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with ruled(tmp_path) as at:
        assert (await call(client, at, "DELETE", "api/sessions/nobody"))[0] == 404
        assert [(entry.action, entry.subject, entry.outcome) for entry in await audit(at)] == [
            ("session.stop", "nobody", "ordered"),
            ("session.stop", "nobody", "not_found"),
        ]


async def test_a_dry_run_is_no_order(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with ruled(tmp_path) as at:
        assert (await call(client, at, "POST", "api/images/prune?dry_run=1"))[0] == 200
        assert await audit(at) == []
        assert (await call(client, at, "POST", "api/images/prune?dry_run=maybe"))[0] == 400


async def test_builds_anew_and_to_the_front(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with ruled(tmp_path) as at:
        at.records.record = replace(RECORD, state=BuildState.BUILT)
        status, build = await call(client, at, "POST", f"api/builds/{BUILD}/rebuild")
        assert (status, build["fresh"], build["state"], build["commit"]) == (200, True, "queued", RECORD.repo.commit)
        assert build["image"].endswith("-" + "f" * 12)
        assert (await call(client, at, "POST", f"api/builds/{BUILD}/prioritise"))[1]["front"] == 9.0
        assert (await call(client, at, "POST", f"api/builds/{'0' * 16}/rebuild"))[0] == 404


async def test_the_queue(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with ruled(tmp_path) as at:
        other = replace(RECORD, id="f" * 16, state=BuildState.QUEUED)
        at.records.placed = [(other, Place(1, None)), (RECORD, None)]
        _, queue = await call(client, at, "GET", "api/queue")
        assert (queue["running"], queue["waiting"], queue["paused"]) == ([BUILD], ["f" * 16], False)
        assert (await call(client, at, "POST", "api/queue/pause"))[1]["paused_by"] == "administrator"
        assert (await call(client, at, "POST", "api/queue/resume"))[1]["paused"] is False


async def test_builds_are_searched_in_the_tables(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with ruled(tmp_path) as at, open_engine(f"sqlite+aiosqlite:///{tmp_path / 'rulings.sqlite'}") as engine, opened(SqlStore, engine) as store:
        for number in range(3):
            await store.add(replace(RECORD, id=f"{number:016}", state=BuildState.BUILT))
        _, found = await call(client, at, "GET", f"api/builds?state=built&text=example.org&before={2:016}&limit=1")
        assert [build["id"] for build in found["builds"]] == [f"{1:016}"]
        for wrong in ("state=x", "before=x", "limit=0", "open=perhaps"):
            assert (await call(client, at, "GET", f"api/builds?{wrong}"))[0] == 400


async def test_images_pinned_in_use_deleted(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with ruled(tmp_path) as at:
        at.records.session = replace(SESSION, image=IMAGE)
        _, found = await call(client, at, "GET", "api/images")
        assert found["images"] == [
            {
                "id": DIGEST, "reference": IMAGE, "size": 11, "shared": 0, "own": 11, "last_used": 7.0, "sessions": 1, "pinned": False,
                "build": None, "repo_url": None, "commit": None,
            }
        ]  # fmt: skip
        status, answer = await call(client, at, "DELETE", f"api/images/{DIGEST}")
        assert (status, answer["code"]) == (409, "in_use")
        at.records.session = None
        assert (await call(client, at, "PUT", f"api/images/{DIGEST}/pin"))[1] == {"id": DIGEST, "pinned": True}
        assert (await call(client, at, "GET", "api/images"))[1]["images"][0]["pinned"] is True
        status, answer = await call(client, at, "DELETE", f"api/images/{DIGEST}")
        assert (status, answer["message"]) == (409, "The image is pinned. Unpin it first.")
        await call(client, at, "DELETE", f"api/images/{DIGEST}/pin")
        assert await call(client, at, "DELETE", f"api/images/{DIGEST}") == (200, {"id": DIGEST, "size": 11})
        assert at.records.deleted == [IMAGE]
        for wrong in ("sha256:" + "0" * 64, "x", "..%2f.."):
            assert (await call(client, at, "DELETE", f"api/images/{wrong}"))[0] == 404


def test_own_and_shared_bytes() -> None:
    stored: Any = [
        SimpleNamespace(reference="r/a@sha256:1", size=15, layers=(("base", 10), ("a", 5))),
        SimpleNamespace(reference="r/b@sha256:2", size=27, layers=(("base", 10), ("b", 7), ("base", 10))),
    ]
    rows = images.described(stored, {}, [], {"sha256:2": RECORD}, frozenset())
    assert [(row["shared"], row["own"], row["build"]) for row in rows] == [(10, 5, None), (10, 17, BUILD)]


async def test_sessions_say_whose_and_what_they_use(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    class Usage:
        down = False

        async def now(self) -> dict[str, Any]:
            if self.down:
                raise EngineUnavailable("down")
            return {"e" * 16: SimpleNamespace(cpu=1.5, memory=99)}

    usage = Usage()
    async with ruled(tmp_path, desk={"usage": usage, "written": lambda: {"e" * 16: 7}}) as at:
        at.records.session = replace(SESSION, launch_id="e" * 16)
        async with open_engine(f"sqlite+aiosqlite:///{tmp_path / 'rulings.sqlite'}") as engine, opened(SqlStore, engine) as store:
            await store.audit(LaunchAudit("e" * 16, "gh", "o/r/HEAD", "192.0.2.1", 5.0, "ready", "c" * 40))
        (row,) = (await call(client, at, "GET", "api/sessions"))[1]["sessions"]
        assert (row["link"], row["client"], row["cpu"], row["memory"], row["written"]) == ("gh/o/r/HEAD", "192.0.2.1", 1.5, 99, 7)
        usage.down = True
        (row,) = (await call(client, at, "GET", "api/sessions"))[1]["sessions"]
        assert (row["name"], row["cpu"]) == ("o-r-1", None)
        assert (await call(client, at, "DELETE", "api/sessions?repo=gh/o/ro"))[1] == {"stopped": [], "failed": []}
        assert (await call(client, at, "DELETE", "api/sessions?repo=gh/o/r"))[1] == {"stopped": ["o-r-1"], "failed": []}
        for wrong in ("", "?repo=", "?repo=gh", f"?repo=gh/{'x' * 3000}"):
            assert (await call(client, at, "DELETE", f"api/sessions{wrong}"))[0] == 400


async def test_a_session_that_cannot_be_stopped_is_named(tmp_path: Path) -> None:
    async with ruled(tmp_path) as at:

        async def down(_session: Session) -> None:
            raise HubUnavailable("down")

        at.records.stop = down  # type: ignore[method-assign]
        assert not await sessions._stopped(at.site, SESSION, asyncio.Semaphore(1))


@pytest.mark.parametrize(
    ("link", "repo", "yes"),
    [
        ("gh/o/r/HEAD", "gh/o/r", True),
        ("gh/o/r2/HEAD", "gh/o/r", False),
        ("gl/g%2Fp/main", "gl/g", True),
        (None, "gh/o", False),
        ("gh/o", "gh/o", True),
    ],
)
def test_beginnings_of_links(link: str | None, repo: str, yes: bool) -> None:  # noqa: FBT001 - the table's column
    assert sessions.begins(link, repo) is yes


async def test_bans_beside_those_of_the_configuration(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    config = {"admission": {"banned": ["gh/evil/.*"], "ban_networks": {"203.0.113.0/24": "a label"}}}
    async with ruled(tmp_path, config=config) as at:
        status, made = await call(client, at, "POST", "api/bans", {"kind": "network", "value": "192.0.2.9/24", "reason": "mining", "seconds": 60})
        assert (status, made["value"], made["by"], made["source"]) == (201, "192.0.2.0/24", "administrator", "runtime")
        assert made["until"] == pytest.approx(made["created"] + 60, abs=5)
        _, found = await call(client, at, "GET", "api/bans")
        assert [(ban["kind"], ban["value"], ban["source"]) for ban in found["bans"]] == [
            ("spec", "gh/evil/.*", "configuration"),
            ("network", "203.0.113.0/24", "configuration"),
            ("network", "192.0.2.0/24", "runtime"),
        ]
        assert (await call(client, at, "DELETE", f"api/bans/{made['id']}"))[0] == 204
        assert (await call(client, at, "DELETE", f"api/bans/{made['id']}"))[0] == 404
        assert [entry.action for entry in await audit(at)] == ["ban.add", "ban.remove"]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{",
        "[" * 100_000,
        '{"kind": "spec"}',
        '{"kind": "x", "value": "gh/a"}',
        '{"kind": "spec", "value": "gh"}',
        '{"kind": "spec", "value": "gh/a", "more": 1}',
        '{"kind": "spec", "value": "gh/a", "seconds": -1}',
        '{"kind": "spec", "value": "gh/a", "seconds": 1e400}',
        '{"kind": "spec", "value": "gh/a", "seconds": NaN}',
        '{"kind": "spec", "value": "gh/a", "reason": "' + "x" * 1001 + '"}',
        '{"kind": "network", "value": "x"}',
        b"\xff\xfe",
    ],
)
async def test_bodies_that_do_not_hold(client: aiohttp.ClientSession, tmp_path: Path, body: Any) -> None:
    async with ruled(tmp_path) as at, client.post(f"{at.url}api/bans", data=body, headers=TOKEN) as answer:
        assert answer.status == (413 if len(body) > 65536 else 400)
        assert (await answer.json())["message"]
        assert at.site.desk
        assert at.site.desk.rules.bans == ()


async def test_maintenance_is_told_in_both_languages(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with ruled(tmp_path) as at:
        order = {"mode": "notice", "message": "New disks <b>today</b>.", "message_fr": "Nouveaux disques."}
        assert (await call(client, at, "PUT", "api/maintenance", order))[1]["maintenance"]["mode"] == "notice"
        assert "New disks &lt;b&gt;today&lt;/b&gt;." in (await call(client, at, "GET", "", headers={}))[1]
        assert "Nouveaux disques." in (await call(client, at, "GET", "about?lang=fr", headers={}))[1]
        stream = (await call(client, at, "GET", "build/gh/o/r/HEAD", headers={"Accept": "text/event-stream"}))[1]
        events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: ")]
        assert (events[0]["phase"], events[0]["message"], events[-1]["phase"]) == ("waiting", "New disks <b>today</b>.\n", "ready")
        assert (await call(client, at, "PUT", "api/maintenance", {"mode": "launches"}))[0] == 200
        assert "Nothing is launched until it is over." in (await call(client, at, "GET", "", headers={}))[1]
        assert "y est lancé avant la fin" in (await call(client, at, "GET", "?lang=fr", headers={}))[1]
        assert (await call(client, at, "DELETE", "api/maintenance"))[1] == {"maintenance": None}
        assert 'role="status">' not in (await call(client, at, "GET", "about", headers={}))[1]


async def test_a_refused_launch_is_told_the_words(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    class Refusing(Play):
        async def launch(self, request: Any, line: Any) -> AsyncIterator[Any]:
            line.rules.admit(request)
            yield Progress(Phase.WAITING, "x", Stage.RESOLVE, 1)

    async with ruled(tmp_path, play=Refusing()) as at:
        await call(client, at, "PUT", "api/maintenance", {"message": "New disks.", "message_fr": "Nouveaux disques.", "seconds": 600})
        for language, words in (("en", "New disks.\n"), ("fr", "Nouveaux disques.\n")):
            stream = (await call(client, at, "GET", f"build/gh/o/r/HEAD?lang={language}", headers={"Accept": "text/event-stream"}))[1]
            last = json.loads(stream.strip().splitlines()[-1][6:])
            assert (last["phase"], last["message"], last["code"], last["status_code"]) == ("failed", words, "maintenance", 503)
            assert 590 <= last["retry_after"] <= 600


async def test_the_audit_in_pages_and_as_lines(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with ruled(tmp_path) as at:
        assert at.site.desk
        for number in range(1203):
            await at.site.desk.audit.record(Entry(float(number), "a", "local", "x.y", f"{number}"))
        _, page = await call(client, at, "GET", "api/audit?limit=2")
        assert [entry["subject"] for entry in page["entries"]] == ["1202", "1201"]
        _, page = await call(client, at, "GET", f"api/audit?limit=1&before={page['before']}")
        assert page["entries"][0]["subject"] == "1200"
        assert (await call(client, at, "GET", "api/audit?kind=launches"))[1] == {"entries": [], "before": None}
        async with client.get(f"{at.url}api/audit/export?since=3", headers=TOKEN) as answer:
            assert answer.content_type == "application/x-ndjson"
            lines = [json.loads(line) for line in (await answer.text()).splitlines()]
        assert [int(line["subject"]) for line in lines] == list(range(1202, 2, -1))
        for wrong in ("kind=x", "since=x", "since=nan", "since=-1", "before=x", "before=-1", f"before={'9' * 19}", "limit=0"):
            assert (await call(client, at, "GET", f"api/audit?{wrong}"))[0] == 400


async def test_the_machine(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async def host() -> dict[str, Any]:
        return {"load": [1.0]}

    async with ruled(tmp_path, desk={"host": host, "passes": {"prune": {"ok": True}}}) as at:
        assert (await call(client, at, "GET", "api/host"))[1] == {"load": [1.0], "passes": {"prune": {"ok": True}}}
    async with ruled(tmp_path) as at:
        assert (await call(client, at, "GET", "api/host"))[0] == 404


async def sections(answer: aiohttp.ClientResponse, count: int) -> list[tuple[str, Any]]:
    found, name = [], ""
    async for raw in answer.content:
        line = raw.decode().rstrip("\n")
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            found.append((name, json.loads(line[6:])))
            if len(found) == count:
                break
    return found


async def test_changes_are_told_live_and_only_changes(client: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY", 0.05)
    async with ruled(tmp_path) as at, client.get(f"{at.url}api/events", headers=TOKEN) as answer:
        first = dict(await sections(answer, 5))
        assert first.keys() == {"queue", "builds", "sessions", "audit", "host"}
        assert first["builds"][0]["seconds"] is None
        await call(client, at, "POST", "api/queue/pause")
        told = dict(await sections(answer, 2))
        assert told.keys() == {"queue", "audit"}
        assert told["queue"]["paused"] is True


async def test_a_part_that_is_away_leaves_the_rest(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with ruled(tmp_path) as at:

        async def down() -> list[Session]:
            raise HubUnavailable("JupyterHub does not answer.")

        at.records.sessions = down  # type: ignore[method-assign]
        async with client.get(f"{at.url}api/events", headers=TOKEN) as answer:
            told = dict(await sections(answer, 4))
        assert told["sessions"] == {"error": "JupyterHub does not answer."}
        assert told["queue"]["paused"] is False


async def test_live_viewers_are_bounded_and_one_look_serves_all(
    client: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "VIEWERS", 2)
    looks = []

    class Counting(Records):
        async def builds(self, *, open_only: bool = False, limit: int = 100) -> list[BuildRecord]:
            looks.append(limit)
            return await super().builds(open_only=open_only, limit=limit)

    async with ruled(tmp_path, records=Counting()) as at:
        one = await client.get(f"{at.url}api/events", headers=TOKEN)
        two = await client.get(f"{at.url}api/events", headers=TOKEN)
        await asyncio.gather(sections(one, 4), sections(two, 4))
        assert len(looks) == 1
        assert (await call(client, at, "GET", "api/events"))[0] == 429
        one.close()
        two.close()


async def test_the_description_as_a_page(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, Play(usual())) as at:
        async with client.get(f"{at.url}api/docs") as answer:
            text = await answer.text()
            assert "script-src 'nonce-" in answer.headers["Content-Security-Policy"]
        assert "/api/images/{id}/pin" in text
        assert 'id="schema-BanOrder"' in text
        document = (await call(client, at, "GET", "openapi.json"))[1]
        shown = docs.operations(document)
        assert len({one["id"] for one in shown}) == len(shown) > 40
