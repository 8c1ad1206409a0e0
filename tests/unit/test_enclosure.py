"""What a build's control group is told on version 2, which this machine need not have; version 1 or 2 for real: tests/real/test_builder."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from binder_onprem.building import enclosure

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

BUILD = "0123456789abcdef"


def test_version_2_needs_the_controllers_handed_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enclosure, "ROOT", tmp_path)
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    told: list[str] = []
    monkeypatch.setattr(enclosure, "_hand_down", lambda: told.append("handed down"))
    group = enclosure.Enclosure(8585, BUILD, memory=2**30, cpus=1.5, pids=99)
    assert group.make()
    assert told == ["handed down"]
    files = {file.name: file.read_text() for file in (tmp_path / f"binder-build-8585-{BUILD}").iterdir()}
    assert files == {"memory.max": str(2**30), "pids.max": "99"}, "without swap and bandwidth there are no files for them"
    # A path, whatever manager containers have: podman's API builds without --systemd-cgroup. Each step's own group is below the one with the limits.
    assert group.inner == f"/binder-build-8585-{BUILD}/run"
    assert enclosure.left(8585) == {BUILD}
    assert enclosure.left(858) == set()


def test_a_steps_group_may_go_while_one_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enclosure, "ROOT", tmp_path)
    group = enclosure.Enclosure(8585, BUILD, memory=2**30, cpus=1, pids=99)
    step = tmp_path / group.name / "run" / "step"
    step.mkdir(parents=True)
    for number, folder in enumerate((step.parents[1], step.parent, step), 1):
        (folder / "cgroup.procs").write_text(f"{number}\n")
    assert group.processes() == [1, 2, 3]
    look = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("/run"):
            shutil.rmtree(path)
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert group.processes() == [1]


def test_a_host_that_gives_no_limit_gives_no_enclosure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enclosure, "ROOT", tmp_path / "none")
    assert not enclosure.Enclosure(8585, BUILD, memory=2**30, cpus=1, pids=99).make()
