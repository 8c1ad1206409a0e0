"""Where packages come from: the host's certificates, proxy and mirrors, for builds, sessions, the gate and the firewall.

`up` calls `learn`, which asks this machine's clients and keeps the answers in ``home/etc/sources.json`` (the daemon's environment under a
supervisor is not the administrator's). Everybody else calls `read`, which never touches the network.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from binder_onprem.errors import ConfigError, HostUnfit
from binder_onprem.host import clients
from binder_onprem.host.engine_files import LOCAL, proxied

if TYPE_CHECKING:
    from binder_onprem.config import Config

BUNDLES = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))


@dataclass(frozen=True, slots=True)
class Sources:
    """What the configuration says, and what the host's clients say where it is silent.

    Attributes:
        ca_bundle: PEM that the host trusts.
        pypi: Index URL; None: the client's default.
        apt: Contents of a sources file for the base image's suite.
        npm: Registry URL; None: the client's default.
        conda: Channel alias; None: the client's default.
        cran: CRAN URL; None: the client's default.
        proxy: ``http://host:port`` through which everything outside is reached.
        no_proxy: Hosts reached without it.
        hosts: Host and port of every mirror, the clients' defaults included; gate and firewall let these pass by name.
        julia: Package server URL that the host's own Julia is told of; None: the client's default.
    """

    ca_bundle: bytes
    pypi: str | None
    apt: str
    npm: str | None
    conda: str | None
    cran: str | None
    proxy: str | None
    no_proxy: tuple[str, ...]
    hosts: frozenset[tuple[str, int]]
    julia: str | None = None

    @property
    def on_loopback(self) -> tuple[str, ...]:
        """Hosts of mirrors that lie on this machine's own loopback, as they are written: builds have these through the gate, sessions not at all."""
        return tuple(sorted({host for host, _ in self.hosts if _loopback(host)}))

    @property
    def direct(self) -> str:
        """``no_proxy`` of builds: their own loopback, but for what is a mirror on this machine's."""
        return ",".join(host for host in LOCAL if host not in self.on_loopback)


@dataclass(frozen=True, slots=True)
class Learned:
    """What this machine's clients answered; the contents of ``sources.json``."""

    pypi: str | None
    default_pypi: str
    npm: str
    conda: str | None
    apt: str
    proxy: str | None
    no_proxy: tuple[str, ...]
    julia: str | None = None
    linked_for: tuple[str, str] = ("", "")
    linked: tuple[tuple[str, int], ...] = ()


def read(config: Config) -> Sources:
    """The sources as they hold now: the configuration first, then what `learn` kept, else what the clients say.

    Raises:
        ConfigError: A file that the configuration names cannot be read.
        HostUnfit: The host has no bundle of certificates.
    """
    learned = _kept(config) or _ask(config)
    mirrors = config.mirrors
    if mirrors.bundle:
        learned = _closed(learned)
    apt = _text(mirrors.apt, "mirrors.apt") if mirrors.apt else learned.apt
    pypi = mirrors.pypi or learned.pypi
    conda = mirrors.conda or learned.conda
    proxy = config.network.proxy or learned.proxy
    named = (pypi or learned.default_pypi, mirrors.npm or learned.npm, conda, mirrors.cran, learned.julia)
    asked = apt if mirrors.apt or not mirrors.bundle else ""
    urls = [*(url for url in named if url), *re.findall(r"https?://[^\s\]]+", asked)]
    return Sources(
        julia=learned.julia,
        ca_bundle=_bundle(config),
        pypi=pypi,
        apt=apt,
        npm=mirrors.npm or learned.npm or None,
        conda=conda,
        cran=mirrors.cran,
        proxy=proxy,
        no_proxy=config.network.no_proxy or learned.no_proxy,
        hosts=frozenset(host for url in urls for host in clients.host_of(url)) | frozenset(learned.linked),
    )


