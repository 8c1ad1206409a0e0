"""Everything that can go wrong, as one tree; nothing else in the package is raised across rooms.

::

    BinderError
    ├── ConfigError             the configuration does not hold             exit 10
    ├── HostUnfit               the machine cannot do what is asked         exit 11
    ├── InvalidSpec             the link is malformed                  400  exit 2
    │   └── UnknownProvider     no such provider, or not enabled       404
    ├── NotFound                no such build, server, image           404  exit 5
    │   └── RefNotFound         repository or ref does not exist       404
    │       ├── CredentialRefused       the host does not take the token   404
    │       └── CredentialInsufficient  the token may not read it          404
    ├── Refused                 policy says no                         403  exit 3
    │   ├── Banned              the repository or client is banned     403
    │   ├── AddressRefused      the address rules forbid the host      403
    │   ├── InUse               somebody needs what is to be removed   409
    │   └── Untrusted           the image is not signed by this site   403
    ├── Busy                    later, perhaps                         429  exit 4
    │   ├── RateLimited         too many requests of one client        429
    │   ├── QuotaExceeded       too many sessions or builds            429
    │   │   └── RepositoryFull  too many sessions of one repository    429
    │   └── SessionRunning      the person has as many as she may      409
    ├── Unavailable             a part we need does not answer         503  exit 6
    │   ├── ProviderUnavailable the host of the repository             502
    │   ├── RegistryUnavailable the image registry                     503
    │   ├── EngineUnavailable   podman                                 503
    │   │   └── DiskFull        no room for builds                     503
    │   ├── HubUnavailable      JupyterHub or its proxy                503
    │   ├── StoreUnavailable    the database                           503
    │   └── UnderMaintenance    the administrator lets nobody launch   503
    ├── BuildFailed             the repository's environment fails     422  exit 7
    │   ├── LimitHit            memory, disk, pids, log, size          422
    │   ├── BuildTimeout        longer than allowed                    422
    │   ├── BuildInterrupted    we died in the middle of it, twice     422
    │   └── BuildCancelled      somebody stopped it                    409  exit 8
    └── SpawnFailed             the session does not start             502  exit 9
        └── SpawnTimeout        it does not answer in time             504

A message is one or two sentences for the person at the browser: what happened, what to do. It never holds a credential, an internal path,
a traceback, or what a remote host said word for word.
"""

from __future__ import annotations

from typing import ClassVar


class BinderError(Exception):
    """Root of the tree.

    Args:
        message: What happened and what to do, for the person who reads it.
        retry_after: Seconds after which trying again makes sense, where that is known.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class ConfigError(BinderError):
    """The configuration file or an option does not hold."""

    code = "config"
    exit_code = 10


class HostUnfit(BinderError):
    """The machine lacks something that the request needs; the message names the fix."""

    code = "host"
    exit_code = 11


class InvalidSpec(BinderError):
    """The link does not have the form that its provider asks for."""

    code = "invalid_spec"
    status = 400
    exit_code = 2


class UnknownProvider(InvalidSpec):
    """The link names a provider that does not exist or is not enabled."""

    code = "unknown_provider"
    status = 404


class NotFound(BinderError):
    """What was asked for does not exist (any more)."""

    code = "not_found"
    status = 404
    exit_code = 5


class RefNotFound(NotFound):
    """The repository, or the branch, tag or commit in it, does not exist or is private."""

    code = "ref_not_found"


class CredentialRefused(RefNotFound):
    """The repository's host does not take the credential it was asked with (any more)."""

    code = "credential_refused"


class CredentialInsufficient(RefNotFound):
    """The repository's host takes the credential, but does not let it read this repository."""

    code = "credential_insufficient"


class Refused(BinderError):
    """Policy says no."""

    code = "refused"
    status = 403
    exit_code = 3


class Banned(Refused):
    """This repository or this client may not launch here."""

    code = "banned"


class AddressRefused(Refused):
    """The address rules forbid connecting to the host that the link names."""

    code = "address_refused"


class InUse(Refused):
    """What is to be removed is needed; the message says by whom."""

    code = "in_use"
    status = 409


class Untrusted(Refused):
    """The image has no good signature of this site, and the site starts no other."""

    code = "untrusted"


class Busy(BinderError):
    """Not now; later perhaps."""

    code = "busy"
    status = 429
    exit_code = 4
    retryable = True


class RateLimited(Busy):
    """One client asks too often."""

    code = "rate_limited"


class QuotaExceeded(Busy):
    """Too many sessions or builds already."""

    code = "quota"


class RepositoryFull(QuotaExceeded):
    """Too many sessions of this repository already; others have room."""


class SessionRunning(Busy):
    """Somebody has as many sessions as one person may have; stopping one makes room."""

    code = "running"
    status = 409
    retryable = False


class Unavailable(BinderError):
    """A part that the line needs does not answer."""

    code = "unavailable"
    status = 503
    exit_code = 6
    retryable = True


class ProviderUnavailable(Unavailable):
    """The host of the repository does not answer, or answers nonsense."""

    code = "provider"
    status = 502


class RegistryUnavailable(Unavailable):
    """The image registry does not answer, or refuses our account. Never to be read as 'no such image'."""

    code = "registry"


class EngineUnavailable(Unavailable):
    """Podman's service does not answer."""

    code = "engine"


class DiskFull(EngineUnavailable):
    """There is no room to build in; another try at once would only fill the disk again."""


class HubUnavailable(Unavailable):
    """JupyterHub or its proxy does not answer, or refuses our token."""

    code = "hub"


class StoreUnavailable(Unavailable):
    """The database does not answer or cannot be written."""

    code = "store"


class UnderMaintenance(Unavailable):
    """The administrator has stopped launches for a while; the message gives the administrator's words."""

    code = "maintenance"


class BuildFailed(BinderError):
    """The repository's environment cannot be built; the log says why."""

    code = "build"
    status = 422
    exit_code = 7


class LimitHit(BuildFailed):
    """The build went over a limit; the message names the limit and its value."""

    code = "limit"


class BuildTimeout(BuildFailed):
    """The build took longer than allowed."""

    code = "build_timeout"


class BuildInterrupted(BuildFailed):
    """This service stopped in the middle of the build, and again in the middle of its repetition."""

    code = "interrupted"
    retryable = True


class BuildCancelled(BuildFailed):
    """Somebody cancelled the build."""

    code = "cancelled"
    status = 409
    exit_code = 8


class SpawnFailed(BinderError):
    """The session did not start."""

    code = "spawn"
    status = 502
    exit_code = 9
    retryable = True


class SpawnTimeout(SpawnFailed):
    """The session's container runs but its server does not answer in time."""

    code = "spawn_timeout"
    status = 504
