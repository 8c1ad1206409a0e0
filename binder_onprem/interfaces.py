"""The seams: what the logic asks of the outside world. Adapters satisfy these without inheriting from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from asyncio import StreamReader
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from binder_onprem.events import Phase
    from binder_onprem.model import Account, BuildRecord, ImageRef, LaunchAudit, LaunchRequest, RepoSpec, ResolvedRepo, Role, Server, Session
    from binder_onprem.project import Project
    from binder_onprem.ruling import Ban, Entry
    from binder_onprem.terms import Terms


class Provider(Protocol):
    """One kind of host of repositories."""

    prefix: str
    """As in the link: ``gh``."""
    name: str
    """As BinderHub's schema calls it: ``GitHub``."""
    display_config: dict[str, Any]
    """For ``/api/repoproviders`` and the form, BinderHub's shape."""

    def parse(self, path: str) -> RepoSpec:
        """Pure. Raises `InvalidSpec` with the form that is expected."""
        ...

    async def resolve(self, spec: RepoSpec) -> ResolvedRepo:
        """Raises `RefNotFound`, `AddressRefused`, `ProviderUnavailable`; always within ``resolve.timeout`` plus a second."""
        ...


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


class Clonable(Provider, Protocol):
    """One whose repositories are cloned from ``RepoSpec.url`` by git, so that a credential for its host opens private ones."""

    def asks(self, spec: RepoSpec) -> bool:
        """Whether `resolve` asks the host whatever happens; False where it may believe a full commit unseen."""
        ...

    def at(self, spec: RepoSpec, commit: str, notice: str | None) -> ResolvedRepo:
        """Pure: the repository at a commit that was looked up."""
        ...


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


class BuildLog(Protocol):
    """Where a build writes while it goes on; durable, numbered, capped."""

    async def write(self, phase: Phase, message: str) -> None:
        """Add a line (or several, split at line feeds). Cleans and cuts it."""
        ...


class Builder(Protocol):
    """Makes one image; the caller bounds its time by cancelling the task."""

    async def build(self, build: BuildRecord, log: BuildLog, pushing: Callable[[], Awaitable[None]]) -> str:
        """Prepare, build, push; returns ``sha256:…`` that the registry has confirmed.

        Cancelling it stops every container it started and removes what they wrote. `pushing` is awaited once, when the push starts.

        Raises:
            BuildFailed: The repository's fault or a limit; final.
            Unavailable: Ours; the caller may try again.
        """
        ...

    async def sweep(self, running: frozenset[str]) -> None:
        """Remove containers, volumes and directories of builds that are not among the running builds' ids. Idempotent."""
        ...


class Registry(Protocol):
    """Where images are kept."""

    async def digest(self, image: ImageRef) -> str | None:
        """Digest of the image's manifest, None only when the registry said that there is none. Raises `RegistryUnavailable`."""
        ...

    async def images(self) -> Sequence[StoredImage]:
        """Every image under our prefix. Raises `RegistryUnavailable`."""
        ...

    async def delete(self, reference: str) -> None:
        """Forget ``repository@sha256:…``; absent is fine. Raises `RegistryUnavailable`."""
        ...


class Publication(Protocol):
    """The registry outside that other hubs pull from."""

    @property
    def place(self) -> str:
        """``host:port/path``."""
        ...

    async def publish(self, image: ImageRef, digest: str) -> str:
        """Have the image there; returns ``host:port/path/name@sha256:…``. Repeating it is cheap. Raises `RegistryUnavailable`."""
        ...


class StoredImage(Protocol):
    """An image as the registry has it."""

    @property
    def reference(self) -> str:
        """``host:port/prefix/name@sha256:…``."""
        ...

    @property
    def size(self) -> int:
        """Bytes of its manifest and layers, shared ones included."""
        ...

    @property
    def layers(self) -> Sequence[tuple[str, int]]:
        """Digest and bytes of each blob, so that shared ones are counted once."""
        ...


