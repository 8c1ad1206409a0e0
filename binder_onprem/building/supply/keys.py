"""The site's signing key: ECDSA on P-256, as cosign's. One that signs, and those retired ones whose signatures still hold.

Files below ``secrets/``, mode 0600, made when first asked for; ``etc/signing.pub`` is for others (``cosign verify --key``). Read at each use, so that
a rotation holds at once, in every process.
"""

from __future__ import annotations

import base64
import contextlib
import os
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from binder_onprem.errors import HostUnfit

if TYPE_CHECKING:
    from pathlib import Path

    from binder_onprem.config import Config

KEY: Final = "signing-key"
RETIRED: Final = "signing-keys-retired"
END: Final = "-----END PUBLIC KEY-----\n"
_DAMAGED: Final = "The signing key below secrets/ cannot be read. Restore it, or make a new one: `binder-onprem images key --rotate`."


class Keys:
    """The keys of a site.

    Args:
        config: Says where they lie.
    """

    def __init__(self, config: Config) -> None:
        self._key = config.secrets / KEY
        self._retired = config.secrets / RETIRED
        self._public = config.home / "etc" / "signing.pub"

    def ready(self) -> None:
        """Make the key if there is none. Two processes at once make one: whoever is first. Raises `HostUnfit`."""
        if not self._key.exists():
            _written(self._key, _private_pem(ec.generate_private_key(ec.SECP256R1())), once=True)
        self._publish()

    def rotate(self, *, forget: bool = False) -> None:
        """Make a new key; signatures of the old ones hold on, unless they are to be forgotten. Raises `HostUnfit`."""
        old = _public_pem(self._private()) if self._key.exists() and not forget else ""
        # In this order: killed in between, the old key is known twice, and no signature of it is lost.
        _written(self._retired, "" if forget else old + self._retired_text())
        _written(self._key, _private_pem(ec.generate_private_key(ec.SECP256R1())))
        self._publish()

    @property
    def public(self) -> str:
        """The public key as PEM. Raises `HostUnfit`."""
        return _public_pem(self._private())

    def sign(self, payload: bytes) -> str:
        """Base64 of the signature (ASN.1) over SHA-256 of `payload`. Raises `HostUnfit`."""
        return base64.b64encode(self._private().sign(payload, ec.ECDSA(hashes.SHA256()))).decode("ascii")

    def good(self, payload: bytes, signature: str) -> bool:
        """Whether one of the site's keys made this signature. Raises `HostUnfit`."""
        try:
            raw = base64.b64decode(signature, validate=True)
        except ValueError:
            return False
        return any(_verified(key, payload, raw) for key in self._trusted())

    def _trusted(self) -> list[ec.EllipticCurvePublicKey]:
        texts = [text + END for text in self._retired_text().split(END) if text.strip()]
        try:
            retired = [serialization.load_pem_public_key(text.encode("ascii")) for text in texts]
        except ValueError:
            raise HostUnfit(_DAMAGED) from None
        return [self._private().public_key(), *(key for key in retired if isinstance(key, ec.EllipticCurvePublicKey))]

    def _private(self) -> ec.EllipticCurvePrivateKey:
        try:
            key = serialization.load_pem_private_key(self._key.read_bytes(), None)
        except (OSError, ValueError, TypeError):
            raise HostUnfit(_DAMAGED) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise HostUnfit(_DAMAGED)
        return key

    def _retired_text(self) -> str:
        try:
            return self._retired.read_text(encoding="ascii")
        except FileNotFoundError:
            return ""
        except (OSError, ValueError):
            raise HostUnfit(_DAMAGED) from None

    def _publish(self) -> None:
        text = self.public
        try:
            if not self._public.exists() or self._public.read_text(encoding="ascii") != text:
                self._public.parent.mkdir(parents=True, exist_ok=True)
                self._public.write_text(text, encoding="ascii")
        except OSError as error:
            raise HostUnfit(f"The signing key cannot be published below {self._public.parent}: {error.strerror}.") from error


def _private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode("ascii")


def _public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode("ascii")


def _verified(key: ec.EllipticCurvePublicKey, payload: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _written(path: Path, text: str, *, once: bool = False) -> None:
    """A whole file or none, 0600; `once`: what is there already stays."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        if once:
            with contextlib.suppress(FileExistsError):
                os.link(new, path)
            new.unlink()
        else:
            new.replace(path)
    except OSError as error:
        raise HostUnfit(f"The signing key cannot be written below {path.parent}: {error.strerror}.") from error
