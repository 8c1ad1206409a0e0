"""Who has logged in is asked about anew: a real directory, this machine's accounts, a provider's answers; and no outage ends anybody's work."""

from __future__ import annotations

import asyncio
import gc
import json
import warnings
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest

from binder_onprem.hub.authenticators import groups_of_claim
from binder_onprem.hub.authenticators.ldap import Ldap
from binder_onprem.hub.authenticators.openid import OpenId
from binder_onprem.hub.authenticators.pam import Pam
from binder_onprem.hub.outside import Outside
from tests.e2e import identity
from tests.unit.loopback import answer, listening, silence
from tests.unit.test_hub_accounts import authenticator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.identity import Directory

MEMBER = f"uid=ada,ou=people,{identity.SUFFIX}"
GROUP = f"cn=staff,ou=groups,{identity.SUFFIX}"


class User:
    """As the authenticators see one."""

    def __init__(self, name: str, state: dict[str, Any] | None = None) -> None:
        self.name, self.state = name, state

    async def get_auth_state(self) -> dict[str, Any] | None:
        return self.state


async def refreshed(kind: Any, user: User) -> Any:
    """Asked now, whatever was asked a moment ago."""
    kind._refreshes.clear()
    return await kind.refresh_user(user)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    with identity.directory(tmp_path, {"ada": ["staff", "heads"], "bob": ["staff"], "joan": ["heads"]}) as running:
        yield running


@pytest.mark.parametrize("by", ["search", "template"])
async def test_a_directory_is_asked_by_the_account_that_looks_people_up(directory: Directory, tmp_path: Path, by: str) -> None:
    (tmp_path / "password").write_text(identity.PASSWORD)
    found = {key: value for key, value in directory.settings.items() if key != "search_base" or by == "search"}
    if by == "template":
        found["bind_dn"] = [f"uid={{username}},ou=people,{identity.SUFFIX}"]
    account = {"search_user": f"uid=joan,ou=people,{identity.SUFFIX}", "search_password_file": str(tmp_path / "password")}
    _, ldap = authenticator(tmp_path, **found, **account)
    assert isinstance(ldap, Ldap)
    ada = User("ada")
    assert sorted((await refreshed(ldap, ada))["groups"]) == ["heads", "staff"]
    directory.changed(f"dn: {GROUP}", "changetype: modify", "delete: member", f"member: {MEMBER}")
    assert await refreshed(ldap, ada) == {"groups": ["heads"]}
    assert await refreshed(ldap, User("*")) is False
    directory.changed(f"dn: {MEMBER}", "changetype: delete")
    assert await refreshed(ldap, ada) is False
    ldap.user_search_base, ldap.bind_dn_template = "no DN", [] if by == "search" else ["no DN"]
    assert await refreshed(ldap, User("bob")) is True, "the directory does not tell: what was known holds"


async def test_a_directory_that_nobody_may_ask_is_asked_at_log_ins_alone(directory: Directory, tmp_path: Path) -> None:
    settings = directory.settings | {"bind_dn": [f"uid={{username}},ou=people,{identity.SUFFIX}"]}
    del settings["search_base"]
    _, ldap = authenticator(tmp_path, **settings)
    assert await refreshed(ldap, User("nobody-at-all")) is True


