"""Copying out of a hostile directory."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from binder_onprem.building.contents import Copy, regular
from binder_onprem.errors import BuildFailed, LimitHit

if TYPE_CHECKING:
    from pathlib import Path


def copied(top: Path, limit: int = 1000) -> Copy:
    copy = Copy(limit, threading.Event())
    copy.tree(top / "a", top / "b")
    return copy


def test_files_links_and_modes(tmp_path: Path) -> None:
    (tmp_path / "a" / "d").mkdir(parents=True)
    (tmp_path / "a" / "d" / "f").write_text("x")
    os.link(tmp_path / "a" / "d" / "f", tmp_path / "a" / "g")
    (tmp_path / "a" / "run").write_text("y")
    (tmp_path / "a" / "run").chmod(0o4775)
    (tmp_path / "a" / "away").symlink_to("/etc/passwd")
    (tmp_path / "a" / "dir").symlink_to("/etc")
    copy = copied(tmp_path)
    assert (copy.bytes, copy.files) == (2, 3)
    assert (tmp_path / "b" / "d" / "f").stat().st_ino == (tmp_path / "b" / "g").stat().st_ino
    assert (tmp_path / "b" / "run").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "b" / "away").readlink().as_posix() == "/etc/passwd"
    assert (tmp_path / "b" / "dir").is_symlink()


def test_what_is_no_file_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "a" / "s"))
        copied(tmp_path)
    assert list((tmp_path / "b").iterdir()) == []


def test_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_bytes(bytes(2000))
    with pytest.raises(LimitHit):
        copied(tmp_path)


def test_a_link_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/etc")
    with pytest.raises(BuildFailed, match="not there"):
        copied(tmp_path)


def test_deep_nesting_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    at = os.open(tmp_path / "a", os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    with pytest.raises(BuildFailed, match="nest deeper"):
        copied(tmp_path)


def test_it_can_be_stopped(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_text("x")
    copy = Copy(1000, threading.Event())
    copy.stopped.set()
    copy.tree(tmp_path / "a", tmp_path / "b")
    assert copy.files == 0


@pytest.mark.parametrize(
    ("path", "is_file"), [("f", True), ("d/f", True), ("link", False), ("out/passwd", False), ("d", False), ("absent", False), ("d/../f/x", False)]
)
def test_regular_files_are_told_without_following(tmp_path: Path, path: str, is_file: bool) -> None:  # noqa: FBT001 - an expected value
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    (tmp_path / "d" / "f").touch()
    (tmp_path / "link").symlink_to("f")
    (tmp_path / "out").symlink_to("/etc")
    assert regular(tmp_path, path) is is_file
