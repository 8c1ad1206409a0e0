"""Who may use the site: nobody has to log in, or JupyterHub lets people in by one of the kinds of accounts that institutions have."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, StringConstraints, model_validator

from binder_onprem.config import kinds  # noqa: TC001 - pydantic reads it
from binder_onprem.config.frozen import Frozen

_LDAP = {"ldap": 389, "ldaps": 636}


def _who(value: str) -> str:
    if not re.fullmatch(r"everybody|(user|group):[^\x00-\x1f]{1,200}", value):
        raise ValueError(f"{value!r} is none of: everybody, user:NAME, group:NAME")
    return value


def _directory(value: str) -> str:
    try:
        parts = urlsplit(value)
        if parts.scheme in _LDAP and parts.hostname and not parts.path.strip("/") and parts.username is None and parts.port != 0:
            return value
    except ValueError:
        pass
    raise ValueError("is no URL such as ldaps://ldap.uni.example")


Who = Annotated[str, AfterValidator(_who)]


class Roles(Frozen):
    """Who of those who have logged in may do what."""

    launch: tuple[Who, ...] = Field(default=("everybody",), description="who may start sessions from images that are there")
    build: tuple[Who, ...] = Field(default=("everybody",), description="who may have environments built that are not there yet")
    admin: tuple[Who, ...] = Field(default=(), description="who may do everything on everybody's sessions, builds and images")

    def members(self, role: str, kind: str) -> list[str]:
        """Names of the users or groups that have a role.

        Args:
            role: ``launch``, ``build`` or ``admin``.
            kind: ``user`` or ``group``.
        """
        found = [who.partition(":") for who in getattr(self, role)]
        return [name for prefix, _, name in found if prefix == kind]


class Service(Frozen):
    """A program with a token of its own at the hub."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{2,40}$")]
    token_file: Path
    roles: tuple[Literal["launch", "build", "admin"], ...] = ("launch", "build")


class NoAccounts(Frozen):
    """Everybody is welcome, and nobody has a name."""

    kind: Literal["none"] = Field(default="none", description="none: nobody has to log in; else what people log in by: oidc, ldap, pam or native")


class Accounts(Frozen):
    """What all kinds of accounts share."""

    roles: Roles = Field(default=Roles(), description="who may do what, see the next table")
    named_servers: PositiveInt = Field(default=1, description="sessions a person may have at once")
    remember: PositiveFloat = Field(default=14 * 86400.0, ge=60, description="seconds until somebody has to log in again")
    refresh: NonNegativeInt = Field(default=300, description="seconds after which a person's groups are asked for anew; 0: at log-ins only")
    contact: str = Field(default="the administrator", description="whom to ask, in the sentence for who may not")
    services: tuple[Service, ...] = Field(default=(), description="programs with hub tokens: list of name, token_file, roles")

    @model_validator(mode="after")
    def _unique(self) -> Accounts:
        names = [service.name for service in self.services]
        if len(set(names)) != len(names) or "binder" in names:
            raise ValueError("services: each needs a name of its own, which is not binder")
        return self


class OidcAccounts(Accounts):
    """An OpenID provider."""

    kind: Literal["oidc"]
    issuer: kinds.PlainUrl = Field(description="URL of the provider; the rest is read from its /.well-known/openid-configuration")
    client_id: str = Field(min_length=1, description="what the provider calls this site")
    client_secret_file: Path = Field(description="file with the secret that goes with it")
    username_claim: str = Field(default="preferred_username", min_length=1, description="claim that names a person here for ever")
    groups_claim: str | None = Field(default="groups", description="claim with the list of groups")
    scopes: tuple[str, ...] = Field(default=("openid", "profile", "email"), description="scopes that are asked for")
    logout_url: kinds.Url | None = Field(default=None, description="where people go after they have logged out here")


class LdapAccounts(Accounts):
    """A directory."""

    kind: Literal["ldap"]
    server: Annotated[str, AfterValidator(_directory)] = Field(description="ldaps://host or ldap://host, with :port where it is another")
    start_tls: bool = Field(default=True, description="ldap:// turns to TLS before anything is said")
    ca_file: Path | None = Field(
        default=None, description="PEM bundle that the server's certificate is trusted by; default: network.ca_file, the host's"
    )
    bind_dn: tuple[str, ...] = Field(default=(), description="templates of people's DNs, such as uid={username},ou=people,dc=uni,dc=example")
    search_base: str | None = Field(default=None, description="where people are looked up, instead of bind_dn")
    search_attribute: str = Field(default="uid", description="attribute that is the user name; sAMAccountName in Active Directory")
    search_user: str | None = Field(default=None, description="DN that may look people up; default: anonymously")
    search_password_file: Path | None = Field(default=None, description="file with its password")
    groups: dict[str, str] = Field(default_factory=dict, description="map of group, as in roles: its DN")

    @model_validator(mode="after")
    def _found(self) -> LdapAccounts:
        if bool(self.bind_dn) == (self.search_base is not None):
            raise ValueError("give either bind_dn or search_base")
        if any("{username}" not in template for template in self.bind_dn):
            raise ValueError("each bind_dn needs {username} in it")
        if (self.search_user is None) != (self.search_password_file is None):
            raise ValueError("search_user and search_password_file belong together")
        unknown = {name for role in ("launch", "build", "admin") for name in self.roles.members(role, "group")} - self.groups.keys()
        if unknown:
            raise ValueError(f"groups: no DN for {', '.join(sorted(unknown))}")
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.server)
        return parts.hostname or "", parts.port or _LDAP[parts.scheme]

    @property
    def tls(self) -> Literal["on_connect", "before_bind", "insecure"]:
        """How the connection is protected, in the authenticator's words."""
        if self.server.startswith("ldaps:"):
            return "on_connect"
        return "before_bind" if self.start_tls else "insecure"


class PamAccounts(Accounts):
    """This machine's own accounts, and whatever else its PAM knows."""

    kind: Literal["pam"]
    service: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = Field(
        default="login", description="PAM's service, a file in /etc/pam.d"
    )


class NativeAccounts(Accounts):
    """Accounts of this site alone."""

    kind: Literal["native"]
    signup: Literal["approval", "open", "closed"] = Field(
        default="approval", description="who signs up waits for `accounts allow`, is let in at once, or cannot sign up"
    )
    password_length: PositiveInt = Field(default=10, description="characters of a password at the least")

    @model_validator(mode="after")
    def _names(self) -> NativeAccounts:
        roles = ("launch", "build", "admin")
        if any(self.roles.members(role, "group") for role in roles):
            raise ValueError("roles: native accounts have no groups")
        if self.signup == "open" and any(self.roles.members(role, "user") for role in roles):
            raise ValueError("roles: with signup: open anybody could take the name of a user that a role names; use approval or closed")
        return self


Auth = Annotated[NoAccounts | OidcAccounts | LdapAccounts | PamAccounts | NativeAccounts, Field(discriminator="kind")]
