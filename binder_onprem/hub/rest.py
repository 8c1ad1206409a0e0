"""JupyterHub's REST API as the daemon uses it: start, list and stop sessions, over the hub's own port on loopback.

`launch.launch`, the reaper and the reconcile pass call it. It holds no state: session and container are named after the launch, so every call may
be repeated, and a hub that restarts for a few seconds is waited for. It never passes a hub's token on: the session's own is all people get.

A session is a named server of the person who has launched it. Where nobody has logged in it is the only server of a temporary user that is called
like it, is made for it and goes with it.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import aclosing
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from binder_onprem.errors import HubUnavailable, SpawnFailed, SpawnTimeout
from binder_onprem.hub.accounts import HubAccounts
from binder_onprem.hub.wire import ANY, PAUSE, SUCCESS, Call, HubApi
from binder_onprem.model import Server, Session, session_name, temporary
from binder_onprem.terms import Terms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from binder_onprem.config import Config
    from binder_onprem.model import LaunchRequest, ResolvedRepo

STOP: Final = 30.0
"""Seconds until a session must be gone."""
PATIENCE: Final = 60.0
"""Seconds that a start waits for a hub that restarts, which takes long on a busy machine."""
PULL: Final = 660.0
"""Seconds a start may take beyond the server's own, when the image has to come from the registry."""
_PASSING: Final = re.compile(r"is already running|is pending")
"""The hub's 400 that say: an earlier attempt of this launch is at work or done."""
_MESSAGE: Final = 3000
RECENT: Final = 3600.0
"""Seconds after somebody's last activity in which what her sessions have left behind is looked for."""
TEMPORARY: Final = "-" + 16 * "_"
"""In the hub's filter of names, where `_` is any character: those of temporary users, and of few others."""
SITE: Final = Terms()
"""The site's own limits."""
_BYTES: Final = 16 * 1024**2


