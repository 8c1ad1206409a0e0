"""Whether the package sources answer from here, and whether their certificates are trusted. Asked by `check`, root or not.

One request without a body to each, all at once, through the site's proxy where there is one. What a source answers does not matter: that it does.
"""

from __future__ import annotations

import re
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from binder_onprem.egress.outbound import bypasses
from binder_onprem.host.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from urllib.request import OpenerDirector

    from binder_onprem.host.sources import Sources

TIMEOUT: Final = 10.0
SERVER_ERROR: Final = 500
CA_FIX: Final = "Set network.ca_file to a PEM bundle that has the certificate of who signs it (a site's own CA, a proxy that looks into TLS)."
MIRROR_FIX: Final = "Look at the network, the name server and network.proxy, or set mirrors.* to one that answers here."


def findings(sources: Sources) -> Iterator[Finding]:
    """One finding for the certificates and one for each source that does not answer; one in all if they do."""
    trust = _trust(sources.ca_bundle)
    if trust is None:
        yield Finding("fail", "certificates", "the bundle holds no certificate that can be read", CA_FIX)
        return
    urls = _urls(sources)
    if not urls:
        return
    with ThreadPoolExecutor(len(urls)) as pool:
        said = list(pool.map(lambda url: _ask(url, _opener(url, sources, trust)), urls))
    yield from (finding for finding in said if finding)
    if not any(said):
        yield Finding("ok", "mirrors", f"{len(urls)} package sources answer")


def _trust(bundle: bytes) -> ssl.SSLContext | None:
    try:
        context = ssl.create_default_context(cadata=bundle.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        return None
    return context if context.get_ca_certs() else None


def _urls(sources: Sources) -> list[str]:
    """Those that are named, and the clients' defaults, of which only the host is known."""
    archives = re.findall(r"https?://[^\s\]]+", sources.apt)
    named = [url for url in (sources.pypi, sources.npm, sources.conda, sources.cran, *archives) if url]
    known = {urlsplit(url).hostname for url in named}
    others = [f"{'http' if port == 80 else 'https'}://{host}:{port}/" for host, port in sources.hosts if host not in known]  # noqa: PLR2004 - http
    return sorted({*named, *others})


def _opener(url: str, sources: Sources, trust: ssl.SSLContext) -> OpenerDirector:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    direct = not sources.proxy or bypasses(parts.hostname or "", port, sources.no_proxy)
    return build_opener(ProxyHandler({} if direct else dict.fromkeys(("http", "https"), str(sources.proxy))), HTTPSHandler(context=trust))


def _ask(url: str, opener: OpenerDirector) -> Finding | None:
    parts = urlsplit(url)
    name = parts.hostname or ""
    request = Request(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), method="HEAD")  # noqa: S310 - http or https, as configured
    try:
        with opener.open(request, timeout=TIMEOUT):
            return None
    except HTTPError as error:
        if error.code < SERVER_ERROR:
            return None
        return Finding("warn", "mirrors", f"{name} answers with HTTP status {error.code}", MIRROR_FIX)
    except URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            return Finding("fail", "certificates", f"{name} shows a certificate that is not trusted", CA_FIX)
        return Finding("warn", "mirrors", f"{name} does not answer", MIRROR_FIX)
    except (OSError, ValueError):
        return Finding("warn", "mirrors", f"{name} does not answer", MIRROR_FIX)
