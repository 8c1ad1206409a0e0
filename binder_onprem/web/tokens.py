"""Build tokens: proof that a launch comes from a page of ours, so that it does not count against the rate limit.

JWT, HS256, with BinderHub's claims: ``aud`` (``provider/raw spec``), ``origin`` (host and port of the page), ``exp``. Pure but for the clock
that PyJWT compares ``exp`` with.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass, field
from typing import Final

import jwt

LIFETIME: Final = 300
"""Seconds."""
GRACE: Final = 86400
"""Seconds more for a viewer that comes back to its launch."""


@dataclass(frozen=True, slots=True)
class BuildTokens:
    """Issues and checks them.

    Attributes:
        secret: The site's secret; the signing key is derived from it, so that a build token says nothing about session tokens.
    """

    secret: bytes = field(repr=False)

    @property
    def _key(self) -> bytes:
        return hmac.new(self.secret, b"build-token", hashlib.sha256).digest()

    def issue(self, audience: str, origin: str, now: float | None = None, login: str = "") -> str:
        """A token for one link on one host.

        Args:
            audience: ``provider/spec`` as in the raw path, without slashes at the end.
            origin: ``host:port`` of the page.
            now: Unix seconds; default: the clock.
            login: Whose page it is, where people log in: nobody's page can send somebody else's browser on a launch.
        """
        expires = int(time.time() if now is None else now) + LIFETIME
        return jwt.encode({"aud": audience, "origin": origin, "exp": expires} | ({"login": login} if login else {}), self._key, algorithm="HS256")

    def valid(self, token: str, audience: str, origin: str, grace: float = 0, login: str = "") -> bool:
        """Whether we issued it for this link and this host.

        Args:
            token: As in the query.
            audience: ``provider/spec`` of the launch.
            origin: ``host:port`` of the page that asks.
            login: Of the browser that asks, "" for other clients.
            grace: Seconds it holds beyond its lifetime, for a page that takes up a launch it began in time.
        """
        try:
            claims = jwt.decode(
                token, self._key, algorithms=["HS256"], audience=audience, leeway=grace, options={"require": ["exp", "aud", "origin"]}
            )
        except (jwt.InvalidTokenError, ValueError):
            return False
        return bool(claims["origin"] == origin and (not login or claims.get("login") == login))
