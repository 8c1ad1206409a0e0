"""The hub's way to an OpenID provider: by the certificates that the site trusts, through its proxy where the provider is outside."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from binder_onprem.config import Config
from binder_onprem.errors import ConfigError
from binder_onprem.hub.discovery import Provider, ask, discovered
from binder_onprem.hub.outside import Outside
from tests.cluster import proxy as campus
from tests.contract.test_refresh import Provider as Answers
from tests.contract.test_refresh import User, openid, refreshed, state
from tests.real.tlsregistry import certificates
from tests.unit.loopback import answer, listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.unit.loopback import Say


class Whole(Answers):
    """Tells of itself, too."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/.well-known/" not in self.heard.requests[-1]:
            await super().__call__(reader, writer)
            return
        told = {f"{name}_endpoint": f"https://localhost:{self.heard.port}/{name}" for name in ("authorization", "token", "userinfo")}
        await answer("200 OK", json.dumps(told).encode())(reader, writer)


@pytest.fixture
def proxy() -> Iterator[campus.Proxy]:
    with campus.running() as running:
        yield running


@asynccontextmanager
async def provider(folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """One behind TLS: its issuer, and the CA that has to be trusted."""
    ca, certificate, key = certificates(folder)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    whole = Whole()
    async with listening(whole, tls) as whole.heard:
        yield f"https://localhost:{whole.heard.port}", ca


async def found(way: Outside, issuer: str) -> Provider:
    """In a thread, since the provider is in this one."""
    return await asyncio.to_thread(ask, way, issuer)


async def test_a_provider_outside_is_found_and_asked_through_the_proxy(tmp_path: Path, proxy: campus.Proxy) -> None:
    async with provider(tmp_path) as (issuer, ca):
        way = Outside(str(ca), proxy.url("127.0.0.1"))
        assert (await found(way, issuer)).token == f"{issuer}/token"
        assert (await refreshed(openid(issuer, way), User("ada", state("first", "once"))))["groups"] == ["staff"]
        assert (await refreshed(openid(issuer, way), User("ada", state("old", "once"))))["auth_state"]["access_token"] == "token-1"
    assert (proxy.asked, proxy.refused) == ({"localhost"}, 0)


@pytest.mark.parametrize("direct", ["localhost", "*", ".localhost"])
async def test_one_inside_is_asked_without_it(tmp_path: Path, proxy: campus.Proxy, direct: str) -> None:
    async with provider(tmp_path) as (issuer, ca):
        way = Outside(str(ca), proxy.url("127.0.0.1"), ("10.0.0.0/8", direct))
        assert await found(way, issuer)
        assert (await refreshed(openid(issuer, way), User("ada", state("first", "once"))))["groups"] == ["staff"]
    assert proxy.asked == set()


async def test_what_is_wrong_with_the_way_is_told_without_the_account(tmp_path: Path, proxy: campus.Proxy) -> None:
    async with provider(tmp_path / "one") as (issuer, ca):
        stranger = certificates(tmp_path / "other")[0]
        for way, why in (
            (Outside(str(stranger)), "SSLError"),
            (Outside(str(ca), f"http://{campus.NAME}:wrong-password@127.0.0.1:{proxy.port}"), "ProxyError"),
            (Outside(str(ca), f"http://{campus.NAME}:wrong-password@127.0.0.1:1"), "ProxyError"),
        ):
            with pytest.raises(ConfigError, match=f"({why})") as told:
                await found(way, issuer)
            assert "wrong-password" not in str(told.value)
            assert await refreshed(openid(issuer, way), User("ada", state("first", "once"))) is True, "what was known holds"


async def test_what_is_no_provider_is_told_and_what_was_told_last_holds(tmp_path: Path) -> None:
    way = Outside("")
    async with listening(answer("404 Not Found")) as heard:
        with pytest.raises(ConfigError, match="HTTP 404"):
            await found(way, heard.url)
    kept = tmp_path / "hub" / "openid.json"
    kept.parent.mkdir()
    kept.write_text(json.dumps({"issuer": heard.url, "authorize": "https://a", "token": "https://b", "userinfo": "https://c"}))
    assert discovered(Config(home=tmp_path), heard.url, way).token == "https://b"


async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "said",
    [
        trickle,
        answer("200 OK", b"{}", "Content-Encoding: gzip"),
        answer("200 OK", gzip.compress(b" " * 10**8), "Content-Encoding: gzip"),
        answer("200 OK", b"\xff"),
        answer("302 Found", b"", "Location: http://127.0.0.1:1/"),
    ],
    ids=["trickle", "no gzip", "bomb", "no text", "elsewhere"],
)
async def test_whatever_it_says_it_is_told_in_bounded_time(said: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("binder_onprem.hub.outside.SECONDS", 0.5)
    async with listening(said) as heard, asyncio.timeout(5):
        with pytest.raises(ConfigError, match=r"auth\.issuer"):
            await found(Outside(""), heard.url)
        assert await refreshed(openid(heard.url, Outside("")), User("ada", state("first", "once"))) is True
