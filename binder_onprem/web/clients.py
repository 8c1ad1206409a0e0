"""Who asks, seen through the proxies in front: the client's address, the host it typed, whether it is the administrator.

``X-Forwarded-For`` is believed for as many hops as are ours: our own proxy on loopback, then ``listen.trusted_proxies``. The right-most hop
that is not ours is the client; whatever stands left of it was written by the client.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from typing import TYPE_CHECKING, Final

from binder_onprem.errors import Refused
from binder_onprem.model import ANYBODY, Client, Role, fingerprint
from binder_onprem.web import services
from binder_onprem.web.admin.signin import COOKIE, XSRF
from binder_onprem.web.keys import SEAL, SIGN_INS, SITE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp import web

    from binder_onprem.config import Config
    from binder_onprem.web.admin.signin import SignedIn
    from binder_onprem.web.cookies import Login

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
ADMIN_FILES: Final = ("admin-token", "hub-token")
UNKNOWN: Final = "Nobody has logged in. Open this site's pages and log in, or send a token as `Authorization: Bearer …`."
UNPROVEN: Final = "This request does not come from a page of this site, or the page is old. Reload it, or send a token as `Authorization: Bearer …`."
NEEDED: Final = {
    Role.ADMIN: "Only the administrator may do this. Send the site's admin token as `Authorization: Bearer …`, or use the command line.",
    Role.BUILD: "You may not have environments built here. Ask the administrator.",
    Role.LAUNCH: "You may not launch sessions here. Ask the administrator.",
}


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def client_address(peer: str, forwarded: str, trusted: Iterable[str]) -> str:
    """The client's address.

    Args:
        peer: Address the connection comes from.
        forwarded: All of ``X-Forwarded-For``, joined by commas.
        trusted: Addresses or CIDRs of proxies in front of ours.
    """
    networks: list[Network] = [ipaddress.ip_network(entry, strict=False) for entry in trusted]
    current = _address(peer)
    if current is None:
        return peer[:64]
    believed = current.is_loopback
    for hop in reversed(forwarded.split(",")[-32:]):
        if not believed and not any(current in network for network in networks):
            break
        believed = False
        following = _address(hop)
        if following is None:
            break
        current = following
    return str(current)


def of_request(request: web.Request, config: Config) -> str:
    """The address of the client behind a request."""
    return client_address(request.remote or "unknown", ",".join(_hops(request)), config.listen.trusted_proxies)


def _hops(request: web.Request) -> list[str]:
    return ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")


def in_front(request: web.Request, config: Config) -> bool:
    """Whether the request came through one of `listen.trusted_proxies`, whose ``X-Forwarded-…`` are believed: that one spoke to our own proxy."""
    peer = _address(request.remote or "")
    spoke = _address(_hops(request)[-1]) if peer and peer.is_loopback else peer
    return spoke is not None and any(spoke in ipaddress.ip_network(entry, strict=False) for entry in config.listen.trusted_proxies)


def host_of(request: web.Request, config: Config) -> str:
    """``host:port`` the client typed, or "" where it is not one; a proxy in front may have replaced it and tell the first one."""
    forwarded = request.headers.get("X-Forwarded-Host", "").partition(",")[0].strip() if in_front(request, config) else ""
    host = forwarded or request.headers.get("Host", "")
    return host if HOST.fullmatch(host) else ""


def public_url(request: web.Request, config: Config) -> str:
    """Where this client sees us, ends with ``/``: the configured URL, else the host it typed."""
    host = host_of(request, config)
    if config.listen.public_url or not host:
        return config.public_url
    schemes = request.headers.get("X-Forwarded-Proto", "").lower().split(",") if in_front(request, config) else []
    scheme = "https" if "https" in (item.strip() for item in schemes) else "http"
    return f"{scheme}://{host}{config.listen.base_url}"


async def identify(request: web.Request) -> Client:
    """Who asks: the one place that looks at a request's credentials.

    The site's own tokens make an administrator, those of `web.clients_file` a program; where the site has accounts, a bearer token may be an
    account's. Anybody else has the roles that the site gives to clients without an account. Raises `HubUnavailable`.
    """
    site = request.app[SITE]
    address, token = of_request(request, site.config), _bearer(request)
    if (token and _site_token(token, site.config)) or (not token and _signed_in(request)):
        return Client(address, trusted=True, roles=frozenset(Role))
    if site.accounts and not token and (login := request.app[SEAL].login(request)):
        await proven(request, login)
        token = login.token
    account = await site.accounts.of_token(token) if token and site.accounts else None
    if account:
        return Client(address, account.name, trusted=True, groups=account.groups, roles=account.roles, service=account.service)
    service = services.named(token, site.config.web.clients_file) if token else None
    if service:
        return Client(address, service, trusted=True, service=True)
    return Client(address, roles=ANYBODY if site.config.web.clients_file is None and site.accounts is None else frozenset())


async def require(request: web.Request, role: Role) -> Client:
    """Who asks, if it may do this. Raises `Refused` for everyone else."""
    client = await identify(request)
    if role not in client.roles:
        raise refusal(client, role, request.app[SITE].config)
    return client


def signed_in(request: web.Request) -> SignedIn | None:
    """The administrator's sign-in that the request's cookie stands for; worth something together with the page's key only (`identify`)."""
    cookie = request.cookies.get(COOKIE, "")
    return request.app[SIGN_INS].read(cookie, admin_token(request.app[SITE].config)) if cookie else None