class Hub(Protocol):
    """JupyterHub."""

    async def start(self, launch: LaunchRequest, repo: ResolvedRepo, image: str, log: Callable[[str], Awaitable[None]], terms: Terms) -> Server:
        """Start the launch's session from ``…@sha256:…`` on these terms; repeating it for the same launch gives the same server.

        It is a named server of the client's owner, or else the server of a temporary user.

        Raises `SpawnFailed`, `SpawnTimeout`, `HubUnavailable`.
        """
        ...

    async def sessions(self) -> Sequence[Session]:
        """Every session that has a server, starting or running. Raises `HubUnavailable`."""
        ...

    async def remains(self) -> Sequence[Session]:
        """The same, and what is left of sessions without server, as far as anybody could miss it. Raises `HubUnavailable`."""
        ...

    async def token(self, session: Session) -> str | None:
        """The token of a session that runs, for its owner alone; None when it does not run. Raises `HubUnavailable`."""
        ...

    async def forget(self, user: str) -> None:
        """Take a person's log-ins and tokens away; she comes back by logging in. Absent is fine. Raises `HubUnavailable`."""
        ...

    async def current(self, session: Session) -> tuple[Session, str] | None:
        """A session as it is this moment, with its token; None when it has no server (any more). Raises `HubUnavailable`."""
        ...

    async def stop(self, session: Session) -> None:
        """Stop the session's server and remove it, and the user if it is a temporary one; absent is fine. Raises `HubUnavailable`."""
        ...


class Store(Protocol):
    """What must not be lost: builds and the last use of images."""

    async def add(self, build: BuildRecord) -> BuildRecord:
        """Insert, or return the build of the same image that is not in a terminal state (one build per image, whoever asks)."""
        ...

    async def move(self, before: BuildRecord, after: BuildRecord) -> bool:
        """Write `after` if the stored state is still ``before.state``; False when somebody was faster.

        Raises:
            ValueError: A forbidden transition.
        """
        ...

    async def untold(self) -> Sequence[BuildRecord]:
        """Builds whose state was recorded, but not told to whoever hears of builds, as when the process was killed in between. Oldest first."""
        ...

    async def prioritise(self, build_id: str, now: float) -> bool:
        """Move a queued build to the front at `now` (Unix seconds); False when it is not queued (any more)."""
        ...

    async def build(self, build_id: str) -> BuildRecord | None:
        """One record."""
        ...

    async def builds(self, *, open_only: bool = False, limit: int = 100) -> Sequence[BuildRecord]:
        """Newest first; the open ones oldest first."""
        ...

    async def touch(self, image: str, now: float) -> None:
        """Remember that ``…@sha256:…`` was used at `now` (Unix seconds)."""
        ...

    async def last_used(self) -> dict[str, float]:
        """``…@sha256:…`` → Unix seconds."""
        ...

    async def built(self, image: ImageRef) -> str | None:
        """``sha256:…`` of the last build of the image that ended BUILT, if any."""
        ...

    async def latest(self, image: ImageRef) -> BuildRecord | None:
        """The last build of the image, whatever became of it."""
        ...

    async def begin(self, request: LaunchRequest, repo: ResolvedRepo, now: float) -> tuple[ResolvedRepo, float]:
        """Pin the launch to a commit; a repetition gets what the first time was pinned, and when (Unix seconds).

        Raises `InvalidSpec` when the launch's key was used for another link.
        """
        ...

    async def looked_up(self, client: str, repo: ResolvedRepo) -> bool:
        """Whether this client (account, or address) has launched this private repository at this commit."""
        ...

    async def audit(self, launch: LaunchAudit) -> None:
        """Record how a launch ended; a repetition replaces the record."""
        ...

    async def launches(self, limit: int = 100) -> Sequence[LaunchAudit]:
        """Newest first."""
        ...

    async def expire(self, before: float) -> Sequence[str]:
        """Forget builds and launches that ended before `before` (Unix seconds), and uses of images older than that; the builds' ids."""
        ...


