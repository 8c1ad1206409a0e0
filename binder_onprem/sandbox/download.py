"""Fetch one file from a hostile host, through the gate: never more bytes than allowed, never silent for ever.

Called by `fetch` in the sandbox, as nobody. Standard library only. Redirects are followed by hand of ours; the gate checks each address.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from binder_onprem.errors import AddressRefused, BinderError, BuildFailed, LimitHit, ProviderUnavailable, RefNotFound

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from binder_onprem.content import File

CHUNK: Final = 1024**2
SLOWEST: Final = 100
"""Bytes a second, as git is told."""
REDIRECTS: Final = 8
ANSWER: Final = 1024**2
"""Bytes of an answer that is read into memory."""
GATE: Final = "address rules"
"""What the gate's refusal says and no server's."""
REFUSED: Final = "The address of the record's host is not one that links may name here."
SILENT: Final = "The record's host does not answer, or breaks off. Try again later."
ABSENT: Final = "A file of the record is not there (any more), or not for everybody."


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = REDIRECTS

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202, PLR0913, PLR0917
        fp.close()
        if urlsplit(newurl).scheme not in ("http", "https") or (req.full_url.startswith("https:") and not newurl.startswith("https:")):
            raise AddressRefused(REFUSED)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Only http and https, only by the proxy of the sandbox, also for loopback."""
    os.environ.pop("no_proxy", None)
    os.environ.pop("NO_PROXY", None)
    opener = urllib.request.OpenerDirector()
    proxies = {scheme: os.environ[f"{scheme}_proxy"] for scheme in ("http", "https") if os.environ.get(f"{scheme}_proxy")}
    for handler in (
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


@dataclass(slots=True)
class Budget:
    """Attributes: `left`: bytes that may still be written; `limit`: what they were at first, for the message."""

    left: int
    limit: int

    def spend(self, count: int) -> None:
        """Raises LimitHit."""
        self.left -= count
        if self.left < 0:
            raise too_large(self.limit)


def too_large(limit: int) -> LimitHit:
    """The error of a repository over its limit in bytes."""
    return LimitHit(f"The repository is larger than {limit / 1024**2:,.0f} MiB, which is the limit here (build.repository).")


class Http:
    """The way out.

    Args:
        stall: Seconds without enough bytes after which a host counts as gone.
    """

    def __init__(self, stall: float) -> None:
        self._stall = stall
        self._opener = _opener()

    def open(self, url: str, method: str = "GET") -> http.client.HTTPResponse:
        """An answer with status 200, its body unread.

        Raises:
            AddressRefused: The gate says no.
            RefNotFound: 401, 403, 404, 410.
            ProviderUnavailable: Anything else.
        """
        if urlsplit(url).scheme not in ("http", "https"):
            raise AddressRefused(REFUSED)
        request = urllib.request.Request(url, method=method, headers={"User-Agent": "binder-onprem", "Accept-Encoding": "identity"})  # noqa: S310 - the opener knows http and https only
        try:
            return self._opener.open(request, timeout=self._stall)  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            error.close()
            raise _told(error.code, str(error.reason)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> BinderError:
        if GATE in str(error):
            return AddressRefused(REFUSED)
        if "timed out" in str(error):
            return ProviderUnavailable(f"The record's host did not answer in {self._stall:.0f} s. Try again later.")
        if "CERTIFICATE" in str(error):
            return ProviderUnavailable("The certificate of the record's host is not one that this site trusts.")
        return ProviderUnavailable(SILENT)

    def short(self, url: str, method: str = "GET") -> bytes:
        """A short answer. Raises as `open`, and ProviderUnavailable for a longer one."""
        with self.open(url, method) as answer:
            try:
                body = answer.read(ANSWER + 1)
            except (OSError, http.client.HTTPException) as error:
                raise self._broken(error) from None
        if len(body) > ANSWER:
            raise ProviderUnavailable(SILENT)
        return body

    def save(self, answer: http.client.HTTPResponse, target: Path, file: File, budget: Budget, seen: Callable[[int], None]) -> None:
        """Write a body to a new file.

        Args:
            answer: From `open`; closed afterwards.
            target: Does not exist.
            file: What its size and checksum must be, where somebody said.
            budget: Bytes that there may be.
            seen: Gets the bytes so far, often.

        Raises:
            LimitHit: More than the budget.
            BuildFailed: Not the bytes that were promised.
            ProviderUnavailable: It breaks off, or comes too slowly.
        """
        size = file.size
        kind, _, wanted = file.checksum.partition(":")
        made = hashlib.new(kind or "md5", usedforsecurity=False)
        total, mark, since = 0, 0, time.monotonic()
        with answer, target.open("xb") as stream:
            while chunk := self._chunk(answer):
                budget.spend(len(chunk))
                total += len(chunk)
                if size is not None and total > size:
                    raise BuildFailed("A file of the record is longer than the record says. It was not fetched to its end.")
                stream.write(chunk)
                made.update(chunk)
                seen(total)
                if time.monotonic() - since > self._stall:
                    if total - mark < SLOWEST * self._stall:
                        raise ProviderUnavailable(SILENT)
                    mark, since = total, time.monotonic()
        if (size is not None and total != size) or answer.length:
            raise ProviderUnavailable(SILENT)
        if wanted and made.hexdigest() != wanted:
            raise BuildFailed("A file of the record is not the one that the record's checksum says. It may have been changed on its way; try again.")

    def _chunk(self, answer: http.client.HTTPResponse) -> bytes:
        try:
            return answer.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from None


def _told(status: int, reason: str) -> BinderError:
    if (status == 403 and GATE in reason) or "is not allowed" in reason:  # noqa: PLR2004 - the latter is urllib's of a redirect
        return AddressRefused(REFUSED)
    if status in (401, 403, 404, 410):
        return RefNotFound(ABSENT)
    if status == 429:  # noqa: PLR2004
        return ProviderUnavailable("The record's host is asked too often. Try again later.")
    return ProviderUnavailable(SILENT)
