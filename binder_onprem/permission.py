"""What somebody who has logged in may do: roles, and how many sessions are enough for one person. Decisions without network.

`launch` asks. Who has which role is the hub's business (`hub.logins`); here it is only looked at.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from binder_onprem.errors import Refused, SessionRunning
from binder_onprem.model import Role

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from binder_onprem.config.auth import Accounts
    from binder_onprem.model import LaunchRequest, Session


class Permission:
    """The site's answer.

    Args:
        accounts: What people log in by; None where nobody has to.
    """

    def __init__(self, accounts: Accounts | None) -> None:
        self._limit = accounts.named_servers if accounts else 0
        self._contact = accounts.contact if accounts else "the administrator"
        self._places: OrderedDict[str, str] = OrderedDict()

    def launch(self, request: LaunchRequest) -> None:
        """Raises `Refused` for who may not start sessions."""
        if not request.build_only and Role.LAUNCH not in request.client.roles:
            raise Refused(f"You may not launch sessions here. Ask {self._contact}.")

    def build(self, request: LaunchRequest) -> None:
        """Raises `Refused` for who may not have an environment built that is not there yet."""
        if Role.BUILD not in request.client.roles:
            raise Refused(
                "The environment of this repository is not built yet, and you may not have environments built here. "
                f"Ask {self._contact} to open it once."
            )

    def own(self, request: LaunchRequest, sessions: Sequence[Session]) -> None:
        """Raises `SessionRunning` when the person has as many sessions as she may have; the launch's own does not count against it."""
        owner = request.client.owner
        if owner is None or not self._limit:
            return
        others = {session.launch_id for session in sessions if session.server and session.owner == owner} | self._before(request.launch_id, owner)
        if len(others - {request.launch_id}) < self._limit:
            return
        has = "a running server" if self._limit == 1 else f"the maximum of {self._limit} running servers"
        raise SessionRunning(f"User {owner[:80]} already has {has}. Stop it on the page of your sessions, or go on working in it.")

    def _before(self, launch_id: str, owner: str) -> set[str | None]:
        # Of two launches for the last place exactly one gets it: who came first.
        earlier: set[str | None] = set()
        for other, its in self._places.items():
            if other == launch_id:
                break
            if its == owner:
                earlier.add(other)
        return earlier

    @contextmanager
    def place(self, request: LaunchRequest) -> Iterator[None]:
        """Take a place from before `own` is asked until the hub shows the session, so that two clicks at once do not both see room."""
        mine = request.client.owner is not None and request.launch_id not in self._places
        if mine:
            self._places[request.launch_id] = request.client.owner or ""
        try:
            yield
        finally:
            if mine:
                self._places.pop(request.launch_id, None)