class Rulings(Protocol):
    """What the administrator has ruled. Every method raises `StoreUnavailable` when it cannot be known or kept."""

    async def bans(self) -> Sequence[Ban]:
        """Oldest first."""
        ...

    async def ban(self, ban: Ban) -> None:
        """Keep it."""
        ...

    async def unban(self, ban_id: str) -> bool:
        """Forget it; whether it was there."""
        ...

    async def pins(self) -> frozenset[str]:
        """``…@sha256:…`` of pinned images."""
        ...

    async def pin(self, image: str, now: float) -> None:
        """Pin it; once more changes nothing."""
        ...

    async def unpin(self, image: str) -> None:
        """No longer; absent is fine."""
        ...

    async def switches(self) -> Mapping[str, Any]:
        """Everything that is switched, by name."""
        ...

    async def switch(self, name: str, value: Mapping[str, Any] | None) -> None:
        """Set it to a JSON object; None: no longer."""
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


class Used(Protocol):
    """What a session uses now."""

    @property
    def cpu(self) -> float | None:
        """Processors; None when that is not known yet."""
        ...

    @property
    def memory(self) -> int | None:
        """Bytes."""
        ...


class ProjectStore(Protocol):
    """People's projects as they are kept. Every method raises `StoreUnavailable`."""

    async def projects(self, owner: str | None = None) -> Sequence[Project]:
        """Everybody's, or one person's; what was used last comes first."""
        ...

    async def add(self, project: Project) -> None:
        """Keep a new one; its name is its owner's only one, its slot nobody else's."""
        ...

    async def change(self, project_id: str, values: dict[str, Any]) -> None:
        """Write what has changed of one; absent is fine."""
        ...

    async def drop(self, project_id: str) -> None:
        """Forget it; absent is fine."""
        ...


class Volumes(Protocol):
    """The volumes of projects, by id."""

    async def home(self, image: str) -> str:
        """Path in sessions of ``…@sha256:…`` that a project takes the place of. Raises `InvalidSpec`, `EngineUnavailable`."""
        ...

    def there(self, volume: str) -> bool:
        """Whether a whole one is there."""
        ...

    async def make(self, volume: str, slot: int, size: int, image: str) -> None:
        """Make one of `size` bytes with the files of an image's home; whole or not at all.

        Raises `LimitHit` when they do not fit, `HostUnfit`, `EngineUnavailable`.
        """
        ...

    async def mount(self, volume: str) -> Path:
        """Have it mounted; the directory that is the home. Raises `NotFound`, `HostUnfit`."""
        ...

    async def unmount(self, volume: str) -> bool:
        """Whether it is not mounted now; what is in use stays."""
        ...

    async def mounted(self) -> frozenset[str]:
        """Ids of those that are mounted."""
        ...

    async def used(self, volume: str) -> int | None:
        """Bytes in use in it; None when it is not mounted."""
        ...

    async def free(self, volume: str) -> int:
        """Bytes that can still be written to it, while it is mounted; 0 when no file can be made."""
        ...

    async def remove(self, volume: str) -> bool:
        """Remove it; absent is fine. False when it is in use."""
        ...

    async def sweep(self) -> None:
        """Clear away what an earlier process was making or removing."""
        ...


class Usage(Protocol):
    """What sessions use now."""

    async def now(self) -> Mapping[str, Used]:
        """Launch → what its session uses. Raises `EngineUnavailable`."""
        ...


