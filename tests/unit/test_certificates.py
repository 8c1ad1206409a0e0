"""The site's CA and its certificates, its secrets and its password hashes: made once, made anew when they have to be, for no other account's eyes."""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.unit.plugins import answer, plugin

if TYPE_CHECKING:
    from pathlib import Path

certificate, secret, accounts = (
    plugin(path) for path in ("library/binder_certificate.py", "library/binder_secret.py", "filter_plugins/binder_files.py")
)
NAMES = ["registry.uni.example", "10.0.0.1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    certificate.make_ca(folder, "CA of a test")
    return folder


def authority(folder: Path) -> tuple[x509.Certificate, object]:
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    return x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()), key


def test_a_certificate_holds_for_its_names_and_only_its_owner_reads_the_keys(folder: Path) -> None:
    ca, key = authority(folder)
    assert certificate.objection(folder, NAMES, ca, 30) == "there is none"
    certificate.make_server(folder, NAMES, ca, key)
    assert certificate.objection(folder, NAMES, ca, 30) == ""
    found = x509.load_pem_x509_certificate((folder / "registry.uni.example.pem").read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["registry.uni.example"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.0.0.1")]
    found.verify_directly_issued_by(ca)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_it_is_made_anew_for_other_names_by_another_ca_near_its_end_and_when_damaged(folder: Path) -> None:
    ca, key = authority(folder)
    certificate.make_server(folder, NAMES, ca, key)
    assert certificate.objection(folder, [*NAMES, "more.uni.example"], ca, 30) == "its names are others"
    assert certificate.objection(folder, NAMES, ca, 398) == "it ends soon"
    certificate.make_ca(folder, "another CA")
    assert "another CA" in certificate.objection(folder, NAMES, authority(folder)[0], 30)
    (folder / "registry.uni.example.key").write_text("")
    assert "damaged" in certificate.objection(folder, NAMES, ca, 30)


def test_one_host_may_have_several_certificates(folder: Path) -> None:
    ca, key = authority(folder)
    certificate.make_server(folder, NAMES, ca, key, "database")
    assert certificate.objection(folder, NAMES, ca, 30, "database") == ""
    assert certificate.objection(folder, NAMES, ca, 30) == "there is none"


def test_a_host_whose_clock_is_behind_believes_it(folder: Path) -> None:
    ca, _ = authority(folder)
    assert ca.not_valid_before_utc < dt.datetime.now(dt.UTC) - dt.timedelta(hours=12)


def test_secrets_are_long_differ_and_are_read_by_their_owner_only(tmp_path: Path) -> None:
    one, other = (secret.make(tmp_path / "s" / name) for name in ("one", "other"))
    assert len(one) == len(other) == 64
    assert one != other
    assert (tmp_path / "s" / "one").read_text().strip() == one
    assert (tmp_path / "s" / "one").stat().st_mode & 0o777 == 0o600


def test_secrets_that_others_read_are_told_where_nothing_is_hidden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: dict[str, Any] = {"directory": str(tmp_path), "names": ["one", "other"]}
    assert answer(secret, capsys, **asked, told=False)["changed"] is False
    assert list(tmp_path.iterdir()) == []
    made = answer(secret, capsys, **asked)
    assert made["secrets"].keys() == {"one", "other"}
    looked = answer(secret, capsys, **asked, told=False)
    assert (looked["changed"], looked["secrets"]) == (False, {})
    (tmp_path / "one").chmod(0o644)
    failed = answer(secret, capsys, **asked, told=False)
    assert failed["failed"]
    assert f"chmod 600 {tmp_path / 'one'}" in failed["msg"]


@pytest.mark.parametrize("password", ["x" * 64, "other", "ü" * 30])
def test_a_password_has_one_hash_which_bcrypt_knows(password: str) -> None:
    line = accounts.binder_htpasswd(password, "push")
    assert line == accounts.binder_htpasswd(password, "push")
    user, _, known = line.partition(":")
    assert user == "push"
    assert bcrypt.checkpw(password.encode(), known.encode())
    assert not bcrypt.checkpw(b"wrong", known.encode())
    assert accounts.binder_htpasswd(password, "pull").partition(":")[2] != known
