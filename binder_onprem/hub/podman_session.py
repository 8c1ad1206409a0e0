"""Podman's side of one session: create, start, look, stop, remove, over podman-py's connection, in threads.

The spawner calls it, inside JupyterHub. Looking has threads of its own, so a slow pull or stop never delays it. It keeps no state: what there is
to know is in podman and in ``/proc``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import requests
from podman import PodmanClient
from podman.api import encode_auth_header
from podman.errors import PodmanError

from binder_onprem.hub.starting import readable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
log = logging.getLogger(__name__)

TAIL_LINES: Final = 20
TAIL_BYTES: Final = 2000
_SECONDS: Final = 60.0
"""One call's limit; a pull has the caller's."""
_BRIDGE: Final = 15.0
"""Seconds that a restart of podman's service may take without anybody noticing."""


class EngineDown(Exception):
    """Podman's service does not answer, or answers with an error of its own; the text is for the log."""


class NoImage(Exception):
    """The image is not in podman's storage."""


@dataclass(frozen=True, slots=True)
class Found:
    """A container as podman has it.

    Attributes:
        running: Its process runs.
        code: Exit code, when it does not.
        out_of_memory: It was killed for its memory.
        pid: Process id of its first process in our pid namespace, 0 when it does not run.
        address: Address of this machine that its port is published on, "" when there is none.
        port: That port, 0 when there is none.
        labels: Its labels.
    """

    running: bool
    code: int
    out_of_memory: bool
    pid: int
    address: str
    port: int
    labels: dict[str, str]


