"""The page with one's own tokens: added and removed by its forms, masked, and nobody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.test_access import Host, Table, access_to
from tests.unit.test_web_accounts import World, fetch, world  # noqa: F401 - the fixture

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary-on-the-page"


async def test_people_keep_their_own_tokens(world: World, tmp_path: Path) -> None:  # noqa: F811 - the fixture
    table = Table()
    world.at.site.line.access = access_to(tmp_path, table, Host())  # type: ignore[misc]
    page = f"{world.at.url}credentials"
    async with world.browser("ada") as browser:
        proof = {"_xsrf": world.proof(browser)}
        assert (await fetch(browser, "POST", page, data={"host": "git.test", "secret": CANARY}))[0] == 403
        assert not table.rows
        assert (await fetch(browser, "POST", page, data=proof | {"host": "git.test", "username": "", "secret": CANARY}))[0] == 303
        status, text, _ = await fetch(browser, "GET", page)
        assert (status, "git.test" in text, "••••" in text, CANARY in text) == (200, True, True, False)
        status, text, _ = await fetch(browser, "POST", page, data=proof | {"host": "http://git.test", "secret": CANARY})
        assert (status, CANARY in text) == (400, False)
        _, text, _ = await fetch(browser, "GET", f"{page}?lang=fr")
        assert "Accès aux dépôts privés" in text
    ((name, row),) = table.rows.items()
    assert (row.kind, row.owner) == ("user", "ada")
    async with world.browser("bob") as browser:
        proof = {"_xsrf": world.proof(browser)}
        assert "git.test" not in (await fetch(browser, "GET", page))[1].replace("git.uni", "")
        assert (await fetch(browser, "POST", f"{page}/{name}/remove", data=proof))[0] == 404
    async with world.browser("ada") as browser:
        assert (await fetch(browser, "POST", f"{page}/{name}/remove", data={"_xsrf": world.proof(browser)}))[0] == 303
    assert not table.rows
