"""The frozen values that travel along the line, and the one state machine there is: a build's.

Nothing here touches a clock, a network or a disk. Identity travels in names (image by content, build by image, session by launch), so
every step of the line may be repeated.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from binder_onprem.choice import Choice
from binder_onprem.content import Content  # noqa: TC001 - read at run time by who writes builds down

SLUG_LIMIT: Final = 48
"""Characters of a repository's name that are kept in an image's or a user's name."""


VERSION: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
"""A commit or version, as it can stand in an image's tag before the recipe."""


SESSION_SLUG: Final = 13
"""The same in a session's name: JupyterHub's names of servers have 30 characters at the most, and begin with a letter."""
_TEMPORARY: Final = re.compile(r"[a-z0-9-]{1,24}-[0-9a-f]{16}")


def session_name(name: str, launch_id: str) -> str:
    """What a launch's session is called: at the hub a named server of its owner, or else a temporary user.

    Args:
        name: The repository's, anything.
        launch_id: 16 hex digits.
    """
    short = slug(name, SESSION_SLUG)
    return f"{short if short[0].isalpha() else slug(f'r-{short}', SESSION_SLUG)}-{launch_id}"


def temporary(user: str) -> bool:
    """Whether a hub user is a session's own; nobody can log in by such a name, and only such users are ever deleted."""
    return _TEMPORARY.fullmatch(user) is not None


def slug(text: str, limit: int = SLUG_LIMIT) -> str:
    """A name safe in registries, URLs and container names: ``[a-z0-9]`` words joined by single dashes, never empty.

    Args:
        text: Anything, hostile text included.
        limit: Characters kept at the most.
    """
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return words[:limit].strip("-") or "repo"


def fingerprint(*parts: str) -> str:
    """SHA-256 (64 hex digits) over the parts with their boundaries, so that ``("ab", "c")`` is not ``("a", "bc")``."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class RepoSpec:
    """What a link asks for, after its provider has parsed it and before any network.

    Attributes:
        provider: The provider's prefix, ``gh``, ``gl``, ``git``.
        path: The rest of the link as it came, percent-encoding kept (``group%2Fproject/main``).
        url: Where to clone from, or the record's page; never holds credentials.
        ref: Branch, tag, commit or ``HEAD`` as asked, percent-decoded; "" where the URL says it all.
        slug: What people call the repository, ``owner-repo``.
    """

    provider: str
    path: str
    url: str
    ref: str
    slug: str


@dataclass(frozen=True, slots=True)
class ResolvedRepo:
    """A repository at one commit, or a record in one version.

    Attributes:
        spec: What was asked.
        commit: 40 (SHA-1) or 64 (SHA-256) lower-case hex digits; for a record what its host calls the version, as `VERSION` has it.
        path: The link's path with the commit as its ref; the same content for ever, where the host keeps it.
        ref_url: A web page that shows the commit, or the clone URL where the host has none.
        notice: A sentence for the page, as when ``master`` was asked and ``HEAD`` is taken.
        content: What to fetch, where it is not git.
        access: Id of the credential that opened it; "": anybody can read it.
    """

    spec: RepoSpec
    commit: str
    path: str
    ref_url: str
    notice: str | None = None
    content: Content | None = None
    access: str = ""

    @property
    def link(self) -> str:
        """``provider/path`` as it was asked for, which settings for repositories match."""
        return f"{self.spec.provider}/{self.spec.path}"

    @property
    def url(self) -> str:
        """Where to clone from, or the record's page."""
        return self.spec.url

    @property
    def private(self) -> bool:
        """Whether a credential was needed to read it."""
        return bool(self.access)


