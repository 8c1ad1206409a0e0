"""The two cookies of a log-in: who has logged in, and, on the way there, where she wanted to go. Sealed: nobody else reads or makes them.

The key is derived from the site's secret, so they hold over restarts. Sessions run on the same host as our pages: the proxy takes these cookies out
of what it passes on to them (`hub/proxy.cjs`), by their names' beginning.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cryptography.fernet import Fernet, InvalidToken

if TYPE_CHECKING:
    from aiohttp import web

    from binder_onprem.config import Config

PREFIX: Final = "binder-onprem-"
LOGIN: Final = f"{PREFIX}login"
WAY: Final = f"{PREFIX}way-"
CALLBACK: Final = "oauth_callback"
"""Below our base URL: where the hub sends a browser that has logged in."""
WAY_SECONDS: Final = 900
"""That a log-in may take."""
PLACE: Final = 2000
"""Characters of an address to come back to; a cookie holds 4096 bytes."""


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody's log-in.

    Attributes:
        token: Of the hub.
        id: Of this log-in; what proves that a request comes from a page of ours is made of it.
    """

    token: str = field(repr=False)
    id: str = field(repr=False)


class Seal:
    """Makes and reads the cookies.

    Args:
        secret: The site's.
        remember: Seconds that a log-in holds.
        path: Our base URL.
        secure: Whether people come by https.
    """

    def __init__(self, secret: bytes, remember: float, path: str, *, secure: bool) -> None:
        self._key = hmac.new(secret, b"login-cookie", hashlib.sha256).digest()
        self._fernet = Fernet(urlsafe_b64encode(self._key))
        self._remember = int(remember)
        self._path = path
        self._secure = secure

    @classmethod
    def of(cls, config: Config, secret: bytes) -> Seal:
        """The site's."""
        remember = config.accounts.remember if config.accounts else 0.0
        return cls(secret, remember, config.listen.base_url, secure=config.public_url.startswith("https:"))

    def login(self, request: web.Request) -> Login | None:
        """The log-in that a request's cookie stands for, whether or not the hub still knows its token."""
        data = self._open(request, LOGIN, self._remember)
        return Login(data["token"], data["id"]) if data and data.keys() == {"token", "id"} else None

    def remember(self, response: web.Response, token: str) -> None:
        """Keep a log-in."""
        self._put(response, LOGIN, {"token": token, "id": secrets.token_hex(16)}, self._remember, self._path)

    def forget(self, response: web.Response) -> None:
        """End it in this browser."""
        response.del_cookie(LOGIN, path=self._path)

    def proof(self, login: Login) -> str:
        """What pages of ours send along with whatever changes something: other sites cannot know it."""
        return hmac.new(self._key, b"proof" + login.id.encode(), hashlib.sha256).hexdigest()

    def proves(self, login: Login, given: str) -> bool:
        """Whether `given` is that log-in's proof."""
        return hmac.compare_digest(self.proof(login).encode(), given.encode(errors="replace"))

    def depart(self, response: web.Response, place: str) -> str:
        """Remember where somebody wanted to go; returns the state that her log-in carries.

        Args:
            response: Takes the cookie; each way has its own, since people open several links at once.
            place: Path and query on this host.
        """
        state = secrets.token_hex(16)
        kept = place if len(place) <= PLACE else self._path
        self._put(response, WAY + state[:8], {"state": state, "place": kept}, WAY_SECONDS, f"{self._path}{CALLBACK}")
        return state

    def arrive(self, request: web.Request, state: str) -> str | None:
        """Where she wanted to go; None when this browser did not set out with that state, or long ago."""
        if not re.fullmatch(r"[0-9a-f]{32}", state):
            return None
        data = self._open(request, WAY + state[:8], WAY_SECONDS)
        if not data or not hmac.compare_digest(str(data.get("state")), state):
            return None
        return local(str(data.get("place")), self._path)

    def arrived(self, response: web.Response, state: str) -> None:
        """The way's cookie is of no more use."""
        response.del_cookie(WAY + state[:8], path=f"{self._path}{CALLBACK}")

    def _put(self, response: web.Response, name: str, data: dict[str, str], seconds: int, path: str) -> None:
        value = self._fernet.encrypt(json.dumps({name: data}).encode()).decode()
        response.set_cookie(name, value, max_age=seconds, path=path, httponly=True, samesite="Lax", secure=self._secure)

    def _open(self, request: web.Request, name: str, seconds: int) -> dict[str, Any] | None:
        try:
            data: dict[str, Any] = json.loads(self._fernet.decrypt(request.cookies.get(name, "").encode("ascii"), ttl=seconds))
        except (InvalidToken, ValueError):
            return None
        return data.get(name)  # under its name: one cookie's value is none of another's


def local(place: str, base: str) -> str:
    """`place` if it is a path of ours that no browser takes for another host, else our base URL."""
    ours = place.startswith(base) and not place.startswith(("//", "/\\")) and not re.search(r"[\x00-\x20\x7f\\]", place.partition("?")[0])
    return place if ours else base
