"""Fetch a record that is not git: what was resolved, file by file, or the one archive that its host prepares.

Called by `examine` in the sandbox, as nobody, behind the egress gate. What is told goes to the log; why it failed is one of the classes of `errors`.
"""

from __future__ import annotations

import json
import shutil
import time
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin

from binder_onprem.content import File, place
from binder_onprem.errors import BuildFailed, ProviderUnavailable
from binder_onprem.sandbox.download import SILENT, Budget, Http
from binder_onprem.sandbox.unpack import is_archive, settle, unpack

if TYPE_CHECKING:
    import http.client
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from binder_onprem.content import Content

PAUSES: Final = (1.0, 2.0, 5.0, 10.0, 20.0)
"""Seconds between two questions whether it is ready; the last one for ever."""
STEP: Final = 3.0
"""Seconds between two lines about one file."""
MEGA: Final = 1024**2
_ZIP: Final = b"PK"


class Fetch:
    """One record.

    Args:
        content: The plan.
        work: Directory on a file system of its own, for what is on its way.
        say: Gets each line for the log.
        stall: Seconds without enough bytes after which a host counts as gone.
        limit: Bytes of what comes, and again of what comes out of an archive.
        sleep: Waits; tests bring their own.
    """

    def __init__(  # noqa: PLR0913 - limits
        self, content: Content, work: Path, say: Callable[[str], None], stall: float, limit: int, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._content = content
        self._work = work
        self._say = say
        self._limit = limit
        self._budget = Budget(limit, limit)
        self._http = Http(stall)
        self._sleep = sleep

    def make(self, target: Path) -> None:
        """Fetch everything into a directory that does not exist yet.

        Raises:
            RefNotFound: A file is not there.
            ProviderUnavailable: The host does not answer, or is not ready in time.
            LimitHit: Too large.
            AddressRefused: The gate refuses the address.
            BuildFailed: Not what was promised, or a dangerous archive.
        """
        found = self._work / "fetched"
        found.mkdir()
        for file in self._content.files:
            self._one(self._cooked(file) if self._content.kind == "vault" else file, found)
        lone = found / _path(self._content.files[0])
        inside = ""
        if self._content.unpack and is_archive(lone):
            found, inside = self._unpacked(lone), self._content.inside
        elif self._content.kind != "files":
            raise BuildFailed("What came is not an archive.")
        settle(found, inside, target)
        shutil.rmtree(self._work / "fetched", ignore_errors=True)

    def _unpacked(self, lone: Path) -> Path:
        self._say(f"Unpacking {lone.name}")
        there = self._work / "unpacked"
        unpack(lone, there, Budget(self._limit, self._limit))
        lone.unlink()
        return there

    def _one(self, file: File, found: Path) -> None:
        path = _path(file)
        there = found / path
        there.parent.mkdir(parents=True, exist_ok=True)
        answer = self._prepared(file.url) if self._content.kind == "bag" else self._http.open(file.url)
        self._say(f"Fetching {path}" + (f" ({file.size / MEGA:,.1f} MiB)" if file.size else ""))
        try:
            self._http.save(answer, there, file, self._budget, _Progress(self._say, path, file.size))
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            raise BuildFailed("Two files of the record are to be in the same place.") from None

    def _prepared(self, url: str) -> http.client.HTTPResponse:
        """The archive itself: until it is ready, its host answers with a page about that."""
        for _ in self._waiting("The host prepares the archive."):
            answer = self._http.open(url)
            if answer.headers.get_content_type() in ("application/zip", "application/x-zip-compressed", "application/octet-stream"):
                return answer
            if answer.peek(2)[:2] == _ZIP:
                return answer
            answer.close()
        raise self._too_long()

    def _cooked(self, file: File) -> File:
        """Where the vault serves the directory, once it has cooked it."""
        method, said = "POST", ""
        for _ in self._waiting("Software Heritage cooks the directory."):
            status, message, url = _receipt(self._http.short(file.url, method))
            method = "GET"
            if status == "done":
                return File(urljoin(file.url, url), file.path)
            if status == "failed":
                raise BuildFailed("Software Heritage could not cook the directory. Try again later.")
            if message and message != said:
                said = message
                self._say(f"Software Heritage: {message}")
        raise self._too_long()

    def _waiting(self, line: str) -> Iterator[None]:
        """Until the time is over; the first question comes at once."""
        end = time.monotonic() + self._content.wait
        for number, pause in enumerate(chain(PAUSES, repeat(PAUSES[-1]))):
            yield
            if time.monotonic() >= end:
                return
            if not number:
                self._say(line)
            self._sleep(pause)

    def _too_long(self) -> ProviderUnavailable:
        return ProviderUnavailable(
            f"The host did not get the archive ready in {self._content.wait / 60:.0f} min. Try again later: it may be ready then."
        )


class _Progress:
    """A line every few seconds."""

    def __init__(self, say: Callable[[str], None], path: str, size: int | None) -> None:
        self._say, self._path, self._size = say, path, size
        self._next = time.monotonic() + STEP

    def __call__(self, count: int) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + STEP
        of = f" of {self._size / MEGA:,.1f}" if self._size else ""
        self._say(f"Fetching {self._path}: {count / MEGA:,.1f}{of} MiB")


def _path(file: File) -> str:
    try:
        return place(file.path)
    except ValueError:
        raise BuildFailed("A file of the record has a name that leads out of its place.") from None


def _receipt(body: bytes) -> tuple[str, str, str]:
    """Status, message and URL of the vault's answer."""
    try:
        data = json.loads(body)
        status, message, url = data["status"], data.get("progress_message") or "", data.get("fetch_url") or ""
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ProviderUnavailable(SILENT) from None
    if not all(isinstance(value, str) for value in (status, message, url)):
        raise ProviderUnavailable(SILENT)
    return status, message[:200], url
