"""Pebble, the ACME server of Let's Encrypt's own tests: asks over real HTTP whether a name is ours, signs by a CA that it makes at its start."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.cluster import gobuild
from tests.real.tlsregistry import certificates

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "binder.test"
"""Resolves to loopback, for Pebble alone."""
DAYS = 90
"""Its certificates hold so long."""


def missing() -> str:
    """Why there is no Pebble here; "" if there is one."""
    return "" if gobuild.go_version() >= gobuild.NEEDED else "Pebble, the ACME server, is built with Go"


@dataclass(frozen=True)
class Pebble:
    """One that answers; `ca` is the one that its own certificate is by."""

    directory: str
    management: str
    ca: Path

    def root(self) -> str:
        """PEM of the CA that it signs by."""
        trusting = ssl.create_default_context(cafile=self.ca)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusting))
        with opener.open(f"{self.management}/roots/0", timeout=10) as answer:
            return str(answer.read().decode())


@contextmanager
def pebble(folder: Path, first: int, http_port: int) -> Iterator[Pebble]:
    """Serve on ports `first` and the next one while the context lasts; names are proven on `http_port`."""
    folder.mkdir()
    ca, certificate, key = certificates(folder / "tls")
    settings = {
        "listenAddress": f"127.0.0.1:{first}",
        "managementListenAddress": f"127.0.0.1:{first + 1}",
        "certificate": str(certificate),
        "privateKey": str(key),
        "httpPort": http_port,
        "tlsPort": first + 2,
        "retryAfter": {"authz": 1, "order": 1},
        "profiles": {"default": {"description": "of a test", "validityPeriod": DAYS * 86400}},
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    (folder / "hosts").write_text(f"127.0.0.1 localhost {NAME}\n")
    script = 'mount --bind "$1" /etc/hosts && exec "$2" -config "$3"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(folder / "hosts"), str(gobuild.pebble()), str(folder / "pebble.json")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "PEBBLE_VA_NOSLEEP": "1"})
    try:
        yield _answering(Pebble(f"https://127.0.0.1:{first}/dir", f"https://127.0.0.1:{first + 1}", ca), folder / "log")
    finally:
        process.terminate()
        process.wait(20)


def _answering(server: Pebble, log: Path) -> Pebble:
    end = time.monotonic() + 30
    while True:
        try:
            server.root()
        except OSError:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        else:
            return server
