"""Puts an image from an OCI archive, as podman saves one, into our registry, its layers as they are: podman would pack them anew.

Used by `baseimage` only.
"""

from __future__ import annotations

import http.client
import json
import tarfile
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

from binder_onprem.errors import RegistryUnavailable
from binder_onprem.host import registryaccess

if TYPE_CHECKING:
    from pathlib import Path

    from binder_onprem.config import Config

FAILED: Final = "The registry does not take the base image. Look at its log, then run `binder-onprem up`."
SECONDS: Final = 120
CREATED: Final = 201


def push(archive: Path, config: Config, repository: str, tag: str) -> None:
    """Upload the one image of an archive.

    Args:
        archive: Whole, as `imagecache` keeps it.
        config: Says where the registry is and who pushes there.
        repository: Its name there.
        tag: Likewise.

    Raises:
        RegistryUnavailable: It does not answer, or does not take it; or the archive is none.
    """
    connection = registryaccess.connection(config, SECONDS)
    try:
        with tarfile.open(archive, "r:") as tar:
            entry = json.load(_member(tar, "index.json"))["manifests"][0]
            content = _member(tar, _path(entry["digest"])).read()
            manifest = json.loads(content)
            upload = _Upload(connection, repository, {"Authorization": registryaccess.basic(config.push_account)})
            for blob in (*manifest["layers"], manifest["config"]):
                upload.blob(_member(tar, _path(blob["digest"])), blob["digest"], int(blob["size"]))
            upload.ask("PUT", f"/v2/{repository}/manifests/{tag}", content, {"Content-Type": manifest["mediaType"]}, (CREATED,))
    except (OSError, http.client.HTTPException, tarfile.TarError, ValueError, KeyError, IndexError) as error:
        raise RegistryUnavailable(FAILED) from error
    finally:
        connection.close()


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file


class _Upload:
    """One connection's requests."""

    def __init__(self, connection: http.client.HTTPConnection, repository: str, headers: dict[str, str]) -> None:
        self._connection, self._repository, self._headers = connection, repository, headers

    def blob(self, file: IO[bytes], digest: str, size: int) -> None:
        if self.ask("HEAD", f"/v2/{self._repository}/blobs/{digest}", b"", {}, (200, 404)).status == 200:  # noqa: PLR2004 - HTTP
            return
        place = urlsplit(self.ask("POST", f"/v2/{self._repository}/blobs/uploads/", b"", {}, (202,)).headers["Location"])
        query = f"{place.query}&{urlencode({'digest': digest})}"
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        self.ask("PUT", f"{place.path}?{query}", file, headers, (CREATED,))

    def ask(self, method: str, path: str, body: Any, headers: dict[str, str], fine: tuple[int, ...]) -> http.client.HTTPResponse:
        self._connection.request(method, path, body, self._headers | headers)
        answer = self._connection.getresponse()
        answer.read()
        if answer.status not in fine:
            raise RegistryUnavailable(FAILED)
        return answer
