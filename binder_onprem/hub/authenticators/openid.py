"""An OpenID provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oauthenticator.generic import GenericOAuthenticator

from binder_onprem.hub.authenticators.refreshing import Refreshing

if TYPE_CHECKING:
    from binder_onprem.hub.authenticators.refreshing import Answer


class OpenId(Refreshing, GenericOAuthenticator):  # type: ignore[misc]
    """A provider that is asked anew with the tokens that a log-in has brought; they lie encrypted in the hub's database."""

    async def again(self, user: Any, handler: Any) -> Answer:
        """Her groups now; False when the provider takes neither her access token nor her refresh token. Raises when it does not answer."""
        found: Answer = await GenericOAuthenticator.refresh_user(self, user, handler)
        # Who somebody is here does not change: another name would be another person's sessions.
        if isinstance(found, dict) and self.normalize_username(found["name"]) != user.name:
            return False
        return found
