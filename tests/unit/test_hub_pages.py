"""What the hub's pages make of a request's address: the language, and links to the same page in another one; whatever bytes the address has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from yarl import URL

from binder_onprem.config import Config
from binder_onprem.hub import pages
from binder_onprem.web import locale

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    config, catalogues = Config(home=tmp_path), locale.read()

    class Page(RequestHandler):
        def get(self) -> None:
            words: dict[str, Any] = pages._words(self, catalogues, config)
            self.write(f"{words['language']} {words['query']('fr')}")

    server = HTTPServer(Application([("/.*", Page)]))
    (socket, *_) = sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    yield f"http://127.0.0.1:{socket.getsockname()[1]}/login"
    server.stop()
    await server.close_all_connections()


@pytest.mark.parametrize(
    ("query", "language", "other"),
    [
        ("next=%2Fhub%2F", "en", "next=%2Fhub%2F&lang=fr"),
        ("lang=fr&next=a", "fr", "next=a&lang=fr"),
        ("lang=xx", "en", "lang=fr"),
        ("next=%ff", "en", "next=%FF&lang=fr"),
        ("lang=%ff&%e9=%22%3E%3Cscript%3E", "en", "%E9=%22%3E%3Cscript%3E&lang=fr"),
    ],
)
async def test_any_address_has_its_page_in_each_language(url: str, query: str, language: str, other: str) -> None:
    async with aiohttp.ClientSession() as client, client.get(URL(f"{url}?{query}", encoded=True)) as answer:
        assert (answer.status, await answer.text()) == (200, f"{language} {other}")
