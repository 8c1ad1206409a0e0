#!/usr/bin/python
"""The site's CA and certificates of it, made on the controller: files below a directory of its user alone.

Without `names` the CA is made (``ca.pem``, ``ca.key``); with names a server's certificate (``FILE.pem``, ``FILE.key``, after its first name unless
`file` is given), anew when it ends within `days`, when its names are others, or when another CA has signed it.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from collections.abc import Sequence

CA_DAYS = 3650
SERVER_DAYS = 397
"""What browsers and Go accept at the most is 398."""
PEM = serialization.Encoding.PEM


def write(path: Path, data: bytes) -> None:
    """Write a file that nobody else may read, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as its file has it."""
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def alternative(names: Sequence[str]) -> x509.SubjectAlternativeName:
    """Host names and addresses of a certificate."""
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(found)


def builder(subject: str, issuer: x509.Name, key: Any, days: int) -> x509.CertificateBuilder:
    """What every certificate has. Begun a day ago: a host's clock may be behind."""
    now = dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject[:64])])
    made = x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=days))
    return made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def make_ca(directory: Path, subject: str) -> None:
    """A new CA. The key is there before the certificate that makes it count."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject[:64])])
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    made = builder(subject, name, key, CA_DAYS).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    signed = made.add_extension(usage, critical=True).sign(key, hashes.SHA256())
    write(directory / "ca.key", key_bytes(key))
    write(directory / "ca.pem", signed.public_bytes(PEM))


def make_server(directory: Path, names: Sequence[str], ca: x509.Certificate, ca_key: Any, file: str = "") -> None:
    """A certificate for a server; its key is new each time."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key())  # type: ignore[arg-type]
    made = builder(names[0], ca.subject, key, SERVER_DAYS).add_extension(alternative(names), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    made = made.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    signed = made.add_extension(issuer_id, critical=False).sign(ca_key, hashes.SHA256())
    write(directory / f"{file or names[0]}.key", key_bytes(key))
    write(directory / f"{file or names[0]}.pem", signed.public_bytes(PEM))


def objection(directory: Path, names: Sequence[str], ca: x509.Certificate, days: int, file: str = "") -> str:
    """Why a server's certificate has to be made anew; "" where it is good."""
    try:
        found = x509.load_pem_x509_certificate((directory / f"{file or names[0]}.pem").read_bytes())
        key = serialization.load_pem_private_key((directory / f"{file or names[0]}.key").read_bytes(), None)
        found.verify_directly_issued_by(ca)
    except FileNotFoundError:
        return "there is none"
    except (ValueError, TypeError, InvalidSignature):
        return "another CA has signed it, or it is damaged"
    if key.public_key() != found.public_key():
        return "its key is another one"
    if found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value != alternative(names):
        return "its names are others"
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    return "it ends soon" if found.not_valid_after_utc < soon else ""


def load_ca(module: AnsibleModule, certificate: Path, key: Path) -> tuple[x509.Certificate, Any]:
    """The CA that signs."""
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()), serialization.load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        module.fail_json(msg=f"The CA cannot be used: {error}. Give certificate and key in PEM, without a passphrase, or neither.")


def main() -> None:
    """Make what is missing."""
    spec = {
        "directory": {"type": "path", "required": True},
        "names": {"type": "list", "elements": "str", "default": []},
        "file": {"type": "str", "default": ""},
        "subject": {"type": "str", "default": "CA of this Binder"},
        "days": {"type": "int", "default": 30},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    directory, names = Path(module.params["directory"]), module.params["names"]
    ca, ca_key = directory / "ca.pem", directory / "ca.key"
    if not names:
        missing = not ca.exists() or not ca_key.exists()
        if missing and not module.check_mode:
            make_ca(directory, module.params["subject"])
        module.exit_json(changed=missing)
    if module.check_mode and not ca.exists():
        module.exit_json(changed=True, why="there is no CA yet")
    authority, authority_key = load_ca(module, ca, ca_key)
    why = objection(directory, names, authority, module.params["days"], module.params["file"])
    if why and not module.check_mode:
        make_server(directory, names, authority, authority_key, module.params["file"])
    module.exit_json(changed=bool(why), why=why)


if __name__ == "__main__":
    main()
