"""From what an API lists to the plan that the sandbox carries out. Pure; every name and URL in it is a stranger's."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from binder_onprem.content import FILES, Content, File, place
from binder_onprem.errors import LimitHit, ProviderUnavailable, RefNotFound
from binder_onprem.model import VERSION
from binder_onprem.providers.remembered import NONSENSE

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEX: Final = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
URL_LIMIT: Final = 4096


def content(files: Iterable[File], *, unpack: bool, empty: str) -> Content:
    """The plan for a record's files.

    Args:
        files: As `file` makes them.
        unpack: A lone archive is taken apart.
        empty: The sentence for a record without any.

    Raises:
        RefNotFound: There are none.
        LimitHit: There are too many.
    """
    found = tuple(files)
    if not found:
        raise RefNotFound(empty)
    if len(found) > FILES:
        raise LimitHit(f"The record has {len(found):,} files; this site fetches {FILES:,} at the most.")
    if len({one.path for one in found}) != len(found):
        raise ProviderUnavailable(NONSENSE)
    return Content("files", found, unpack=unpack and len(found) == 1)


def file(url: str, name: str, size: int | None = None, checksum: str = "") -> File:
    """One file of a record. Raises ProviderUnavailable for a name or URL that cannot be one."""
    try:
        path = place(name)
    except ValueError:
        raise ProviderUnavailable("The record has a file whose name leads out of its place, which this site does not fetch.") from None
    return File(fetchable(url), path, size if size is not None and size >= 0 else None, digest(checksum))


def fetchable(url: str) -> str:
    """A URL that the sandbox may ask its gate for. Raises ProviderUnavailable."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        fine = False
    if not fine or len(url) > URL_LIMIT or not url.isascii() or not url.isprintable() or " " in url:
        raise ProviderUnavailable(NONSENSE)
    return url


def digest(text: str) -> str:
    """``algorithm:hex`` where it is one that we know, else ""."""
    kind, _, value = text.lower().partition(":")
    return f"{kind}:{value}" if re.fullmatch(r"[0-9a-f]+", value) and _HEX.get(kind) == len(value) else ""


def version(text: str) -> str:
    """A version as it stands in an image's tag. Raises ProviderUnavailable."""
    if not VERSION.fullmatch(text):
        raise ProviderUnavailable(NONSENSE)
    return text


def seconds(date: str) -> int:
    """Unix seconds of a date and time in UTC, as HydroShare and CKAN write them. Raises ProviderUnavailable."""
    try:
        found = datetime.fromisoformat(date.strip().removesuffix("Z").partition(".")[0])
        return int(found.replace(tzinfo=found.tzinfo or UTC).timestamp())
    except (ValueError, OverflowError):
        raise ProviderUnavailable(NONSENSE) from None
