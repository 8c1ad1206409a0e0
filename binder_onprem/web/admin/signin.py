"""Sign-in to the administrator's page with the site's token: a signed cookie instead, short-lived, and tries that are bounded.

Sessions run on the same origin, and what runs in them is anybody's. So the cookie is sent to the administrator's routes only, it is worth nothing
without the page's own key (`XSRF`), which stands nowhere but in the page, and the page is given to a top-level navigation only, in a browsing
context that no other page has a handle on. Changing the admin token ends every sign-in.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import jwt

from binder_onprem.errors import RateLimited

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

COOKIE: Final = "binder-admin"
XSRF: Final = "X-XSRFToken"
PATHS: Final = ("admin", "api/")
"""Below the base URL: where the cookie is sent."""
LIFETIME: Final = 3600
"""Seconds without a look at the page after which one signs in again."""
LONGEST: Final = 12 * 3600
"""Seconds after which one signs in again in any case."""
TRIES: Final = 10
PERIOD: Final = 900.0
"""So many wrong tokens of one address in so many seconds, then none is looked at."""
ADDRESSES: Final = 10_000
REVOKED: Final = 10_000


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A valid cookie: its id, when its owner signed in (Unix seconds), and the key that the page sends with each call."""

    id: str
    began: int
    xsrf: str = field(repr=False)


class SignIns:
    """Issues and checks cookies, counts wrong tokens.

    Args:
        secret: The site's secret; the signing key is derived from it.
        now: Unix seconds.
    """

    def __init__(self, secret: bytes, now: Callable[[], float] = time.time) -> None:
        self._key = hmac.new(secret, b"admin-cookie", hashlib.sha256).digest()
        self._now = now
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._revoked: OrderedDict[str, None] = OrderedDict()

    def issue(self, token: bytes, previous: SignedIn | None = None) -> str:
        """A cookie for whoever showed the admin token; `previous` is prolonged, keeping its id and beginning."""
        now = int(self._now())
        began, known = (previous.began, previous.id) if previous else (now, secrets.token_hex(16))
        claims = {"sub": "admin", "jti": known, "began": began, "exp": min(now + LIFETIME, began + LONGEST), "tok": self._mark(token)}
        return jwt.encode(claims, self._key, algorithm="HS256")

    def read(self, cookie: str, token: bytes) -> SignedIn | None:
        """What a cookie says, None when it is not ours, has run out, was signed out, or the admin token is another one now."""
        options: Any = {"require": ["exp", "jti", "began", "tok"], "verify_exp": False}
        try:
            claims = jwt.decode(cookie, self._key, algorithms=["HS256"], options=options)
        except (jwt.InvalidTokenError, ValueError):
            return None
        fits = claims["exp"] > self._now() and token and hmac.compare_digest(str(claims["tok"]), self._mark(token))
        if not fits or claims["jti"] in self._revoked:
            return None
        return SignedIn(claims["jti"], claims["began"], self._xsrf(claims["jti"]))

    def revoke(self, signed: SignedIn) -> None:
        """It has signed out."""
        self._revoked[signed.id] = None
        if len(self._revoked) > REVOKED:
            self._revoked.popitem(last=False)

    def tried(self, address: str) -> None:
        """Raises `RateLimited` when an address has shown too many wrong tokens."""
        began, count = self._wrong.get(address, (0.0, 0))
        left = began + PERIOD - self._now()
        if count >= TRIES and left > 0:
            raise RateLimited(f"Too many wrong tokens from your address. Try again in {max(1, round(left))} seconds.", retry_after=max(1.0, left))

    def wrong(self, address: str) -> None:
        """Count a wrong token."""
        began, count = self._wrong.pop(address, (self._now(), 0))
        if self._now() - began >= PERIOD:
            began, count = self._now(), 0
        self._wrong[address] = began, count + 1
        if len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)

    def _mark(self, token: bytes) -> str:
        return hmac.new(self._key, b"token" + token, hashlib.sha256).hexdigest()[:32]

    def _xsrf(self, known: str) -> str:
        return hmac.new(self._key, b"xsrf" + known.encode(), hashlib.sha256).hexdigest()


def set_cookie(request: web.Request, response: web.StreamResponse, base: str, value: str) -> None:
    """Send a cookie to the administrator's routes, and to nothing else on this origin; "" takes it away."""
    secure = request.secure or request.headers.get("X-Forwarded-Proto", "").split(",")[0].strip().lower() == "https"
    for below in PATHS:
        # One name, two paths: `set_cookie` keeps one of a name.
        age = LIFETIME if value else 0
        flags = f"; Path={base}{below}; Max-Age={age}; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"
        response.headers.add("Set-Cookie", f"{COOKIE}={value}{flags}")
