"""Who may launch what, how often, and on what terms: decisions without network, with `now` given.

`launch` asks `admitted` before anything else, `claim` and `terms` once the repository is known; the web asks `allowance` for its headers. Whether
there is room is `room`'s.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.config.policy import matches
from binder_onprem.errors import Banned, InvalidSpec, RateLimited
from binder_onprem.quotas import Claim, Limits
from binder_onprem.rates import Allowance, Rates
from binder_onprem.terms import Terms

if TYPE_CHECKING:
    from binder_onprem import config
    from binder_onprem.model import Client, ImageRef, LaunchRequest, ResolvedRepo
    from binder_onprem.rates import Kept

LINK_CHARACTERS: Final = 4096
IPV6_BITS: Final = 64
"""One customer's network: changing the address within it changes nothing."""

_Networks = tuple[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, str], ...]


class Admission:
    """The site's policy.

    Args:
        rules: Patterns, networks and rates.
        sessions: How many sessions there may be.
        quota: How many of whom.
        kept: Where launches that count outlive a restart; None: nowhere.
    """

    def __init__(self, rules: config.Admission, sessions: config.Session, quota: config.Quota | None = None, kept: Kept | None = None) -> None:
        self._rules = rules
        self._sessions = sessions
        self._high = quota.per_high_quota_repo if quota else 0
        self._networks = _networks(rules.ban_networks)
        self._rates = Rates(rules.period, kept)
        users, addresses, groups = (quota.per_user, quota.per_address, quota.per_group) if quota else (0, 0, {})
        self.limits = Limits(sessions.total, users, addresses, groups)

    async def admitted(self, request: LaunchRequest, now: float) -> None:
        """`admit`, and keep what it counted before anybody is told.

        Args:
            request: The click.
            now: Unix seconds.
        """
        await self._rates.loaded(now)
        self.admit(request, now)
        await self._rates.settled(now)

    def admit(self, request: LaunchRequest, now: float) -> None:
        """Let a request pass, or not; counts it. A repetition of a launch is not counted again.

        Args:
            request: The click.
            now: Unix seconds.

        Raises:
            InvalidSpec: The link is longer than any link.
            Banned: By network or by pattern.
            RateLimited: Too often; says when to come back.
        """
        self.network(request.client)
        self.link(f"{request.provider}/{request.path}")
        self._rate(request, now)

    def network(self, client: Client) -> None:
        """Raises `Banned` for an address on the list of networks; other pages ask this, too."""
        address = parsed(client.address)
        label = next((label for network, label in self._networks if address and address in network), None)
        if label is not None:
            raise Banned(f"Requests from {label} are not allowed.")

    def link(self, link: str) -> None:
        """Raises `Banned` for a ``provider/path`` that may not be launched, `InvalidSpec` for one that is too long."""
        if len(link) > LINK_CHARACTERS:
            raise InvalidSpec(f"The link is too long: {len(link)} characters, {LINK_CHARACTERS} at the most.")
        if matches(self._rules.banned, link) or (self._rules.allowed and not matches(self._rules.allowed, link)):
            raise Banned(f"Sorry, {link[:200]} is not allowed to launch here. Please ask the administrator for more information.")

    def _limit(self, client: Client) -> tuple[str, int] | None:
        who = subject(client)
        most = self._rules.rate_per_user if client.user else self._rules.rate
        return (who, most) if who and most else None

    def _rate(self, request: LaunchRequest, now: float) -> None:
        found = self._limit(request.client)
        if found is None:
            return
        wait = self._rates.count(*found, request.launch_id, now)
        if wait is not None:
            raise RateLimited(f"Rate limit exceeded: {found[1]} launches. Try again in {max(1, round(wait))} seconds.", retry_after=max(1.0, wait))

    async def allowed(self, client: Client, now: float, launch_id: str = "") -> Allowance | None:
        """`allowance`, with what was counted before a restart."""
        await self._rates.loaded(now)
        return self.allowance(client, now, launch_id)

    def allowance(self, client: Client, now: float, launch_id: str = "") -> Allowance | None:
        """What the client has left (after this launch), for the ``x-ratelimit-`` headers; None when it is not limited. Counts nothing."""
        found = self._limit(client)
        return self._rates.allowance(*found, now, launch_id) if found else None

    def claim(self, request: LaunchRequest, repo: ResolvedRepo, image: ImageRef) -> Claim:
        """What the launch's session will count against."""
        client = request.client
        groups = client.groups if client.user else frozenset()
        return Claim(request.launch_id, image.repository, repo.url, self._per_repo(request), owner(client), groups)

    def _per_repo(self, request: LaunchRequest) -> int:
        link = f"{request.provider}/{request.path}"
        usual = self._high if matches(self._rules.high_quota, link) else self._sessions.per_repo
        return next((entry.quota for entry in reversed(self._rules.matching(link)) if entry.quota is not None), usual)

    def terms(self, request: LaunchRequest) -> Terms:
        """What the settings for this repository say of its sessions."""
        found: dict[str, Any] = {}
        for entry in self._rules.matching(f"{request.provider}/{request.path}"):
            found |= {name: value for name in ("memory", "cpus", "idle", "age") if (value := getattr(entry, name)) is not None}
        return Terms(**found)


def parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address, IPv4 in IPv6's clothes undressed; None for ``local`` and what is none."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None) or found


def subject(client: Client) -> str | None:
    """Whom the rate limit counts: an account, else an address, of IPv6 the network; None for who is not limited."""
    if client.user is None and client.trusted:
        return None
    return owner(client)


def owner(client: Client) -> str | None:
    """Whose a session is: ``user:NAME``, else an address; None for the command line."""
    if client.user is not None:
        return f"user:{client.user}"
    if client.address == "local":
        return None
    address = parsed(client.address)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, IPV6_BITS), strict=False))
    return str(address) if address else client.address[:64]


def _networks(table: dict[str, str]) -> _Networks:
    return tuple(_network(cidr, label) for cidr, label in table.items())


def _network(cidr: str, label: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, str]:
    return ipaddress.ip_network(cidr, strict=False), label
