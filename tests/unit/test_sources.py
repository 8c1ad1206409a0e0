"""Mirrors, proxy, certificates: configuration before what was learned before what the clients say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from binder_onprem.config import Config
from binder_onprem.errors import ConfigError, HostUnfit
from binder_onprem.host import clients, sources
from binder_onprem.host.sources import Sources

if TYPE_CHECKING:
    from pathlib import Path

APT = "Types: deb\nURIs: http://apt.site.example/debian\nSuites: bookworm\nComponents: main\n"


def learned(**changes: object) -> sources.Learned:
    values: dict[str, object] = {
        "pypi": None,
        "default_pypi": "https://index.example/simple",
        "npm": "https://npm.example/",
        "conda": None,
        "apt": APT,
        "proxy": "http://proxy.example:3128",
        "no_proxy": ("inside.example",),
        "linked_for": ("", ""),
        "linked": (("files.example", 443),),
    }
    return sources.Learned(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("PEM")
    monkeypatch.setattr(sources, "BUNDLES", (bundle,))
    monkeypatch.setattr(sources, "_ask", lambda _: learned())
    return tmp_path


def test_hosts_are_mirrors_defaults_archives_and_what_the_index_links_to(home: Path) -> None:
    found = sources.read(Config(home=home))
    assert found.pypi is None
    assert found.ca_bundle == b"PEM"
    assert found.hosts == {("index.example", 443), ("npm.example", 443), ("apt.site.example", 80), ("files.example", 443)}


def test_configuration_goes_first(home: Path) -> None:
    apt = home / "site.sources"
    apt.write_text("deb [trusted=yes] http://other.example:8080/ubuntu noble main\n")
    config = Config.model_validate(
        {
            "home": home,
            "mirrors": {"pypi": "https://pypi.site.example/simple", "apt": apt, "cran": "https://cran.site.example"},
            "network": {"proxy": "http://p.example:1", "no_proxy": ["x.example"]},
        }
    )
    found = sources.read(config)
    assert (found.pypi, found.proxy, found.no_proxy) == ("https://pypi.site.example/simple", "http://p.example:1", ("x.example",))
    assert {("pypi.site.example", 443), ("other.example", 8080), ("cran.site.example", 443)} <= found.hosts
    assert ("index.example", 443) not in found.hosts


def test_a_file_that_is_not_there_is_named_by_its_key(home: Path) -> None:
    config = Config.model_validate({"home": home, "mirrors": {"apt": home / "absent"}})
    with pytest.raises(ConfigError, match=r"mirrors\.apt"):
        sources.read(config)


def test_learning_keeps_the_answers_and_asks_the_network_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def linked(pypi: str, npm: str, env: dict[str, str]) -> frozenset[tuple[str, int]]:
        asked.append((pypi, npm))
        assert env["HTTPS_PROXY"] == "http://proxy.example:3128"
        return frozenset({("cdn.example", 443)})

    monkeypatch.setattr(clients, "linked_hosts", linked)
    config = Config.model_validate({"home": home, "network": {"proxy": "http://proxy.example:3128"}})
    for _ in range(2):
        assert ("cdn.example", 443) in sources.learn(config).hosts
    assert asked == [("https://index.example/simple", "https://npm.example/")]
    file = home / "etc" / "sources.json"
    assert file.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(sources, "_ask", lambda _: pytest.fail("read asks nobody once it was learned"))
    assert ("cdn.example", 443) in sources.read(config).hosts


@pytest.mark.parametrize("text", ["", "[]", "{", json.dumps({"pypi": 1})])
def test_a_damaged_file_is_as_none(home: Path, text: str) -> None:
    (home / "etc").mkdir()
    (home / "etc" / "sources.json").write_text(text)
    assert ("files.example", 443) in sources.read(Config(home=home)).hosts


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://a.example/simple", (("a.example", 443),)),
        ("http://user:pw@a.example:81/", (("a.example", 81),)),
        ("file:///srv/wheels", ()),
        ("http://a.example:99999/", ()),
        ("", ()),
    ],
)
def test_host_of(url: str, host: tuple[tuple[str, int], ...]) -> None:
    assert clients.host_of(url) == host


def test_archives_of_other_projects_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = [
        "http://a.example/debian/ bookworm main",
        "http://a.example/debian/ bookworm contrib",
        "http://a.example/debian-security/ bookworm-security main",
        "http://docker.example/ bookworm stable",
        "http://pg.example/ bookworm-pgdg main",
        "http://node.example/ nodistro main",
    ]
    monkeypatch.setattr(clients, "ask", lambda *_, **__: "\n".join(targets))
    monkeypatch.setattr(clients, "release", lambda: {"ID": "nowhere", "VERSION_CODENAME": "bookworm"})
    text = clients.apt_sources("bookworm")
    assert text.count("Types: deb") == 2
    assert "Components: contrib main" in text
    assert not any(name in text for name in ("docker", "pg.example", "node.example"))
    assert "Suites: trixie-security" in clients.apt_sources("trixie")


def test_index_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "ask", lambda *_, **__: "global.cert='/x'\nglobal.index-url='https://conf.example/simple'")
    assert clients.index({"PIP_INDEX_URL": "https://env.example/simple"}) == "https://env.example/simple"
    assert clients.index({}) == "https://conf.example/simple"


def test_a_client_that_is_not_there_says_nothing() -> None:
    assert clients.ask("/nonexistent/client") == ""


@pytest.mark.parametrize(
    ("hosts", "on_loopback", "direct"),
    [
        ((), (), "localhost,127.0.0.1,::1"),
        ((("mirror.example.org", 443),), (), "localhost,127.0.0.1,::1"),
        ((("127.0.0.1", 3141), ("mirror.example.org", 443)), ("127.0.0.1",), "localhost,::1"),
        ((("localhost", 3141),), ("localhost",), "127.0.0.1,::1"),
        ((("127.0.1.1", 80), ("::1", 80)), ("127.0.1.1", "::1"), "localhost,127.0.0.1"),
    ],
)
def test_mirrors_on_loopback(hosts: tuple[tuple[str, int], ...], on_loopback: tuple[str, ...], direct: str) -> None:
    found = Sources(b"", None, "", None, None, None, None, (), frozenset(hosts))
    assert (found.on_loopback, found.direct) == (on_loopback, direct)


def test_with_a_bundle_only_mirrors_that_are_named_count(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(
        clients, "linked_hosts", lambda *named, **_: asked.append(named) or frozenset({("files.site.example", 443)} if any(named) else ())
    )
    monkeypatch.setattr(sources, "_ask", lambda _: learned(pypi="https://client.example/simple", julia="https://julia.example", linked=()))
    config = Config.model_validate({"home": home, "mirrors": {"bundle": "/srv/bundle"}})
    found = sources.learn(config)
    assert (found.pypi, found.npm, found.conda, found.apt, found.hosts) == (None, None, None, APT, frozenset())
    found = sources.learn(Config.model_validate({"home": home, "mirrors": {"bundle": "/srv/bundle", "pypi": "https://pypi.site.example/simple"}}))
    assert found.hosts == {("pypi.site.example", 443), ("files.site.example", 443)}
    assert asked == [("", ""), ("https://pypi.site.example/simple", "")]


def test_a_bundle_without_packages_of_the_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostUnfit, match="has no packages"):
        sources.bundled(tmp_path, "bookworm")
    (tmp_path / "debs").mkdir()
    (tmp_path / "debs/Release").write_text("Label: bundle\nCodename: bookworm\n")
    assert sources.bundled(tmp_path, "bookworm") == f"deb [trusted=yes] copy:{tmp_path}/debs ./\n"
    with pytest.raises(HostUnfit, match="no packages of trixie"):
        sources.bundled(tmp_path, "trixie")
