"""Who uses the Binder, what they have stored, what is recorded of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from binder_onprem.model import Account, BuildRecord, LaunchAudit, Role
    from binder_onprem.ruling import Entry


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A person's token for programs, without its secret.

    Attributes:
        id: For revoking it.
        note: What it is for.
        created, expires, used: ISO 8601, UTC.
    """

    id: str
    note: str
    created: str
    expires: str | None
    used: str | None


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """A credential for private repositories as it is stored.

    Attributes:
        id: 16 hex digits, random.
        kind: ``user``, ``group`` or ``site``.
        owner: Name of the user or the group; "" for the site.
        origin: ``scheme://host:port`` that it is for.
        username: Goes with the secret.
        sealed: The secret, encrypted.
        created, used: Unix seconds; None: not used yet.
    """

    id: str
    kind: str
    owner: str
    origin: str
    username: str
    sealed: str = field(repr=False)
    created: float
    used: float | None


class Accounts(Protocol):
    """Who somebody is, and how she logs in."""

    @property
    def logout_url(self) -> str:
        """Path on the public port where a browser leaves."""
        ...

    def login_url(self, state: str) -> str:
        """Path on the public port where a browser logs in; it comes back to ``oauth_callback`` with a code and `state`."""
        ...

    async def exchange(self, code: str) -> str:
        """The token that a log-in's code stands for. Raises `Refused`, `HubUnavailable`."""
        ...

    def forget(self, token: str) -> None:
        """What is known of a token no longer holds."""
        ...

    async def tokens(self, name: str, token: str) -> Sequence[AccessToken]:
        """The tokens for programs of the person `name`, who has logged in with `token`. Raises `HubUnavailable`."""
        ...

    async def add_token(self, name: str, token: str, note: str, seconds: int, roles: frozenset[Role]) -> str:
        """Make one that holds for `seconds`, with these roles. Raises `HubUnavailable`."""
        ...

    async def remove_token(self, name: str, token: str, token_id: str) -> None:
        """Revoke one; absent is fine. Raises `HubUnavailable`."""
        ...

    async def of_token(self, token: str) -> Account | None:
        """The account that a bearer token belongs to, None for a token that is nobody's (any more). Raises `HubUnavailable`."""
        ...


class Audit(Protocol):
    """Who did what. Every method raises `StoreUnavailable`."""

    async def record(self, entry: Entry) -> None:
        """Add a line."""
        ...

    async def entries(self, *, before: int | None = None, limit: int = 100, action: str = "", who: str = "", since: float = 0.0) -> Sequence[Entry]:
        """Newest first.

        Args:
            before: Only those with a smaller number.
            limit: At the most.
            action: Only those whose action begins so.
            who: Only this account or address.
            since: Only those from then on, Unix seconds.
        """
        ...

    async def launches(self, *, before: int | None = None, limit: int = 100, who: str = "", since: float = 0.0) -> Sequence[tuple[int, LaunchAudit]]:
        """Launches, newest first, each with its number; arguments as of `entries`."""
        ...

    async def launched(self, ids: Collection[str]) -> Mapping[str, LaunchAudit]:
        """Launches by id, as far as they are known."""
        ...

    async def made(self, digests: Collection[str]) -> Mapping[str, BuildRecord]:
        """``sha256:…`` → the last build that made it."""
        ...

    async def search(self, *, before: str | None = None, limit: int = 50, state: str | None = None, text: str = "") -> Sequence[BuildRecord]:
        """Builds, newest first.

        Args:
            before: Only those older than the build of this id.
            limit: At the most.
            state: Only those in this state.
            text: Only those whose repository's URL, link or commit holds this, case not counting.
        """
        ...
