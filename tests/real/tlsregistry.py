"""A registry of another institution: distribution with TLS by a CA of its own, and an account. And certificates for whatever speaks TLS."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bcrypt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACCOUNT = "pusher:planted-push-password"


def certificates(folder: Path, *names: str) -> tuple[Path, Path, Path]:
    """A CA and a certificate of it for these names or addresses and for 127.0.0.1: files of the CA, the certificate, its key."""
    folder.mkdir(parents=True, exist_ok=True)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA of a test")])
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server of a test")])
    own_ca = _signed(ca_name, ca_name, ca_key, ca_key, x509.BasicConstraints(ca=True, path_length=None))
    names_of = x509.SubjectAlternativeName([_named(one) for one in ("127.0.0.1", "localhost", *names)])
    own = _signed(name, ca_name, key, ca_key, names_of)
    pem = serialization.Encoding.PEM
    (folder / "ca").mkdir(exist_ok=True)
    (folder / "ca" / "ca.crt").write_bytes(own_ca.public_bytes(pem))
    (folder / "server.crt").write_bytes(own.public_bytes(pem))
    (folder / "server.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return folder / "ca" / "ca.crt", folder / "server.crt", folder / "server.key"


def _named(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _signed(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=2))
    return builder.add_extension(extension, critical=False).sign(by, hashes.SHA256())


@dataclass(frozen=True)
class TlsRegistry:
    """Where it is, and what one needs for it."""

    port: int
    ca: Path
    account: Path

    @property
    def place(self) -> str:
        """``host:port/path`` as in the settings."""
        return f"127.0.0.1:{self.port}/shared/images"


@contextmanager
def running(folder: Path, *names: str, address: str = "127.0.0.1", accounts: bool = True, read_only: bool = False) -> Iterator[TlsRegistry]:
    """Serve while the context lasts; without `accounts` to everybody."""
    ca, certificate, key = certificates(folder, *names)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (folder / "users").write_bytes(b"pusher:" + bcrypt.hashpw(ACCOUNT.partition(":")[2].encode(), bcrypt.gensalt(4)))
    (folder / "account").write_text(ACCOUNT + "\n")
    settings: dict[str, Any] = {
        "version": 0.1,
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "data")},
            "delete": {"enabled": True},
            "maintenance": {"readonly": {"enabled": read_only}},
        },
        "http": {"addr": f"{address}:{port}", "secret": "x", "tls": {"certificate": str(certificate), "key": str(key)}},
        "log": {"level": "error"},
    }
    if accounts:
        settings["auth"] = {"htpasswd": {"realm": "r", "path": str(folder / "users")}}
    (folder / "registry.yml").write_text(json.dumps(settings))
    command = ["docker-registry", "serve", str(folder / "registry.yml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _answers(port)
        yield TlsRegistry(port, ca, folder / "account")
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("the registry does not answer")
