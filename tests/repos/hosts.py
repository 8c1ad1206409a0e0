"""A server on loopback that answers like GitHub's gists, Zenodo, Figshare, Dataverse, HydroShare, CKAN, Software Heritage and a resolver of DOIs.

The answers have the fields that the services' own documentation and clients name; what a test needs otherwise it changes.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SHA, OTHER = "0123456789abcdef0123456789abcdef01234567", "fedcba9876543210fedcba9876543210fedcba98"
GIST = "8ac7e8ba0dc2bdd3cb2ac4ba1f5ee56b"
RESOURCE = "8f7c2f0341ef4180b0dbe97f59130756"
NOTEBOOK = json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Request:
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Host:
    """What is answered, by path; a callable decides for itself."""

    url: str = ""
    answers: dict[str, Answer | Callable[[Request], Answer]] = field(default_factory=dict)
    seen: list[Request] = field(default_factory=list)

    def says(self, path: str, body: Any, status: int = 200, **headers: str) -> None:
        """Give a JSON answer; ``{base}`` in it becomes the server's URL."""
        text = json.dumps(body).replace("{base}", self.url)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = (status, {"Content-Type": "application/json", **named}, text.encode())

    def serves(self, path: str, data: bytes, kind: str = "application/octet-stream") -> None:
        self.answers[path] = (200, {"Content-Type": kind}, data)

    def paths(self) -> list[str]:
        return [request.path for request in self.seen]

    def answer(self, request: Request) -> Answer:
        self.seen.append(request)
        found = self.answers.get(request.path)
        if found is None:
            return 404, {"Content-Type": "application/json"}, b'{"message": "Not Found"}'
        status, headers, body = found(request) if callable(found) else found
        etag = headers.get("ETag")
        if etag and request.headers.get("If-None-Match") == etag:
            return 304, {"ETag": etag}, b""
        return status, headers, body


@contextmanager
def host(port: int = 0) -> Iterator[Host]:
    """Serve."""
    served = Host()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = served.answer(Request(self.command, self.path, dict(self.headers.items())))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers and "Transfer-Encoding" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            try:
                self.wfile.write(body)
            except OSError:
                return

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def gist(at: Host, *, public: bool = True, owner: str = "ana") -> None:
    """``GET /gists/{id}`` of GitHub's REST API."""
    history = [{"version": SHA, "committed_at": "2024-01-02T03:04:05Z", "user": {"login": owner}}, {"version": OTHER}]
    at.says(
        f"/api/gists/{GIST}", {"id": GIST, "public": public, "owner": {"login": owner}, "history": history}, ETag='W/"g1"', X_RateLimit_Remaining="41"
    )


def zenodo(at: Host, files: Mapping[str, bytes], record: int = 3242074, concept: int = 3242073) -> None:
    """A record as Zenodo answers it; the id of all its versions redirects to the latest."""
    listed = [
        {"key": name, "size": len(data), "checksum": f"md5:{md5(data)}", "links": {"self": f"{{base}}/api/records/{record}/files/{name}/content"}}
        for name, data in files.items()
    ]
    body = {"id": record, "conceptrecid": str(concept), "doi": f"10.5281/zenodo.{record}", "files": listed, "metadata": {"title": "T"}}
    at.says(f"/api/records/{record}", body, ETag='"1"')
    at.answers[f"/api/records/{concept}"] = (301, {"Location": f"/api/records/{record}"}, b"")
    for name, data in files.items():
        at.serves(f"/api/records/{record}/files/{name}/content", data)


def invenio(at: Host, files: Mapping[str, bytes], record: str = "82kn8-3nk04") -> None:
    """A record as InvenioRDM answers it: its files have an address of their own."""
    listed = [
        {
            "key": name,
            "size": len(data),
            "checksum": f"md5:{md5(data)}",
            "links": {"self": f"{{base}}/api/records/{record}/files/{name}", "content": f"{{base}}/api/records/{record}/files/{name}/content"},
        }
        for name, data in files.items()
    ]
    at.says(f"/api/records/{record}", {"id": record, "files": {"enabled": True}, "access": {"files": "public"}, "parent": {"id": "xr0xd-5hn14"}})
    at.says(f"/api/records/{record}/files", {"enabled": True, "entries": listed})
    for name, data in files.items():
        at.serves(f"/api/records/{record}/files/{name}/content", data)


def figshare(at: Host, files: Mapping[str, bytes], article: int = 9782777, versions: tuple[int, ...] = (1, 2, 3)) -> None:
    """An article of Figshare's API, version 2; one of its files lies elsewhere."""
    listed = [
        {"id": number, "name": name, "size": len(data), "is_link_only": False, "download_url": f"{{base}}/files/{number}", "computed_md5": md5(data)}
        for number, (name, data) in enumerate(files.items(), 1)
    ]
    elsewhere = {"id": 99, "name": "far", "size": 0, "is_link_only": True, "download_url": "https://example.org/far", "computed_md5": ""}
    at.says(
        f"/v2/articles/{article}/versions", [{"version": number, "url": f"{{base}}/v2/articles/{article}/versions/{number}"} for number in versions]
    )
    for version in versions:
        at.says(f"/v2/articles/{article}/versions/{version}", {"id": article, "version": version, "files": [*listed, elsewhere]})
    for number, data in enumerate(files.values(), 1):
        at.serves(f"/files/{number}", data)