def _closed(learned: Learned) -> Learned:
    """What of it holds where all comes from a bundle: the clients' defaults are of a network that is not there."""
    return replace(learned, pypi=None, default_pypi="", npm="", conda=None, julia=None)


def learn(config: Config) -> Sources:
    """Ask the clients again, and the index and registry over the network if they are other ones than before; keep the answers."""
    kept, learned = _kept(config), _ask(config)
    asked = (config.mirrors.pypi or learned.pypi or learned.default_pypi, config.mirrors.npm or learned.npm)
    if config.mirrors.bundle:
        asked = (config.mirrors.pypi or "", config.mirrors.npm or "")
    linked = (
        kept.linked
        if kept and kept.linked_for == asked and kept.linked
        else tuple(sorted(clients.linked_hosts(*asked, env=proxied(config.network.proxy, config.network.no_proxy))))
    )
    text = json.dumps({**asdict(learned), "linked_for": asked, "linked": linked}, indent=1) + "\n"
    file = _file(config)
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.touch(mode=0o600)  # a mirror's URL may hold an account
        file.write_text(text, encoding="utf-8")
    return read(config)


def _ask(config: Config) -> Learned:
    environ = {name.lower(): value for name, value in os.environ.items()}
    names = [name.strip() for name in environ.get("no_proxy", "").split(",")]
    return Learned(
        pypi=clients.index(os.environ),
        default_pypi=clients.default_index(),
        npm=clients.npm_registry(),
        conda=clients.conda_alias(),
        julia=os.environ.get("JULIA_PKG_SERVER") or None,
        apt=clients.apt_sources(suite(config)),
        proxy=environ.get("https_proxy") or environ.get("http_proxy") or environ.get("all_proxy"),
        no_proxy=tuple(name for name in names if name),
    )


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def suite(config: Config) -> str:
    """Code name of the base image's distribution release: the configured one or the host's."""
    named = getattr(config.build.base, "suite", None)
    return str(named or clients.release().get("VERSION_CODENAME", ""))


def bundled(bundle: Path, release: str) -> str:
    """A line for apt: a bundle's Debian packages. They came by SSH, compared with the bundle's checksums; there is no other signature to ask for.

    Args:
        bundle: As ``mirrors.bundle``.
        release: Code name that they have to be of.

    Raises:
        HostUnfit: There are none, or they are of another release.
    """
    debs = bundle / "debs"
    try:
        told = (debs / "Release").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HostUnfit(f"mirrors.bundle: {bundle} has no packages. Run `binder-onprem deploy site` with site_bundle, or unset it.") from error
    if f"Codename: {release}" not in told.splitlines():
        raise HostUnfit(f"The bundle in {bundle} has no packages of {release}. Leave build.base.suite out, or unset mirrors.bundle.")
    # Not file:, which the new root would have to see.
    return f"deb [trusted=yes] copy:{debs} ./\n"


def _file(config: Config) -> Path:
    return config.home / "etc" / "sources.json"


def _kept(config: Config) -> Learned | None:
    try:
        data: dict[str, Any] = json.loads(_file(config).read_text(encoding="utf-8"))
        data["no_proxy"] = tuple(data["no_proxy"])
        data["linked_for"] = (str(data["linked_for"][0]), str(data["linked_for"][1]))
        data["linked"] = tuple((str(host), int(port)) for host, port in data["linked"])
        return Learned(**data)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def bundle(config: Config) -> Path:
    """PEM file of the certificates that the site trusts. Raises `HostUnfit`."""
    found = config.network.ca_file or next((file for file in BUNDLES if file.is_file()), None)
    if found is None:
        raise HostUnfit("This machine has no bundle of certificates. Install the package ca-certificates, or set network.ca_file.")
    return found


def _bundle(config: Config) -> bytes:
    if config.network.ca_file:
        return _text(config.network.ca_file, "network.ca_file").encode()
    return bundle(config).read_bytes()


def _text(file: Path, key: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: {file} cannot be read. Give the path of a readable text file.") from error
