"""The real supervisord: parts come back, only what changed is restarted, nothing is left."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from binder_onprem.config import Config
from binder_onprem.host.parts import Part
from binder_onprem.host.supervisord import Supervisord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.real, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: run the tests by `make test`")]

SLEEP = ("/bin/sleep", "600")
ONE, TWO = Part("one", SLEEP, "unix:/nothing"), Part("two", SLEEP, "unix:/nothing", user="nobody")


@pytest.fixture
def keeper() -> Iterator[Supervisord]:
    with tempfile.TemporaryDirectory(prefix="bo", dir="/var/tmp") as home:
        Path(home).chmod(0o711)
        config = Config(home=Path(home))
        for directory in (config.run, config.logs):
            directory.mkdir()
        found = Supervisord(config)
        yield found
        found.leave()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def start(keeper: Supervisord, *parts: Part) -> dict[str, int]:
    for part in parts:
        keeper.start(part.name)
    until(lambda: all(keeper.states()[part.name].state == "running" for part in parts))
    return {name: status.pid for name, status in keeper.states().items()}


def test_a_killed_part_comes_back(keeper: Supervisord) -> None:
    assert keeper.prepare([ONE, TWO]) == {"one", "two"}
    pids = start(keeper, ONE, TWO)
    os.kill(pids["one"], signal.SIGKILL)
    until(lambda: keeper.states()["one"].pid not in (0, pids["one"]) and keeper.states()["one"].state == "running")
    assert keeper.states()["two"].pid == pids["two"]


def test_only_what_changed_is_restarted(keeper: Supervisord) -> None:
    keeper.prepare([ONE, TWO])
    pids = start(keeper, ONE, TWO)
    assert keeper.prepare([ONE, TWO]) == frozenset()
    assert keeper.prepare([ONE, replace(TWO, env=(("A", "b"),))]) == {"two"}
    assert keeper.states()["one"].pid == pids["one"]
    assert keeper.prepare([ONE]) == frozenset()
    assert set(keeper.states()) == {"one"}


def test_a_killed_supervisord_leaves_nobody_behind(keeper: Supervisord) -> None:
    keeper.prepare([ONE])
    pid = start(keeper, ONE)["one"]
    os.kill(int(keeper._pid.read_text()), signal.SIGKILL)
    until(lambda: not keeper.states())
    assert Path(f"/proc/{pid}").exists()
    keeper.prepare([ONE])
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert start(keeper, ONE)["one"] != pid


def test_leaving_stops_all_and_is_repeatable(keeper: Supervisord) -> None:
    keeper.prepare([ONE])
    pid = start(keeper, ONE)["one"]
    keeper.leave()
    assert not Path(f"/proc/{pid}").exists()
    keeper.leave()
    assert keeper.states() == {}
