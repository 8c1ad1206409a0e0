"""The cache of archives: bounded, whole files only, one process at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from binder_onprem.host import imagecache

if TYPE_CHECKING:
    from pathlib import Path

HOLDS = """
import pathlib, sys
from binder_onprem.host import imagecache
with imagecache.locked(pathlib.Path({!r}), print):
    print("in", flush=True)
    sys.stdin.read()
"""


def keep(folder: Path, key: str, kind: str = "session") -> Path:
    with imagecache.workspace(folder) as work:
        (work / "image.tar").write_text(key)
        return imagecache.keep(folder, kind, key, work / "image.tar")


def test_directory_follows_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert imagecache.directory() == tmp_path / "binder-onprem" / "images"
    assert imagecache.directory().is_dir()


def test_the_last_used_stay(tmp_path: Path) -> None:
    keep(tmp_path, "other", "root")
    for number in range(4):
        os.utime(keep(tmp_path, str(number)), (number, number))
    assert imagecache.find(tmp_path, "session", "0") is None
    assert imagecache.find(tmp_path, "session", "1")
    keep(tmp_path, "4")
    assert sorted(file.name for file in tmp_path.glob("*.tar")) == ["root-other.tar", "session-1.tar", "session-3.tar", "session-4.tar"]


def test_nothing_half_made_is_found_and_it_is_swept(tmp_path: Path) -> None:
    half = tmp_path / ".half-1"
    half.mkdir()
    (half / "image.tar").write_text("half")
    with imagecache.locked(tmp_path, pytest.fail):
        assert not half.exists()
        assert imagecache.find(tmp_path, "session", "image") is None


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fails() -> None:
        with imagecache.workspace(tmp_path) as work:
            (work / "image.tar").write_text("half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fails()
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_waits_and_says_so(tmp_path: Path) -> None:
    script = HOLDS.format(str(tmp_path))
    said: list[str] = []
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "in\n"
        entered = threading.Event()

        def enter() -> None:
            with imagecache.locked(tmp_path, said.append):
                entered.set()

        thread = threading.Thread(target=enter)
        thread.start()
        end = time.monotonic() + 10
        while not said and time.monotonic() < end:
            time.sleep(0.01)
        assert said
        assert not entered.is_set()
        other.stdin.close()
        thread.join(10)
        assert entered.is_set()
