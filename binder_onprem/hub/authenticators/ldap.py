"""A directory of accounts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Final

import ldap3
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import escape_rdn
from ldapauthenticator import LDAPAuthenticator
from tornado import web

from binder_onprem.hub.authenticators.refreshing import Refreshing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from binder_onprem.hub.authenticators.refreshing import Answer

PATIENCE: Final = 20.0
"""Seconds until a directory must have answered to a log-in."""
ANSWERS: Final = ("success", "noSuchObject")
"""Results of a search that say how it is; all others say that the directory does not tell."""


class Ldap(Refreshing, LDAPAuthenticator):  # type: ignore[misc]
    """A directory; asked in a thread, since its client library waits, and everybody's sessions with it."""

    names: ClassVar[Mapping[str, str]] = {}
    """DN of each group → its name in roles."""

    def get_connection(self, userdn: str | None, password: str | None) -> Any:
        """One connection, bound; a directory need not know every attribute that the filter for groups names, so the library does not check them."""
        connection = super().get_connection(userdn, password)
        if connection is not None:
            connection.check_names = False
        return connection

    async def authenticate(self, handler: Any, data: dict[str, str]) -> dict[str, Any] | None:
        """Who it is, with groups; None when the directory does not know name and password.

        Raises:
            HTTPError: The directory does not answer.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                model = await asyncio.to_thread(asyncio.run, super().authenticate(handler, data))
        except Exception as error:
            self.log.warning("the directory does not answer: %s", type(error).__name__)
            raise web.HTTPError(503, "The directory of accounts does not answer. Try again in a moment.") from error
        if model is None:
            return None
        found: Sequence[str] = (model.get("auth_state") or {}).get("ldap_groups", ())
        return {"name": model["name"], "groups": [self.names[dn] for dn in found if dn in self.names]}

    async def again(self, user: Any, _handler: Any) -> Answer:
        """Her groups now; False when the directory does not know her any more.

        Asked by the account that looks people up, since her password is not kept; where there is none, nothing changes while she is logged in.
        """
        if not self.lookup_dn and not self.lookup_dn_search_user:
            return True
        found = await asyncio.to_thread(self._groups_of, user.name)
        return False if found is None else {"groups": found}

    def _groups_of(self, name: str) -> list[str] | None:
        connection = self.get_connection(self.lookup_dn_search_user, self.lookup_dn_search_password)
        if connection is None:
            raise PermissionError("the directory refuses the account that looks people up")
        try:
            dn = next((dn for dn in self._places(connection, name)), None)
            if dn is None:
                return None
            who = self.group_search_filter.format(userdn=escape_filter_chars(dn), uid=escape_filter_chars(name))
            return [group for at, group in self.names.items() if _entries(connection, at, who, ldap3.BASE)]
        finally:
            connection.unbind()

    def _places(self, connection: Any, name: str) -> list[str]:
        """DNs of the person: one, or none."""
        if not self.lookup_dn:
            templates = (template.format(username=escape_rdn(name)) for template in self.bind_dn_template)
            return [dn for dn in templates if _entries(connection, dn, "(objectClass=*)", ldap3.BASE)]
        login = self.lookup_dn_search_filter.format(login_attr=self.user_attribute, login=escape_filter_chars(name))
        found = _entries(connection, self.user_search_base, login, ldap3.SUBTREE)
        return found if len(found) == 1 else []


def _entries(connection: Any, base: str, condition: str, scope: str) -> list[str]:
    """DNs of what is found. Raises `LookupError` where the directory does not tell."""
    connection.search(base, condition, scope, attributes=["1.1"])
    if connection.result["description"] not in ANSWERS:
        raise LookupError(connection.result["description"])
    return [str(entry.entry_dn) for entry in connection.entries]
