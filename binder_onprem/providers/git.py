"""Any git server by URL: ``git/<escaped URL>/<ref>``. Reads what the server advertises; no subprocess."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from binder_onprem.egress.hostnames import DEFAULT_PORTS
from binder_onprem.errors import AddressRefused, CredentialInsufficient, CredentialRefused, ProviderUnavailable, RefNotFound
from binder_onprem.model import RepoSpec, ResolvedRepo, slug
from binder_onprem.providers import display, refs
from binder_onprem.providers.giturls import address
from binder_onprem.providers.links import FULL_SHA, OLD_DEFAULTS, bad_form, checked, decoded, escaped, ref_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from binder_onprem.config import GitProvider
    from binder_onprem.credential import Credential
    from binder_onprem.egress.outbound import Outbound
    from binder_onprem.providers.reader import Reader
    from binder_onprem.providers.ssh import Ssh

FORM: Final = "<escaped URL>/<ref>"
PRIVATE: Final = "The repository does not exist or is private. Check its address; a private one needs a token that you may use here."
NO_KEY: Final = "This site has no ssh key, so it cannot read ssh:// repositories. Use the repository's https:// address."
REFUSED: Final = "The repository's host refuses the token."
NARROW: Final = "The repository's host does not let the token read the repository."
ADVERTISEMENT: Final = "application/x-git-upload-pack-advertisement"
LARGE: Final = 1024**2
"""Bytes from which an advertisement is read in a thread, so that nobody else waits for it."""


class Readable(Protocol):
    """A stream of asyncio's or asyncssh's."""

    async def readexactly(self, n: int, /) -> bytes:
        """So many bytes. Raises asyncio.IncompleteReadError."""
        ...


class Git:
    """The provider.

    Args:
        config: Its part of the configuration.
        reader: For http and https.
        outbound: For git://.
        limit: Bytes of an answer.
        ssh: For ssh://, where the site has a key.
    """

    name = "Git"

    def __init__(self, config: GitProvider, reader: Reader, outbound: Outbound, limit: int, ssh: Ssh | None = None) -> None:
        self.prefix = config.prefix
        self.display_config = display.git(config)
        self._protocols = config.protocols
        self._reader = reader
        self._outbound = outbound
        self._limit = limit
        self._ssh = ssh

    def parse(self, path: str) -> RepoSpec:
        """Pure. Raises InvalidSpec."""
        raw = checked(path)
        quoted, slash, rest = raw.partition("/")
        if not slash or not quoted:
            raise bad_form(FORM, path, f"{quoted}/HEAD" if quoted and "%" in quoted else None)
        if re.fullmatch(r"[a-z]+:", quoted):
            raise bad_form(FORM, path, f"{escaped(raw)}/HEAD")
        url, parts = address(decoded(quoted), self._protocols)
        name = "-".join(part.removesuffix(".git") for part in parts[-2:])
        return RepoSpec(self.prefix, raw, url, ref_name(rest), slug(name))

    async def resolve(self, spec: RepoSpec) -> ResolvedRepo:
        """See `interfaces.Provider`. A full commit is taken as it is: whether it exists shows when it is cloned."""
        parts = urlsplit(spec.url)
        if parts.scheme == "ssh" and self._ssh is None:
            raise AddressRefused(NO_KEY)
        commit, notice = spec.ref, None
        if not FULL_SHA.fullmatch(spec.ref):
            commit, notice = refs.commit_of(await self._advertised(parts.scheme, spec), spec.ref)
        return self.at(spec, commit, notice)

    def asks(self, spec: RepoSpec) -> bool:
        """See `interfaces.Clonable`."""
        return not FULL_SHA.fullmatch(spec.ref)

    def at(self, spec: RepoSpec, commit: str, notice: str | None) -> ResolvedRepo:
        """See `interfaces.Clonable`."""
        return ResolvedRepo(spec, commit, f"{spec.path.partition('/')[0]}/{commit}", spec.url, notice)

    async def look(self, url: str, ref: str, credential: Credential | None) -> tuple[str, str | None]:
        """Commit of a ref, and a notice; asked over HTTP, of the repository's own host, whatever the ref.

        Args:
            url: http or https.
            ref: As in a spec.
            credential: For exactly that host; None: as anybody.

        Raises:
            CredentialRefused, CredentialInsufficient: The host does not take the credential, or does not let it read the repository.
            RefNotFound: No such repository or ref for whoever asks.
            ProviderUnavailable, AddressRefused: As `resolve`.
        """
        advertised = await self._by_http(url, ref, {"Authorization": credential.authorization} if credential else None)
        return (ref, None) if FULL_SHA.fullmatch(ref) else refs.commit_of(advertised, ref)

    async def _advertised(self, scheme: str, spec: RepoSpec) -> refs.Refs:
        if scheme == "ssh" and self._ssh is not None:
            return refs.smart(await self._ssh.advertised(spec.url, lambda reader: _until_flush(reader, self._limit)))
        return await (self._by_git(spec.url) if scheme == "git" else self._by_http(spec.url, spec.ref))

    async def _by_http(self, url: str, ref: str, secret: Mapping[str, str] | None = None) -> refs.Refs:
        answer = await self._reader.get(f"{url}/info/refs?service=git-upload-pack", secret=secret)
        if answer.status != 200:  # noqa: PLR2004 - the only one that carries refs
            raise _closed(answer.status) if secret else RefNotFound(PRIVATE)
        if answer.headers.get("Content-Type", "").startswith(ADVERTISEMENT):
            return refs.smart(answer.body) if len(answer.body) < LARGE else await asyncio.to_thread(refs.smart, answer.body)
        advertised = refs.dumb(answer.body)
        if ref == "HEAD" or ref in OLD_DEFAULTS:
            await self._dumb_head(url, advertised, secret)
        return advertised

    async def _dumb_head(self, url: str, advertised: refs.Refs, secret: Mapping[str, str] | None) -> None:
        head = await self._reader.get(f"{url}/HEAD", secret=secret)
        target = head.body[:512].decode("utf-8", "replace").strip().removeprefix("ref: ")
        if commit := advertised.get(target, target if FULL_SHA.fullmatch(target) else None):
            advertised["HEAD"] = commit

    async def _by_git(self, url: str) -> refs.Refs:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or DEFAULT_PORTS["git"]
        reader, writer = await self._outbound.open(host, port)
        try:
            request = b"git-upload-pack %s\0host=%s\0" % (parts.path.encode(), parts.netloc.encode())
            writer.write(b"%04x" % (len(request) + 4) + request)
            await writer.drain()
            return refs.smart(await _until_flush(reader, self._limit))
        except (OSError, asyncio.IncompleteReadError, ValueError):
            raise ProviderUnavailable("The repository's host broke the connection. Try again later.") from None
        finally:
            writer.transport.abort()


async def open_to_anybody(reader: Reader, url: str) -> bool:
    """Whether a repository can be read without any credential, as a clone will ask for it.

    For hosts that are asked with a token of the site's: that sees more than others may. Raises as `Reader.get`.
    """
    # Version 2 of git's protocol answers in a few hundred bytes, whatever the number of branches.
    answer = await reader.get(f"{url}/info/refs?service=git-upload-pack", {"Git-Protocol": "version=2"})
    return answer.status == 200 and answer.headers.get("Content-Type", "").startswith(ADVERTISEMENT)  # noqa: PLR2004


def _closed(status: int) -> RefNotFound:
    """What an answer to a credential means."""
    if status == 401:  # noqa: PLR2004
        return CredentialRefused(REFUSED)
    return CredentialInsufficient(NARROW) if status == 403 else RefNotFound(PRIVATE)  # noqa: PLR2004


async def _until_flush(reader: Readable, limit: int) -> bytes:
    """Packets up to and with the first flush packet; what is in them is read elsewhere."""
    data = bytearray()
    while len(data) <= limit:
        head = await reader.readexactly(4)
        data += head
        size = int(head, 16)
        if not size:
            return bytes(data)
        data += await reader.readexactly(max(size - 4, 0))
        if data[4:8] == b"ERR ":
            return bytes(data) + refs.FLUSH
    raise ProviderUnavailable(f"The answer of the repository's host is longer than {limit // 1024**2} MiB (resolve.bytes).")
