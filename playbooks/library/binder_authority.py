#!/usr/bin/python
"""Whether the CA and the certificates that a site brings can work, seen on the controller before any host is touched. Writes nothing.

Where the CA is given (`ca`), each server's certificate has to be signed by it; where it is not, the issuer may be anybody.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONVERT = "openssl x509 -inform der -in FILE -out FILE.pem"
DEEP = 8
"""Certificates between a server's and its CA."""


class Unfit(Exception):
    """What is wrong with a file, and what to do."""


def read(what: str, path: str) -> bytes:
    """The bytes of a file. Raises `Unfit`."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Unfit(f"{what} {path} cannot be read on the controller: {error.strerror}.") from error


def certificates(what: str, path: str) -> list[x509.Certificate]:
    """Those of a PEM file. Raises `Unfit`."""
    try:
        return x509.load_pem_x509_certificates(read(what, path))
    except ValueError as error:
        raise Unfit(
            f"{what} {path} is not a certificate in PEM, which begins with -----BEGIN CERTIFICATE-----. One in DER becomes PEM by: {CONVERT}"
        ) from error


def named(name: x509.Name) -> str:
    """A subject or an issuer, for people."""
    return name.rfc4514_string() or "(no name)"


def period(certificate: x509.Certificate) -> str:
    """Why a certificate does not hold now; "" if it does."""
    now = dt.datetime.now(dt.UTC)
    if certificate.not_valid_after_utc < now:
        return f"ended on {certificate.not_valid_after_utc:%Y-%m-%d}"
    return f"holds only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on" if certificate.not_valid_before_utc > now else ""


def signs(certificate: x509.Certificate) -> bool:
    """Whether it may sign others."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return certificate.version is x509.Version.v1


def authorities(path: str) -> list[x509.Certificate]:
    """The CA's certificates that hold now. Raises `Unfit`."""
    if b"PRIVATE KEY" in read("site_ca_file", path):
        raise Unfit(f"site_ca_file {path} has a private key in it, and every account of every host reads that file. Take the key out of it.")
    found = certificates("site_ca_file", path)
    if others := [one for one in found if not signs(one)]:
        raise Unfit(f"site_ca_file {path} has the certificate of {named(others[0].subject)}, which is no CA. Give that of the CA that has signed it.")
    good = [one for one in found if not period(one)]
    if not good:
        raise Unfit(f"site_ca_file {path}: the CA {named(found[0].subject)} {period(found[0])}. Give its present certificate.")
    return good


def issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    """Whether one has signed the other."""
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def covers(certificate: x509.Certificate, name: str) -> bool:
    """Whether a certificate holds for a name or address."""
    try:
        known = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ipaddress.ip_address(name) in known.get_values_for_type(x509.IPAddress)
    except ValueError:
        wanted = name.lower()
        return bool({wanted, f"*.{wanted.partition('.')[2]}"} & {one.lower() for one in known.get_values_for_type(x509.DNSName)})


def chained(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> bool:
    """Whether the first of a chain leads to one of the roots."""
    here, left = chain[0], list(chain[1:])
    for _ in range(DEEP):
        if any(issued(here, root) or here == root for root in roots):
            return True
        above = next((one for one in left if issued(here, one)), None)
        if above is None:
            return False
        left.remove(above)
        here = above
    return False


def server(asked: dict[str, str], roots: Sequence[x509.Certificate], ca: str) -> Iterator[str]:
    """What is wrong with a server's certificate and its key. Raises `Unfit`."""
    what, path = asked["variable"], asked["certificate"]
    chain = certificates(what, path)
    try:
        key = serialization.load_pem_private_key(read(f"{what}_key", asked["key"]), None)
    except (ValueError, TypeError) as error:
        raise Unfit(f"{what}_key {asked['key']} is not a private key in PEM without a passphrase.") from error
    if key.public_key() != chain[0].public_key():
        yield f"{what}_key {asked['key']} is not the key of {what} {path}: give the two that belong together, the server's certificate first."
    if why := period(chain[0]):
        yield f"{what} {path} {why}. Renew it."
    if not covers(chain[0], asked["name"]):
        yield f"{what} {path} does not hold for {asked['name']}: it needs that among its subject alternative names."
    if roots and not chained(chain, roots):
        yield (
            f"{what} {path} is not signed by site_ca_file {ca}: {named(chain[-1].issuer)} has signed it, and the CA is {named(roots[0].subject)}."
            " Give the CA that has signed it, or append what stands between the two to the certificate."
        )


def objections(ca: str, servers: Sequence[dict[str, str]]) -> list[str]:
    """Everything that is wrong, a sentence each."""
    found: list[str] = []
    roots: list[x509.Certificate] = []
    try:
        roots = authorities(ca) if ca else []
    except Unfit as error:
        found.append(str(error))
    for asked in servers:
        try:
            found += server(asked, roots if asked["variable"] == "registry_certificate" else [], ca)
        except Unfit as error:
            found.append(str(error))
    return found


def main() -> None:
    """Judge."""
    options: dict[str, Any] = {name: {"type": "str", "required": True} for name in ("variable", "certificate", "key", "name")}
    options["key"]["no_log"] = False
    spec = {"ca": {"type": "str", "default": ""}, "servers": {"type": "list", "elements": "dict", "default": [], "options": options}}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    if found := objections(module.params["ca"], module.params["servers"]):
        module.fail_json(msg=" ".join([*found, "No host was touched."]))
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
