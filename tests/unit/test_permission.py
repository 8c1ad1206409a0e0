from __future__ import annotations

import pytest

from binder_onprem.config.auth import PamAccounts
from binder_onprem.errors import Refused, SessionRunning
from binder_onprem.model import Client, LaunchRequest, Role, Session
from binder_onprem.permission import Permission

SITE = Permission(PamAccounts(kind="pam", contact="the help desk"))


def click(user: str | None = "ada", *roles: Role, service: bool = False) -> LaunchRequest:
    return LaunchRequest("gh", "o/r/HEAD", Client("192.0.2.1", user, roles=frozenset(roles), service=service))


def session(owner: str | None, launch: str = "1" * 16, *, server: bool = True) -> Session:
    return Session(f"x-{launch}", ready=True, started=1.0, last_activity=1.0, launch_id=launch, owner=owner, server=server)


def test_roles_decide_and_the_words_say_whom_to_ask() -> None:
    SITE.launch(click("ada", Role.LAUNCH))
    SITE.build(click("ada", Role.BUILD))
    with pytest.raises(Refused, match="Ask the help desk"):
        SITE.launch(click("ada", Role.BUILD))
    with pytest.raises(Refused, match=r"not built yet.*Ask the help desk"):
        SITE.build(click("ada", Role.LAUNCH))


def test_a_person_has_one_session_unless_the_site_says_more() -> None:
    SITE.own(click(), [session("bob"), session(None), session("ada", server=False)])
    with pytest.raises(SessionRunning, match=r"^User ada already has a running server\.") as caught:
        SITE.own(click(), [session("ada")])
    assert caught.value.status == 409
    request = click()
    SITE.own(request, [session("ada", request.launch_id)])
    two = Permission(PamAccounts(kind="pam", named_servers=2))
    two.own(click(), [session("ada")])
    with pytest.raises(SessionRunning, match="the maximum of 2"):
        two.own(click(), [session("ada"), session("ada", "2" * 16)])


def test_where_nobody_logs_in_and_for_programs_nothing_is_counted() -> None:
    for permission, request in ((Permission(None), click(None)), (SITE, click(None)), (SITE, click("service:x", service=True))):
        permission.own(request, [session(None, str(number) * 16) for number in range(9)])


def test_of_two_clicks_at_once_the_first_gets_the_place() -> None:
    first, second, other = click(), click(), click("bob")
    with SITE.place(first), SITE.place(second), SITE.place(other):
        SITE.own(first, [])
        SITE.own(other, [])
        with pytest.raises(SessionRunning):
            SITE.own(second, [])
    with SITE.place(second):
        SITE.own(second, [])
