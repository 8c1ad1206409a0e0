"""A registry's wire protocol in memory, for unit-speed tests; kept honest by running the same assertions against the real one."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from dataclasses import dataclass, field

from aiohttp import web


def error(status: int, code: str) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": code.lower()}]}, status=status)


@dataclass
class FakeRegistry:
    account: str = "builder:secret"
    blobs: dict[str, dict[str, bytes]] = field(default_factory=dict)
    manifests: dict[str, dict[str, tuple[str, bytes]]] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    faults: list[int] = field(default_factory=list)
    requests: int = 0

    def application(self) -> web.Application:
        app = web.Application(client_max_size=0, middlewares=[self._guarded])
        repository = "/v2/{name:[a-z0-9/._-]+}"
        app.add_routes(
            [
                web.get("/v2/", self._root),
                web.get("/v2/_catalog", self._catalog),
                web.get(repository + "/tags/list", self._tags),
                web.post(repository + "/blobs/uploads/", self._start),
                web.patch(repository + "/blobs/uploads/{upload}", self._add),
                web.put(repository + "/blobs/uploads/{upload}", self._finish),
                web.delete(repository + "/blobs/uploads/{upload}", self._cancel),
                web.get(repository + "/blobs/{digest}", self._blob),
                web.get(repository + "/manifests/{reference}", self._manifest),
                web.put(repository + "/manifests/{reference}", self._put),
                web.delete(repository + "/manifests/{reference}", self._delete),
            ]
        )
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler) -> web.StreamResponse:  # noqa: ANN001
        self.requests += 1
        if self.faults:
            status = self.faults.pop(0)
            if not status:
                assert request.transport
                request.transport.abort()
            return web.Response(status=status or 500)
        wanted = "Basic " + base64.b64encode(self.account.encode()).decode()
        if request.headers.get("Authorization") != wanted:
            return error(401, "UNAUTHORIZED")
        return await handler(request)

    async def _root(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def _catalog(self, request: web.Request) -> web.Response:
        return self._page(request, "repositories", sorted(self.manifests))

    async def _tags(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return self._page(request, "tags", sorted(self.tags[name])) if name in self.tags else error(404, "NAME_UNKNOWN")

    def _page(self, request: web.Request, key: str, names: list[str]) -> web.Response:
        size, last = int(request.query["n"]), request.query.get("last", "")
        rest = [name for name in names if name > last]
        headers = {"Link": f"<{request.path}?last={rest[size - 1]}>; rel=next"} if len(rest) > size else {}
        return web.json_response({key: rest[:size]}, headers=headers)

    async def _start(self, request: web.Request) -> web.Response:
        name, digest, source = request.match_info["name"], request.query.get("mount", ""), request.query.get("from", "")
        if digest in self.blobs.get(source, {}):
            self.blobs.setdefault(name, {})[digest] = self.blobs[source][digest]
            return web.Response(status=201, headers={"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})
        upload = uuid.uuid4().hex
        self.uploads[upload] = bytearray()
        return web.Response(status=202, headers={"Location": f"{request.url.origin()}/v2/{name}/blobs/uploads/{upload}?_state=x"})

    async def _add(self, request: web.Request) -> web.Response:
        buffer = self.uploads[request.match_info["upload"]]
        async for chunk in request.content.iter_any():
            buffer += chunk
        return web.Response(status=202, headers={"Location": str(request.url)})

    async def _finish(self, request: web.Request) -> web.Response:
        data = bytes(self.uploads[request.match_info["upload"]])
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if request.query["digest"] != digest:
            return error(400, "DIGEST_INVALID")
        del self.uploads[request.match_info["upload"]]
        self.blobs.setdefault(request.match_info["name"], {})[digest] = data
        return web.Response(status=201, headers={"Docker-Content-Digest": digest})

    async def _cancel(self, request: web.Request) -> web.Response:
        self.uploads.pop(request.match_info["upload"], None)
        return web.Response(status=204)

    async def _blob(self, request: web.Request) -> web.Response:
        data = self.blobs.get(request.match_info["name"], {}).get(request.match_info["digest"])
        return error(404, "BLOB_UNKNOWN") if data is None else web.Response(body=data)

    async def _manifest(self, request: web.Request) -> web.Response:
        name, reference = request.match_info["name"], request.match_info["reference"]
        digest = self.tags.get(name, {}).get(reference, reference)
        found = self.manifests.get(name, {}).get(digest)
        if not found:
            return error(404, "MANIFEST_UNKNOWN")
        return web.Response(body=found[1], headers={"Docker-Content-Digest": digest, "Content-Type": found[0]})

    async def _put(self, request: web.Request) -> web.Response:
        name, reference, body = request.match_info["name"], request.match_info["reference"], await request.content.read()
        manifest = json.loads(body)
        blobs = [blob["digest"] for blob in (*manifest["layers"], manifest["config"])]
        if not all(blob in self.blobs.get(name, {}) for blob in blobs):
            return error(400, "MANIFEST_BLOB_UNKNOWN")
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        self.manifests.setdefault(name, {})[digest] = request.content_type, body
        self.tags.setdefault(name, {})
        if reference != digest:
            self.tags[name][reference] = digest
        return web.Response(status=201, headers={"Docker-Content-Digest": digest})

    async def _delete(self, request: web.Request) -> web.Response:
        name, digest = request.match_info["name"], request.match_info["reference"]
        if self.manifests.get(name, {}).pop(digest, None) is None:
            return error(404, "MANIFEST_UNKNOWN")
        self.tags[name] = {tag: found for tag, found in self.tags[name].items() if found != digest}
        return web.Response(status=202)
