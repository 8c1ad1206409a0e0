"""Settings that no part could use are refused when they are read, by their key and in words that say what is meant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from binder_onprem.config import load
from binder_onprem.errors import ConfigError

if TYPE_CHECKING:
    from binder_onprem.config import Config


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BINDER_ONPREM_HOME", "BINDER_ONPREM_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def read(folder: Path, settings: Any) -> Config:
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return load(file)


REFUSED = {
    "listen.host": ["binder.example", "", "0.0.0.0 x", "300.1.1.1"],
    "listen.base_url": ["/../x", "/a//b/"],
    "listen.public_url": ["foo", "ftp://x", "https://x/?a", "https://user@x/", "https://x:99999/"],
    "listen.trusted_proxies": [["proxy.example"]],
    "network.allow": [["http://x/"], ["10.0.0.0/99"], ["10.0.0.5/8"], ["host:99999"], [""], ["a b"], ["x:y:z"]],
    "network.proxy": ["foo", "socks5://x", "http://", "http://x/path"],
    "network.pool": ["x", "8.0.0.0/8", "127.0.0.0/8", "10.213.1.0/16", "10.213.0.0/24"],
    "mirrors.pypi": ["foo", "https://"],
    "mirrors.npm": ["foo"],
    "session.memory": [1, -1, "2 Gigs"],
    "build.timeout": [float("inf"), float("nan"), 0],
    "build.from_allowed": [["a b"]],
    "build.base": [
        {"kind": "image", "image": "--all"},
        {"kind": "distribution", "suite": "../x"},
        {"kind": "distribution", "packages": ["--option"]},
        {"kind": "distribution", "packages": ["a,b"]},
        {"kind": "distribution", "python_packages": ["--index-url=http://x"]},
        {"kind": "distribution", "python_packages": ["a\nb"]},
    ],
    "admission.allowed": [["("]],
    "admission.ban_networks": [{"foo": "x"}],
    "web.cors_allow_origin": ["foo", "https://x/"],
    "database": ["foo", "postgresql://x"],
    "providers": [[], [{"kind": "gitlab", "prefix": "A/B"}], [{"kind": "gitlab", "url": "x"}], [{"kind": "svn"}]],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in REFUSED.items() for value in values])
def test_what_no_part_could_use_is_refused_by_its_key(tmp_path: Path, key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    with pytest.raises(ConfigError) as error:
        read(tmp_path, {section: {name: value} if name else value})
    assert f": {key}" in error.value.message


ACCEPTED = {
    "listen.host": ["0.0.0.0", "::", "::1", "localhost", "10.1.2.3"],  # noqa: S104 - what people write
    "listen.trusted_proxies": [["10.0.0.1", "10.0.0.0/8", "fd00::/8"]],
    "network.allow": [
        ["127.0.0.0/8", "10.1.2.3", "10.1.2.3:8080", "git.uni.example", "git.uni.example:8443", "*.uni.example", "fd00::1", "[fd00::1]:80"]
    ],
    "network.proxy": ["http://proxy.example:3128", "http://user:secret@proxy.example:3128/"],
    "network.pool": ["10.9.0.0/16", "172.20.0.0/16", "192.168.64.0/20", "100.64.0.0/16"],
    "mirrors.pypi": ["https://user:secret@mirror.example/simple"],
    "admission.allowed": [["^git/.*", r"gh/(uni|dept)/.*"]],
    "admission.ban_networks": [{"192.0.2.0/24": "lab", "192.0.2.7": "one"}],
    "web.cors_allow_origin": ["*", "https://pages.example", "http://pages.example:8000"],
    "database": ["postgresql+asyncpg://binder@db/binder", "sqlite+aiosqlite:////var/lib/x.sqlite"],
    "build.base": [
        {"kind": "image", "image": "registry.example:5000/a/b@sha256:" + "0" * 64},
        {"kind": "distribution", "suite": "trixie", "packages": ["libgl1", "g++"], "python_packages": ["numpy>=2,<3", "x[y]"]},
    ],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in ACCEPTED.items() for value in values])
def test_what_people_write_is_accepted(tmp_path: Path, key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    read(tmp_path, {section: {name: value} if name else value})


def test_a_public_url_with_a_path_needs_the_same_prefix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="base_url must be /binder/"):
        read(tmp_path, {"listen": {"public_url": "https://uni.example/binder"}})
    config = read(tmp_path, {"listen": {"public_url": "https://uni.example/binder", "base_url": "binder"}})
    assert (config.public_url, config.listen.base_url) == ("https://uni.example/binder/", "/binder/")


def test_an_account_in_a_url_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, {"mirrors": {"pypi": "ftp://user:secret@mirror.example/"}})
    assert "secret" not in error.value.message


def test_a_section_without_lines_says_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, {"listen": None, "session": None}).listen.port == 8585


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(home=Path("site")).home == tmp_path / "site"
