"""What the web decides without a network: Accept, addresses, links, tokens, languages."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from binder_onprem.config import Config
from binder_onprem.errors import InvalidSpec
from binder_onprem.web import accept, links, locale, pages
from binder_onprem.web.clients import client_address
from binder_onprem.web.target import Target, target
from binder_onprem.web.tokens import LIFETIME, BuildTokens
from tests.translate import of_files
from tests.unit.webstand import displays

CASES = json.loads((Path(__file__).parent / "web_scripts" / "links.json").read_text())


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("text/event-stream", True),
        ("text/html, text/event-stream", True),
        ("*/*, Text/Event-Stream;q=0.5", True),
        ("text/event-stream;q=0", False),
        ("text/event-stream;q=x", False),
        ("text/*", False),
        ("*/*", False),
        (" ;q=1,,;", False),
        ("", False),
        (None, False),
        ("x," * 100 + "text/event-stream", False),
    ],
)
def test_events_named(header: str | None, *, named: bool) -> None:
    assert accept.events_named(header) is named


@pytest.mark.parametrize(
    ("header", "html"),
    [
        ("text/html,application/xhtml+xml,*/*;q=0.8", True),
        ("application/json", False),
        ("application/json, text/html;q=0.5", False),
        ("*/*", False),
        (None, False),
    ],
)
def test_html_preferred(header: str | None, *, html: bool) -> None:
    assert accept.html_preferred(header) is html


@pytest.mark.parametrize(
    ("header", "chosen"), [("fr-CA,fr;q=0.8,en;q=0.5", "fr"), ("en;q=0.5,fr;q=0.6", "fr"), ("de", "en"), ("fr;q=0", "en"), (None, "en")]
)
def test_language(header: str | None, chosen: str) -> None:
    assert accept.language(header, ("en", "fr"), "en") == chosen


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "client"),
    [
        ("127.0.0.1", "203.0.113.9", (), "203.0.113.9"),
        ("127.0.0.1", "1.2.3.4,203.0.113.9", (), "203.0.113.9"),
        ("127.0.0.1", "1.2.3.4, 127.0.0.1", (), "127.0.0.1"),
        ("127.0.0.1", "1.2.3.4, ::ffff:203.0.113.9", (), "203.0.113.9"),
        ("127.0.0.1", "5.6.7.8, 198.51.100.1, 10.0.0.2", ("10.0.0.0/8",), "198.51.100.1"),
        ("127.0.0.1", "5.6.7.8, 10.0.0.3, 10.0.0.2", ("10.0.0.2",), "10.0.0.3"),
        ("203.0.113.5", "1.2.3.4", (), "203.0.113.5"),
        ("203.0.113.5", "1.2.3.4", ("203.0.113.0/24",), "1.2.3.4"),
        ("127.0.0.1", "evil\r\nforged: line", (), "127.0.0.1"),
        ("127.0.0.1", "", (), "127.0.0.1"),
        ("127.0.0.1", "10.0.0.1", ("10.0.0.0/8",), "10.0.0.1"),
        ("unknown", "1.2.3.4", (), "unknown"),
    ],
)
def test_client_address(peer: str, forwarded: str, trusted: tuple[str, ...], client: str) -> None:
    assert client_address(peer, forwarded, trusted) == client


@pytest.mark.parametrize(
    ("raw", "base", "expected"),
    [
        ("/build/gh/o/r/HEAD?a=/b", "/", ("gh", "o/r/HEAD")),
        ("/build/gl/g%2Fp/feature%2Fx/", "/", ("gl", "g%2Fp/feature%2Fx")),
        ("/a%40b/c/v2/git/https%3A%2F%2Fh%2Fr//main", "/a@b/c/", ("git", "https%3A%2F%2Fh%2Fr//main")),
        ("http://h:1/build/gh/o/r/x#y", "/", ("gh", "o/r/x")),
    ],
)
def test_target(raw: str, base: str, expected: tuple[str, str]) -> None:
    assert target(raw, base) == Target(*expected)


@pytest.mark.parametrize("raw", ["/build/gh/", "/build/gh", "/build/gh///", "/build/gh/" + "x" * 5000, "http://h"])
def test_bad_targets(raw: str) -> None:
    with pytest.raises(InvalidSpec):
        target(raw, "/")


def test_names_for_people() -> None:
    assert Target("gh", "o/r/feature/x").named(whole=False) == ("o/r", "feature/x")
    assert Target("git", "https%3A%2F%2Fh%2Fr/main").named(whole=True) == ("https://h/r", "main")


def test_build_tokens() -> None:
    tokens = BuildTokens(b"s" * 32)
    token = tokens.issue("gh/o/r/HEAD", "h:1")
    assert tokens.valid(token, "gh/o/r/HEAD", "h:1")
    assert not tokens.valid(token, "gh/o/r/main", "h:1")
    assert not tokens.valid(token, "gh/o/r/HEAD", "h:2")
    old = tokens.issue("a", "h", now=time.time() - LIFETIME - 10)
    assert not tokens.valid(old, "a", "h")
    assert tokens.valid(old, "a", "h", grace=60)
    assert "ssss" not in repr(tokens)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["repo"])
def test_links(case: dict[str, Any]) -> None:
    shown = next(item for item in displays(Config()) if item["id"] == case["provider"])
    given = (case["repo"], case["ref"], case["path"], case["kind"])
    if case["link"] is None:
        with pytest.raises(InvalidSpec):
            links.launch_path(shown, *given)
    else:
        assert links.launch_path(shown, *given) == case["link"]


def test_json_in_scripts_cannot_end_them() -> None:
    text = pages.script_json({"x": "</script><!--&\u2028"})
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == {"x": "</script><!--&\u2028"}


def test_french_is_complete() -> None:
    french = locale.read().strings("fr")
    wanted = of_files() | {item["repo"]["label"] for item in displays(Config())}
    assert len(wanted) > 60
    assert wanted - french.keys() == set()
    assert all(french.values())


def test_placeholders_survive_translation() -> None:
    for source, text in locale.read().strings("fr").items():
        assert set(re.findall(r"\{\w+\}", source)) == set(re.findall(r"\{\w+\}", text)), source
