"""What a launch link names, taken from the raw request path, so that ``group%2Fproject/main`` keeps its encoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from binder_onprem.errors import InvalidSpec

if TYPE_CHECKING:
    from aiohttp import web

LIMIT: Final = 4096
"""Bytes of a spec."""


@dataclass(frozen=True, slots=True)
class Target:
    """Attributes: `provider` and `spec` as in the raw path, without slashes at the end."""

    provider: str
    spec: str

    @property
    def audience(self) -> str:
        """What a build token is issued for."""
        return f"{self.provider}/{self.spec}"

    @property
    def display(self) -> str:
        """For people's eyes."""
        return unquote(self.spec)

    def named(self, *, whole: bool) -> tuple[str, str]:
        """Repository and ref for people's eyes.

        Args:
            whole: The repository is one percent-encoded segment, not ``owner/name``.
        """
        segments = self.spec.split("/")
        count = 1 if whole else 2
        return unquote("/".join(segments[:count])), unquote("/".join(segments[count:]))


def target(raw_path: str, base_url: str) -> Target:
    """Take ``<base>/<route>/<provider>/<spec>?…`` apart.

    Args:
        raw_path: The request's path as it came; may be in absolute form.
        base_url: Its number of slashes counts, not its spelling, which a client may encode as it likes.

    Raises:
        InvalidSpec: Too long, or no spec.
    """
    path = raw_path.partition("?")[0].partition("#")[0]
    if not path.startswith("/"):
        path = "/" + path.partition("://")[2].partition("/")[2]
    parts = path.split("/", base_url.count("/") + 2)
    provider, spec = (parts[-2], parts[-1].rstrip("/")) if len(parts) == base_url.count("/") + 3 else ("", "")
    if len(spec) > LIMIT or len(provider) > LIMIT:
        raise InvalidSpec(f"This link is too long: what follows the provider may have {LIMIT} characters.")
    if not spec:
        raise InvalidSpec("This link is incomplete. It must have the form provider/repository/ref, for instance gh/owner/repository/HEAD.")
    return Target(provider, spec)


def of_request(request: web.Request, base_url: str) -> Target:
    """The same for a request."""
    return target(request.raw_path, base_url)
