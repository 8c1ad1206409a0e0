"""Clone one commit of a hostile repository from a hostile server.

Called by `examine` in the sandbox, as nobody, behind the egress gate. Never runs anything the repository brings. What git says goes to the log;
why it failed becomes one of the classes of `errors`, with a sentence of ours.
"""

from __future__ import annotations

import http.client
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from binder_onprem.errors import AddressRefused, BinderError, BuildFailed, LimitHit, ProviderUnavailable, RefNotFound
from binder_onprem.sandbox.gitcommand import STALLED, Git, GitFailed
from binder_onprem.sandbox.lentcredential import taken

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SUBMODULES: Final = 50
VERSIONED: Final = ("pyproject.toml", "setup.py", "setup.cfg")
"""Files of a package that may say that its version is made from the tags of its history."""
_BY_TAGS: Final = re.compile(
    rb"setuptools[-_](scm|git)|use_scm_version|hatch-vcs|vcs-versioning|versioneer|versioningit|flit[-_]scm|dynamic-versioning|dunamai|\bpbr\b|"
    rb"source\s*=\s*[\"'](vcs|scm)\b"
)
_READ_BYTES: Final = 1_000_000
_FULL: Final = re.compile(r"No space left on device|Disk quota exceeded|File too large")
_REFUSED: Final = re.compile(r"(code|error:|HTTP) ?403.*(CONNECT|proxy)|CONNECT.* 403|address rules|gate", re.IGNORECASE)
_UNWILLING: Final = re.compile(r"not our ref|unadvertised object|does not allow request|shallow|find remote ref|does not support", re.IGNORECASE)
_MISSING: Final = re.compile(
    r"not found|error: 40[134]|could not read (Username|Password)|Authentication failed|Permission denied|access denied|"
    r"not appear to be a git repository|Host key verification failed|terminal prompts disabled",
    re.IGNORECASE,
)
_TURNED_DOWN: Final = re.compile(r"error: 40[13]|Authentication failed", re.IGNORECASE)
_UNREACHABLE: Final = re.compile(
    r"Could not resolve|Failed to connect|Couldn't connect|unable to connect|timed out|Connection (refused|reset|closed|timed out)|too slow|"
    r"Empty reply|hung up|early EOF|RPC failed|returned error: (429|5\d\d)|HTTP code 5\d\d|unexpected disconnect|network is unreachable|Recv failure",
    re.IGNORECASE,
)
_BROKEN: Final = re.compile(r"fsck|missingSpace|index-pack failed|bad object|corrupt|invalid (path|index-pack|submodule)|malformed", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """What to clone.

    Attributes:
        url: Checked by the provider; http, https, git or ssh.
        commit: 40 or 64 hex digits.
        stall: Seconds without any progress after which the server counts as gone.
        limit: Bytes of a repository, for the message.
        ssh: Directory with the site's key and known hosts, or "".
        credential: Directory with what opens a private repository, or ""; emptied at once.
    """

    url: str
    commit: str
    stall: float
    limit: int
    ssh: str = ""
    credential: str = ""


class Clone:
    """A clone in the making.

    Args:
        source: What to clone.
        target: Directory to make, on a file system of its own whose size is the limit.
        say: Gets each line for the log.
    """

    def __init__(self, source: Source, target: Path, say: Callable[[str], None]) -> None:
        self._source = source
        self._target = target
        self._say = say
        opens = taken(source.credential, source.url)
        self._lent = opens is not None
        self._git = Git(target, source.stall, say, source.ssh, opens)

    def make(self) -> None:
        """Clone, check out, fetch what versions are made from, and submodules.

        Raises:
            RefNotFound: No such repository, it is private, or the commit is not in it.
            ProviderUnavailable: The server does not answer.
            LimitHit: Larger than the limit.
            AddressRefused: The gate refuses the address.
            BuildFailed: Objects or submodules that git refuses.
        """
        try:
            self._fetched()
            self._checked_out()
            self._history()
            self._submodules()
        except GitFailed as failure:
            raise self._told(failure) from failure
        finally:
            self._git.forget_key()

    def _fetched(self) -> None:
        source = self._source
        kind = "sha256" if len(source.commit) == 64 else "sha1"  # noqa: PLR2004 - hex digits of SHA-256
        self._git.init("--quiet", f"--object-format={kind}")
        self._git.run("remote", "add", "--", "origin", source.url)
        try:
            self._git.run("fetch", "--progress", "--no-tags", "--depth", "1", "--", "origin", source.commit)
        except GitFailed as failure:
            if not _UNWILLING.search(failure.words):
                raise
            self._say("The server does not give single commits; fetching the whole history.")
            self._git.run("fetch", "--progress", "--tags", "--", "origin", "+refs/heads/*:refs/remotes/origin/*")

    def _checked_out(self) -> None:
        commit = self._source.commit
        try:
            self._git.run("cat-file", "-e", f"{commit}^{{commit}}")
        except GitFailed:
            raise RefNotFound(f"Commit {commit[:12]} is not in the repository (any more). Use a branch, tag or commit that is.") from None
        self._git.run("checkout", "--progress", "--detach", "--force", commit)
        if self._git.read("rev-parse", "HEAD").decode().strip() != commit:
            raise BuildFailed("The git server gave another commit than the one asked for.")
        self._large_files()

    def _history(self) -> None:
        """Commits and tags without their files, where the package's version is made from them; without them it would be another version."""
        shallow = (self._target / ".git" / "shallow").exists()
        if not shallow or not any(_by_tags(self._target / name) for name in VERSIONED):
            return
        self._say("Fetching tags and history: the package's version is made from them.")
        try:
            self._git.run("fetch", "--progress", "--unshallow", "--tags", "--filter=tree:0", "--", "origin", self._source.commit)
        except GitFailed:
            self._say("The history could not be fetched; the package's version may be another one.")

    def _large_files(self) -> None:
        """Git LFS, where the repository uses it: fetched afterwards, so that one missing file is a line in the log and not the end."""
        attributes = self._target / ".gitattributes"
        if attributes.is_symlink() or not attributes.is_file() or b"filter=lfs" not in attributes.read_bytes()[:_READ_BYTES]:
            return
        self._git.with_large_files()
        self._say("Fetching large files (Git LFS).")
        try:
            self._git.run("lfs", "pull")
        except GitFailed as failure:
            if _FULL.search(failure.words):
                raise
            self._say("Some large files (Git LFS) could not be fetched; their pointers stay.")

    def _submodules(self) -> None:
        """Breadth first and counted: a chain of submodules ends here, whatever git would do."""
        waiting, count = [self._target], 0
        while waiting:
            parent = waiting.pop(0)
            for path in self._listed(parent):
                count += 1
                if count > SUBMODULES:
                    raise LimitHit(f"The repository has more than {SUBMODULES} submodules, which is the limit.")
                self._submodule(parent, path)
                waiting.append(parent / path)

    def _listed(self, parent: Path) -> list[str]:
        modules = parent / ".gitmodules"
        if modules.is_symlink() or not modules.is_file():
            return []
        # From the index, not from .gitmodules: only what is really a submodule (mode 160000).
        listing = self._git.read("ls-files", "--stage", "-z", at=parent)
        entries = [entry.split(b"\t", 1) for entry in listing.split(b"\0") if entry.startswith(b"160000 ")]
        return [os.fsdecode(name) for _, name in entries]

    def _submodule(self, parent: Path, path: str) -> None:
        if any(ord(character) < ord(" ") for character in path) or path != path.strip():
            raise BuildFailed("A submodule's path has control characters or blanks at its ends, which is refused as an attack on git.")
        words = ("submodule", "update", "--init", "--checkout", "--progress")
        try:
            self._git.run(*words, "--depth", "1", "--", path, at=parent)
        except GitFailed as failure:
            if _FULL.search(failure.words):
                raise
            self._again(words, path, parent)

    def _again(self, words: tuple[str, ...], path: str, parent: Path) -> None:
        try:
            self._git.run(*words, "--", path, at=parent)
        except GitFailed as failure:
            if _FULL.search(failure.words):
                raise
            raise BuildFailed(f"The submodule {path[:80]!r} could not be fetched; see the log. It must be public and reachable.") from failure

    def _told(self, failure: GitFailed) -> BinderError:  # noqa: PLR0911 - a table with conditions
        """The class and the sentence for a failure; git's own words stay in the log."""
        words, source = failure.words, self._source
        space = os.statvfs(self._target.parent)
        if _FULL.search(words) and space.f_favail < 100:  # noqa: PLR2004 - a handful
            return LimitHit(f"The repository has too many files: more than {space.f_files - space.f_favail:,}, which is the limit.")
        if _FULL.search(words):
            return LimitHit(f"The repository is larger than {source.limit / 1024**2:,.0f} MiB, which is the limit here (build.repository).")
        if STALLED in words:
            return ProviderUnavailable(f"The git server did not answer in {source.stall:.0f} s. Try again later.")
        if _REFUSED.search(words) or ("error: 403" in words and self._gate_refuses()):
            return AddressRefused("The address of the git server is not one that links may name here.")
        if "Host key verification failed" in words and source.ssh:
            return AddressRefused("This site does not know the ssh key of the repository's host. The administrator must add it to known_hosts_file.")
        if self._lent and _TURNED_DOWN.search(words):
            return RefNotFound("The repository's host does not take the token any more that it was looked up with. Launch again to hear whose it is.")
        if _MISSING.search(words):
            return RefNotFound("The repository does not exist or is private. Check the link; a private one needs a token that you may use here.")
        if _BROKEN.search(words):
            return BuildFailed("The repository holds objects or paths that git refuses as damaged or dangerous. See the log.")
        if _UNREACHABLE.search(words):
            return ProviderUnavailable("The git server does not answer, or breaks off. Try again later.")
        return BuildFailed("The repository could not be cloned; the log has git's own words.")

    def _gate_refuses(self) -> bool:
        """Git does not tell a refusal of the gate from one of the server; the gate's answer has a sentence of its own."""
        proxy = urlsplit(os.environ.get("http_proxy", ""))
        if not proxy.hostname:
            return False
        connection = http.client.HTTPConnection(proxy.hostname, proxy.port or 80, timeout=10)
        try:
            connection.request("GET", self._source.url)
            return "address rules" in connection.getresponse().reason
        except (OSError, http.client.HTTPException, ValueError):
            return False
        finally:
            connection.close()


def _by_tags(path: Path) -> bool:
    """Whether a file of the repository's top says so; a link is not followed."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return bool(_BY_TAGS.search(file.read(_READ_BYTES)))
