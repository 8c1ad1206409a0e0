"""The machine's own accounts."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
from typing import TYPE_CHECKING, Any

from jupyterhub.auth import PAMAuthenticator

from binder_onprem.hub.authenticators.refreshing import Refreshing
from binder_onprem.model import temporary

if TYPE_CHECKING:
    from binder_onprem.hub.authenticators.refreshing import Answer


class Pam(Refreshing, PAMAuthenticator):  # type: ignore[misc]
    """The machine's own accounts, with their Unix groups."""

    async def again(self, user: Any, _handler: Any) -> Answer:
        """Her groups now; False when there is no such account any more."""
        found = await asyncio.to_thread(_unix_groups, user.name)
        return False if found is None else {"groups": found}

    async def add_user(self, user: Any) -> None:
        """Let the hub know a user: an account of this machine, or the temporary user of a program's session, which is none."""
        if not temporary(user.name):
            await super().add_user(user)

    async def authenticate(self, handler: Any, data: dict[str, str]) -> dict[str, Any] | None:
        """Who it is, with groups; None when PAM says no."""
        name = await super().authenticate(handler, data)
        return None if name is None else {"name": name, "groups": await asyncio.to_thread(_unix_groups, name) or []}


def _unix_groups(name: str) -> list[str] | None:
    """None: there is no such account."""
    try:
        ids = os.getgrouplist(name, pwd.getpwnam(name).pw_gid)
    except KeyError:
        return None
    found = []
    for number in ids:
        try:
            found.append(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return found
