"""CAs and certificates that a site brings and that cannot work are refused by name before a host is touched; good ones are not."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.plugins import answer, plugin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

authority = plugin("library/binder_authority.py")
NAME = "registry.uni.example"
PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Made:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def made(subject: str, by: Made | None = None, *, ca: bool = True, days: int = 30, names: tuple[str, ...] = ()) -> Made:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
    now = dt.datetime.now(dt.UTC)
    begun = x509.CertificateBuilder(by.certificate.subject if by else name, name, key.public_key(), x509.random_serial_number())
    begun = begun.not_valid_before(now - dt.timedelta(days=60)).not_valid_after(now + dt.timedelta(days=days))
    begun = begun.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if names:
        begun = begun.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
    return Made(begun.sign(by.key if by else key, hashes.SHA256()), key)


ROOT = made("Uni Root")
OTHER = made("Other Root")
MIDDLE = made("Uni Issuing", ROOT)
SERVER = made(NAME, MIDDLE, ca=False, names=(NAME,))
GOOD = {"ca.pem": ROOT.pem, "server.pem": SERVER.pem + MIDDLE.pem, "server.key": SERVER.key_pem}


def told(folder: Path, capsys: pytest.CaptureFixture[str], files: dict[str, bytes]) -> dict[str, Any]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    asked = {"variable": "registry_certificate", "certificate": str(folder / "server.pem"), "key": str(folder / "server.key"), "name": NAME}
    return answer(authority, capsys, ca=str(folder / "ca.pem"), servers=[asked])


@pytest.mark.parametrize(
    "files",
    [
        GOOD,
        {**GOOD, "ca.pem": OTHER.pem + ROOT.pem},
        {**GOOD, "ca.pem": ROOT.pem + MIDDLE.pem, "server.pem": SERVER.pem},
        {**GOOD, "server.pem": (wild := made("w", ROOT, ca=False, names=("*.uni.example",))).pem, "server.key": wild.key_pem},
    ],
)
def test_what_can_work_is_taken(files: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(tmp_path, capsys, files)
    assert not found.get("failed"), found.get("msg")


def der(one: Made) -> bytes:
    return one.certificate.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda: {"ca.pem": OTHER.pem}, "server.pem is not signed by site_ca_file"),
        (lambda: {"server.pem": SERVER.pem}, "append what stands between"),
        (lambda: {"ca.pem": made("Uni Root", days=-1).pem}, "the CA CN=Uni Root ended on"),
        (lambda: {"ca.pem": b"nonsense"}, "ca.pem is not a certificate in PEM"),
        (lambda: {"ca.pem": der(ROOT)}, "openssl x509 -inform der"),
        (lambda: {"ca.pem": SERVER.pem}, "is no CA"),
        (lambda: {"ca.pem": ROOT.pem + ROOT.key_pem}, "private key"),
        (lambda: {"server.key": OTHER.key_pem}, "is not the key of"),
        (lambda: {"server.key": b"nonsense"}, "without a passphrase"),
        (lambda: {"server.pem": (one := made(NAME, ROOT, ca=False, days=-1, names=(NAME,))).pem, "server.key": one.key_pem}, "Renew it"),
        (lambda: {"server.pem": (one := made(NAME, ROOT, ca=False, names=("b.example",))).pem, "server.key": one.key_pem}, f"not hold for {NAME}"),
    ],
)
def test_what_cannot_work_is_refused_by_name(
    change: Callable[[], dict[str, bytes]], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(tmp_path, capsys, {**GOOD, **change()})
    assert found["failed"]
    assert sentence in found["msg"]
    assert found["msg"].endswith("No host was touched.")


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(authority, capsys, ca=str(tmp_path / "none.pem"))
    assert f"{tmp_path}/none.pem cannot be read on the controller: No such file" in found["msg"]
