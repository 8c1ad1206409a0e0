"""Shares of a gate: what one container takes is not taken from another."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from binder_onprem.egress import shares
from binder_onprem.egress.gate import EACH, SEATS, seats
from binder_onprem.egress.shares import Shares
from tests.unit.test_egress import allowing, gate, get

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_container_leaves_room_for_another() -> None:
    subject = Shares(total=6, each=3, rate=100)
    assert [subject.take("a") for _ in range(5)] == [True, True, True, False, False]
    assert [subject.take("b") for _ in range(3)] == [True, True, True]
    assert not subject.take("c")
    subject.give("a")
    assert subject.take("c")
    assert subject.open == 6


def test_new_ones_are_counted_by_the_second() -> None:
    clock = Clock()
    subject = Shares(total=100, each=100, rate=5, now=clock)
    for _ in range(5):
        assert subject.take("a")
        subject.give("a")
    assert not subject.take("a")
    assert subject.take("b")
    clock.now += 1
    assert subject.take("a")


def test_containers_that_are_gone_are_forgotten() -> None:
    subject = Shares(total=10**6, each=1, rate=1)
    assert subject.take("stays")
    for number in range(5 * shares.KNOWN):
        assert subject.take(str(number))
        subject.give(str(number))
    assert len(subject._shares) <= shares.KNOWN
    assert not subject.take("stays")


def test_a_gate_has_room_for_all_builds_at_once() -> None:
    assert seats(2) >= 2 * EACH
    assert seats(10**6) == SEATS


@pytest.mark.parametrize(
    ("text", "first"), [("root:1:2\ncontainers:2000000:16777216\n", 2_000_000), ("", 0), ("containers:x:1\n", 0), ("containers\n", 0)]
)
def test_where_containers_ids_begin(text: str, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "SUBIDS", tmp_path / "subuid")
    assert shares.first_id() == 0
    (tmp_path / "subuid").write_text(text)
    assert shares.first_id() == first


CONNECT = """
import os, socket, sys, time
os.setuid(int(sys.argv[2]))
ends = []
for _ in range(int(sys.argv[3])):
    end = socket.socket(socket.AF_UNIX)
    end.connect(sys.argv[1])
    ends.append(end)
print("there", flush=True)
time.sleep(30)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_a_build_that_takes_all_it_can_does_not_keep_another_out(tmp_path: Path) -> None:
    first = shares.first_id()
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    async with gate(tmp_path, allowing(connections=50, each=20)) as ask:
        arguments = ("python3", "-c", CONNECT, str(tmp_path / "gate.sock"), str(first + 3 * shares.BLOCK + 7), "40")
        greedy = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
        try:
            assert greedy.stdout is not None
            assert await asyncio.wait_for(greedy.stdout.readline(), 20) == b"there\n"
            await asyncio.sleep(0.2)
            answers = await asyncio.gather(*(ask(get("http://127.0.0.1:1/"), until=b"\r\n\r\n") for _ in range(10)))
            assert all(answer.startswith(b"HTTP/1.1 502") for answer in answers)  # let in, and told that nothing listens there
        finally:
            greedy.kill()
            await greedy.wait()
        await asyncio.sleep(0.2)
