"""The hub's word on tokens: how long it holds, what it means, and what people's rights at the hub are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter, ValidationError
from tornado import web
from traitlets.config import Config as Settings

from binder_onprem.config import Config
from binder_onprem.config.auth import Auth, NativeAccounts, PamAccounts
from binder_onprem.errors import HubUnavailable, InvalidSpec, NotFound, Refused, StoreUnavailable
from binder_onprem.host import loginfiles
from binder_onprem.hub import authenticators, logins
from binder_onprem.hub.accounts import SECONDS, HubAccounts
from binder_onprem.hub.nativeaccounts import NativeAccounts as Table
from binder_onprem.model import Account, Role
from tests.unit.virtual import now, virtual

if TYPE_CHECKING:
    from pathlib import Path

ADA = {"kind": "user", "name": "ada", "groups": ["staff"], "scopes": ["access:services!service=binder", "custom:binder-onprem:launch"]}


class Api:
    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers, self.asked = answers, 0

    async def ask(self, call: Any, fine: Any = ()) -> tuple[int, dict[str, Any]]:  # noqa: ARG002
        self.asked += 1
        await asyncio.sleep(0.1)
        answer = self.answers.get(call.token if call.form is None else call.form["code"], (403, {}))
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]


def accounts(**answers: Any) -> tuple[Api, HubAccounts]:
    api: Any = Api(answers)
    return api, HubAccounts(Config(), api, "secret", now=now)


@virtual
async def test_an_answer_holds_for_seconds_and_is_asked_for_once() -> None:
    api, people = accounts(a=(200, ADA))
    assert set(await asyncio.gather(*(people.of_token("a") for _ in range(20)))) == {Account("ada", frozenset({"staff"}), frozenset({Role.LAUNCH}))}
    assert api.asked == 1
    api.answers["a"] = (403, {})
    assert await people.of_token("a")
    await asyncio.sleep(SECONDS)
    assert await people.of_token("a") is None
    assert await people.of_token("a") is None
    assert api.asked == 2
    assert SECONDS <= 5


@virtual
async def test_who_asked_first_may_leave() -> None:
    _, people = accounts(a=(200, ADA))
    first = asyncio.ensure_future(people.of_token("a"))
    await asyncio.sleep(0.01)
    second = asyncio.ensure_future(people.of_token("a"))
    await asyncio.sleep(0.01)
    first.cancel()
    assert (await second) is not None


@virtual
async def test_a_hub_that_is_down_is_no_answer_and_is_asked_again() -> None:
    api, people = accounts(a=HubUnavailable("down"))
    with pytest.raises(HubUnavailable):
        await people.of_token("a")
    api.answers["a"] = (200, ADA)
    assert await people.of_token("a")


@virtual
async def test_what_cannot_be_a_token_is_not_asked_for() -> None:
    api, people = accounts()
    for token in ("é", "a\nb", "x" * 600):
        assert await people.of_token(token) is None
    assert api.asked == 0


@virtual
async def test_who_may_not_use_this_service_is_nobody() -> None:
    _, people = accounts(
        a=(200, ADA | {"scopes": ["custom:binder-onprem:admin"]}),
        b=(200, {"kind": "service", "name": "course", "scopes": ["access:services", "custom:binder-onprem:build", "admin:users"]}),
    )
    assert await people.of_token("a") is None
    assert await people.of_token("b") == Account("service:course", roles=frozenset({Role.BUILD}), service=True)


@virtual
async def test_a_code_stands_for_a_token_once() -> None:
    _, people = accounts(good=(200, {"access_token": "t"}), odd=(200, {}))
    assert await people.exchange("good") == "t"
    for code in ("bad", "odd"):
        with pytest.raises(Refused, match="Log in again"):
            await people.exchange(code)


def test_roles_at_the_hub() -> None:
    site = PamAccounts.model_validate(
        {"kind": "pam", "roles": {"launch": ["everybody"], "build": ["group:staff", "user:bob"], "admin": ["user:ada"]}}
    )
    made = {role["name"]: role for role in logins.roles(site)}
    assert made["user"]["scopes"] == [*made["binder-access"]["scopes"], *logins.SELF, "custom:binder-onprem:launch"]
    assert (made["binder-build"]["users"], made["binder-build"]["groups"]) == (["bob"], ["staff"])
    assert sorted(made["binder-admin"]["scopes"]) == [f"custom:binder-onprem:{role}" for role in ("admin", "build", "launch")]
    everything = {scope for role in made.values() for scope in role["scopes"]}
    assert not [scope for scope in everything if scope.startswith(("admin", "servers", "start", "delete", "proxy", "inherit"))]


@pytest.mark.parametrize("name", ["x-0123456789abcdef", "service:course", "a" * 201, "a\x1b[31mb"])
def test_a_name_that_means_something_else_cannot_log_in(name: str) -> None:
    with pytest.raises(web.HTTPError):
        authenticators.admitted(None, None, {"name": name})
    assert authenticators.admitted(None, None, {"name": "ada@uni.example"}) == {"name": "ada@uni.example"}


@pytest.mark.parametrize(
    ("told", "groups"),
    [({"g": ["a", "b"]}, {"a", "b"}), ({"g": "a"}, {"a"}), ({}, set()), ({"g": None}, set()), ({"g": [1, "x" * 999]}, {"1", "x" * 200})],
)
def test_groups_of_a_claim(told: dict[str, Any], groups: set[str]) -> None:
    assert authenticators.groups_of_claim("g")({"oauth_user": told}) == groups


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "saml"}, "kind"),
        ({"kind": "oidc"}, "issuer"),
        ({"kind": "ldap", "server": "http://x", "bind_dn": ["uid={username}"]}, "ldaps://"),
        ({"kind": "ldap", "server": "ldaps://x"}, "either bind_dn or search_base"),
        ({"kind": "ldap", "server": "ldaps://x", "bind_dn": ["uid=x"]}, "{username}"),
        ({"kind": "ldap", "server": "ldaps://x", "search_base": "o=x", "roles": {"build": ["group:staff"]}}, "no DN for staff"),
        ({"kind": "pam", "service": "../x"}, "service"),
        ({"kind": "pam", "roles": {"build": ["staff"]}}, "none of: everybody"),
        ({"kind": "native", "roles": {"build": ["group:staff"]}}, "no groups"),
        ({"kind": "native", "signup": "open", "roles": {"admin": ["user:ada"]}}, "approval or closed"),
        ({"kind": "pam", "services": [{"name": "binder", "token_file": "/x"}]}, "name of its own"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_words(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Auth).validate_python(settings)
    assert words in str(caught.value)


def authenticator(home: Path, **auth: Any) -> tuple[Any, Any]:
    """The hub's settings and the authenticator that they make, which checks each of its own."""
    site = Config.model_validate({"home": home, "auth": auth})
    c = Settings()
    c.JupyterHub.services, c.JupyterHub.load_roles, c.JupyterHub.tornado_settings = [], [], {"headers": {}}
    assert site.accounts
    logins.configure(c, site, site.accounts)
    return c, c.JupyterHub.authenticator_class(config=c)