@dataclass(frozen=True, slots=True)
class ImageRef:
    """The name of an image in our registry, made of content: repository, commit and the recipe that builds it.

    Attributes:
        repository: ``host:port/prefix/name`` without tag.
        tag: ``<commit>-<12 hex digits of the recipe>``.
    """

    repository: str
    tag: str

    @classmethod
    def of(cls, repo: ResolvedRepo, prefix: str, recipe: str) -> ImageRef:
        """Name the image of a repository; that of a private one cannot be had by whoever could not read the repository.

        Args:
            repo: The repository at its commit.
            prefix: ``host:port/path`` in our registry, without a slash at the end.
            recipe: Digest of everything of ours that shapes the image: base image, buildpacks, mirrors' identity.
        """
        kept = ("private",) if repo.private else ()
        name = "-".join((*kept, slug(repo.spec.slug), fingerprint(repo.url, *kept)[:12]))
        return cls(f"{prefix}/{name}", f"{repo.commit}-{recipe[:12]}")

    @property
    def name(self) -> str:
        """``host:port/prefix/name:tag``."""
        return f"{self.repository}:{self.tag}"

    def at(self, digest: str) -> str:
        """``host:port/prefix/name@sha256:…``: the only form that a session is started from."""
        return f"{self.repository}@{digest}"

    def __str__(self) -> str:
        """Its name."""
        return self.name


class Role(StrEnum):
    """What somebody may do; the site's policy says who has which."""

    LAUNCH = "launch"
    """Start sessions from images that are there."""
    BUILD = "build"
    """Have an environment built that is not there yet."""
    ADMIN = "admin"
    """Everything on everybody's sessions, builds and images."""


ANYBODY: Final = frozenset({Role.LAUNCH, Role.BUILD})
"""Roles of a client without an account, where the site asks for none."""


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who has logged in, or a program with a token of its own.

    Attributes:
        name: As JupyterHub knows it; of a service ``service:NAME``, which no person can be called.
        groups: Of JupyterHub.
        roles: What the site's policy gives.
        service: A program: it has no servers of its own at the hub.
    """

    name: str
    groups: frozenset[str] = frozenset()
    roles: frozenset[Role] = frozenset()
    service: bool = False


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks.

    Attributes:
        address: The client's IP address (trusted forwarders already taken into account), or ``local`` for the CLI.
        user: The authenticated user's name, if any.
        trusted: Holds a valid build token or an account: no rate limit.
        groups: The authenticated user's groups.
        roles: What this client may do.
        service: The user is a program.
    """

    address: str
    user: str | None = None
    trusted: bool = False
    groups: frozenset[str] = frozenset()
    roles: frozenset[Role] = ANYBODY
    service: bool = False

    @property
    def owner(self) -> str | None:
        """The person whose sessions those of this client are; None: each session has a temporary user of its own."""
        return None if self.service else self.user


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """One click.

    Attributes:
        provider: Prefix from the link.
        path: Rest of the link, raw.
        client: Who asks.
        key: 32 hex digits only the client that clicked knows; whoever has it may resume the launch and gets its token.
        host: ``binder_launch_host`` of the answer, ``http://host/``.
        choice: What the link asks for beyond the repository.
        build_only: The image is all that is wanted; no session.
        origin: ``host:port`` of the page that asked, where its browser said so, else of where the client sees us; for the records alone.
    """

    provider: str
    path: str
    client: Client
    key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    host: str = ""
    choice: Choice = field(default_factory=Choice)
    build_only: bool = False
    origin: str = ""

    @property
    def launch_id(self) -> str:
        """16 hex digits, public: in logs, labels and the session's name. The key cannot be had from it.

        Another account with the same key is another launch: nobody takes over somebody else's session.
        """
        return fingerprint("launch", self.key, *self._account)[:16]

    @property
    def _account(self) -> tuple[str, ...]:
        return () if self.client.user is None else (self.client.user,)

    def token(self, secret: bytes) -> str:
        """The session's own token: the same at every repetition of this launch, so nothing needs to be stored.

        Args:
            secret: The site's secret, 32 bytes.
        """
        mac = hmac.new(secret, "\0".join((self.key, *self._account)).encode(), hashlib.sha256).digest()
        return urlsafe_b64encode(mac).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Server:
    """A session that answers.

    Attributes:
        name: The session's.
        url: Public URL, ends with ``/``.
        token: The session's own token.
    """

    name: str
    url: str
    token: str = field(repr=False)


