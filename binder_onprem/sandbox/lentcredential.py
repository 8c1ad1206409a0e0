"""A credential lent to one clone: taken from its file at once, given to git by a helper of ours, and to git alone.

Used by `clone` and `gitcommand`. Git is told it for the repository's own address; for submodules, at the same host, only where everybody who may
launch may use the credential: whoever can read the outer repository gets its image, and must not get what only the one who clicked can read.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Lent:
    """What a clone may use.

    Attributes:
        url: The repository's.
        username, password: What opens it.
        submodules: Whether others at the same host may be opened with it, too.
        name: Of the file that git's helper reads; nobody can guess it.
    """

    url: str
    username: str
    password: str = field(repr=False)
    submodules: bool = False
    name: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def kept(self, home: Path) -> Path:
        """Write the file for the helper."""
        file = home / self.name
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.write(f"username={self.username}\npassword={self.password}\n")
        return file

    def configuration(self, file: Path) -> str:
        """The part of git's configuration that has it read `file`, for the addresses that it is for and no others."""
        helper = f"""    helper = "!f() {{ test \\"$1\\" = get && cat {file}; }}; f"\n"""
        return "".join(f'[credential "{address}"]\n    useHttpPath = true\n{helper}' for address in self._addresses())

    def hidden(self) -> Iterable[str]:
        """What must not stand in a log, whoever says it: a server repeats what it was sent."""
        both = base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")
        return (self.password, both, self.name)

    def _addresses(self) -> tuple[str, ...]:
        if any(character in self.url for character in '"\\\n'):
            return ()  # no provider makes such an address; here it could say something else to git
        parts = urlsplit(self.url)
        if self.submodules:
            return (f"{parts.scheme}://{parts.netloc}",)
        plain = self.url.rstrip("/").removesuffix(".git")
        # Git LFS asks below the address with .git, whatever the link has.
        return (plain, f"{plain}.git")


def taken(directory: str, url: str) -> Lent | None:
    """Read the file and remove it; None where there is none, or where it is not for this repository's scheme, host and port."""
    if not directory:
        return None
    file = Path(directory) / "credential"
    told = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    if told["origin"] != _origin(url):
        return None
    return Lent(url, told["username"], told["password"], told["submodules"])


def _origin(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port or _PORTS.get(parts.scheme)}"
