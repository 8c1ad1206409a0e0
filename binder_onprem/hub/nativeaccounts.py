"""Accounts of the site's own (`auth.kind: native`) as the administrator's commands see them: rows of the authenticator's table in the hub's database.

The authenticator's own pages for this would need an administrator of the whole hub, and act on a mere link. It reads the table at each log-in.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

import bcrypt

from binder_onprem.errors import InvalidSpec, NotFound, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS: Final = 10.0
"""That another process's write is waited for."""
BYTES: Final = 72
"""Of a password that bcrypt looks at."""
ABSENT: Final = "There is no account of this name. `binder-onprem accounts list` shows them."


class NativeAccounts:
    """The table.

    Args:
        home: The site's directory.
        length: Characters of a password at the least.
    """

    def __init__(self, home: Path, length: int) -> None:
        self._file = home / "hub" / "jupyterhub.sqlite"
        self._length = length

    def listed(self) -> list[tuple[str, bool]]:
        """Name of each account, and whether it may log in."""
        with self._opened() as database:
            rows = database.execute("SELECT username, is_authorized FROM users_info ORDER BY username").fetchall()
        return [(str(name), bool(allowed)) for name, allowed in rows]

    def allow(self, name: str) -> None:
        """Let who has signed up log in. Raises `NotFound`."""
        self._changed("UPDATE users_info SET is_authorized = 1 WHERE username = ?", (name.lower(),))

    def add(self, name: str, password: str) -> None:
        """Make an account that may log in. Raises `InvalidSpec` where name or password will not do."""
        name = name.lower()
        if not name or any(character in name for character in ", /") or not name.isprintable():
            raise InvalidSpec("A user name has no space, comma or slash.")
        with self._opened() as database:
            if database.execute("SELECT 1 FROM users_info WHERE username = ?", (name,)).fetchone():
                raise InvalidSpec(f"There is an account {name} already. `binder-onprem accounts password {name}` gives it another password.")
            fields = "username, password, is_authorized, login_email_sent, has_2fa"
            database.execute(f"INSERT INTO users_info ({fields}) VALUES (?, ?, 1, 0, 0)", (name, self._hashed(password)))  # noqa: S608 - names above

    def password(self, name: str, password: str) -> None:
        """Give an account another password. Raises `NotFound`, `InvalidSpec`."""
        self._changed("UPDATE users_info SET password = ? WHERE username = ?", (self._hashed(password), name.lower()))

    def forbid(self, name: str) -> None:
        """Let nobody log in by this account any more. Raises `NotFound`."""
        self._changed("UPDATE users_info SET is_authorized = 0 WHERE username = ?", (name.lower(),))

    def remove(self, name: str) -> None:
        """Take an account away. Raises `NotFound`."""
        self._changed("DELETE FROM users_info WHERE username = ?", (name.lower(),))

    def _hashed(self, password: str) -> bytes:
        if not self._length <= len(password) or len(password.encode()) > BYTES:
            raise InvalidSpec(f"A password has {self._length} characters at the least and {BYTES} bytes at the most.")
        return bcrypt.hashpw(password.encode(), bcrypt.gensalt())

    def _changed(self, statement: str, values: tuple[object, ...]) -> None:
        with self._opened() as database:
            if not database.execute(statement, values).rowcount:
                raise NotFound(ABSENT)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(f"file:{self._file}?mode=rw", uri=True, timeout=SECONDS)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise StoreUnavailable(f"The accounts cannot be had ({error}). Has the hub been started with auth.kind: native?") from None
