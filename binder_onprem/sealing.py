"""Secrets at rest: encrypted with a key that lies in a file of its own, so that the database, or a copy of it, tells nothing.

The file holds one key per line, the newest first: that one encrypts, all decrypt. Mode 0600, made when first asked for, read at each use, so that
a rotation holds at once in every process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from binder_onprem.errors import HostUnfit

if TYPE_CHECKING:
    from pathlib import Path

    from binder_onprem.config import Config

KEY: Final = "credentials-key"
_BYTES: Final = 32
_DAMAGED: Final = (
    "The key of the stored credentials (secrets/credentials-key) is missing or damaged. Restore it, or remove the file, restart, and add them anew."
)


class Sealing:
    """Encrypts and decrypts.

    Args:
        config: Says where the key lies.
    """

    def __init__(self, config: Config) -> None:
        self._file = config.secrets / KEY

    def ready(self) -> None:
        """Make the key if there is none; of two processes at once the first one makes it. Raises `HostUnfit`."""
        if not self._file.exists():
            _written(self._file, [secrets.token_hex(_BYTES)], once=True)

    def seal(self, text: str) -> str:
        """Encrypt. Raises `HostUnfit`."""
        return self._fernet().encrypt(text.encode()).decode("ascii")

    def unseal(self, sealed: str) -> str | None:
        """Decrypt; None for what none of the keys has encrypted. Raises `HostUnfit`."""
        try:
            return self._fernet().decrypt(sealed.encode()).decode()
        except (InvalidToken, UnicodeError):
            return None

    def add_key(self) -> None:
        """From now on encrypt with a new key; the old ones still decrypt. Raises `HostUnfit`."""
        _written(self._file, [secrets.token_hex(_BYTES), *self._keys()])

    def forget_old_keys(self) -> None:
        """Only after everything was encrypted anew. Raises `HostUnfit`."""
        _written(self._file, self._keys()[:1])

    def _fernet(self) -> MultiFernet:
        return MultiFernet([Fernet(_derived(key)) for key in self._keys()])

    def _keys(self) -> list[str]:
        try:
            keys = self._file.read_text(encoding="ascii").split()
            if keys and all(len(bytes.fromhex(key)) == _BYTES for key in keys):
                return keys
        except (OSError, ValueError):
            pass
        raise HostUnfit(_DAMAGED)


def _derived(key: str) -> bytes:
    return urlsafe_b64encode(HKDF(SHA256(), _BYTES, None, b"binder-onprem stored credentials").derive(bytes.fromhex(key)))


def _written(file: Path, keys: list[str], *, once: bool = False) -> None:
    """In one move, so that a process killed in the middle leaves the old file or the new one."""
    new = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as out:
            out.write("\n".join(keys) + "\n")
            out.flush()
            os.fsync(out.fileno())
        if once:
            with contextlib.suppress(FileExistsError):
                os.link(new, file)
        else:
            new.replace(file)
    except OSError as error:
        raise HostUnfit("The key of the stored credentials cannot be written below secrets/.") from error
    finally:
        new.unlink(missing_ok=True)
