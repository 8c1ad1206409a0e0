"""What is popular: counted by people, public only, and shown as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from binder_onprem.config import Config, GitProvider
from binder_onprem.egress.addresses import AddressRules
from binder_onprem.host.sources import Sources
from binder_onprem.model import LaunchAudit
from binder_onprem.popular import DAYS, Popular, Popularity, ranking
from binder_onprem.providers import anonymous, public
from binder_onprem.web import links
from tests.repos import BUILDERS, GitServer
from tests.unit.parts import Git, Memory
from tests.unit.test_web_contract import read
from tests.unit.webstand import stand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NOW = 1e9
PROVIDERS: Any = {"gh": Git()}


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


def launch(path: str, client: str, *, began: float = NOW - 10, outcome: str = "ready", provider: str = "gh") -> LaunchAudit:
    return LaunchAudit(f"{path}{client}{began}", provider, path, client, began, outcome)


def test_people_count_before_launches() -> None:
    launches = [
        *(launch("many/people/HEAD", f"192.0.2.{n}") for n in range(3)),
        launch("many/people/main", "192.0.2.9"),
        *(launch("two/people/HEAD", f"192.0.2.{n % 2}", began=NOW - n) for n in range(20)),
        *(launch("one/person/HEAD", "192.0.2.1", began=NOW - n) for n in range(50)),
        *(launch("long/ago/HEAD", f"192.0.2.{n}", began=NOW - DAYS * 86400 - 1) for n in range(9)),
        *(launch("never/worked/HEAD", f"192.0.2.{n}", outcome="build") for n in range(9)),
        *(launch("x/y/HEAD", f"192.0.2.{n}", provider="gone") for n in range(9)),
    ]
    assert [one for _, one in ranking(launches, PROVIDERS, NOW)] == [Popular("gh", "many/people/HEAD", 4), Popular("gh", "two/people/HEAD", 20)]


async def test_only_what_anybody_can_read_is_shown() -> None:
    store, asked = Memory(), []
    for name in ("a/public", "b/private", "c/public", "d/public"):
        for n in range(2):
            one = launch(f"{name}/HEAD", f"192.0.2.{n}")
            store.audits[one.launch_id] = one

    async def answers(url: str) -> bool:
        asked.append(url)
        return "private" not in url

    popularity = Popularity(store, PROVIDERS, answers, 2, lambda: NOW)
    await popularity.look()
    assert [one.path for one in popularity.shown] == ["a/public/HEAD", "c/public/HEAD"]
    assert asked == ["https://git.test/a/public", "https://git.test/b/private", "https://git.test/c/public"]
    off = Popularity(store, PROVIDERS, answers, 0, lambda: NOW)
    await off.look()
    assert (off.shown, len(asked)) == ((), 3)


async def test_a_host_is_asked_without_any_account(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    config = Config(network={"allow": ["127.0.0.1"]}, providers=(GitProvider(),))  # type: ignore[arg-type]
    nothing = Sources(b"", None, "", None, None, None, None, (), frozenset())
    BUILDERS["bare"](tmp_path)
    with GitServer(tmp_path) as server:
        asked = public(anonymous(config, nothing, AddressRules.of(config), client))
        assert await asked(server.url("bare"))
        assert not await asked(server.url("absent"))
    assert not await asked("ssh://git@127.0.0.1/owner/repository")
    assert not await asked("10.5281/zenodo.1")


async def test_the_page_shows_them_as_text(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    shown = (Popular("gh", "o/%3Cb%3Er/main", 3), Popular("gl", "g%2Fp/HEAD", 2), Popular("gone", "x/y/HEAD", 2))
    async with stand(tmp_path, popular=lambda: shown, config={"listen": {"base_url": "/b/"}}) as at:
        _, page = await read(client, at.url, {"Accept": "text/html"})
    assert b'<a href="/b/v2/gh/o/%3Cb%3Er/main">o/&lt;b&gt;r</a>' in page
    assert b'<a href="/b/v2/gl/g%2Fp/HEAD">g/p</a>' in page
    assert b"x/y" not in page


async def test_links_and_badges_without_scripts(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path, config={"listen": {"base_url": "/b/"}}) as at:
        query = "provider=gl&repo=https://gitlab.com/g/p&ref=v1&path=a%20b.ipynb&kind=lab"
        _, page = await read(client, f"{at.url}?{query}", {"Accept": "text/html"})
        _, empty = await read(client, f"{at.url}?provider=gl&repo=%20&kind=lab", {"Accept": "text/html"})
        _, hostile = await read(client, f"{at.url}?provider=git&repo=%22%3E%3Cscript%3Ealert(1)%3C/script%3E", {"Accept": "text/html"})
    link = f"{at.url}v2/gl/g%2Fp/v1?urlpath=%2Flab%2Ftree%2Fa%2520b.ipynb"
    text = page.decode()
    assert f'rows="1" readonly spellcheck="false">{link}</textarea>' in text
    assert f"[![Binder]({at.url}badge_logo.svg)]({link})</textarea>" in text
    assert f"&lt;a href=&#34;{link}&#34;&gt;" in text
    assert f"   :target: {link}\n" in text
    assert '<option value="gl" selected>' in text
    assert 'id="share" aria-labelledby="sharetitle">' in text
    assert 'id="shared" hidden>' in empty.decode()
    assert b"<script>alert" not in hostile


def test_badges_are_those_of_the_script() -> None:
    made = links.badges('http://h/v2/gh/o/r/HEAD?a="&b', "http://h/badge_logo.svg", "Binder")
    assert made["markdown"] == '[![Binder](http://h/badge_logo.svg)](http://h/v2/gh/o/r/HEAD?a="&b)'
    assert made["html"] == '<a href="http://h/v2/gh/o/r/HEAD?a=&quot;&amp;b"><img src="http://h/badge_logo.svg" alt="Binder"></a>'
    assert made["rst"] == '.. image:: http://h/badge_logo.svg\n   :target: http://h/v2/gh/o/r/HEAD?a="&b\n   :alt: Binder'
