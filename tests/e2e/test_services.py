"""Programs with tokens at the hub (`auth.services`): what they may, what a wrong token gets, and that a replaced or removed one is worth nothing."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.e2e.kernel import kernel
from tests.e2e.stand import Stand
from tests.e2e.test_clients import binderhub_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import Origin

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def site() -> Iterator[Stand]:
    stand = Stand.new(samples=False)
    try:
        yield stand
    finally:
        stand.destroy()


class Program:
    """One with its token in a file."""

    def __init__(self, site: Stand, folder: Path, name: str, *roles: str) -> None:
        self.site, self.name, self.roles, self.file = site, name, roles, folder / name
        self.token = self.renewed()

    def renewed(self) -> str:
        self.token = secrets.token_hex(32)
        self.file.write_text(self.token + "\n")
        self.file.chmod(0o600)
        return self.token

    @property
    def setting(self) -> dict[str, Any]:
        return {"name": self.name, "token_file": str(self.file), "roles": list(self.roles)}

    async def launched(self, spec: str, token: str = "") -> dict[str, Any]:
        """The last event, as a page of another hub (jupyterhub-fancy-profiles, say) gets it by BinderHub's own client."""
        return (await binderhub_client(f"{self.site.url}build", spec, apiToken=token or self.token))[-1]

    async def asked(self, path: str, token: str = "") -> tuple[int, Any]:
        headers = {"Authorization": f"token {token or self.token}"}
        async with aiohttp.ClientSession() as client, client.get(self.site.url + path, headers=headers) as answer:
            return answer.status, json.loads(await answer.text())


def up(site: Stand, *programs: Program) -> None:
    site.configure(auth={"kind": "pam", "roles": {"admin": []}, "services": [one.setting for one in programs]})
    site.up()


async def test_programs_with_tokens_at_the_hub(site: Stand, origin: Origin, tmp_path: Path) -> None:
    course, looker = Program(site, tmp_path, "course", "launch", "build"), Program(site, tmp_path, "looker", "launch")
    up(site, course, looker)
    spec = origin.spec("bare")
    await _may_what_its_roles_say(course, looker, spec, origin)
    await _wrong_tokens(course, spec)

    before = course.token
    course.renewed()
    up(site, course, looker)
    assert (await course.asked("api/user"))[1]["name"] == "service:course"
    assert (await course.asked("api/user", before))[1]["name"] is None
    assert (await course.launched(spec, before))["phase"] == "failed"
    assert (await course.launched(spec))["phase"] == "ready"

    up(site, course)
    assert (await looker.asked("api/user"))[1] == {"name": None, "groups": [], "roles": []}
    refused = await looker.launched(spec)
    assert (refused["phase"], "log in" in refused["message"].lower()) == ("failed", True), refused
    assert (await course.asked("api/user"))[1]["name"] == "service:course"


async def _may_what_its_roles_say(course: Program, looker: Program, spec: str, origin: Origin) -> None:
    assert (await course.asked("api/user"))[1] == {"name": "service:course", "groups": [], "roles": ["build", "launch"]}
    refused = await looker.launched(spec)
    assert (refused["phase"], "may not have environments built here" in refused["message"]) == ("failed", True), refused
    end = await course.launched(spec)
    assert end["phase"] == "ready", end
    async with kernel(end) as session:
        assert "42" in await session.run("print(6 * 7)")
    assert (await looker.launched(spec))["phase"] == "ready", "its image is there now"
    # Each launch of a program is for somebody else: no session is the program's, and none counts against another.
    assert [row["owner"] for row in course.site.json("servers", "list")] == [None, None]
    for path in ("api/sessions", "api/quotas", "api/audit"):
        status, _ = await course.asked(path)
        assert status == 403, path
    assert (await course.asked("api/user/sessions"))[0] == 403
    origin.make("another", {"requirements.txt": "six\n"})
    refused = await looker.launched(origin.spec("another"))
    assert (refused["phase"], "may not have environments built here" in refused["message"]) == ("failed", True), refused


async def _wrong_tokens(course: Program, spec: str) -> None:
    for token in (course.token[:-1], course.token + "0", secrets.token_hex(32), "x"):
        assert (await course.asked("api/user", token))[1]["name"] is None
        end = await course.launched(spec, token)
        assert end["phase"] == "failed"
        assert course.token[:8] not in end["message"]
