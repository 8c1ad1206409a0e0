from __future__ import annotations

import pytest

from binder_onprem.queueing import Place, asker, order, places, spoken, waiting
from tests.unit.parts import record, repo


def queue(*askers: str) -> list[str]:
    builds = [record(f"{n:016}", asker=name) for n, name in enumerate(askers)]
    return [f"{build.asker}{int(build.id)}" for build in order(builds, [])]


def test_first_come_first_served_but_nobody_waits_for_all_of_anothers() -> None:
    assert queue("a", "b", "c") == ["a0", "b1", "c2"]
    assert queue("a", "a", "a", "b", "b", "c") == ["a0", "b3", "c5", "a1", "b4", "a2"]
    assert queue() == []


def test_running_builds_are_turns() -> None:
    waiting = [record("1" * 16, asker="a"), record("2" * 16, asker="b")]
    assert [build.asker for build in order(waiting, [record(asker="a")])] == ["b", "a"]


def test_without_a_client_the_repository_asks() -> None:
    assert asker(record()) == repo().url
    assert asker(record(asker="x")) == "x"


def test_places() -> None:
    waiting = [record(f"{n:016}") for n in range(3)]
    assert list(places(waiting, 2, [10, 50, 20]).values()) == [Place(1, 20), Place(2, 20), Place(3, 40)]
    assert list(places(waiting[:1], 2, []).values()) == [Place(1, None)]


@pytest.mark.parametrize(("seconds", "words"), [(0, "1 s"), (89, "89 s"), (90, "2 min"), (1800, "30 min"), (5340, "89 min"), (6000, "2 h")])
def test_spoken(seconds: float, words: str) -> None:
    assert spoken(seconds) == words


def test_what_somebody_in_the_queue_reads() -> None:
    assert waiting(Place(1, None)) == "Waiting for build to start...\n"
    assert waiting(Place(3, None)) == "Waiting for build to start... (number 3 in the queue)\n"
    assert waiting(Place(1, 240)) == "Waiting for build to start... (number 1 in the queue, about 4 min)\n"
