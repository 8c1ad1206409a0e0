"""supervisord as the keeper of the parts, where PID 1 is not systemd.

One supervisord per site, spoken to by XML-RPC over a unix socket that only root reaches. Its configuration holds parts' secrets, so it is
readable by root alone. If supervisord itself was killed, its children live on without a keeper: they are ended before a new one starts them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
import xmlrpc.client
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from supervisor.xmlrpc import SupervisorTransport

from binder_onprem.errors import HostUnfit
from binder_onprem.host.supervision import Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from binder_onprem.config import Config
    from binder_onprem.host.parts import Part
    from binder_onprem.host.supervision import State

logger = logging.getLogger(__name__)

STATES: Final[Mapping[str, State]] = {"RUNNING": "running", "STARTING": "starting", "BACKOFF": "failed", "FATAL": "failed"}
MARK: Final = "BINDER_ONPREM_PART"
_CONTAINERS: Final = re.compile(rb"conmon|container\0cleanup")
"""Podman's helpers inherit the mark; they belong to containers, not to a part."""
PATIENCE: Final = 15
"""Seconds that supervisord has to start or to end, beyond the grace of its parts."""


class Supervisord:
    """Satisfies `supervision.Supervision`.

    Args:
        config: The site.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._file = config.home / "etc" / "supervisord.conf"
        self._socket = config.run / "supervisor.sock"
        self._pid = config.run / "supervisord.pid"

    def prepare(self, parts: Sequence[Part]) -> frozenset[str]:
        """See `supervision.Supervision.prepare`."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.touch(mode=0o600)
        self._file.write_text(self._configuration(parts), encoding="utf-8")
        if not self._alive():
            self._launch(parts)
        else:
            self._reload()
        states = self.states()
        return frozenset(part.name for part in parts if not states[part.name].alive)

    def start(self, name: str) -> None:
        """See `supervision.Supervision.start`."""
        with contextlib.suppress(xmlrpc.client.Fault):
            self._call("startProcess", name, False)  # noqa: FBT003 - XML-RPC has no names: do not wait, `up` probes

    def stop(self, name: str) -> None:
        """See `supervision.Supervision.stop`."""
        if self._alive():
            with contextlib.suppress(xmlrpc.client.Fault):
                self._call("stopProcess", name)

    def states(self) -> dict[str, Status]:
        """See `supervision.Supervision.states`."""
        if not self._alive():
            return {}
        found = cast("list[dict[str, Any]]", self._call("getAllProcessInfo"))
        return {entry["name"]: Status(STATES.get(entry["statename"], "stopped"), int(entry["pid"])) for entry in found}

    def leave(self) -> None:
        """See `supervision.Supervision.leave`."""
        if not self._alive():
            self._end_orphans()
            return
        pid = int(self._pid.read_text(encoding="ascii"))
        self._call("shutdown")
        _wait(lambda: not Path(f"/proc/{pid}").exists(), PATIENCE + 30)
        self._file.unlink(missing_ok=True)

    def _alive(self) -> bool:
        try:
            return bool(self._call("getSupervisorVersion"))
        except (OSError, xmlrpc.client.Error):
            return False

    def _call(self, method: str, *arguments: Any) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        try:
            return getattr(xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor, method)(*arguments)
        finally:
            transport.close()

    def _launch(self, parts: Sequence[Part]) -> None:
        self._end_orphans()
        (self._config.logs / "parts").mkdir(parents=True, exist_ok=True)
        program = (sys.executable, "-m", "supervisor.supervisord", "-c", str(self._file))
        done = subprocess.run(program, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL, cwd="/")
        if done.returncode or not _wait(self._alive, PATIENCE):
            raise HostUnfit(
                f"supervisord does not start for {len(parts)} parts. Its log is supervisord.log in the directory logs of the site's home."
            )

    def _reload(self) -> None:
        added, changed, removed = self._call("reloadConfig")[0]
        for name in (*changed, *removed):
            with contextlib.suppress(xmlrpc.client.Fault):
                self._call("stopProcessGroup", name)
            self._call("removeProcessGroup", name)
        for name in (*changed, *added):
            self._call("addProcessGroup", name)

    def _end_orphans(self) -> None:
        """Processes of a supervisord that was killed; told by a mark in their environment and their argument list."""
        marks = {f"{MARK}={self._config.home}".encode()}
        found = [pid for pid in _processes() if marks & set(_read(pid, "environ").split(b"\0")) and not _CONTAINERS.search(_read(pid, "cmdline"))]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        if not _wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in found), PATIENCE):
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _configuration(self, parts: Sequence[Part]) -> str:
        logs = self._config.logs
        head = (
            "; Written by `binder-onprem up`; changes are lost.\n"
            f"[unix_http_server]\nfile = {self._socket}\nchmod = 0700\n\n"
            f"[supervisord]\npidfile = {self._pid}\nlogfile = {logs / 'supervisord.log'}\nlogfile_maxbytes = 5MB\nlogfile_backups = 2\n"
            f"childlogdir = {logs}\nnocleanup = true\nuser = root\ndirectory = /\n\n"
            "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
        )
        return head + "".join(f"\n{self._program(part)}" for part in parts)

    def _program(self, part: Part) -> str:
        env = {**dict(part.env), **dict(part.hidden), MARK: str(self._config.home), "BINDER_ONPREM_REVISION": part.revision()}
        lines = (
            f"[program:{part.name}]",
            "command = " + _escaped(" ".join(_quoted(word) for word in part.argv)),
            "environment = " + _escaped(",".join(f"{name}={_quoted(value)}" for name, value in env.items())),
            f"user = {part.user or 'root'}",
            "autostart = false",
            "autorestart = true",
            "startsecs = 1",
            "startretries = 1000000",  # a port that is still taken, a disk that is full: it comes back when that is over
            f"stopasgroup = {str(part.group).lower()}",
            f"killasgroup = {str(part.group).lower()}",
            f"stopwaitsecs = {part.grace}",
            "redirect_stderr = true",
            f"stdout_logfile = {self._config.logs / 'parts' / (part.name + '.log')}",
            "stdout_logfile_maxbytes = 10MB",
            "stdout_logfile_backups = 3",
        )
        return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(text: str) -> str:
    """In supervisord's files a per cent sign begins an expansion."""
    return text.replace("%", "%%")


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and int(entry.name) != os.getpid()]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _wait(done: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