@pytest.mark.parametrize("where", [{"search_base": "ou=people"}, {"bind_dn": ["uid={username},ou=people"]}])
def test_a_directorys_certificate_is_checked(tmp_path: Path, where: dict[str, Any]) -> None:
    c, ldap = authenticator(tmp_path, kind="ldap", server="ldaps://ldap.uni.example:1636", groups={"staff": "cn=staff"}, **where)
    assert (ldap.server_address, ldap.server_port, ldap.tls_strategy.value) == ("ldap.uni.example", 1636, 2)
    assert ldap.tls_kwargs["validate"].name == "CERT_REQUIRED"
    assert ldap.allowed_groups == ["cn=staff"]
    assert set(c.Proxy.extra_routes) == {f"/jupyter/hub/{page}/" for page in ("login", "logout", "static", "api/oauth2/authorize")}


def test_pages_where_passwords_are_typed_share_no_window(tmp_path: Path) -> None:
    """Sessions have their origin, and could open them."""
    c, _ = authenticator(tmp_path, kind="pam")
    headers = c.JupyterHub.tornado_settings["headers"]
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_pam_opens_no_sessions_of_its_own(tmp_path: Path) -> None:
    _, pam = authenticator(tmp_path, kind="pam")
    assert (pam.service, pam.open_sessions, pam.check_account, pam.manage_groups) == ("login", False, True, True)


def test_native_accounts_as_commands_see_them(tmp_path: Path) -> None:
    import sqlite3  # noqa: PLC0415 - here only

    table = Table(tmp_path, NativeAccounts(kind="native").password_length)
    with pytest.raises(StoreUnavailable, match="native"):
        table.listed()
    (tmp_path / "hub").mkdir()
    made = sqlite3.connect(tmp_path / "hub" / "jupyterhub.sqlite")
    made.execute("CREATE TABLE users_info (id INTEGER PRIMARY KEY, username, password, is_authorized, login_email_sent, email, has_2fa, otp_secret)")
    made.execute("INSERT INTO users_info (username, password, is_authorized) VALUES ('bob', 'x', 0)")
    made.commit()
    made.close()
    table.add("Ada", "a long password")
    assert table.listed() == [("ada", True), ("bob", False)]
    table.allow("bob")
    table.password("bob", "another password")
    table.forbid("ada")
    assert table.listed() == [("ada", False), ("bob", True)]
    table.remove("ada")
    assert table.listed() == [("bob", True)]
    for name, password in (("bob", "a long password"), ("a b", "a long password"), ("a/b", "a long password"), ("x", "short"), ("x", "é" * 40)):
        with pytest.raises(InvalidSpec):
            table.add(name, password)
    for action in (table.allow, table.forbid, table.remove):
        with pytest.raises(NotFound):
            action("nobody")


def test_what_a_login_needs_is_looked_for(tmp_path: Path) -> None:
    def told(**settings: Any) -> list[tuple[str, str]]:
        found = loginfiles.findings(Config.model_validate({"home": tmp_path, "auth": settings}))
        return [(one.level, one.subject) for one in found if one.level != "ok"]

    secret = tmp_path / "secret"
    openid = {"kind": "oidc", "issuer": "https://id.example", "client_id": "b", "client_secret_file": str(secret)}
    site = Config.model_validate({"home": tmp_path, "auth": openid})
    objection = loginfiles.objection(site)
    assert objection
    assert str(secret) in objection
    secret.write_text("x")
    secret.chmod(0o600)
    assert loginfiles.objection(site) is None
    assert told(**openid) == []
    assert told(kind="pam", service="no-such-service") == [("fail", "auth.service")]
    for token, wrong in (("a" * 64, False), ("a" * 32, False), ("a" * 65, True), ("a" * 31, True), ("a" * 32 + "\nb", True)):
        secret.write_text(token + "\n")
        program = {"name": "course", "token_file": str(secret)}
        assert told(kind="pam", services=[program]) == [("fail", "auth.services.0.token_file")] * wrong
    ldap = {"kind": "ldap", "bind_dn": ["uid={username}"], "start_tls": False}
    assert told(**ldap, server="ldap://ldap.uni.example") == [("warn", "auth.server")]
    assert told(**ldap, server="ldap://127.0.0.1") == []
    assert loginfiles.objection(Config(home=tmp_path)) is None