def _signed_in(request: web.Request) -> bool:
    given, found = request.headers.get(XSRF, ""), signed_in(request)
    return found is not None and hmac.compare_digest(given.encode(errors="replace"), found.xsrf.encode())


def refusal(client: Client, role: Role, config: Config) -> Refused:
    """Why somebody may not do it, and what to do."""
    if config.accounts is not None and client.user is None:
        return Refused(UNKNOWN)
    return Refused(NEEDED[role])


def login_name(request: web.Request) -> str:
    """What stands for the log-in of the browser that asks, in build tokens; "" for clients without one."""
    if request.app[SITE].accounts is None or "Authorization" in request.headers:
        return ""
    login = request.app[SEAL].login(request)
    return fingerprint("build-token", login.id)[:32] if login else ""


async def proven(request: web.Request, login: Login) -> None:
    """A cookie comes along by itself, whoever made the page that sends the request. Raises `Refused` when the request has to prove that it is ours.

    Opening a page needs no proof, but a script that reads one is not let: sessions are on the same origin, and what runs in them is anybody's.
    Everything else sends `Seal.proof`, which stands in our pages, as ``X-XSRFToken``, or as ``_xsrf`` in a form; for ``/build`` a build token that
    was made for this log-in will do, too, and is checked by `build`.
    """
    builds = request.path.startswith(f"{request.app[SITE].config.listen.base_url}build/")
    if "build_token" in request.query if builds else request.method in ("GET", "HEAD") and _navigates(request):
        return
    given = request.headers.get(XSRF)
    if given is None and request.content_type == "application/x-www-form-urlencoded":
        given = str((await request.post()).get("_xsrf", ""))
    if not request.app[SEAL].proves(login, given or ""):
        raise Refused(UNPROVEN)


def _navigates(request: web.Request) -> bool:
    """Whether somebody opens a page in a window of its own; a browser that does not say (an old one, or without https) is believed."""
    fetch = request.headers.get("Sec-Fetch-Mode", "navigate"), request.headers.get("Sec-Fetch-Dest", "document")
    return fetch == ("navigate", "document")


def _bearer(request: web.Request) -> str:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() if kind.lower() in ("bearer", "token") else ""


def admin_token(config: Config) -> bytes:
    """The one that people sign in with; empty where there is none."""
    return _read(config, ADMIN_FILES[0])


def admin_token_is(given: str, config: Config) -> bool:
    """Whether it is the token that people sign in with."""
    known = admin_token(config)
    return bool(known) and hmac.compare_digest(given.encode(errors="replace"), known)


def _site_token(token: str, config: Config) -> bool:
    """Whether it is one of the site's; read at each call, so that a new one holds at once."""
    presented = token.encode(errors="replace")
    matches = [hmac.compare_digest(presented, known) for name in ADMIN_FILES if (known := _read(config, name))]
    return any(matches)


def _read(config: Config, name: str) -> bytes:
    try:
        return (config.secrets / name).read_bytes().strip()
    except OSError:
        return b""
