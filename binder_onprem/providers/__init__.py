"""Providers: prefix of a link → what knows that kind of host. `parse` is pure, `resolve` is network.

The daemon builds the table once. Nothing here starts a subprocess, and nothing here connects to an address that the rules have not checked.
"""

from __future__ import annotations

import ssl
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from binder_onprem.config.archives import CkanProvider, DataverseProvider, FigshareProvider, HydroshareProvider, SwhidProvider, ZenodoProvider
from binder_onprem.config.providers import GistProvider, GitHubProvider, GitLabProvider, GitProvider, MercurialProvider
from binder_onprem.egress.outbound import Outbound
from binder_onprem.errors import BinderError, ConfigError
from binder_onprem.providers.cache import Cached
from binder_onprem.providers.ckan import Ckan
from binder_onprem.providers.dataverse import Dataverse
from binder_onprem.providers.figshare import Figshare
from binder_onprem.providers.gist import Gist
from binder_onprem.providers.git import Git
from binder_onprem.providers.github import GitHub
from binder_onprem.providers.gitlab import GitLab
from binder_onprem.providers.hydroshare import Hydroshare
from binder_onprem.providers.mercurial import Mercurial
from binder_onprem.providers.reader import Reader, checked_client
from binder_onprem.providers.swhid import Swhid
from binder_onprem.providers.zenodo import Zenodo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    import aiohttp

    from binder_onprem.config import Config, Frozen, ProviderConfig
    from binder_onprem.egress.addresses import AddressRules
    from binder_onprem.host.sources import Sources
    from binder_onprem.interfaces import Provider
    from binder_onprem.providers.ssh import Ssh

_WITH_TOKEN: Final[Mapping[type[Frozen], Callable[..., Provider]]] = {
    GitHubProvider: GitHub,
    GistProvider: Gist,
    GitLabProvider: GitLab,
    ZenodoProvider: Zenodo,
    FigshareProvider: Figshare,
    SwhidProvider: Swhid,
}
_OPEN: Final[Mapping[type[Frozen], Callable[..., Provider]]] = {
    DataverseProvider: Dataverse,
    HydroshareProvider: Hydroshare,
    CkanProvider: Ckan,
    MercurialProvider: Mercurial,
}

__all__ = ["Cached", "anonymous", "checked_session", "public", "table", "trust"]


@asynccontextmanager
async def checked_session(config: Config, rules: AddressRules, sources: Sources) -> AsyncIterator[aiohttp.ClientSession]:
    """A session for hosts that links name: checked addresses only, the site's certificates, no environment.

    Raises:
        ConfigError: The bundle of certificates or the proxy's URL does not hold.
    """
    async with checked_client(rules, trust(sources), sources.proxy, config.resolve.timeout) as session:
        yield session


def trust(sources: Sources) -> ssl.SSLContext:
    """TLS as the site trusts it. Raises ConfigError."""
    try:
        return ssl.create_default_context(cadata=sources.ca_bundle.decode("ascii", "ignore") or None)  # comments in bundles may be anything
    except ssl.SSLError:
        raise ConfigError("network.ca_file is not a PEM bundle of certificates") from None


def table(config: Config, sources: Sources, rules: AddressRules, session: aiohttp.ClientSession) -> dict[str, Cached]:
    """Every configured provider, by prefix.

    Args:
        config: The site.
        sources: Its proxy and certificates.
        rules: The address rules.
        session: From `checked_session`.

    Raises:
        ConfigError: A file with a token, a key or keys of hosts cannot be read.
    """
    limits, (reader, outbound) = config.resolve, _means(config, sources, rules, session)
    found: dict[str, Cached] = {}
    for part in config.providers:
        provider = Git(part, reader, outbound, limits.bytes, _ssh(part, outbound)) if isinstance(part, GitProvider) else _speaking_http(part, reader)
        found[part.prefix] = Cached(provider, limits.timeout, limits.ttl, limits.stale, time.monotonic)
    return found


def _speaking_http(part: ProviderConfig, reader: Reader) -> Provider:
    kind = type(part)
    return _WITH_TOKEN[kind](part, reader, _token(getattr(part, "token_file", None))) if kind in _WITH_TOKEN else _OPEN[kind](part, reader)


def anonymous(config: Config, sources: Sources, rules: AddressRules, session: aiohttp.ClientSession) -> Git:
    """Any repository over HTTP by its clone URL, without any token of a provider's; nothing is remembered."""
    reader, outbound = _means(config, sources, rules, session)
    return Git(GitProvider(protocols=("https", "http")), reader, outbound, config.resolve.bytes)


def public(nobody: Git) -> Callable[[str], Awaitable[bool]]:
    """A question: can anybody read the repository with this clone URL? Asked by `anonymous`."""

    async def asked(url: str) -> bool:
        try:
            await nobody.resolve(nobody.parse(f"{quote(url, safe='')}/HEAD"))
        except BinderError:
            return False
        return True

    return asked


def _means(config: Config, sources: Sources, rules: AddressRules, session: aiohttp.ClientSession) -> tuple[Reader, Outbound]:
    limits = config.resolve
    reader = Reader(session, limits.timeout, limits.bytes, sources.proxy, sources.no_proxy)
    return reader, Outbound(rules, proxy=sources.proxy, no_proxy=sources.no_proxy, tls=trust(sources))


def _ssh(part: GitProvider, outbound: Outbound) -> Ssh | None:
    if part.ssh_key_file is None or part.known_hosts_file is None:
        return None
    from binder_onprem.providers.ssh import Ssh  # noqa: PLC0415 - takes long to import, and few sites have a key

    return Ssh(outbound, part.ssh_key_file, part.known_hosts_file)


def _token(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"token_file: {file} cannot be read") from None
    if not token or not token.isprintable():
        raise ConfigError(f"token_file: {file} holds no token")
    return token
