"""``/api/credentials``: everybody's own, the administrator's for all, and never a secret in an answer or the audit."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.unit.test_access import Host, Table, access_to
from tests.unit.webstand import ADMIN, RECORD, Records, ruled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.unit.webstand import Stand

CANARY = "canary-in-the-web"
ORDER = {"host": "git.test", "secret": CANARY}
TOKENS = {"ann": "a" * 32, "bob": "b" * 32}


@asynccontextmanager
async def site(home: Path, records: Records | None = None) -> AsyncIterator[tuple[Stand, Table]]:
    """Two programs with tokens, `ann` and `bob`."""
    clients = home / "clients.yaml"
    clients.write_text("".join(f"{name} {token}\n" for name, token in TOKENS.items()))
    clients.chmod(0o600)
    table = Table()
    async with ruled(home, records, config={"web": {"clients_file": str(clients)}}) as stand:
        stand.site.line.access = access_to(home, table, Host())  # type: ignore[misc]
        yield stand, table


async def call(stand: Stand, method: str, path: str, token: str = ADMIN, body: Any = None) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession() as session, session.request(method, stand.url + path, headers=headers, json=body) as answer:
        return answer.status, await answer.text()


async def test_the_administrator_keeps_everybodys(tmp_path: Path) -> None:
    async with site(tmp_path) as (stand, table):
        for more, kind in (({}, "site"), ({"kind": "group", "owner": "staff"}, "group"), ({"kind": "user", "owner": "ann"}, "user")):
            status, text = await call(stand, "POST", "api/credentials", body=ORDER | more)
            assert (status, f'"kind": "{kind}"' in text, CANARY in text) == (201, True, False)
        status, text = await call(stand, "GET", "api/credentials")
        assert status == 200
        assert text.count('"host": "git.test"') == 3
        assert CANARY not in text
        assert (await call(stand, "POST", "api/credentials/rotate")) == (200, '{"rotated": 3}')
        name = next(iter(table.rows))
        assert (await call(stand, "DELETE", f"api/credentials/{name}"))[0] == 204
        assert (await call(stand, "DELETE", f"api/credentials/{name}"))[0] == 404
        _, audit = await call(stand, "GET", "api/audit")
        assert "credential.add" in audit
        assert "credential.remove" in audit
        assert CANARY not in audit


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"host": "git.test"}, 400),
        ({"host": "http://git.test", "secret": CANARY}, 400),
        (ORDER | {"kind": "site", "owner": "x"}, 400),
        (ORDER | {"kind": "user"}, 400),
        (ORDER | {"owner": "ann"}, 400),
        (ORDER | {"secret": CANARY + "\n" + CANARY}, 400),
        (ORDER | {"secret": [CANARY]}, 400),
        (ORDER | {"more": CANARY}, 400),
    ],
)
async def test_what_does_not_hold_is_told_without_the_secret(tmp_path: Path, body: Any, status: int) -> None:
    async with site(tmp_path) as (stand, table):
        answer = await call(stand, "POST", "api/credentials", body=body)
        assert (answer[0], CANARY in answer[1]) == (status, False)
        assert not table.rows


async def test_everybody_has_only_their_own(tmp_path: Path) -> None:
    async with site(tmp_path) as (stand, table):
        assert (await call(stand, "POST", "api/credentials", TOKENS["ann"], ORDER))[0] == 201
        (name,) = table.rows
        assert table.rows[name].owner == "service:ann", "a program is not the person of its name"
        assert '"credentials": []' in (await call(stand, "GET", "api/credentials", TOKENS["bob"]))[1]
        assert (await call(stand, "DELETE", f"api/credentials/{name}", TOKENS["bob"]))[0] == 404
        for more in ({"kind": "site"}, {"kind": "user", "owner": "bob"}):
            assert (await call(stand, "POST", "api/credentials", TOKENS["ann"], ORDER | more))[0] == 403
        assert (await call(stand, "POST", "api/credentials/rotate", TOKENS["ann"]))[0] == 403
        for method in ("GET", "POST"):
            assert (await call(stand, method, "api/credentials", "", ORDER))[0] == 403
        assert (await call(stand, "DELETE", f"api/credentials/{name}", TOKENS["ann"]))[0] == 204
        assert not table.rows


async def test_a_private_build_is_shown_to_those_who_launched_it(tmp_path: Path) -> None:
    class Seen(Records):
        async def looked_up(self, client: str, _repo: Any) -> bool:
            return client == "service:bob"

    private = replace(RECORD, repo=replace(RECORD.repo, access="1" * 16), asker="service:ann")
    async with site(tmp_path, Seen(private)) as (stand, _):
        for path in (f"api/builds/{RECORD.id}", f"api/builds/{RECORD.id}/log"):
            for token, status in ((TOKENS["ann"], 200), (TOKENS["bob"], 200), (ADMIN, 200), ("", 404), ("c" * 32, 404)):
                assert (await call(stand, "GET", path, token))[0] == status
    async with site(tmp_path, Records(RECORD)) as (stand, _):
        assert (await call(stand, "GET", f"api/builds/{RECORD.id}", ""))[0] == 200
