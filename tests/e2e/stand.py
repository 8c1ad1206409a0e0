"""A whole Binder of its own for the end-to-end tests: own home, ports, networks; brought up and taken down by the product's own commands."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import yaml
from yarl import URL

from binder_onprem.config import load
from binder_onprem.host import machine as host
from binder_onprem.host import probes
from binder_onprem.host.engine_files import VOLATILE
from binder_onprem.host.parts import parts as parts_of
from binder_onprem.host.supervision import Supervision, supervision
from tests.e2e import imagestore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

COMMAND = (str(Path(sys.executable).parent / "binder-onprem"),)
STREAM = {"Accept": "text/event-stream"}
TERMINAL = ("ready", "failed")


def free_ports(count: int) -> int:
    """First of `count` ports in a row that nothing listens on."""
    for first in range(20585 + os.getpid() % 500 * 20, 40000, 20):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise RuntimeError("no free ports")


def free_pool() -> str:
    """A /16 below 10.216 to 10.247 that no route of this machine and no Binder beside this one touches."""
    routes = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=True).stdout
    used = routes + " ".join(file.read_text(encoding="utf-8") for file in VOLATILE.glob("*/pool"))
    first = os.getpid() % 32
    return next(f"10.{n}.0.0/16" for n in (216 + (first + step) % 32 for step in range(32)) if f"10.{n}." not in used)


@dataclass
class Stand:
    """The running Binder and how tests speak to it."""

    home: Path
    port: int
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def new(cls, **settings: Any) -> Stand:
        """A home (its path short: unix sockets lie in it) and a configuration; nothing runs yet."""
        stand = cls(Path(tempfile.mkdtemp(prefix="bo", dir="/var/tmp")), free_ports(8))
        stand.configure(network={"allow": ["127.0.0.0/8"], "pool": free_pool()}, **settings)
        return stand

    @classmethod
    def at(cls, home: Path) -> Stand:
        """One that is up already."""
        settings = yaml.safe_load((home / "config.yaml").read_text(encoding="utf-8"))
        return cls(home, settings["listen"]["port"], settings)

    def configure(self, **settings: Any) -> None:
        """Change settings in the file; `up` takes them over."""
        self.settings |= {"listen": {"port": self.port}} | settings
        (self.home / "config.yaml").write_text(yaml.safe_dump(self.settings), encoding="utf-8")

    @property
    def url(self) -> str:
        """Where people go."""
        return f"http://127.0.0.1:{self.port}{self.settings.get('listen', {}).get('base_url', '/')}"

    def command(self, *arguments: str, seconds: float = 900, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command of the product; `given` is its input."""
        if arguments[:1] == ("up",):
            imagestore.give(self.home)
        return subprocess.run(
            [*COMMAND, "--home", str(self.home), *arguments], capture_output=True, text=True, timeout=seconds, check=False, input=given
        )

    def json(self, *arguments: str) -> Any:
        """Run a command with ``--json``; it must succeed."""
        result = self.command(*arguments, "--json")
        assert result.returncode == 0, result.stdout + result.stderr
        return json.loads(result.stdout)

    def up(self) -> str:
        """Bring it up; returns what was printed."""
        result = self.command("up")
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def pid(self, part: str) -> int:
        """Process id of a part."""
        return int(next(row["pid"] for row in json.loads(self.command("status", "--json").stdout)["parts"] if row["name"] == part))

    @cached_property
    def keeper(self) -> Supervision:
        """Its supervisor."""
        return supervision(load(home=self.home), host.look(self.home))

    def kill(self, *parts: str) -> None:
        """`kill -9` of parts, all at once, this moment; the supervisor starts them anew."""
        states = self.keeper.states()
        for part in parts:
            os.kill(states[part].pid, signal.SIGKILL)
        for part in parts:
            while Path(f"/proc/{states[part].pid}").exists():
                time.sleep(0.005)

    def report(self, folder: Path, *words: str) -> dict[str, str]:
        """What a bug report holds: name in it → text; it is for its owner alone."""
        path = Path(self.json("support", "--to", str(folder), *words)["path"])
        assert path.stat().st_mode & 0o777 == 0o600
        with tarfile.open(path) as tar:
            return {entry.name.split("/", 2)[-1]: (tar.extractfile(entry) or sys.exit()).read().decode() for entry in tar}

    def silent(self) -> tuple[str, ...]:
        """Parts that do not answer now."""
        return probes.silent(parts_of(load(home=self.home)), 0)

    def api(self, method: str, path: str) -> Any:
        """The administrator's API, without the price of starting the command."""
        token = (self.home / "secrets" / "admin-token").read_text(encoding="utf-8").strip()
        request = urllib.request.Request(self.url + path, method=method, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - loopback
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def podman(self, *arguments: str) -> str:
        """Ask this Binder's own podman."""
        command = ["podman", "--url", f"unix://{self.home}/run/podman.sock", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def destroy(self) -> None:
        """Take everything away; what `clean` leaves is a fault."""
        result = self.command("clean", "--yes")
        assert result.returncode == 0, result.stdout + result.stderr


def git_spec(url: str, ref: str = "HEAD") -> str:
    """Spec of the `git` provider."""
    return f"git/{quote(url, safe='')}/{quote(ref, safe='')}"


async def events(
    stand: Stand, spec: str, *, resume: bool = False, last: str | None = None, seconds: float = 600
) -> AsyncIterator[tuple[str | None, dict[str, Any]]]:
    """The event stream of a launch as any client sees it: pairs of event id and fields."""
    url = URL(f"{stand.url}build/{spec}{'?resume=true' if resume else ''}", encoded=True)
    headers = STREAM | ({"Last-Event-ID": last} if last else {})
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=seconds)) as session, session.get(url, headers=headers) as answer:
        assert answer.status in (200, 204)
        event_id = None
        async for line in answer.content:
            text = line.decode().rstrip("\n")
            if text.startswith("id: "):
                event_id = text[4:]
            elif text.startswith("data: "):
                yield event_id, json.loads(text[6:])
                event_id = None


async def resumed(stand: Stand, spec: str, seconds: float = 600) -> AsyncIterator[tuple[str | None, dict[str, Any]]]:
    """The same, by a client that comes back with the last id when the stream breaks, as a browser does."""
    last, end = None, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            async for event_id, event in events(stand, spec, resume=True, last=last):
                last = event_id or last
                yield event_id, event
                if event["phase"] in TERMINAL:
                    return
        except (aiohttp.ClientError, AssertionError):
            pass
        await _pause()
    raise TimeoutError("no terminal event")


async def _pause() -> None:
    import asyncio  # noqa: PLC0415 - one place

    await asyncio.sleep(0.3)


async def launch(stand: Stand, spec: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Launch; returns the terminal event and everything before it. There is exactly one, and it is the last."""
    seen = [event async for _, event in events(stand, spec)]
    assert [event["phase"] in TERMINAL for event in seen] == [False] * (len(seen) - 1) + [True], seen[-3:]
    assert all(isinstance(event.get("message"), str) for event in seen)
    return seen[-1], seen[:-1]


async def ready(stand: Stand, spec: str) -> dict[str, Any]:
    """Launch, which must work."""
    end, before = await launch(stand, spec)
    assert end["phase"] == "ready", (end, [event["message"] for event in before[-30:]])
    return end
