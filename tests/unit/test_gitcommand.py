"""Git's words on their way to the log: lines and progress, no path of the sandbox, ssh with and without the site's key."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from binder_onprem.sandbox.gitcommand import Git, _Output

if TYPE_CHECKING:
    from pathlib import Path


def said(*chunks: bytes) -> list[str]:
    lines: list[str] = []
    output = _Output(lines.append, {"/out/src": "the repository"})
    for chunk in chunks:
        output.feed(chunk)
    output.end()
    return lines


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ((b"a\nb\n",), ["a", "b"]),
        ((b"a\r\nb\r\nc\r\n",), ["a", "b", "c"]),  # ssh's; none is taken for progress
        ((b"a\r", b"\nb\r", b"\n"), ["a", "b"]),
        ((b"1%\r2%\r3%\r\n",), ["1%", "3%"]),
        ((b"in /out/src/x\n", b"rest"), ["in the repository/x", "rest"]),
        ((b"x" * 20_000,), ["x" * 8192]),
    ],
)
def test_lines(chunks: tuple[bytes, ...], lines: list[str]) -> None:
    assert said(*chunks) == lines


def test_the_key_is_copied_for_ssh_and_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lent = tmp_path / ("1" * 32)
    lent.mkdir()
    (lent / "key").write_text("canary")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_SSH_COMMAND", "ssh -o ProxyCommand='x %h %p'")
    git = Git(tmp_path / "top", 5, lambda _line: None, str(lent))
    copy = tmp_path / "home" / lent.name / "key"
    assert copy.read_text() == "canary"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700
    command = git._environment["GIT_SSH_COMMAND"]
    assert command.startswith("ssh -o ProxyCommand='x %h %p' -F /dev/null")
    assert f"-o IdentityFile={copy} -o StrictHostKeyChecking=yes -o UserKnownHostsFile={lent}/known_hosts" in command
    git.forget_key()
    git.forget_key()
    assert not copy.exists()


def test_without_a_key_ssh_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    git = Git(tmp_path / "top", 5, lambda _line: None)
    assert "IdentityFile" not in git._environment["GIT_SSH_COMMAND"]
    git.forget_key()
