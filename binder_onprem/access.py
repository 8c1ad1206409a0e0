"""Private repositories: who may read which follows from the credentials that a client may use, asked of the repository's own host at every launch.

Called by `launch` (`resolve`), by the build that clones (`credential`), and by the web (the rest). A link is first tried as anybody's; what is not
there for anybody is tried with this client's credentials, over git's own protocol, because that is what the clone will need. Nothing of that
is remembered: what one client may read is never told to another one, and a credential that was removed opens nothing any more. What was opened
by a credential has another image name (`ImageRef.of`) than what is public, so that nobody gets to it without having been let in by its host.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from binder_onprem.credential import (
    Credential,
    checked_secret,
    checked_username,
    credentials_for,
    in_the_clear,
    origin_of,
    origin_of_repository,
    owned,
    shown,
)
from binder_onprem.errors import (
    CredentialInsufficient,
    CredentialRefused,
    HostUnfit,
    InvalidSpec,
    NotFound,
    ProviderUnavailable,
    QuotaExceeded,
    RefNotFound,
    StoreUnavailable,
)
from binder_onprem.interfaces import StoredCredential
from binder_onprem.model import fingerprint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from binder_onprem.config import Config
    from binder_onprem.interfaces import Clonable, Provider
    from binder_onprem.model import Client, RepoSpec, ResolvedRepo
    from binder_onprem.sealing import Sealing

logger = logging.getLogger(__name__)

TRIED: Final = 5
"""Credentials that are tried for one launch at the most."""
MOST: Final = 50
"""Credentials that one owner may have."""
USED_SECONDS: Final = 60.0
"""A use is recorded once in so many seconds."""
GONE: Final = "There is no such credential (any more)."
CLEAR: Final = "A token is sent over https only, or by http to an address that is not public. Use the host's https address."


class Kept(Protocol):
    """What the table does; see `store.credentials`."""

    async def credentials(self) -> Sequence[StoredCredential]:
        """All."""
        ...

    async def put_credential(self, row: StoredCredential) -> None:
        """Keep or replace."""
        ...

    async def drop_credential(self, credential_id: str) -> bool:
        """Remove."""
        ...

    async def credential_used(self, credential_id: str, now: float) -> None:
        """Remember a use."""
        ...

    async def reseal(self, sealed: Callable[[str], str]) -> int:
        """Encrypt all anew."""
        ...


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a stored credential is.

    Attributes:
        kind: ``user``, ``group`` or ``site``.
        name: Of the user or the group; "" for the site.
    """

    kind: str
    name: str = ""


