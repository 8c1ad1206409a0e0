"""The whole configuration: frozen values read from one YAML file, every key with a default, unknown keys refused.

Secrets are files, never values: made at the first start below `home`, mode 0600. What must agree between processes is derived in `places`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from binder_onprem.config import kinds  # noqa: TC001 - pydantic reads it
from binder_onprem.config.audit import Audit
from binder_onprem.config.auth import Accounts, Auth, NoAccounts
from binder_onprem.config.builders import BuilderHost, BuildingFor
from binder_onprem.config.choice import Choices
from binder_onprem.config.conda import Conda
from binder_onprem.config.credentials import SiteCredential
from binder_onprem.config.ending import Ending
from binder_onprem.config.events import Events, PushHook, Webhook
from binder_onprem.config.frozen import Frozen
from binder_onprem.config.places import DEFAULT_HOME, SESSIONS_LOOPBACK, Places
from binder_onprem.config.policy import Admission, Hook, Quota, SpecSettings
from binder_onprem.config.projects import Projects
from binder_onprem.config.providers import USUAL, GitHubProvider, GitLabProvider, GitProvider, ProviderConfig
from binder_onprem.config.publish import Publish
from binder_onprem.config.sections import (
    Build,
    DistributionBase,
    ImageBase,
    Images,
    Listen,
    Mirrors,
    Network,
    Passes,
    Resolve,
    Session,
    Web,
)
from binder_onprem.config.sessions import disagreement
from binder_onprem.config.supply import Supply
from binder_onprem.errors import ConfigError

__all__ = [
    "CONFIG_VARIABLE",
    "DEFAULT_HOME",
    "HERE",
    "HOME_VARIABLE",
    "SESSIONS_LOOPBACK",
    "Admission",
    "Audit",
    "Build",
    "BuilderHost",
    "BuildingFor",
    "Choices",
    "Conda",
    "Config",
    "DistributionBase",
    "Ending",
    "Events",
    "Frozen",
    "GitHubProvider",
    "GitLabProvider",
    "GitProvider",
    "Hook",
    "ImageBase",
    "Images",
    "Listen",
    "Mirrors",
    "Network",
    "Passes",
    "Projects",
    "ProviderConfig",
    "Publish",
    "PushHook",
    "Quota",
    "Resolve",
    "Session",
    "SiteCredential",
    "SpecSettings",
    "Supply",
    "Web",
    "Webhook",
    "load",
]

HOME_VARIABLE = "BINDER_ONPREM_HOME"
CONFIG_VARIABLE = "BINDER_ONPREM_CONFIG"
HERE = "here"
"""This machine among the builders."""


class Config(Places):
    """One site."""

    mirrors: Mirrors = Mirrors()
    providers: tuple[ProviderConfig, ...] = Field(default=USUAL, description="list of the enabled ones; see above and SETTINGS.md")
    credentials: tuple[SiteCredential, ...] = Field(
        default=(), description="list of host, username, secret_file, users, groups: tokens for private repositories; see below"
    )
    resolve: Resolve = Resolve()
    build: Build = Build()
    builders: tuple[BuilderHost, ...] = Field(default=(), description="list of name, url, ca_file, token_file: other machines that build; see below")
    building_for: BuildingFor | None = Field(default=None, description="makes this machine such a builder; see below")
    conda: Conda = Conda()
    session: Session = Session()
    ending: Ending = Ending()
    admission: Admission = Admission()
    quota: Quota = Quota()
    hook: Hook = Hook()
    events: Events = Events()
    hooks: dict[str, PushHook] = Field(
        default_factory=dict, description="map of name: kind, secret_file, repositories, branches, link; who may tell of pushes"
    )
    images: Images = Images()
    supply: Supply = Supply()
    choice: Choices = Choices()
    projects: Projects = Projects()
    passes: Passes = Passes()
    web: Web = Web()
    publish: Publish = Publish()
    audit: Audit = Audit()
    auth: Auth = Field(default=NoAccounts(), description="kind: none, oidc, ldap, pam or native: who may log in; see below")
    database: kinds.DatabaseUrl | None = Field(default=None, description="SQLAlchemy URL; default: SQLite below home")
    samples: bool = Field(default=True, description="serve the sample repository on loopback, for a first link that needs no Internet")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="debug, info, warning or error")

    @field_validator("providers")
    @classmethod
    def _unique(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        prefixes = [provider.prefix for provider in value]
        if not prefixes:
            message = "name at least one, or leave the key out"
            raise ValueError(message)
        if len(set(prefixes)) != len(prefixes):
            message = "two providers have the same prefix"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _owned(self) -> Config:
        if self.projects.enabled and self.accounts is None:
            raise ValueError("projects: they belong to people who have logged in; set auth, or projects.enabled: false")
        return self

    @model_validator(mode="after")
    def _agree(self) -> Config:
        profiles, data = {name: profile.devices for name, profile in self.choice.profiles.items()}, tuple(self.choice.data)
        local, projects = self.remote is None, self.projects.enabled
        if why := self.cluster and disagreement(self.cluster, local=local, projects=projects, profiles=profiles, data=data):
            raise ValueError(why)
        return self

    def build_of(self, link: str) -> Build:
        """Limits of the builds of a ``provider/path``: the site's, and what its settings for this repository say instead."""
        return self.build.model_copy(update=self.admission.of_builds(link))

    @model_validator(mode="after")
    def _elsewhere(self) -> Config:
        names = [builder.name for builder in self.builders]
        if len(set(names)) != len(names) or HERE in names:
            raise ValueError(f"builders: each needs a name of its own, and {HERE} is this machine's")
        if self.builders and self.building_for:
            raise ValueError("building_for: a builder has no builders")
        if (self.builders or self.building_for) and self.remote is None:
            raise ValueError("builders, building_for: images go from machine to machine by a registry that all reach; set registry.kind: remote")
        return self

    @property
    def accounts(self) -> Accounts | None:
        """What people log in by; None where nobody has to."""
        return self.auth if isinstance(self.auth, Accounts) else None

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL for the async engine."""
        return self.database or f"sqlite+aiosqlite:///{self.record_file}"

    @property
    def record_file(self) -> Path:
        """Where the records are unless the settings name a database."""
        return self.home / "binder.sqlite"


def load(path: Path | None = None, home: Path | None = None) -> Config:
    """Read the configuration.

    Args:
        path: YAML file; else ``BINDER_ONPREM_CONFIG``; else ``<home>/config.yaml``; that last one may be absent.
        home: Overrides the file's `home`; else ``BINDER_ONPREM_HOME``.

    Raises:
        ConfigError: The file is missing, not YAML, or a key or value does not hold; says which.
    """
    variable_home = os.environ.get(HOME_VARIABLE)
    home = home or (Path(variable_home) if variable_home else None)
    named = path or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    file = named or (home or DEFAULT_HOME) / "config.yaml"
    data = _read(file, required=named is not None)
    if home:
        data["home"] = home
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        lines = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg'].removeprefix('Value error, ')}" for item in error.errors(include_input=False)
        )
        message = f"{file}: {lines}"
        raise ConfigError(message) from None


def _read(file: Path, *, required: bool) -> dict[str, Any]:
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            message = f"{file}: no such file; give the path of a YAML file with --config or {CONFIG_VARIABLE}"
            raise ConfigError(message) from None
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        message = f"{file}: cannot be read as YAML: {' '.join(str(error).split())}"
        raise ConfigError(message) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        message = f"{file}: must be a mapping of settings, as in the README's table"
        raise ConfigError(message)
    # A section whose lines are all commented out is one that says nothing.
    return {key: value for key, value in data.items() if value is not None}
