"""What we add to the kept authenticators: groups by the names that roles use, names that nobody may take, and a hub that never waits for them.

They run inside the hub. `logins` imports the one that the site has chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tornado import web

from binder_onprem.model import temporary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAME: Final = 200
"""Characters of a user's or a group's name."""
GROUPS: Final = 1000
SERVICE: Final = "service:"
"""Before the names of programs with a token."""


def admitted(_authenticator: object, _handler: object, model: dict[str, Any]) -> dict[str, Any]:
    """Refuse names that mean something else here. Raises HTTPError with the sentence for the person."""
    name = model["name"]
    if temporary(name) or name.startswith(SERVICE) or len(name) > NAME or not name.isprintable():
        raise web.HTTPError(403, "A user name like yours cannot be used here. Ask the administrator.")
    return model


def groups_of_claim(claim: str) -> Callable[[Mapping[str, Any]], set[str]]:
    """Reads the groups that an OpenID provider tells; a provider may tell them as one string or not at all."""

    def groups(state: Mapping[str, Any]) -> set[str]:
        told = (state.get("oauth_user") or {}).get(claim) or ()
        return {str(group)[:NAME] for group in ([told] if isinstance(told, str) else told)[:GROUPS]}

    return groups