class Access:
    """The site's and everybody's credentials.

    Args:
        config: `credentials`, and `resolve.timeout`.
        kept: The table.
        sealing: Encrypts.
        look: Commit (and a notice) of a ref at a clone URL, read with a credential or, None, as anybody. Raises as `Provider.resolve`.
        now: Unix seconds.
    """

    def __init__(
        self,
        config: Config,
        kept: Kept,
        sealing: Sealing,
        look: Callable[[str, str, Credential | None], Awaitable[tuple[str, str | None]]],
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._kept = kept
        self._sealing = sealing
        self._look = look
        self._now = now
        self._used: dict[str, float] = {}
        self._changing = asyncio.Lock()

    # What a launch and its build ask.

    async def resolve(self, provider: Provider, spec: RepoSpec, client: Client) -> ResolvedRepo:
        """See `interfaces.Provider.resolve`; `access` of the answer is the id of the credential that opened it, or "".

        A client whose credentials open nothing hears what everybody hears of a repository that does not exist, or that the host refuses a
        credential of theirs: `CredentialRefused`. That the host knows the repository (`CredentialInsufficient`) is told to the credential's owner
        alone: what is shared must not tell everybody which repositories there are.
        """
        clonable: Clonable | None = getattr(provider, "clonable", None)
        origin = origin_of_repository(spec.url)
        every = [one for one in await self._every() if one.origin == origin] if origin and clonable else []
        if not every or clonable is None or origin is None:
            return await provider.resolve(spec)
        try:
            async with asyncio.timeout(self._config.resolve.timeout):
                return await self._resolved(provider, clonable, spec, client, credentials_for(origin, client, every)[:TRIED])
        except TimeoutError:
            seconds = f"{self._config.resolve.timeout:g}"
            raise ProviderUnavailable(f"The repository's host did not answer in {seconds} seconds. Try again later.") from None

    async def _resolved(self, provider: Provider, clonable: Clonable, spec: RepoSpec, client: Client, usable: Sequence[Credential]) -> ResolvedRepo:
        try:
            if not clonable.asks(spec):
                # A commit that is believed unseen would be launched by whoever knows its name, if its image is there.
                await self._look(spec.url, spec.ref, None)
            return await provider.resolve(spec)
        except RefNotFound as absent:
            told = absent
            for credential in usable:
                try:
                    commit, notice = await self._look(spec.url, spec.ref, credential)
                except RefNotFound as closed:
                    # The first is told: the client's own come first, and what it can do about them.
                    told = told if told is not absent else _told(closed, credential, client) or absent
                    continue
                await self._note(credential)
                return replace(clonable.at(spec, commit, notice), access=credential.id)
            raise told from None

    async def credential(self, credential_id: str) -> Credential | None:
        """The credential that a repository was opened with; None when it is gone. Raises `StoreUnavailable`, `HostUnfit`."""
        return next((one for one in await self._every() if one.id == credential_id), None)

    async def _note(self, credential: Credential) -> None:
        now = self._now()
        if not credential.stored or now - self._used.get(credential.id, 0.0) < USED_SECONDS:
            return
        self._used[credential.id] = now
        try:
            await self._kept.credential_used(credential.id, now)
        except StoreUnavailable:
            logger.warning("use of a credential not recorded", extra={"credential": credential.id})

    async def _every(self) -> list[Credential]:
        stored = [found for row in await self._kept.credentials() if (found := self._opened(row))]
        return [*self._configured(), *stored]

    def _configured(self) -> list[Credential]:
        found = []
        for part in self._config.credentials:
            try:
                secret = checked_secret(part.secret_file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, InvalidSpec):
                logger.warning("credential without secret", extra={"host": part.host, "file": str(part.secret_file)})
                continue
            name = fingerprint("credential", part.host, part.username, str(part.secret_file), *sorted(part.users), "/", *sorted(part.groups))[:16]
            found.append(Credential(name, part.host, part.username, secret, frozenset(part.users), frozenset(part.groups)))
        return found

    def _opened(self, row: StoredCredential) -> Credential | None:
        try:
            text = self._sealing.unseal(row.sealed)
        except HostUnfit:
            text = None
        # Whose it is was sealed with it: a row that somebody moved in the database opens nothing for its new owner.
        *bound, secret = json.loads(text) if text else [""]
        if bound != _bound(row):
            logger.error("stored credential cannot be read", extra={"credential": row.id})
            return None
        users = frozenset({row.owner}) if row.kind == "user" else frozenset[str]()
        groups = frozenset({row.owner}) if row.kind == "group" else frozenset[str]()
        return Credential(row.id, row.origin, row.username, secret, users, groups, stored=True)

    # What people and the administrator do.

    async def add(self, owner: Owner, host: str, username: str, secret: str) -> StoredCredential:
        """Keep a credential; it replaces what this owner had for the host.

        Raises:
            InvalidSpec: Host, name or secret do not hold.
            QuotaExceeded: The owner has too many.
            StoreUnavailable, HostUnfit: It could not be kept.
        """
        origin = origin_of(host)
        if in_the_clear(origin):
            raise InvalidSpec(CLEAR)
        row = StoredCredential(secrets.token_hex(8), owner.kind, owner.name, origin, checked_username(username), "", self._now(), None)
        async with self._changing:
            if len(await self.listed(owner)) >= MOST:
                raise QuotaExceeded(f"There are {MOST} credentials already, which is the limit. Remove one that is not needed any more.")
            row = replace(row, sealed=self._sealing.seal(json.dumps([*_bound(row), checked_secret(secret)])))
            await self._kept.put_credential(row)
        return row

    async def listed(self, owner: Owner | None = None) -> Sequence[StoredCredential]:
        """Stored ones of an owner, or all; secrets stay sealed. Raises `StoreUnavailable`."""
        return [row for row in await self._kept.credentials() if owner is None or (row.kind, row.owner) == (owner.kind, owner.name)]

    async def remove(self, credential_id: str, owner: Owner | None = None) -> StoredCredential:
        """Remove one, of this owner where one is given. Raises `NotFound`."""
        found = next((row for row in await self.listed(owner) if row.id == credential_id), None)
        if found is None or not await self._kept.drop_credential(credential_id):
            raise NotFound(GONE)
        return found

    async def remove_all(self, owner: Owner) -> int:
        """Remove everything of an owner; how many there were. Killed in between, the rest stays: run it again. Raises `StoreUnavailable`."""
        async with self._changing:
            rows = await self.listed(owner)
            for row in rows:
                await self._kept.drop_credential(row.id)
        return len(rows)

    async def rotate(self) -> int:
        """Encrypt everything with a new key and forget the old ones; how many. Killed in between, the old ones stay: run it again.

        Raises:
            HostUnfit: A stored secret cannot be read with any key, or the key's file cannot be written; nothing is lost then.
        """
        async with self._changing:
            self._sealing.add_key()
            count = await self._kept.reseal(self._anew)
            self._sealing.forget_old_keys()
        return count

    def _anew(self, sealed: str) -> str:
        text = self._sealing.unseal(sealed)
        if text is None:
            raise HostUnfit("A stored credential cannot be decrypted; the old keys are kept. Remove it (`credentials list`), then rotate.")
        return self._sealing.seal(text)

    async def readable(self) -> frozenset[str]:
        """Ids of those that the key opens."""
        return frozenset(one.id for one in await self._every())


def _told(closed: RefNotFound, credential: Credential, client: Client) -> RefNotFound | None:
    """What this client may hear of a credential that opened nothing; None: no more than everybody."""
    host, mine = shown(credential.origin), owned(credential, client)
    if isinstance(closed, CredentialRefused):
        logger.warning("credential refused by its host", extra={"event": "credential_refused", "credential": credential.id, "host": host})
        return CredentialRefused(
            f"Your token for {host} was refused there: it has expired, was revoked or is mistyped. Replace it on the page “Access to private "
            "repositories”, then launch again."
            if mine
            else f"This site's token for {host} was refused there, so no private repository can be read with it. Tell the "
            "administrator, who must renew it."
        )
    if isinstance(closed, CredentialInsufficient) and mine:
        return CredentialInsufficient(
            f"Your token for {host} may not read this repository. Let it read the repository's contents there (and your organisation's, where it "
            "asks for that), or replace it on the page “Access to private repositories”."
        )
    return None


def _bound(row: StoredCredential) -> list[Any]:
    return [row.id, row.kind, row.owner, row.origin, row.username]
