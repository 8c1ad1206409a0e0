"""The sections of the configuration that every site has."""

from __future__ import annotations

import ipaddress
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Literal
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pydantic import ByteSize, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from binder_onprem.config import kinds  # noqa: TC001 - pydantic reads it
from binder_onprem.config.frozen import Frozen

PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")


class Listen(Frozen):
    """Where people reach us, and the loopback ports of the parts behind it (public port + 1 … + 6 unless given)."""

    host: kinds.Address = Field(default="127.0.0.1", description="address of the one public port")
    port: int = Field(default=8585, ge=1, le=65500, description="the one public port; the next six carry the parts behind it, on loopback")
    base_url: str = Field(default="/", description="path prefix, when another proxy sits in front")
    public_url: kinds.PlainUrl | None = Field(default=None, description="URL people use, when it is not http://host:port + base_url")
    trusted_proxies: tuple[kinds.NetworkText, ...] = Field(default=(), description="addresses or CIDRs whose X-Forwarded-For and -Proto are believed")

    @field_validator("base_url")
    @classmethod
    def _slashes(cls, value: str) -> str:
        parts = [unquote(part) for part in value.strip("/").split("/")]
        path = "/".join(quote(part, safe="~@:!$&'()*+,;=") for part in parts)
        if "//" in path or any(part in (".", "..") or set(part) & set("/{}%") for part in parts):
            message = "must be a path like /services/binder/"
            raise ValueError(message)
        return f"/{path}/" if path else "/"

    @model_validator(mode="after")
    def _same_path(self) -> Listen:
        path = urlsplit(self.public_url).path.rstrip("/") + "/" if self.public_url else self.base_url
        if unquote(path) != unquote(self.base_url):
            # Pages, cookies and sessions' routes carry the prefix; a proxy in front that takes it away breaks all of them.
            raise ValueError(f"the path of public_url is {path}, so base_url must be {path}, too (the proxy in front passes paths on as they are)")
        return self


class Network(Frozen):
    """What may be reached: by resolving and cloning, by builds, by sessions."""

    allow: tuple[kinds.Reachable, ...] = Field(
        default=(), description="CIDRs, addresses or host names beyond the public Internet that links may name"
    )
    builds: Literal["public", "mirrors"] = Field(
        default="public", description="what builds reach through the gate: the public Internet, or mirrors only"
    )
    sessions: Literal["public", "mirrors", "none"] = Field(default="public", description="what sessions reach")
    proxy: kinds.ProxyUrl | None = Field(
        default=None,
        description="http://host:port through which everything outside is reached; sessions get it without its account; default: the environment's",
    )
    no_proxy: tuple[str, ...] = Field(default=(), description="hosts reached without the proxy")
    ca_file: Path | None = Field(default=None, description="PEM bundle that hosts, builds and sessions trust; default: the host's")
    pool: str = Field(default="10.213.0.0/16", description="private range for containers' networks; nothing else may use it")

    @property
    def proxy_told(self) -> str | None:
        """The proxy as sessions are told of it: its account is nobody's who uses them."""
        return self.proxy and urlunsplit((parts := urlsplit(self.proxy))._replace(netloc=parts.netloc.rpartition("@")[2]))

    @field_validator("pool")
    @classmethod
    def _range(cls, value: str) -> str:
        network = ipaddress.IPv4Network(value)
        if not any(network.subnet_of(ipaddress.IPv4Network(private)) for private in PRIVATE):
            raise ValueError(f"must lie within one of {', '.join(PRIVATE)}; an address that others use would not be reached any more")
        if network.prefixlen > 20:  # noqa: PLR2004 - named by the message
            message = "must hold at least a /20"
            raise ValueError(message)
        return str(network)


class Mirrors(Frozen):
    """Package sources for builds and sessions; whatever is not given is read from the host's own client configuration."""

    pypi: kinds.Url | None = Field(default=None, description="index URL for pip and uv")
    apt: Path | None = Field(default=None, description="a sources file (deb822 or one-line) for builds that install Debian packages")
    npm: kinds.Url | None = Field(default=None, description="registry URL for npm")
    conda: kinds.Url | None = Field(default=None, description="channel alias for conda and mamba")
    cran: kinds.Url | None = Field(default=None, description="CRAN URL for R")
    bundle: Path | None = Field(
        default=None,
        description="a bundle's directory: the base image is made of its debs and wheels, and no mirror but those named here is asked for anything",
    )


class Resolve(Frozen):
    """How refs are looked up."""

    timeout: PositiveFloat = Field(default=15, description="seconds until a host of repositories must have answered")
    ttl: float = Field(default=2, ge=0, description="seconds a looked-up ref is believed; a push is seen after that")
    stale: float = Field(default=86400, ge=0, description="seconds a known ref serves when its host is down")
    bytes: ByteSize = Field(default=ByteSize(32 * 1024**2), description="answer size at the most")


