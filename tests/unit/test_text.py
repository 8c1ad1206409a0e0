from __future__ import annotations

import time

import pytest

from binder_onprem.text import clean, cut, without_account


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        ("one\ntwo\n", ["one", "two"]),
        ("one\r\ntwo\r\n", ["one", "two"]),
        ("", [""]),
        ("10%\r20%\r30%", ["30%"]),
        ("10%\r20%\r", ["20%"]),
        ("\r\r\r", [""]),
        ("\x1b[31mred\x1b[0m \x1b[1;38:5:4mx", ["\x1b[31mred\x1b[0m \x1b[1;38:5:4mx"]),
        ("\x1b[2J\x1b[1;1H\x1b[?25lhome\x1b[K", ["home"]),
        ("\x9b2Jhome", ["home"]),
        ("\x1b]0;title\x07text", ["text"]),
        ("\x1b]52;c;ZXZpbA==\x1b\\text", ["text"]),
        ("\x1b]8;;https://evil\x1b\\link\x1b]8;;\x1b\\", ["link"]),
        ("\x1bP1$r\x1b\\x\x1b^y\x1b\\z\x1b_q\x9c", ["xz"]),
        ("\x9d0;title\x9ctext", ["text"]),
        ("\x1b(0\x1bcreset\x1b", ["reset"]),
        ("never ended \x1b]0;evil", ["never ended "]),
        ("a\0b", ["a\ufffdb"]),
        ("a\x08\x07\x0bb\tc", ["ab\tc"]),
        ("broken \udcff", ["broken ?"]),
        ("abc\u202edef\u2066", ["abcdef"]),
        ("one\u2028two", ["onetwo"]),
        ("<img onerror=x>", ["<img onerror=x>"]),
        ("é漢字", ["é漢字"]),
    ],
)
def test_clean(raw: str, lines: list[str]) -> None:
    assert clean(raw, 8192) == lines


@pytest.mark.parametrize("piece", ["\x1b[", "\x1b]", "\x1b[0;", "\r", "\x1b\x1b", "\x1b[38;5;", "\x9d", " \x1b(", "\x1b[m"])
def test_hostile_lines_cost_little(piece: str) -> None:
    began = time.process_time()
    clean(piece * (1_000_000 // len(piece)), 8192)
    assert time.process_time() - began < 1


def test_cut() -> None:
    assert cut("short", 100) == "short"
    assert cut("x" * 100, 100) == "x" * 100
    assert cut("x" * 101, 100) == "x" * 100 + " [line cut at 100 bytes]"
    assert cut("é" * 51, 99) == "é" * 49 + " [line cut at 99 bytes]"
    assert cut("\x1b[31m" + "x" * 200, 100) == "\x1b[31m" + "x" * 95 + "\x1b[0m [line cut at 100 bytes]"
    assert cut("x" * 97 + "\x1b[31mred", 100) == "x" * 97 + "\x1b[0m [line cut at 100 bytes]"


@pytest.mark.parametrize(
    ("link", "kept"),
    [
        ("https%3A%2F%2Fuser%3Asecret%40host%2Fx/HEAD", "https%3A%2F%2F…%40host%2Fx/HEAD"),
        ("https%3a%2f%2fsecret%40host%2fx/HEAD", "https%3a%2f%2f…%40host%2fx/HEAD"),
        ("https://user:secret@host/x", "https://…@host/x"),
        ("ssh%3A%2F%2Fgit%40host%2Fx/HEAD", "ssh%3A%2F%2Fgit%40host%2Fx/HEAD"),
        ("ssh%3A%2F%2Falice%3Asecret%40host%2Fx/HEAD", "ssh%3A%2F%2F…%40host%2Fx/HEAD"),
        ("https%3A%2F%2Fhost%2Fx/v%401", "https%3A%2F%2Fhost%2Fx/v%401"),
        ("owner/repository/feature@home", "owner/repository/feature@home"),
    ],
)
def test_accounts_in_links_are_not_recorded(link: str, kept: str) -> None:
    assert without_account(link) == kept


def test_a_link_of_nothing_but_marks_takes_no_time() -> None:
    began = time.monotonic()
    without_account("https://" * 4000 + "%2f" * 4000 + "//" + "x" * 20000)
    assert time.monotonic() - began < 1