async def test_a_directory_that_is_down_ends_nobodys_work(tmp_path: Path) -> None:
    with identity.directory(tmp_path, {"ada": ["staff"]}) as gone:
        _, ldap = authenticator(tmp_path, **gone.settings)
        assert await refreshed(ldap, User("ada")) == {"groups": ["staff"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # ldap3 leaves a socket that found nobody to the collector
        assert await refreshed(ldap, User("ada")) is True
        await asyncio.sleep(0.3)  # the thread that asked still holds it for a moment
        gc.collect()


async def test_this_machines_groups(tmp_path: Path) -> None:
    _, pam = authenticator(tmp_path, kind="pam")
    assert isinstance(pam, Pam)
    with identity.unix_account() as (name, group):
        assert group in (await refreshed(pam, User(name)))["groups"]
    assert await refreshed(pam, User(name)) is False


async def test_a_programs_session_needs_no_account_of_this_machine(tmp_path: Path) -> None:
    _, pam = authenticator(tmp_path, kind="pam")
    await pam.add_user(User("repo-0123456789abcdef"))
    with pytest.raises(KeyError, match="nobody-like-this"):
        await pam.add_user(User("nobody-like-this"))


def openid(url: str, way: Outside | None = None) -> OpenId:
    return OpenId(
        http_client=way or Outside(""),
        client_id="b",
        client_secret="s",
        authorize_url=f"{url}/authorize",
        token_url=f"{url}/token",
        userdata_url=f"{url}/me",
        username_claim="preferred_username",
        enable_auth_state=True,
        manage_groups=True,
        auth_state_groups_key=groups_of_claim("groups"),
    )


class Provider:
    """Answers to a token, and to a refresh token once."""

    def __init__(self) -> None:
        self.groups, self.name, self.tokens, self.refresh, self.down = ["staff"], "ada", {"first"}, "once", False
        self.exchanges = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = self.heard.requests[-1].decode()
        await answer(*self._said(head, await reader.read(4096) if head.startswith("POST") else b""), "Content-Type: application/json")(reader, writer)

    def _said(self, head: str, body: bytes) -> tuple[str, bytes]:
        if self.down:
            return "503 Busy", b"{}"
        if head.startswith("POST /token"):
            self.exchanges += 1
            if parse_qs(body.decode()).get("refresh_token") != [self.refresh]:
                return "400 Bad Request", b'{"error": "invalid_grant"}'
            self.refresh = f"after-{self.exchanges}"
            self.tokens = {f"token-{self.exchanges}"}
            (token,) = self.tokens
            return "200 OK", json.dumps({"access_token": token, "refresh_token": self.refresh, "token_type": "Bearer"}).encode()
        if not any(f"Bearer {token}\r\n" in head for token in self.tokens):
            return "401 Unauthorized", b"{}"
        return "200 OK", json.dumps({"preferred_username": self.name, "groups": self.groups}).encode()

    heard: Any = None


def state(token: str, refresh: str) -> dict[str, Any]:
    return {
        "access_token": token,
        "refresh_token": refresh,
        "token_response": {"access_token": token, "refresh_token": refresh, "token_type": "Bearer"},
    }


async def test_a_provider_is_asked_with_the_log_ins_tokens() -> None:
    provider = Provider()
    async with listening(provider) as provider.heard:
        kind, ada = openid(provider.heard.url), User("ada", state("first", "once"))
        assert (await refreshed(kind, ada))["groups"] == ["staff"]
        provider.groups = []
        assert (await refreshed(kind, ada))["groups"] == []
        provider.tokens = set()  # it has expired; of ten requests at once one uses up the refresh token
        kind._refreshes.clear()
        answers = await asyncio.gather(*(kind.refresh_user(ada) for _ in range(10)))
        assert provider.exchanges == 1
        assert {one["auth_state"]["refresh_token"] for one in answers} == {"after-1"}
        assert answers[0] is not answers[1]
        assert await refreshed(kind, ada) is False, "neither token is good any more"
        ada.state = state("token-1", "after-1")
        provider.name = "eve"
        assert await refreshed(kind, ada) is False, "nobody becomes somebody else"
        provider.down = True
        assert await refreshed(kind, ada) is True
    assert await refreshed(kind, ada) is True
    assert await refreshed(kind, User("ada")) is False, "her log-in was before tokens were kept"


async def test_a_provider_that_hangs_holds_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("binder_onprem.hub.authenticators.refreshing.PATIENCE", 0.3)
    async with listening(silence()) as heard:
        async with asyncio.timeout(3):
            assert await openid(heard.url).refresh_user(User("ada", state("first", "once"))) is True


async def test_an_answer_serves_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("binder_onprem.hub.authenticators.refreshing.HOLDS", 0.01)
    provider = Provider()
    async with listening(provider) as provider.heard:
        kind, ada = openid(provider.heard.url), User("ada", state("first", "once"))
        await kind.refresh_user(ada)
        await asyncio.sleep(0.05)
        provider.groups = ["heads"]
        assert (await kind.refresh_user(ada))["groups"] == ["heads"]


def test_the_hub_asks_when_the_site_says(tmp_path: Path) -> None:
    c, _ = authenticator(tmp_path, kind="pam", refresh=60)
    assert (c.Authenticator.auth_refresh_age, c.Authenticator.auth_refresh_strict) == (60, True)
    c, _ = authenticator(tmp_path, kind="pam")
    assert c.Authenticator.auth_refresh_age == 300