def born(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot, None when it is gone or dead; with the pid it names a process for ever."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(fields[18])


class Podman:
    """Calls that one hub makes.

    Args:
        socket: Of podman's service.
        account: ``user:password`` of the registry, for pulls.
        tls: Whether our registry speaks HTTPS; any other has to.
    """

    def __init__(self, socket: Path, account: str, *, tls: bool = False) -> None:
        self._url = f"unix://{socket}"
        self._account = account
        self._tls = tls
        self._local = threading.local()
        self._fast = ThreadPoolExecutor(4, "podman-fast")
        self._slow = ThreadPoolExecutor(12, "podman-slow")
        self._pull = ThreadPoolExecutor(4, "podman-pull")

    async def find(self, name: str) -> Found | None:
        """Look at a container; None when podman says that there is none. Raises `EngineDown`."""
        return await self._in(self._fast, self._find, name)

    async def tail(self, name: str) -> str:
        """The end of its output, as text without control characters; empty when there is none."""
        return await self._in(self._fast, self._tail, name)

    async def create(self, specification: dict[str, Any]) -> bool:
        """Create; False when the name is taken. Raises `NoImage`, `EngineDown`."""
        return await self._in(self._slow, self._create, specification)

    async def start(self, name: str) -> None:
        """Start; running already is fine. Raises `EngineDown`."""
        await self._in(self._slow, self._start, name)

    async def remove(self, name: str, grace: int) -> None:
        """Stop (`grace` seconds until it is killed) and remove; absent is fine. Raises `EngineDown`."""
        await self._in(self._slow, self._remove, name, grace)

    async def pull(self, image: str, seconds: float, *, ours: bool = True) -> None:
        """Get an image by digest, from our registry or without any account. Raises `NoImage` when the registry has none, `EngineDown`."""
        await asyncio.get_running_loop().run_in_executor(self._pull, self._get_image, image, seconds, ours)

    @staticmethod
    async def _in(pool: ThreadPoolExecutor, call: Callable[..., T], *arguments: Any) -> T:
        # A thread cannot be cancelled: who is cancelled waits for the call's end, so that cleaning up sees its result and cannot be overtaken.
        future = asyncio.get_running_loop().run_in_executor(pool, call, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})
            raise

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        """One request over this thread's own connection, repeated while podman's service restarts: each of ours may be repeated."""
        client = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = PodmanClient(base_url=self._url)
        options.setdefault("timeout", _SECONDS)
        give_up = time.monotonic() + _BRIDGE
        while True:
            try:
                response: requests.Response = getattr(client.api, method)(path, **options)
            except (requests.RequestException, PodmanError, OSError) as error:
                if isinstance(error, requests.Timeout) or time.monotonic() >= give_up:
                    raise EngineDown(f"{method} {path.partition('?')[0]}: {type(error).__name__}") from error
                time.sleep(0.2)
            else:
                return response

    def _find(self, name: str) -> Found | None:
        response = self._request("get", f"/containers/{name}/json", timeout=10)
        if response.status_code == requests.codes.not_found:
            return None
        data = _json(response)
        state = data["State"]
        ports = [entry for bound in (data["NetworkSettings"].get("Ports") or {}).values() for entry in bound or ()]
        return Found(
            running=bool(state["Running"]),
            code=int(state["ExitCode"]),
            out_of_memory=bool(state.get("OOMKilled")),
            pid=int(state.get("Pid") or 0),
            address=str(ports[0]["HostIp"]) if ports else "",
            port=int(ports[0]["HostPort"]) if ports else 0,
            labels=data["Config"].get("Labels") or {},
        )

    def _tail(self, name: str) -> str:
        query = {"stdout": "true", "stderr": "true", "tail": str(TAIL_LINES)}
        response = self._request("get", f"/containers/{name}/logs", params=query, timeout=10)
        if response.status_code != requests.codes.ok:
            return ""
        text = re.sub(rb"[\x00-\x02]\x00\x00\x00.{4}", b"", response.content, flags=re.DOTALL)  # podman's frame headers
        return readable(text[-TAIL_BYTES:].decode(errors="replace"))

    def _create(self, specification: dict[str, Any]) -> bool:
        response = self._request("post", "/containers/create", data=json.dumps(specification), headers={"Content-Type": "application/json"})
        if response.ok:
            return True
        said = response.text[:500]
        if "already in use" in said:
            return False
        if response.status_code == requests.codes.not_found or "no such image" in said or "image not known" in said:
            raise NoImage
        raise EngineDown(f"create: {said}")

    def _start(self, name: str) -> None:
        response = self._request("post", f"/containers/{name}/start")
        if response.status_code not in {requests.codes.no_content, requests.codes.not_modified}:
            raise EngineDown(f"start: {response.text[:500]}")

    def _remove(self, name: str, grace: int) -> None:
        # stop before rm: `rm -f` of a running container often finds its shm still mounted.
        self._request("post", f"/containers/{name}/stop", params={"timeout": str(grace)})
        said = ""
        for pause in (0.1, 0.3, 1.0, 0.0):
            response = self._request("delete", f"/containers/{name}", params={"force": "true", "v": "true", "timeout": "0"})
            if response.ok or response.status_code == requests.codes.not_found:
                return
            said = response.text[:500]
            time.sleep(pause)
        raise EngineDown(f"remove: {said}")

    def _get_image(self, image: str, seconds: float, ours: bool) -> None:  # noqa: FBT001 - of an executor
        user, _, password = self._account.partition(":")
        registry = image.partition("/")[0]
        header = encode_auth_header({"username": user, "password": password, "serveraddress": registry})
        query = f"reference={quote(image, safe='')}&tlsVerify={str(self._tls or not ours).lower()}&quiet=true"
        headers = {"X-Registry-Auth": header} if ours else {}
        response = self._request("post", f"/images/pull?{query}", headers=headers, timeout=seconds)
        said = response.text[-2000:]
        if response.ok and '"error"' not in said:
            return
        if "manifest unknown" in said or "not found" in said:
            raise NoImage
        raise EngineDown(f"pull: {said[-500:]}")


def _json(response: requests.Response) -> Any:
    if not response.ok:
        raise EngineDown(f"{response.status_code}: {response.text[:500]}")
    try:
        return response.json()
    except ValueError as error:
        raise EngineDown("podman's answer is not JSON") from error
