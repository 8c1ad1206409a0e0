from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from binder_onprem.building.disk import room, short, watcher
from binder_onprem.errors import EngineUnavailable, LimitHit

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1024**3


def disk(monkeypatch: pytest.MonkeyPatch, total: int, free: int, names: int = 10**6, free_names: int = 10**6) -> None:
    result = os.statvfs_result((4096, 4096, total // 4096, free // 4096, free // 4096, names, free_names, free_names, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: result)


@pytest.mark.parametrize(("total", "free"), [(100 * GIB, GIB), (2 * GIB, GIB // 9)])
def test_enough_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, total: int, free: int) -> None:
    disk(monkeypatch, total, free)
    room(tmp_path)


@pytest.mark.parametrize(("total", "free"), [(100 * GIB, GIB - 4096), (2 * GIB, GIB // 11)])
def test_a_full_disk_is_told_with_both_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, total: int, free: int) -> None:
    disk(monkeypatch, total, free)
    with pytest.raises(EngineUnavailable, match=rf"disk full: {free // 10**6} MB free, needs \d+"):
        room(tmp_path)


def test_room_is_made_before_builds_have_to_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    disk(monkeypatch, 100 * GIB, 5 * GIB)
    assert short(tmp_path) == 0
    disk(monkeypatch, 100 * GIB, 3 * GIB)
    assert short(tmp_path) == GIB
    room(tmp_path)


def test_no_names_left_is_full_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    disk(monkeypatch, 100 * GIB, 50 * GIB, free_names=9_999)
    with pytest.raises(EngineUnavailable, match="9999 files"):
        room(tmp_path)


def test_a_file_system_that_does_not_count_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    disk(monkeypatch, 100 * GIB, 50 * GIB, names=0, free_names=0)
    room(tmp_path)


async def test_the_watcher_stops_what_writes_too_much(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom(2 * 1024**2))
    with pytest.raises(LimitHit, match=r"more than 0\.000977 GiB"):
        await watcher(1024**2)(tmp_path)
