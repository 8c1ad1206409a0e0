"""Where repositories come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from binder_onprem.model import RepoSpec, ResolvedRepo


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


class Clonable(Provider, Protocol):
    """One whose repositories are cloned from ``RepoSpec.url`` by git, so that a credential for its host opens private ones."""

    def asks(self, spec: RepoSpec) -> bool:
        """Whether `resolve` asks the host whatever happens; False where it may believe a full commit unseen."""
        ...

    def at(self, spec: RepoSpec, commit: str, notice: str | None) -> ResolvedRepo:
        """Pure: the repository at a commit that was looked up."""
        ...
