"""Who somebody is, asked of the hub with the token that she brings; and the daemon's side of the log-in, which gets such a token.

`web.clients` and `web.login` use it. What the hub said holds for `SECONDS`, so a page with twenty pictures is one question, and a token that was
revoked is refused that soon. Tokens are kept as digests, here and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from binder_onprem.errors import Refused
from binder_onprem.hub.scopes import ACCESS, CALLBACK, CLIENT, SCOPE
from binder_onprem.hub.wire import SUCCESS, Call
from binder_onprem.interfaces import AccessToken
from binder_onprem.model import Account, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binder_onprem.config import Config
    from binder_onprem.hub.wire import HubApi

SECONDS: Final = 3.0
"""That an answer holds."""
REMEMBERED: Final = 10_000
"""Tokens; beyond it the one asked first is forgotten."""
BRIDGE: Final = 8.0
"""Seconds that a hub that restarts is waited for."""
LONGEST: Final = 512
"""Characters of a token."""
NOBODY: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)


class HubAccounts:
    """Satisfies `interfaces.Accounts`.

    Args:
        config: The site.
        api: The hub's.
        secret: The daemon's own token, which is its secret as an OAuth client.
        now: Monotonic seconds.
    """

    def __init__(self, config: Config, api: HubApi, secret: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._api = api
        self._secret = secret
        self._now = now
        self._known: OrderedDict[bytes, tuple[float, Account | None]] = OrderedDict()
        self._asked: dict[bytes, asyncio.Future[Account | None]] = {}

    async def of_token(self, token: str) -> Account | None:
        """The account of a token; None for one that is nobody's (any more), or may not speak to this service. Raises `HubUnavailable`."""
        if not (token.isascii() and token.isprintable() and len(token) <= LONGEST):
            return None
        key = sha256(token.encode()).digest()
        until, account = self._known.get(key, (0.0, None))
        if self._now() < until:
            return account
        if key not in self._asked:
            # In a task of its own: who asked first may leave, and the others still want to know.
            task = self._asked[key] = asyncio.ensure_future(self._ask(key, token))
            task.add_done_callback(lambda done: (self._asked.pop(key, None), done.cancelled() or done.exception()))
        return await asyncio.shield(self._asked[key])

    async def _ask(self, key: bytes, token: str) -> Account | None:
        status, model = await self._api.ask(Call("GET", "/user", limit=10, bridge=BRIDGE, token=token), (*SUCCESS, *NOBODY))
        account = _account(model) if status in SUCCESS else None
        self._known.pop(key, None)
        self._known[key] = (self._now() + SECONDS, account)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return account

    def forget(self, token: str) -> None:
        """What is known of a token no longer holds."""
        self._known.pop(sha256(token.encode()).digest(), None)

    def forget_everybody(self) -> None:
        """Tokens have been revoked, it is not known which: the hub is asked about each again."""
        self._known.clear()

    def login_url(self, state: str) -> str:
        """Where a browser goes to log in, a path on the public port; it comes back to ``oauth_callback`` with a code and `state`."""
        query = f"client_id={CLIENT}&redirect_uri={quote(self._callback, safe='')}&response_type=code&state={quote(state, safe='')}"
        return f"{self._config.hub_base_url}hub/api/oauth2/authorize?{query}"

    @property
    def logout_url(self) -> str:
        """Where a browser goes to leave the hub, a path on the public port."""
        return f"{self._config.hub_base_url}hub/logout"

    @property
    def _callback(self) -> str:
        return f"{self._config.listen.base_url}{CALLBACK}"

    async def exchange(self, code: str) -> str:
        """The token that a log-in's code stands for.

        Raises:
            Refused: It stands for none (any more).
            HubUnavailable: The hub does not answer.
        """
        form = {"client_id": CLIENT, "client_secret": self._secret, "grant_type": "authorization_code", "code": code, "redirect_uri": self._callback}
        status, answer = await self._api.ask(Call("POST", "/oauth2/token", form=form, token=""), (*SUCCESS, HTTPStatus.BAD_REQUEST, *NOBODY))
        token = answer.get("access_token")
        if status not in SUCCESS or not isinstance(token, str):
            raise Refused("This log-in has expired. Log in again.")
        return token

    # People's own tokens, for programs of theirs; with their own rights, not with the daemon's.
    async def tokens(self, name: str, token: str) -> Sequence[AccessToken]:
        """A person's tokens for this service, newest first.

        Args:
            name: The person.
            token: Of her log-in.
        """
        _, answer = await self._api.ask(Call("GET", f"/users/{quote(name, safe='')}/tokens", token=token))
        # Those of log-ins have a session of a browser.
        found = [_token(one) for one in answer.get("api_tokens") or () if one.get("kind") == "api_token" and not one.get("session_id")]
        return sorted(found, key=lambda one: one.created, reverse=True)

    async def add_token(self, name: str, token: str, note: str, seconds: int, roles: frozenset[Role]) -> str:
        """Make one; it is told this once.

        Args:
            name: The person.
            token: Of her log-in.
            note: What it is for.
            seconds: That it holds.
            roles: What it may do; of what she may.
        """
        data = {"note": note, "expires_in": seconds, "scopes": [ACCESS, *sorted(f"{SCOPE}{role}" for role in roles)]}
        _, answer = await self._api.ask(Call("POST", f"/users/{quote(name, safe='')}/tokens", data, token=token))
        return str(answer["token"])

    async def remove_token(self, name: str, token: str, token_id: str) -> None:
        """Revoke one; absent is fine. Args as in `add_token`; `token_id` from `tokens`."""
        path = f"/users/{quote(name, safe='')}/tokens/{quote(token_id, safe='')}"
        await self._api.ask(Call("DELETE", path, token=token), (*SUCCESS, HTTPStatus.NOT_FOUND))
        self.forget_everybody()


def _account(model: dict[str, Any]) -> Account | None:
    """What the hub says of a token's owner, as far as it concerns us."""
    scopes = frozenset(map(str, model.get("scopes") or ()))
    if not scopes & {ACCESS, ACCESS.partition("!")[0]}:
        return None
    roles = frozenset(role for role in Role if f"{SCOPE}{role}" in scopes)
    if model.get("kind") == "service":
        return Account(f"service:{model['name']}", roles=roles, service=True)
    return Account(str(model["name"]), frozenset(map(str, model.get("groups") or ())), roles)


def _token(model: dict[str, Any]) -> AccessToken:
    return AccessToken(
        str(model["id"]), str(model.get("note") or ""), str(model.get("created") or ""), model.get("expires_at"), model.get("last_activity")
    )
