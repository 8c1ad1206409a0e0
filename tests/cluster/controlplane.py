"""The control plane of a real Kubernetes as processes on loopback, without nodes: what the API server itself answers, judges and keeps."""

from __future__ import annotations

import base64
import io
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.cluster import gobuild
from tests.real import tlsregistry

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTROLLERS: Final = ("serviceaccount", "serviceaccount-token", "resourcequota", "namespace", "garbage-collector")
SECONDS: Final = 120


@dataclass(frozen=True)
class ControlPlane:
    """A cluster that answers.

    Attributes:
        url: Of its API server.
        ca: File of the certificate authority.
        token: Of an administrator.
        folder: For files of tests.
    """

    url: str
    ca: Path
    token: str
    folder: Path

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """One request of the administrator's. Raises HTTPError."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method)  # noqa: S310 - https, on loopback
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", kind)
        try:
            with urllib.request.urlopen(request, timeout=30, context=ssl.create_default_context(cafile=str(self.ca))) as answer:  # noqa: S310 - same
                return json.loads(answer.read() or b"null")
        except HTTPError as error:
            with error:
                said = error.read()
            raise HTTPError(request.full_url, error.code, error.reason, error.headers, io.BytesIO(said)) from None

    def status(self, namespace: str, pod: str, **status: Any) -> None:
        """Say of a pod what its node would."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/status"
        self.ask("PATCH", path, {"status": status}, "application/merge-patch+json")

    def kubeconfig(self, token: str, name: str = "kubeconfig", url: str = "") -> Path:
        """One for the holder of a token."""
        authority = base64.b64encode(self.ca.read_bytes()).decode()
        text = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": url or self.url, "certificate-authority-data": authority}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        file = self.folder / name
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump(text))
        return file


@contextmanager
def running() -> Iterator[ControlPlane]:
    """Start it on a directory of its own; everything is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="boi-control-"))
    started: list[subprocess.Popen[bytes]] = []
    try:
        plane = _started(folder, started)
        yield plane
    finally:
        for process in reversed(started):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _started(folder: Path, started: list[subprocess.Popen[bytes]]) -> ControlPlane:
    ca, certificate, key = tlsregistry.certificates(folder / "tls")
    _account_keys(folder)
    token, port = secrets.token_hex(16), _port()
    plane = ControlPlane(f"https://127.0.0.1:{port}", ca, token, folder)
    (folder / "tokens.csv").touch(mode=0o600)
    (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
    database = f"sqlite://{folder}/state.db?_journal=WAL&cache=shared&_busy_timeout=30000"
    started.append(_start(folder, gobuild.program("kine"), f"--endpoint={database}", f"--listen-address=unix://{folder}/kine.sock"))
    _wait((folder / "kine.sock").exists, folder)
    accounts = (f"--service-account-key-file={folder}/sa.pub", f"--service-account-signing-key-file={folder}/sa.key")
    api = [
        f"--etcd-servers=unix://{folder}/kine.sock",
        "--endpoint-reconciler-type=none",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        *accounts,
        "--service-cluster-ip-range=10.143.0.0/24",
        "--authorization-mode=RBAC",
        f"--token-auth-file={folder}/tokens.csv",
    ]
    started.append(_start(folder, _component(folder, "kube-apiserver"), *api))
    _wait(lambda: bool(plane.ask("GET", "/api/v1/namespaces/kube-system")), folder)
    admin = plane.kubeconfig(token, "admin")
    words = (
        f"--kubeconfig={admin}",
        f"--service-account-private-key-file={folder}/sa.key",
        f"--root-ca-file={ca}",
        f"--controllers={','.join(f'{name}-controller' for name in CONTROLLERS)}",
    )
    started.append(_start(folder, _component(folder, "kube-controller-manager"), *words, "--leader-elect=false", "--secure-port=0"))
    _wait(lambda: bool(plane.ask("GET", "/api/v1/namespaces/default/serviceaccounts/default")), folder)
    return plane


def _component(folder: Path, name: str) -> Path:
    link = folder / name
    link.symlink_to(gobuild.kubernetes() / "kubernetes")
    return link


def _account_keys(folder: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "sa.key").touch(mode=0o600)
    (folder / "sa.key").write_bytes(private)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "sa.pub").write_bytes(public)


def _start(folder: Path, program: Path, *words: str) -> subprocess.Popen[bytes]:
    with (folder / f"{program.name}.log").open("wb") as log:
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        return subprocess.Popen([str(program), *words], cwd=folder, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def _wait(ready: Any, folder: Path) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with suppress(OSError, ValueError):
            if ready():
                return
        time.sleep(0.2)
    raise TimeoutError("\n".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in folder.glob("*.log")))


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