class DistributionBase(Frozen):
    """The base image made from the distribution's own packages; no image registry needed."""

    kind: Literal["distribution"] = "distribution"
    suite: kinds.Suite | None = Field(default=None, description="default: the host's own release")
    packages: tuple[kinds.Word, ...] = Field(default=(), description="further distribution packages for every session")
    python_packages: tuple[kinds.Requirement, ...] = Field(default=(), description="further Python packages for every session")


class ImageBase(Frozen):
    """The base image made on top of an image the site provides."""

    kind: Literal["image"] = "image"
    image: kinds.Word


class Build(Frozen):
    """Limits and policy of builds. Each limit, when hit, is named in the message."""

    concurrency: PositiveInt = Field(default=2, description="builds at once, on all machines that build; others queue")
    here: bool = Field(default=True, description="build on this machine, too, where `builders` names others")
    queue: PositiveInt = Field(default=100, description="builds waiting at the most")
    timeout: PositiveFloat = Field(default=1800, description="seconds a build may take")
    memory: kinds.Memory = Field(default=ByteSize(4 * 1024**3), description="bytes of memory, swap included")
    cpus: PositiveFloat = Field(default=2, description="processors")
    pids: PositiveInt = Field(default=1024, description="processes and threads")
    disk: ByteSize = Field(default=ByteSize(10 * 1024**3), description="bytes a build may write")
    repository: ByteSize = Field(default=ByteSize(2 * 1024**3), description="bytes of a clone")
    log: ByteSize = Field(default=ByteSize(16 * 1024**2), description="bytes of log kept; what follows is dropped with a marker")
    line: PositiveInt = Field(default=8192, description="bytes of a log line; longer ones are cut")
    dockerfiles: bool = Field(default=True, description="allow repositories with a Dockerfile of their own")
    from_allowed: tuple[kinds.Word, ...] = Field(
        default=(), description="registries or image prefixes a Dockerfile may be based on, beyond our base image"
    )
    base: Annotated[DistributionBase | ImageBase, Field(discriminator="kind")] = Field(
        default=DistributionBase(), description="kind: distribution (suite, packages, python_packages) or kind: image (image)"
    )
    keep_logs: PositiveFloat = Field(default=30 * 86400.0, description="seconds a finished build's log is kept")


class Session(Frozen):
    """Limits of sessions."""

    memory: kinds.Memory = Field(default=ByteSize(2 * 1024**3), description="bytes of memory, swap included")
    cpus: PositiveFloat = Field(default=2, description="processors")
    pids: PositiveInt = Field(default=512, description="processes and threads")
    disk: ByteSize = Field(
        default=ByteSize(10 * 1024**3), description="bytes a session may write to disk; one that has written more is ended within a minute"
    )
    start_timeout: PositiveFloat = Field(
        default=60, description="seconds until the server must answer; up to 2.5 times as many where many start at once"
    )
    total: int = Field(default=100, ge=0, description="sessions at once; 0: maintenance, nobody gets one")
    per_repo: int = Field(default=0, ge=0, description="sessions of one repository at once; 0: no limit")
    idle: PositiveFloat = Field(default=900, description="seconds without activity until a session ends")
    age: PositiveFloat = Field(default=6 * 3600, description="seconds until a session ends in any case")


class Images(Frozen):
    """How many images stay."""

    budget: ByteSize = Field(
        default=ByteSize(50 * 1024**3), description="bytes of images kept here; the least recently used go first, earlier when the disk gets full"
    )
    keep: PositiveFloat = Field(default=3600, description="seconds an image stays after its last use, whatever the budget")


class Passes(Frozen):
    """Seconds between the periodic passes."""

    reap: PositiveFloat = Field(default=20, description="seconds between looks for idle sessions")
    reconcile: PositiveFloat = Field(default=60, description="seconds between looks for what has no owner")
    prune: PositiveFloat = Field(default=600, description="seconds between looks at the images' budget")


class Web(Frozen):
    """The pages."""

    about: str = Field(default="", description="a paragraph for the page about this site")
    banner: str = Field(default="", description="a sentence on top of every page")
    popular: int = Field(
        default=0, ge=0, le=50, description="repositories that many launch, shown on the front page; public ones only; 0: none are shown"
    )
    api_only: bool = Field(default=False, description="a build service for another hub: no pages, `build_only` allowed, as BinderHub's API-only mode")
    clients_file: Path | None = Field(
        default=None, description="file of lines `name token`: programs that may build and launch; if given, nobody else may, but accounts"
    )
    cors_allow_origin: kinds.Origin | None = Field(default=None, description="origin whose pages may launch here, or *")
    strict_accept: bool = Field(default=True, description="anonymous /build requests must accept text/event-stream, as in BinderHub")
    streams: PositiveInt = Field(2000, description="event streams open at once")
    streams_per_client: PositiveInt = Field(500, description="event streams of one address open at once; a classroom may share one address")
