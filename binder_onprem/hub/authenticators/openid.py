"""An OpenID provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from oauthenticator.generic import GenericOAuthenticator

from binder_onprem.hub.authenticators.refreshing import Refreshing

if TYPE_CHECKING:
    from binder_onprem.hub.authenticators.refreshing import Answer
    from binder_onprem.hub.outside import Outside


class OpenId(Refreshing, GenericOAuthenticator):  # type: ignore[misc]
    """A provider that is asked anew with the tokens that a log-in has brought; they lie encrypted in the hub's database."""

    outside: ClassVar[Outside]
    """The way to it; set before the hub makes one of these."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.http_client = settings.get("http_client") or self.outside

    async def again(self, user: Any, handler: Any) -> Answer:
        """Her groups now; False when the provider takes neither her access token nor her refresh token. Raises when it does not answer."""
        found: Answer = await GenericOAuthenticator.refresh_user(self, user, handler)
        # Who somebody is here does not change: another name would be another person's sessions.
        if isinstance(found, dict) and self.normalize_username(found["name"]) != user.name:
            return False
        return found