def dataverse(at: Host, files: Mapping[str, bytes], identifier: str = "DVN/TJCLKP") -> None:
    """A dataset of Dataverse's native API: folders, a table that was converted, a restricted file; and the DOI of a file of it."""
    listed: list[dict[str, Any]] = []
    for number, (name, data) in enumerate(files.items(), 100):
        folder, _, label = name.rpartition("/")
        about = {"id": number, "filename": label, "filesize": len(data), "md5": md5(data), "checksum": {"type": "MD5", "value": md5(data)}}
        listed.append(
            {"label": label, "restricted": False, "directoryLabel": folder, "dataFile": about} if folder else {"label": label, "dataFile": about}
        )
        at.serves(f"/api/access/datafile/{number}?format=original", data)
    table = {"id": 50, "filename": "t.tab", "filesize": 3, "md5": "0" * 32, "originalFileName": "t.csv", "originalFileSize": 4}
    at.serves("/api/access/datafile/50?format=original", b"a,b\n")
    listed += [{"label": "t.tab", "restricted": False, "dataFile": table}, {"label": "s", "restricted": True, "dataFile": {"id": 51, "filesize": 1}}]
    latest = {"versionNumber": 2, "versionMinorNumber": 1, "versionState": "RELEASED", "files": listed}
    body = {"id": 3035124, "identifier": identifier, "authority": "10.7910", "protocol": "doi", "latestVersion": latest}
    body["persistentUrl"] = f"https://doi.org/10.7910/{identifier}"
    at.says(f"/api/datasets/:persistentId/?persistentId=doi:10.7910/{identifier}", {"status": "OK", "data": body})
    owner = {"status": "OK", "data": {"label": "x", "datasetVersion": {"datasetPersistentId": f"doi:10.7910/{identifier}"}}}
    at.says(f"/api/files/:persistentId/?persistentId=doi:10.7910/{identifier}/3YRRYJ&returnDatasetVersion=true", owner)


def hydroshare(at: Host, files: Mapping[str, bytes], unready: int = 1) -> None:
    """A resource of HydroShare: its dates, and its bag, for which one is told to wait at first."""
    dates = [{"type": "created", "start_date": "2019-09-24T10:00:00.0Z"}, {"type": "modified", "start_date": "2019-09-25T16:09:17.006152Z"}]
    at.says(f"/hsapi/resource/{RESOURCE}/scimeta/elements", {"title": "R", "dates": dates})
    bag = zipped({f"{RESOURCE}/bagit.txt": b"BagIt-Version: 0.96\n", **{f"{RESOURCE}/data/contents/{name}": data for name, data in files.items()}})
    asked = iter(range(1000))

    def say(_request: Request) -> Answer:
        if next(asked) < unready:
            return 200, {"Content-Type": "text/html"}, b"<html>Please wait</html>"
        return 302, {"Location": f"/s3/bags/{RESOURCE}.zip"}, b""

    at.answers[f"/django_s3/download/bags/{RESOURCE}.zip"] = say
    at.serves(f"/s3/bags/{RESOURCE}.zip", bag, "binary/octet-stream")


def ckan(at: Host, files: Mapping[str, bytes], dataset: str = "sample-dataset-1", activity: str = "a1b2c3d4") -> None:
    """A dataset of CKAN's action API, version 3."""
    resources = [
        {"id": f"r{number}", "name": name, "url": f"{{base}}/download/{name}", "size": None, "hash": ""} for number, name in enumerate(files)
    ]
    package = {"name": dataset, "metadata_modified": "2022-05-20T09:20:43.998956", "resources": [*resources, {"id": "none", "url": ""}]}
    at.says(f"/api/3/action/package_show?id={dataset}", {"success": True, "result": package})
    old = {**package, "metadata_modified": "2021-05-20T09:20:43.998956"}
    at.says(f"/api/3/action/activity_data_show?id={activity}&object_type=package", {"success": True, "result": old})
    for name, data in files.items():
        at.serves(f"/download/{name}", data)


def swh(at: Host, files: Mapping[str, bytes], pending: int = 1) -> None:
    """A revision and its directory in Software Heritage's archive, whose vault takes a moment to cook."""
    swhid = f"swh:1:dir:{SHA}"
    at.says(f"/api/1/revision/{OTHER}/", {"id": OTHER, "directory": SHA, "message": "m"})
    at.says(f"/api/1/resolve/{swhid}/", {"namespace": "swh", "object_type": "directory", "object_id": SHA, "object_version": 1, "metadata": {}})
    asked = iter(range(1000))

    def say(request: Request) -> Answer:
        number = next(asked)
        assert request.method == ("GET" if number else "POST")
        status = "done" if number >= pending else "pending" if number else "new"
        body = {
            "fetch_url": f"{at.url}/api/1/vault/flat/{swhid}/raw/",
            "id": 1,
            "progress_message": "Processing...",
            "status": status,
            "swhid": swhid,
        }
        return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()

    at.answers[f"/api/1/vault/flat/{swhid}/"] = say
    at.serves(f"/api/1/vault/flat/{swhid}/raw/", tarred({f"{swhid}/{name}": data for name, data in files.items()}), "application/gzip")


def handle(at: Host, doi: str, url: str) -> None:
    """A DOI at a resolver, as its REST API for handles answers."""
    values = [{"index": 100, "type": "HS_ADMIN", "data": {"format": "admin", "value": {"handle": "0.na/10"}}}]
    values.append({"index": 1, "type": "URL", "data": {"format": "string", "value": url}})
    at.says(f"/api/handles/{doi}", {"responseCode": 1, "handle": doi, "values": values})
