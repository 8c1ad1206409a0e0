"""Answers that are asked for again with their ETag: a host that says 304 does not send them twice, and mostly does not count the request.

Used by the providers that speak to an API. Holds a bounded number of small answers in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import BaseModel, ValidationError

from binder_onprem.errors import ProviderUnavailable, RefNotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from binder_onprem.providers.reader import Answer, Reader

SIZE: Final = 1024
BYTES: Final = 256 * 1024
"""A longer answer is not kept."""
ALTOGETHER: Final = 16 * 1024**2
NOT_MODIFIED: Final = 304
OK: Final = 200
UNAUTHORIZED: Final = 401
NONSENSE: Final = "The host's answer is not what its interface promises. Try again later, or tell the administrator, who must check the provider."

Shape = TypeVar("Shape", bound=BaseModel)


class Remembered:
    """One API.

    Args:
        reader: Reads answers.
        name: What people call the host.
        secret: Headers for the API's own host.
    """

    def __init__(self, reader: Reader, name: str, secret: Mapping[str, str] | None = None) -> None:
        self._reader = reader
        self._name = name
        self._secret = secret or {}
        self._known: OrderedDict[str, tuple[str, Answer]] = OrderedDict()
        self._bytes = 0

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """The answer, a remembered one where the host says that it still holds. Raises as `Reader.get`."""
        known = self._known.get(url)
        asked = dict(headers or {}) | ({"If-None-Match": known[0]} if known else {})
        answer = await self._reader.get(url, asked, self._secret)
        if answer.status == NOT_MODIFIED and known:
            self._known.move_to_end(url)
            return replace(known[1], headers=answer.headers)
        self._forget(url)
        if answer.status == OK and (etag := answer.headers.get("ETag")) and len(answer.body) <= BYTES:
            self._keep(url, etag, answer)
        return answer

    async def read(self, shape: type[Shape], url: str, missing: str) -> Shape:
        """A JSON answer.

        Args:
            shape: What of it counts.
            url: Where.
            missing: The sentence for an answer other than 200.

        Raises:
            RefNotFound: Any other status.
            ProviderUnavailable: Our token is refused, or it is another shape; and as `Reader.get`.
        """
        answer = await self.get(url, {"Accept": "application/json"})
        if answer.status == UNAUTHORIZED and self._secret:
            raise ProviderUnavailable(f"{self._name} refuses this site's token. The administrator must renew it.")
        if answer.status != OK:
            raise RefNotFound(missing)
        try:
            return shape.model_validate_json(answer.body)
        except ValidationError:
            raise ProviderUnavailable(NONSENSE) from None

    def _keep(self, url: str, etag: str, answer: Answer) -> None:
        self._known[url] = (etag, answer)
        self._bytes += len(answer.body)
        while len(self._known) > SIZE or self._bytes > ALTOGETHER:
            self._forget(next(iter(self._known)))

    def _forget(self, url: str) -> None:
        if known := self._known.pop(url, None):
            self._bytes -= len(known[1].body)