class Supply(Protocol):
    """What is known of an image beside it in the registry: contents, signature, scan."""

    async def verify(self, reference: str) -> None:
        """Pass for ``…@sha256:…`` that may be started. Raises `Untrusted`, `RegistryUnavailable`."""
        ...

    async def sign(self, reference: str) -> None:
        """Sign an image that is there. Raises `RegistryUnavailable`, `HostUnfit`."""
        ...

    async def papers(self, reference: str) -> Mapping[str, Any]:
        """``sbom`` (summary or None), ``signature`` (good, bad, none), ``scan`` (result or None). Raises `RegistryUnavailable`."""
        ...

    async def sbom(self, reference: str) -> bytes | None:
        """The list of contents as it is, CycloneDX in JSON. Raises `RegistryUnavailable`."""
        ...


class Activity(Protocol):
    """What only the session itself knows; asked before an idle session is stopped."""

    async def busy(self, session: Session) -> bool:
        """Whether a kernel works or a page is connected. False when the session does not answer. Raises `HubUnavailable`."""
        ...


class Routes(Protocol):
    """The proxy's table."""

    async def routes(self) -> Mapping[str, str]:
        """Sessions' routes: path on the public port → the session's name. Raises `HubUnavailable`."""
        ...

    async def drop(self, path: str) -> None:
        """Take a route away; absent is fine. Raises `HubUnavailable`."""
        ...


class EngineContainer(Protocol):
    """A container of ours as the engine has it."""

    @property
    def name(self) -> str:
        """For `Engine.remove`."""
        ...

    @property
    def labels(self) -> Mapping[str, str]:
        """``io.binder-onprem.…``."""
        ...

    @property
    def created(self) -> float:
        """Unix seconds, UTC."""
        ...


class Engine(Protocol):
    """The container engine, as far as reconcile needs it."""

    async def labelled(self, labels: Mapping[str, str]) -> Sequence[EngineContainer]:
        """Containers that have all these labels, running or not. Raises `EngineUnavailable`."""
        ...

    async def remove(self, name: str) -> None:
        """Stop and remove; absent is fine. Raises `EngineUnavailable`."""
        ...


class ChangedFiles(Protocol):
    """What sessions have changed of their files, as archives."""

    def changed(self, container: str) -> AbstractAsyncContextManager[StreamReader]:
        """Of a running session. Leaving it raises when the archive broke off. Raises `Busy`, `NotFound`, `EngineUnavailable`, TimeoutError."""
        ...

    def folder(self, path: Path, limit: int) -> AbstractAsyncContextManager[StreamReader]:
        """Of a project's directory on this host, `limit` bytes at the most. Leaving it raises when it broke off. Raises `Busy`, TimeoutError."""
        ...

    def kept(self, session: str, token: str) -> tuple[Path, float] | None:
        """What is kept of an ended session for the holder of its token: a gzipped tar, and until when (Unix seconds)."""
        ...


class SessionFiles(Protocol):
    """What sessions write to this machine's disk."""

    async def used(self) -> int:
        """Bytes in use of the file system they write to, by whomever."""
        ...

    async def written(self, container: str) -> int:
        """Bytes that a session's container has written. Raises `NotFound`, `EngineUnavailable`."""
        ...


class LocalImage(Protocol):
    """An image on this machine."""

    @property
    def id(self) -> str:
        """Of its configuration."""
        ...

    @property
    def references(self) -> Sequence[str]:
        """Names it is known by, ``repository@sha256:…`` and tags."""
        ...

    @property
    def size(self) -> int:
        """Bytes of all its layers."""
        ...

    @property
    def shared(self) -> int:
        """Bytes of these that other images have too."""
        ...

    @property
    def containers(self) -> int:
        """How many use it."""
        ...


class LocalImages(Protocol):
    """Images on this machine, ready to start from."""

    async def exists(self, reference: str) -> bool:
        """Whether ``repository@sha256:…`` is here. Raises `EngineUnavailable`."""
        ...

    async def local(self) -> Sequence[LocalImage]:
        """Every image of ours that is here. Raises `EngineUnavailable`."""
        ...

    async def remove(self, reference: str) -> bool:
        """Remove; absent is fine. False when it is in use. Raises `EngineUnavailable`."""
        ...