class JupyterHub:
    """The hub; satisfies `interfaces.Hub`, `interfaces.Activity` and `interfaces.Routes`; `accounts` is who may come, where people log in.

    Args:
        config: The site.
        session: Plain HTTP, loopback only.
        token: The service's.
        secret: The site's, 32 bytes; sessions' tokens are made with it.
    """

    def __init__(self, config: Config, session: aiohttp.ClientSession, token: str, secret: bytes) -> None:
        self._config = config
        self._session = session
        self._secret = secret
        self._api = HubApi(f"http://127.0.0.1:{config.hub_port}{config.hub_base_url}hub/api", session, token)
        self.accounts = HubAccounts(config, self._api, token) if config.accounts else None
        self._spawn = PULL + config.session.start_timeout

    async def start(
        self, launch: LaunchRequest, repo: ResolvedRepo, image: str, log: Callable[[str], Awaitable[None]], terms: Terms = SITE
    ) -> Server:
        """Start the launch's session, with a temporary user for it where it has no owner; repeating it gives the same server.

        Raises:
            SpawnFailed: It ended, or the hub refuses; with the spawner's reason.
            SpawnTimeout: Its server does not answer in time.
            HubUnavailable: The hub does not answer for `PATIENCE` seconds.
        """
        name, owner = session_name(repo.spec.slug, launch.launch_id), launch.client.owner
        server, chosen = _server(name, owner), self._options(launch, repo, image) | terms.options()
        try:
            async with asyncio.timeout(self._spawn + PATIENCE):
                if owner is None:
                    await self._api.ask(Call("POST", f"/users/{name}", bridge=PATIENCE), (HTTPStatus.CREATED, HTTPStatus.CONFLICT))
                while (token := await self._bring_up(server, chosen, log)) is None:  # noqa: ASYNC110 - the hub has no event for it
                    await asyncio.sleep(PAUSE)
        except TimeoutError:
            raise SpawnTimeout("The session did not start in time. Try again.") from None
        # Where the launch's own client sees us: the site may have several names.
        where = launch.host or self._config.public_url
        return Server(name, where + self._below(name, owner).removeprefix(self._config.listen.base_url), token)

    async def sessions(self) -> list[Session]:
        """Every session that has a server, starting or running; the hub lists those alone, whoever else it knows. Raises `HubUnavailable`."""
        return [session for session in await self._listed(state="active") if session.server]

    async def remains(self) -> list[Session]:
        """The same, and what is left without a server: all temporary users, and the entries of people who were here in the last `RECENT` seconds.

        An entry of somebody else's is in nobody's way, and is found when she comes again.

        Raises:
            HubUnavailable: The hub does not answer.
        """
        since = time.time() - RECENT
        found = [
            *await self._listed(sort="-last_activity", since=since),
            *await self._listed(name_filter=TEMPORARY),
            *await self._listed(state="active"),  # last: what is in the earlier lists and has got a server since, has one
        ]
        return list({session.name: session for session in found}.values())

    async def _listed(self, *, since: float = 0.0, **params: str) -> list[Session]:
        """Sessions of the users that the hub selects, down to one whose last activity is older than `since` (Unix seconds)."""
        found: list[Session] = []
        async with aclosing(self._api.pages("/users", include_stopped_servers="1", **params)) as pages:
            async for page in pages:
                for model in page:
                    if since and (_seconds(model.get("last_activity")) or 0.0) < since:
                        return found
                    found += _sessions(model)
        return found

    async def current(self, session: Session) -> tuple[Session, str] | None:
        """A session as it is this moment, with its token; None when it has no server (any more). Raises `HubUnavailable`."""
        _, model = await self._api.ask(Call("GET", _server(session.name, session.owner)), (HTTPStatus.OK, HTTPStatus.NOT_FOUND))
        token = (model.get("user_options") or {}).get("token")
        return (_session(session.name, session.owner, model, None), str(token)) if token else None

    async def stop(self, session: Session) -> None:
        """Stop the session's server and remove it, then the user if it is a temporary one; absent is fine. Raises `HubUnavailable`."""
        server = _server(session.name, session.owner)
        calls = [Call("DELETE", server, {"remove": True} if session.owner is not None else None)]
        if session.owner is None and temporary(session.name):
            calls.append(Call("DELETE", f"/users/{session.name}"))
        gone = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND)
        # 202: it is stopping. 400: it is starting or stopping. 500: the start that was cancelled is not undone yet.
        fine = (*gone, HTTPStatus.ACCEPTED, HTTPStatus.BAD_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR)
        try:
            async with asyncio.timeout(STOP):
                for call in calls:
                    while (await self._api.ask(call, fine))[0] not in gone:  # noqa: ASYNC110 - the hub has no event for it
                        await asyncio.sleep(PAUSE)
        except TimeoutError:
            raise HubUnavailable("The session does not stop; the next pass tries again.") from None

    async def forget(self, user: str) -> None:
        """Take a person's log-ins and tokens away, whose sessions have been stopped; absent is fine. Raises `HubUnavailable`."""
        await self._api.ask(Call("DELETE", f"/users/{quote(user, safe='')}"), (*SUCCESS, HTTPStatus.NOT_FOUND))
        if self.accounts:
            self.accounts.forget_everybody()

    async def busy(self, session: Session) -> bool:
        """Whether a kernel of the session works or a page is connected to one; False when it does not answer. Raises `HubUnavailable`.

        It asks the server itself: over the proxy the question would count as activity.
        """
        path = self._below(session.name, session.owner)
        targets = [str(route["target"]) async for found, route in self._table() if found == path]
        _, model = await self._api.ask(Call("GET", _server(session.name, session.owner)), (HTTPStatus.OK, HTTPStatus.NOT_FOUND))
        headers = {"Authorization": f"token {(model.get('user_options') or {}).get('token', '')}"}
        if not targets:
            return False
        try:
            async with self._session.get(
                URL(f"{targets[0]}{path}api/kernels", encoded=True), headers=headers, timeout=aiohttp.ClientTimeout(5), allow_redirects=False
            ) as answer:
                kernels = json.loads(await answer.content.read(_BYTES)) if answer.ok else []
        except (TimeoutError, aiohttp.ClientError, ValueError):
            return False
        return any(isinstance(kernel, dict) and (kernel.get("execution_state") == "busy" or kernel.get("connections")) for kernel in kernels)

    async def token(self, session: Session) -> str | None:
        """The token of a session that runs, for its owner; None when it does not. Raises `HubUnavailable`."""
        _, model = await self._api.ask(Call("GET", _server(session.name, session.owner)), (HTTPStatus.OK, HTTPStatus.NOT_FOUND))
        return str(model["user_options"]["token"]) if model.get("ready") else None

    async def routes(self) -> dict[str, str]:
        """Sessions' routes in the proxy: path (``/jupyter/user/NAME/``) → the session's name. Raises `HubUnavailable`."""
        return {path: str(route["data"].get("server_name") or route["data"]["user"]) async for path, route in self._table()}

    async def drop(self, path: str) -> None:
        """Take a route away that has no server; absent is fine. Raises `HubUnavailable`.

        The hub does it, by comparing the proxy's table with what it knows: a route whose server runs would come back in any case.
        """
        if path in await self.routes():
            await self.sync_proxy()

    async def _table(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        async for page in self._api.pages("/proxy"):
            for path, route in page.items():
                if "user" in route["data"]:
                    yield path.rstrip("/") + "/", route

    async def sync_proxy(self) -> None:
        """Have the hub compare the proxy's table with its own now, as after a restart of the proxy. Raises `HubUnavailable`."""
        await self._api.ask(Call("POST", "/proxy"))

    async def version(self) -> str:
        """JupyterHub's version. Raises `HubUnavailable`, at once when it does not answer."""
        _, answer = await self._api.ask(Call("GET", "/", bridge=0))
        return str(answer.get("version", ""))[:40]

    async def ping(self) -> None:
        """Raises `HubUnavailable` when the hub does not answer, or no longer knows our token."""
        await self._api.ask(Call("GET", "/users", params={"limit": "1"}, bridge=0))

    def _below(self, name: str, owner: str | None) -> str:
        below = name if owner is None else f"{quote(owner, safe='@~')}/{name}"  # as the hub writes them
        return f"{self._config.hub_base_url}user/{below}/"

    def _options(self, launch: LaunchRequest, repo: ResolvedRepo, image: str) -> dict[str, Any]:
        told = {
            "repo_url": repo.url,
            "binder_ref_url": repo.ref_url,
            "binder_launch_host": launch.host,
            "binder_request": f"v2/{launch.provider}/{launch.path}",
            "binder_persistent_request": f"v2/{repo.spec.provider}/{repo.path}",
        }
        choice = {"profile": launch.choice.profile, "data": list(launch.choice.data), "env": dict(launch.choice.env)}
        own = {"image": image, "token": launch.token(self._secret), "launch_id": launch.launch_id}
        return own | {key: value for key, value in choice.items() if value} | {key: _line(text) for key, text in told.items()}

    async def _bring_up(self, server: str, chosen: dict[str, Any], log: Callable[[str], Awaitable[None]]) -> str | None:
        """One attempt; the running server's token, or None when it is not decided yet."""
        status, answer = await self._api.ask(Call("POST", server, chosen, limit=self._spawn, bridge=PATIENCE), ANY)
        if status == HTTPStatus.CREATED:
            return str(chosen["token"])
        if status == HTTPStatus.ACCEPTED:
            await self._follow(server, log)
        elif status == HTTPStatus.NOT_FOUND:
            raise SpawnFailed("The session was stopped while it started. Try again.")
        elif status != HTTPStatus.BAD_REQUEST or not _PASSING.search(str(answer.get("message", ""))):
            raise _failure(status, answer)
        return await self._running(server)

    async def _running(self, server: str) -> str | None:
        """The token of the server that runs; it may be an earlier one's, from before the site's secret changed."""
        _, model = await self._api.ask(Call("GET", server, bridge=PATIENCE), (HTTPStatus.OK, HTTPStatus.NOT_FOUND))
        return str(model["user_options"]["token"]) if model.get("ready") else None

    async def _follow(self, server: str, log: Callable[[str], Awaitable[None]]) -> None:
        """Tell what the spawn says until it ends. A broken stream is not an error: the next POST tells how it stands."""
        try:
            async for event in self._api.events(f"{server}/progress", self._spawn):
                if event.get("failed"):
                    status = str(event.get("html_message"))  # where our spawner puts it
                    raise _failure(int(status) if status.isdecimal() else HTTPStatus.BAD_GATEWAY, event)
                if not event.get("ready"):
                    await log(_line(str(event.get("message", ""))))
        except (aiohttp.ClientError, TimeoutError):
            return


def _failure(status: int, answer: dict[str, Any]) -> SpawnFailed | HubUnavailable:
    message = "\n".join(map(_line, str(answer.get("message", "")).splitlines()))[:_MESSAGE].removeprefix("Spawn failed: ").strip()
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return HubUnavailable("Too many sessions start at once. Try again in a moment.", retry_after=10)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return HubUnavailable(message or "The session cannot be started now. Try again in a moment.", retry_after=10)
    if status == HTTPStatus.GATEWAY_TIMEOUT:
        return SpawnTimeout(message or "The session's server did not answer in time. Try again.")
    return SpawnFailed(message or "The session did not start. Try again.")


def _line(text: str) -> str:
    return "".join(filter(str.isprintable, text))[:4096]


def _seconds(text: str | None) -> float | None:
    """Unix seconds of the hub's ISO 8601 text; it is in UTC."""
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _positive(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _server(name: str, owner: str | None) -> str:
    """A session's path in the API."""
    return f"/users/{name}/server" if owner is None else f"/users/{quote(owner, safe='')}/servers/{name}"


def _sessions(model: dict[str, Any]) -> list[Session]:
    """What is a session of a user: a temporary user is one itself, with or without server; a person is none, her named servers are."""
    user, servers = str(model["name"]), model.get("servers") or {}
    if temporary(user):
        return [_session(user, None, servers.get("") or {}, model.get("last_activity"))]
    return [_session(name, user, server, model.get("last_activity")) for name, server in servers.items() if name]


def _session(name: str, owner: str | None, server: dict[str, Any], seen: str | None) -> Session:
    chosen, runs = server.get("user_options") or {}, bool(server) and not server.get("stopped")
    return Session(
        name=name,
        ready=runs and bool(server.get("ready")),
        started=_seconds(server.get("started")) if runs else None,
        last_activity=_seconds(server.get("last_activity") or seen),
        image=chosen.get("image"),
        launch_id=chosen.get("launch_id") or name.rpartition("-")[2],
        url=server.get("url", ""),
        server=runs,
        owner=owner,
        idle=_positive(chosen.get("idle")),
        age=_positive(chosen.get("age")),
        repo_url=chosen.get("repo_url", ""),
        request=chosen.get("binder_persistent_request", ""),
        project=(chosen.get("project") or {}).get("id", ""),
    )
