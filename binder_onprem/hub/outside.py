"""The hub's way to an OpenID provider: by the certificates that the site trusts, and through its proxy where the provider is outside.

Tornado's own client knows neither, and its variant that does needs a compiled library.
"""

from __future__ import annotations

import asyncio
import io
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import requests
import urllib3
from tornado.httpclient import HTTPClientError, HTTPRequest, HTTPResponse
from tornado.httputil import HTTPHeaders

from binder_onprem.egress.hostnames import DEFAULT_PORTS
from binder_onprem.egress.outbound import bypasses
from binder_onprem.host import sources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from binder_onprem.config import Config

SECONDS: Final = 10
"""Until an answer begins, and until it has ended."""
BYTES: Final = 1024**2
"""Of an answer."""
AT_ONCE: Final = 16
NO_ANSWER: Final = 599
"""What Tornado calls it."""


@dataclass(frozen=True)
class Outside:
    """Asks; stands in for Tornado's client in the authenticator.

    Attributes:
        ca_file: PEM bundle that is trusted.
        proxy: URL of the site's proxy; None: there is none.
        no_proxy: Hosts reached without it.
    """

    ca_file: str
    proxy: str | None = None
    no_proxy: tuple[str, ...] = ()
    # Of its own: a provider that hangs must not hold up those whose password is being hashed.
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(AT_ONCE, "openid"), repr=False, compare=False)

    @classmethod
    def of(cls, config: Config) -> Outside:
        """The site's way. Raises `ConfigError`, `HostUnfit`."""
        found = sources.read(config)
        return cls(str(sources.bundle(config)), found.proxy, found.no_proxy)

    def ask(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of an answer. Redirects are not followed: they would take tokens elsewhere. Raises `requests.RequestException`."""
        parts = urlsplit(url)
        near = bypasses((parts.hostname or "").lower(), parts.port or DEFAULT_PORTS.get(parts.scheme, 0), self.no_proxy)
        proxies: dict[str, str] = {} if near or self.proxy is None else {"http": self.proxy, "https": self.proxy}
        with requests.Session() as session:
            session.trust_env = False  # no other proxy, no other certificates, no .netrc
            session.verify, session.proxies = self.ca_file, proxies
            with session.request(method, url, headers=headers, data=body, timeout=SECONDS, allow_redirects=False, stream=True) as answer:
                return answer.status_code, dict(answer.headers), _body(answer.raw, time.monotonic() + SECONDS)

    async def fetch(self, request: HTTPRequest, *, raise_error: bool = True) -> HTTPResponse:
        """As Tornado's client does it. Raises HTTPClientError."""
        call = (str(request.method), str(request.url), dict(request.headers), request.body)
        try:
            status, headers, body = await asyncio.get_running_loop().run_in_executor(self._threads, self.ask, *call)
        except requests.RequestException as error:
            raise HTTPClientError(NO_ANSWER, type(error).__name__) from None
        response = HTTPResponse(request, status, HTTPHeaders(headers), io.BytesIO(body))
        if raise_error:
            response.rethrow()
        return response


def _body(raw: urllib3.BaseHTTPResponse, end: float) -> bytes:
    """What comes until then: the timeout of a request begins anew with every byte."""
    body = b""
    try:
        while chunk := raw.read1(BYTES, decode_content=True):
            body += chunk
            if len(body) > BYTES or time.monotonic() > end:
                raise requests.Timeout("too slow or too long")
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(type(error).__name__) from None
    return body
