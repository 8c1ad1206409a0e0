"""What a provider that is not git has found, as the sandbox is to fetch it: what was resolved is what is fetched. Pure; imports nothing of ours.

Made by `providers`, kept with the build's record, carried out by `sandbox`. Every name in it comes from a stranger.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

FILES: Final = 2000
"""Files of a record at the most."""
PATH_BYTES: Final = 1024
NAME_BYTES: Final = 255
DEPTH: Final = 64

Kind = Literal["files", "bag", "vault", "mercurial"]


@dataclass(frozen=True, slots=True)
class File:
    """One file to fetch.

    Attributes:
        url: http or https, without account.
        path: Where it goes, below the repository; by `place`.
        size: Bytes as the host says, None where it does not; the host may lie.
        checksum: ``md5:…``, ``sha1:…``, ``sha256:…`` or ``sha512:…`` in hex, "" where there is none.
    """

    url: str
    path: str
    size: int | None = None
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """Everything to fetch.

    Attributes:
        kind: ``files``: one after the other; ``bag``: an archive that its host prepares first; ``vault``: an archive that Software Heritage
            cooks first; ``mercurial``: a clone.
        files: The files; the one archive; for ``vault`` the URL that cooks.
        unpack: A lone file that is an archive becomes what is in it.
        inside: Directory within the archive that counts, "" for all of it.
        wait: Seconds that preparing or cooking may take.
    """

    kind: Kind = "files"
    files: tuple[File, ...] = ()
    unpack: bool = False
    inside: str = ""
    wait: float = 0.0

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Content:
        """From what `plain` made."""
        return cls(**{**data, "files": tuple(File(**file) for file in data["files"])})


def place(name: str) -> str:
    """A stranger's file name as a path below a directory of ours.

    Args:
        name: With slashes; a ``./`` before it does not matter.

    Raises:
        ValueError: It is empty or absolute, leads upwards, has control characters or backslashes, or is longer or deeper than file systems bear.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    path = "/".join(parts)
    if name.startswith("/") or not parts or ".." in parts or len(parts) > DEPTH:
        raise ValueError("path")
    if "\\" in path or any(ord(letter) < ord(" ") or ord(letter) == 127 for letter in path):  # noqa: PLR2004 - DEL
        raise ValueError("letters")
    sizes = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
    if max(sizes) > NAME_BYTES or sum(sizes) + len(sizes) > PATH_BYTES:
        raise ValueError("length")
    return path
