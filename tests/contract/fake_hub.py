"""JupyterHub's REST API as far as the adapter uses it, at the level of the wire. The contract tests keep it honest against the real hub."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from aiohttp import web

from binder_onprem.model import Session

TOKEN = "hub-token-of-the-test"
STAMP = "2026-01-02T03:04:05.678901Z"


def of_name(name: str, owner: str | None = None) -> Session:
    """What stopping and asking need of a session."""
    return Session(name, ready=True, started=None, last_activity=None, owner=owner)


class FakeHub:
    """Users, servers and what goes wrong next. A temporary user is its server; people's named servers are in `named`, by owner and name."""

    def __init__(self, base: str = "/jupyter/") -> None:
        self.base = base
        self.users: dict[str, dict[str, Any]] = {}
        self.people: set[str] = set()
        self.away: set[str] = set()
        self.named: dict[tuple[str, str], dict[str, Any]] = {}
        self.refusal: tuple[int, str] | None = None
        self.events: list[dict[str, Any]] = []
        self.slow = False
        self.stops = 0
        self.asked: list[str] = []
        self.queries: list[dict[str, str]] = []

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._authorised])
        api = f"{self.base}hub/api"
        app.router.add_get(f"{api}/", self._version)
        app.router.add_get(f"{api}/users", self._list)
        app.router.add_get(f"{api}/proxy", self._routes)
        app.router.add_post(f"{api}/proxy", self._sync)
        app.router.add_post(f"{api}/users/{{name}}", self._add)
        app.router.add_delete(f"{api}/users/{{name}}", self._delete)
        app.router.add_get(f"{api}/users/{{name}}", self._user)
        app.router.add_post(f"{api}/users/{{name}}/server", self._start)
        app.router.add_get(f"{api}/users/{{name}}/server", self._server)
        app.router.add_delete(f"{api}/users/{{name}}/server", self._stop)
        app.router.add_get(f"{api}/users/{{name}}/server/progress", self._progress)
        app.router.add_post(f"{api}/users/{{name}}/servers/{{server}}", self._start)
        app.router.add_get(f"{api}/users/{{name}}/servers/{{server}}", self._server)
        app.router.add_delete(f"{api}/users/{{name}}/servers/{{server}}", self._stop)
        app.router.add_get(f"{api}/users/{{name}}/servers/{{server}}/progress", self._progress)
        return app

    @web.middleware
    async def _authorised(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path.partition('/api')[2]}")
        self.queries.append(dict(request.query))
        if request.headers.get("Authorization") != f"token {TOKEN}":
            return web.json_response({"status": 403, "message": "Forbidden"}, status=403)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _version(self, _request: web.Request) -> web.Response:
        return web.json_response({"version": "6.1.1"})

    async def _list(self, request: web.Request) -> web.Response:
        stopped = request.query.get("include_stopped_servers") == "1"
        rows = [
            {"name": name, "last_activity": STAMP, "servers": {"": server} if (server := self._model(user)) else {}}
            for name, user in self.users.items()
        ]
        for person in sorted(self.people):
            own = {name: server for (owner, name), user in self.named.items() if owner == person and (server := self._model(user, stopped=stopped))}
            rows.append({"name": person, "last_activity": STAMP if person in self.away else datetime.now(UTC).isoformat(), "servers": own})
        active = {name for name, user in self.users.items() if user["ready"]} | {owner for (owner, _), user in self.named.items() if user["ready"]}
        if request.query.get("state") == "active":
            rows = [row for row in rows if row["name"] in active]
        if pattern := request.query.get("name_filter"):
            rows = [row for row in rows if re.search(re.escape(pattern).replace("_", "."), str(row["name"]))]
        if request.query.get("sort") == "-last_activity":
            rows.sort(key=lambda row: str(row["last_activity"] or ""), reverse=True)
        return _page(request, rows)

    def _model(self, user: dict[str, Any], *, stopped: bool = False) -> dict[str, Any]:
        if not user["ready"] and not stopped:
            return {}
        model = {"ready": user["ready"], "pending": None, "user_options": user["options"], "started": user.get("started"), "last_activity": STAMP}
        return model | {"url": f"{self.base}user/x/", "stopped": not user["ready"]}

    async def _routes(self, request: web.Request) -> web.Response:
        routes = [
            (f"{self.base}user/{name}/", {"routespec": "", "target": "http://127.0.0.1:1", "data": {"user": name, "server_name": ""}})
            for name, user in self.users.items()
            if user["ready"]
        ]
        routes += [
            (f"{self.base}user/{quote(owner, safe='@~')}/{name}/", {"target": "http://127.0.0.1:1", "data": {"user": owner, "server_name": name}})
            for (owner, name), user in self.named.items()
            if user["ready"]
        ]
        routes.append((f"{self.base}hub/nothing-here/", {"routespec": "", "target": "http://127.0.0.1:2", "data": {"hub": True}}))
        answer = _page(request, routes)
        body = json.loads(answer.body or b"{}")  # type: ignore[arg-type]
        body["items"] = dict(body["items"])
        return web.json_response(body)

    async def _sync(self, _request: web.Request) -> web.Response:
        return web.Response(status=200)

    async def _add(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if re.fullmatch(r"[a-z0-9-]+-[0-9a-f]{16}", name) is None:  # the tests' people
            self.people.add(name)
            return web.json_response({"name": name}, status=201)
        if name in self.users:
            return web.json_response({"status": 409, "message": f"User {name} already exists"}, status=409)
        self.users[name] = {"ready": False, "options": {}}
        return web.json_response({"name": name}, status=201)

    async def _user(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return web.json_response({"name": name}, status=200 if name in self.people | self.users.keys() else 404)

    async def _delete(self, request: web.Request) -> web.Response:
        return web.Response(status=204 if self.users.pop(request.match_info["name"], None) else 404)

    def _found(self, request: web.Request) -> dict[str, Any] | None:
        name, server = request.match_info["name"], request.match_info.get("server")
        return self.users.get(name) if server is None else self.named.get((name, server))

    async def _start(self, request: web.Request) -> web.Response:
        name, server = request.match_info["name"], request.match_info.get("server")
        if server is not None and name in self.people:
            self.named.setdefault((name, server), {"ready": False, "options": {}})
        user = self._found(request)
        if user is None:
            return web.json_response({"status": 404, "message": "Not Found"}, status=404)
        if user["ready"]:
            return web.json_response({"status": 400, "message": f"{request.match_info['name']} is already running"}, status=400)
        if self.refusal:
            status, message = self.refusal
            return web.json_response({"status": status, "message": message}, status=status)
        user["options"] = await request.json()
        user["started"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        user["ready"] = not self.slow
        return web.Response(status=202 if self.slow else 201)

    async def _server(self, request: web.Request) -> web.Response:
        user = self._found(request)
        if user is None:
            return web.json_response({"status": 404, "message": "Not Found"}, status=404)
        return web.json_response(self._model(user, stopped=True))

    async def _stop(self, request: web.Request) -> web.Response:
        user = self._found(request)
        if user is None:
            return web.json_response({"status": 404, "message": "Not Found"}, status=404)
        if self.stops:
            self.stops -= 1
            return web.Response(status=202)
        user["ready"] = False
        if request.match_info.get("server") and (await request.json())["remove"]:
            del self.named[request.match_info["name"], request.match_info["server"]]
        return web.Response(status=204)

    async def _progress(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for event in self.events:
            if event.get("ready") and (user := self._found(request)):
                user["ready"] = True
            await answer.write(f"data: {json.dumps(event)}\n\n".encode())
        return answer


def _page(request: web.Request, items: list[Any]) -> web.Response:
    offset, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", 50))
    following = {"offset": offset + limit, "limit": limit} if offset + limit < len(items) else None
    return web.json_response({"items": items[offset : offset + limit], "_pagination": {"offset": offset, "next": following}})