class BuildState(StrEnum):
    """Where a build is. Terminal: BUILT, FAILED, CANCELLED."""

    QUEUED = "queued"
    RUNNING = "running"
    PUSHING = "pushing"
    BUILT = "built"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing follows."""
        return not TRANSITIONS[self]


TRANSITIONS: Final[dict[BuildState, frozenset[BuildState]]] = {
    BuildState.QUEUED: frozenset({BuildState.RUNNING, BuildState.FAILED, BuildState.CANCELLED}),
    # RUNNING → QUEUED: the daemon died and the build is taken up again, once.
    BuildState.RUNNING: frozenset({BuildState.PUSHING, BuildState.QUEUED, BuildState.FAILED, BuildState.CANCELLED}),
    BuildState.PUSHING: frozenset({BuildState.BUILT, BuildState.QUEUED, BuildState.FAILED, BuildState.CANCELLED}),
    BuildState.BUILT: frozenset(),
    BuildState.FAILED: frozenset(),
    BuildState.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """One attempt (and at most one repetition after a crash) to make one image.

    Attributes:
        id: 16 hex digits, random.
        image: What is built.
        repo: From what.
        state: Where it is.
        created, started, ended: Unix seconds, UTC.
        attempt: 1, or 2 after the daemon died in the middle.
        digest: ``sha256:…`` of the manifest in the registry once BUILT.
        error: Code from the error tree once FAILED or CANCELLED.
        message: The sentence for people that goes with it.
        asker: Who asked first, as builds are shared out: an address or an account; never shown.
        fresh: Made anew whatever is there already: neither the image in the registry nor a kept layer is used.
        front: When it was moved to the front of the queue, Unix seconds; None: it takes its turn.
    """

    id: str
    image: ImageRef
    repo: ResolvedRepo
    state: BuildState
    created: float
    started: float | None = None
    ended: float | None = None
    attempt: int = 1
    digest: str | None = None
    error: str | None = None
    message: str | None = None
    asker: str = field(default="", repr=False)
    fresh: bool = False
    front: float | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A running (or starting) session as the hub and the engine show it to reaper and reconcile.

    Attributes:
        name: ``<slug>-<launch id>``, unique here.
        ready: Answers.
        started: Unix seconds, UTC, or None while starting.
        last_activity: Unix seconds, UTC, as the proxy saw it.
        image: ``…@sha256:…`` it runs, where known.
        launch_id: The launch that made it, where known.
        url: Path on the public port, ``/jupyter/user/NAME/`` or ``/jupyter/user/OWNER/NAME/``, percent-encoded.
        server: Whether there is a server, starting or running; False for a temporary user, or an owner's entry, left without one.
        owner: The person whose named server it is; None: it is the only server of a temporary user of its own name.
        idle, age: Seconds until it ends, where they are not the site's own.
        repo_url: Of what it runs, where known.
        request: The link that leads to the same again, ``v2/gh/owner/name/<commit>``, where known.
        project: Id of the project that is its home; "": none.
    """

    name: str
    ready: bool
    started: float | None
    last_activity: float | None
    image: str | None = None
    launch_id: str | None = None
    url: str = ""
    server: bool = True
    owner: str | None = None
    idle: float | None = None
    age: float | None = None
    repo_url: str = ""
    request: str = ""
    project: str = ""


@dataclass(frozen=True, slots=True)
class LaunchAudit:
    """One launch as it is kept for the site's records.

    Attributes:
        launch_id: Of the request.
        provider, path: What was asked, cut.
        client: Address, or account where there is one.
        began: Unix seconds, UTC.
        outcome: ``ready``, ``left`` (nobody listened any more), or the error's code.
        commit: Once resolved.
        image: ``…@sha256:…``, once known.
        resolve, build, start: Seconds each stage took, as far as it came.
    """

    launch_id: str
    provider: str
    path: str
    client: str
    began: float
    outcome: str
    commit: str | None = None
    image: str | None = None
    resolve: float | None = None
    build: float | None = None
    start: float | None = None
