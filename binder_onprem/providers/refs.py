"""Reads the refs that a git server advertises and finds the commit of one. Pure; the bytes come from a stranger."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Final

from dulwich.client import read_pkt_refs_v1
from dulwich.errors import GitProtocolError, HangupException
from dulwich.protocol import Protocol
from dulwich.refs import read_info_refs

from binder_onprem.errors import ProviderUnavailable, RefNotFound
from binder_onprem.providers.links import FULL_SHA, OLD_DEFAULTS, SHORT_SHA, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE: Final = b"# service=git-upload-pack"
PEELED: Final = "^{}"
FLUSH: Final = b"0000"
NONSENSE: Final = "The repository's host answered something that is not git. Check the repository's address."

Refs = dict[str, str]


def smart(body: bytes) -> Refs:
    """Refs of a smart advertisement (``info/refs?service=git-upload-pack`` or git://), protocol 0 or 1.

    Raises:
        ProviderUnavailable: It is none.
        RefNotFound: The server says that there is no such repository.
    """
    protocol = Protocol(BytesIO(body).read, lambda _data: None)
    try:
        packets = list(protocol.read_pkt_seq())
        if packets and packets[0].startswith(SERVICE):
            packets = list(protocol.read_pkt_seq())
        if packets and packets[0].strip() == b"version 1":
            packets = packets[1:]
        if packets and packets[0].startswith((b"ERR ", b"version ")):
            raise RefNotFound("The repository does not exist or is private.")
        found, _ = read_pkt_refs_v1(packets)
    except (GitProtocolError, HangupException, ValueError, AssertionError):
        raise ProviderUnavailable(NONSENSE) from None
    return _text(found)


def dumb(body: bytes) -> Refs:
    """Refs of a dumb server's ``info/refs`` file, which has no HEAD. Raises ProviderUnavailable."""
    try:
        return _text(read_info_refs(BytesIO(body)))
    except ValueError:
        raise ProviderUnavailable(NONSENSE) from None


def _text(refs: Mapping[bytes, bytes]) -> Refs:
    try:
        found = {name.decode("utf-8", "replace"): sha.decode("ascii") for name, sha in refs.items()}
    except UnicodeDecodeError:
        raise ProviderUnavailable(NONSENSE) from None
    if not all(FULL_SHA.fullmatch(sha) for sha in found.values()):
        raise ProviderUnavailable(NONSENSE)
    return found


def commit_of(refs: Refs, ref: str) -> tuple[str, str | None]:
    """The commit that a ref means, and a notice where another one was taken.

    Args:
        refs: As advertised; annotated tags come with a peeled entry.
        ref: HEAD, branch, tag, full name below ``refs/``, or at least seven digits of a commit that a ref points to.

    Raises:
        RefNotFound: There is no such ref.
    """
    names = (ref,) if ref == "HEAD" or ref.startswith("refs/") else (f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/{ref}")
    for name in names:
        if name in refs:
            return refs.get(name + PEELED, refs[name]), None
    if SHORT_SHA.fullmatch(ref.lower()):
        return _by_digits(refs, ref.lower()), None
    if ref in OLD_DEFAULTS and "HEAD" in refs:
        return refs["HEAD"], default_notice(ref)
    if not refs:
        raise RefNotFound("The repository is empty: it has no commit yet.")
    raise no_ref(ref)


def _by_digits(refs: Refs, digits: str) -> str:
    commits = {refs.get(name + PEELED, sha) for name, sha in refs.items()}
    matching = [sha for sha in commits if sha.startswith(digits)]
    if len(matching) == 1:
        return matching[0]
    why = "several commits begin with it" if matching else "no branch or tag points to it"
    raise RefNotFound(f'"{digits}" is not a branch or tag, and as a short commit it cannot be found ({why}). Give the full commit, 40 digits.')


def no_ref(ref: str) -> RefNotFound:
    """The error of a repository without that ref."""
    return RefNotFound(f'The repository has no branch, tag or commit "{shown(ref)}". Check its spelling, or use HEAD for the default branch.')


def default_notice(ref: str) -> str:
    """The sentence for a link that names an old default branch."""
    return f'The repository has no branch "{ref}"; its default branch (HEAD) is taken. Please update the link.'
