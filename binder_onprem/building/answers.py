"""What a registry answers, and which of it may be believed, repeated or is an error; used by `registry` alone. Pure but for reading the body."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.errors import RegistryUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp

DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
ABSENT: Final = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN"})
JSON_BYTES: Final = 4 * 1024**2
DENIED: Final = "The image registry refuses our account. The administrator must put the right one into its file."
NONSENSE: Final = "The image registry gave an answer that makes no sense. The administrator should look at its log."


DOWN: Final = "The image registry does not answer. Images that are already on this machine still work; for others try again later."
FULL: Final = "The disk of the image registry is full. Images that are there still start; new ones can be built when the administrator has made room."
NO_ROOM: Final = re.compile(rb'no space left on device|"Err":28\b')
"""How distribution tells of ENOSPC, in the body of a status 500."""


class Again(Exception):
    """Worth repeating.

    Attributes:
        sentence: What to say when no repetition has helped.
    """

    def __init__(self, sentence: str = DOWN) -> None:
        super().__init__(sentence)
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as an object. Raises `RegistryUnavailable`."""
        return decoded(self.body)

    def absent(self) -> bool:
        """Whether the registry itself says that there is no such thing."""
        try:
            errors = self.json().get("errors") or []
            return any(error["code"] in ABSENT for error in errors)
        except (RegistryUnavailable, KeyError, TypeError):
            return False


async def body_of(response: aiohttp.ClientResponse) -> bytes:
    """The body, which has a limit. Raises `RegistryUnavailable`."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > JSON_BYTES:
            raise RegistryUnavailable(NONSENSE)
    return bytes(body)


def check(answer: Answer, method: str) -> None:
    """Raise `Again` for what is worth repeating, `RegistryUnavailable` for what is an error; absence is neither."""
    if answer.status in (401, 403):
        raise RegistryUnavailable(DENIED)
    # 405: it is read-only, for the time of a garbage collection.
    if answer.status >= 500 or answer.status in (405, 429):  # noqa: PLR2004 - HTTP
        raise Again(FULL if NO_ROOM.search(answer.body) else DOWN)
    if answer.status == 404 and (method == "HEAD" or answer.absent()):  # noqa: PLR2004 - HTTP
        return
    if answer.status >= 300:  # noqa: PLR2004 - HTTP
        raise RegistryUnavailable(NONSENSE)


def digest_of(headers: Mapping[str, str], body: bytes | None = None) -> str:
    """The digest that the registry tells, checked against the body where there is one. Raises `RegistryUnavailable`."""
    digest = headers.get("Docker-Content-Digest", "")
    if not DIGEST.fullmatch(digest) or (body is not None and f"sha256:{hashlib.sha256(body).hexdigest()}" != digest):
        raise RegistryUnavailable(NONSENSE)
    return digest


def location_of(answer: Answer) -> str:
    """Where an upload goes on. Raises `RegistryUnavailable`."""
    if "Location" not in answer.headers or answer.status >= 400:  # noqa: PLR2004 - HTTP
        raise RegistryUnavailable(NONSENSE)
    return answer.headers["Location"]


def decoded(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises `RegistryUnavailable` for anything else."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise RegistryUnavailable(NONSENSE)
    return data
