"""A podman service with storage of its own and a registry beside it: what making images needs, and no more."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bcrypt

from binder_onprem.config import Config, Listen
from binder_onprem.host import engine_files, site_files
from binder_onprem.host import machine as host

if TYPE_CHECKING:
    from collections.abc import Iterator

REGISTRY = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {home}/registry}}, delete: {{enabled: true}}}}
http: {{addr: "{address}", secret: "0123456789abcdef"}}
auth: {{htpasswd: {{realm: registry, path: {home}/secrets/htpasswd}}}}
"""


@dataclass(frozen=True)
class Engine:
    """A site whose podman and registry run."""

    config: Config

    def podman(self, *words: str, stdin: str | None = None, check: bool = True) -> str:
        """Plain podman on this engine's storage; both channels."""
        environment = engine_files.environment(self.config)
        command = ["podman", *words]
        done = subprocess.run(
            command, env=environment, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False
        )
        assert not check or done.returncode == 0, done.stdout[-3000:]
        return done.stdout.strip()

    def end(self, name: str) -> None:
        """Stop and remove a container; right after a stop its mounts may be busy for a moment."""
        self.podman("stop", "--time=0", name)
        end = time.monotonic() + 20
        while name in self.podman("ps", "--all", "--format={{.Names}}").split() and time.monotonic() < end:
            self.podman("rm", "--force", "--time=0", name, check=False)


@contextmanager
def running(**settings: Any) -> Iterator[Engine]:
    """Start both on a home of their own, with these settings; everything is gone at the end."""
    home = Path(tempfile.mkdtemp(prefix="boi", dir="/var/tmp"))
    config = Config.model_validate({"home": home, "listen": Listen(port=_ports()), **settings})
    engine, started = Engine(config), []
    try:
        _files(config)
        started.append(_start(config, "docker-registry", "serve", str(home / "etc" / "registry.yml")))
        started.append(_start(config, "podman", "system", "service", "--time=0", f"unix://{config.podman_socket}"))
        _answers(config)
        yield engine
    finally:
        with suppress(AssertionError):
            engine.podman("stop", "--all", "--time=0")
            engine.podman("rm", "--all", "--force")
        for process in reversed(started):
            process.terminate()
            process.wait(20)
        with suppress(AssertionError):
            engine.podman("system", "reset", "--force")
        subprocess.run(["umount", "--quiet", str(home / "storage" / "overlay")], check=False)
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(engine_files.volatile(config), ignore_errors=True)


def _files(config: Config) -> None:
    for folder in ("etc", "etc/networks", "run", "secrets", "logs", "registry", "storage", "tmp"):
        (config.home / folder).mkdir()
    (engine_files.volatile(config) / "libpod").mkdir(parents=True, exist_ok=True)
    for name, text in engine_files.files(config, host.look(config.home)).items():
        (config.home / "etc" / name).write_text(text)
    (config.secrets / "registry-account").write_text("builder:secret")
    (config.secrets / "htpasswd").write_text("builder:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode() + "\n")
    (config.home / "etc" / "registry.yml").write_text(REGISTRY.format(home=config.home, address=f"127.0.0.1:{config.registry_port}"))
    site_files._trust(config)


def _start(config: Config, *words: str) -> subprocess.Popen[bytes]:
    with (config.logs / f"{words[0]}.log").open("wb") as log:
        trust = engine_files.trust(config)
        environment = {**engine_files.environment(config), **({"HOME": str(trust)} if trust else {})}
        return subprocess.Popen(words, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def _answers(config: Config) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as podman, socket.create_connection(("127.0.0.1", config.registry_port), 1):
            podman.connect(str(config.podman_socket))
            return
        time.sleep(0.05)
    raise TimeoutError((config.logs / "podman.log").read_text() + (config.logs / "docker-registry.log").read_text())


def _ports() -> int:
    """A port whose fourth successor, the registry's, is free."""
    for port in range(42000, 60000, 50):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port + 4))
            return port
    raise OSError("no free port")
