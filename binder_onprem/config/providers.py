"""Hosts of repositories that are git or Mercurial; `archives` has the others."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Literal

from pydantic import Field, model_validator

from binder_onprem.config import kinds  # noqa: TC001 - pydantic reads it
from binder_onprem.config.archives import (
    CkanProvider,
    DataverseProvider,
    FigshareProvider,
    HydroshareProvider,
    SwhidProvider,
    ZenodoProvider,
)
from binder_onprem.config.frozen import Frozen


class GitProvider(Frozen):
    """Any git server by URL."""

    kind: Literal["git"] = "git"
    prefix: kinds.ProviderPrefix = "git"
    protocols: tuple[Literal["https", "http", "ssh", "git"], ...] = ("https", "http", "ssh", "git")
    ssh_key_file: Path | None = Field(
        default=None, description="private key without passphrase for ssh:// and git@host:path links; what it may read, everybody here may launch"
    )
    known_hosts_file: Path | None = Field(default=None, description="keys of the hosts that such links may name, in the form of ssh's known_hosts")

    @model_validator(mode="after")
    def _both(self) -> GitProvider:
        if (self.ssh_key_file is None) != (self.known_hosts_file is None):
            message = "ssh_key_file and known_hosts_file belong together"
            raise ValueError(message)
        return self


class GitHubProvider(Frozen):
    """GitHub or GitHub Enterprise."""

    kind: Literal["github"] = "github"
    prefix: kinds.ProviderPrefix = "gh"
    url: kinds.HostUrl = "https://github.com"
    api: kinds.HostUrl = "https://api.github.com"
    token_file: Path | None = None


class GistProvider(Frozen):
    """GitHub's gists, or those of a GitHub Enterprise."""

    kind: Literal["gist"] = "gist"
    prefix: kinds.ProviderPrefix = "gist"
    url: kinds.HostUrl = "https://gist.github.com"
    api: kinds.HostUrl = "https://api.github.com"
    token_file: Path | None = None
    secret: bool = Field(default=False, description="launch secret gists, too: whoever knows the link of one")


class GitLabProvider(Frozen):
    """A GitLab."""

    kind: Literal["gitlab"] = "gitlab"
    prefix: kinds.ProviderPrefix = "gl"
    url: kinds.HostUrl = "https://gitlab.com"
    api: kinds.HostUrl | None = Field(default=None, description="default: URL + /api/v4")
    token_file: Path | None = None


class MercurialProvider(Frozen):
    """Any Mercurial server by URL."""

    kind: Literal["mercurial"] = "mercurial"
    prefix: kinds.ProviderPrefix = "hg"
    protocols: tuple[Literal["https", "http"], ...] = ("https", "http")


ProviderConfig = Annotated[
    GitProvider
    | GitHubProvider
    | GistProvider
    | GitLabProvider
    | ZenodoProvider
    | FigshareProvider
    | DataverseProvider
    | HydroshareProvider
    | CkanProvider
    | SwhidProvider
    | MercurialProvider,
    Field(discriminator="kind"),
]

USUAL: tuple[ProviderConfig, ...] = (
    GitProvider(),
    GitHubProvider(),
    GistProvider(),
    GitLabProvider(),
    ZenodoProvider(),
    FigshareProvider(),
    DataverseProvider(),
    HydroshareProvider(),
    CkanProvider(),
)
"""What BinderHub has without being told."""


def urls(provider: ProviderConfig) -> frozenset[str]:
    """Every URL that a provider's configuration names."""
    found = [getattr(provider, name, None) for name in ("url", "api", "doi")]
    return frozenset(url for url in (*found, *getattr(provider, "urls", ())) if url)


PUBLIC_URLS: frozenset[str] = frozenset().union(*(urls(provider) for provider in (*USUAL, SwhidProvider())))
"""Hosts of the public Internet that stand in the defaults."""
