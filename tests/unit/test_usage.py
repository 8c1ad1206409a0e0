"""What sessions use, read from control groups of both versions; what the host's picture holds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from binder_onprem.config import Config
from binder_onprem.engine.usage import Usage, memory, processor_seconds
from binder_onprem.errors import NotFound
from binder_onprem.host import view

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

GROUP = "libpod_parent/libpod-1"


def version_two(root: Path, microseconds: int, used: int = 1000, inactive: int = 300) -> None:
    place = root / GROUP
    place.mkdir(parents=True, exist_ok=True)
    (place / "cpu.stat").write_text(f"usage_usec {microseconds}\nuser_usec 1\n")
    (place / "memory.current").write_text(f"{used}\n")
    (place / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")


def version_one(root: Path) -> None:
    (root / "cpu,cpuacct" / GROUP).mkdir(parents=True)
    (root / "cpu,cpuacct" / GROUP / "cpuacct.usage").write_text("2500000000\n")
    (root / "memory" / GROUP).mkdir(parents=True)
    (root / "memory" / GROUP / "memory.usage_in_bytes").write_text("1000\n")
    (root / "memory" / GROUP / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 400\n")


class Engine:
    def __init__(self) -> None:
        self.found: list[Any] = [SimpleNamespace(name="c1", labels={"io.binder-onprem.launch": "u1"})]
        self.inspected = 0

    async def labelled(self, labels: Any) -> list[Any]:
        assert labels == {"io.binder-onprem.kind": "session"}
        return self.found

    async def inspect(self, name: str) -> dict[str, Any]:
        self.inspected += 1
        if name == "gone":
            raise NotFound("gone")
        return {"State": {"CgroupPath": f"/{GROUP}"}}


async def test_processors_between_two_looks(tmp_path: Path) -> None:
    engine, clock = Engine(), [0.0]
    usage = Usage(engine, tmp_path, lambda: clock[0])
    version_two(tmp_path, 1_000_000)
    first = await usage.now()
    assert (first["u1"].cpu, first["u1"].memory) == (None, 700)
    clock[0] = 2.0
    version_two(tmp_path, 4_000_000)
    assert (await usage.now())["u1"].cpu == 1.5
    clock[0] = 2.1
    assert (await usage.now())["u1"].cpu == 1.5, "too soon to tell anew"
    assert engine.inspected == 1
    engine.found.append(SimpleNamespace(name="gone", labels={}))
    assert (await usage.now()).keys() == {"u1"}
    engine.found = []
    assert await usage.now() == {}


def test_version_one(tmp_path: Path) -> None:
    version_one(tmp_path)
    assert processor_seconds(tmp_path, GROUP) == 2.5
    assert memory(tmp_path, GROUP) == 600


def test_a_group_that_is_gone(tmp_path: Path) -> None:
    assert (processor_seconds(tmp_path, "x"), memory(tmp_path, "x")) == (None, None)


def test_the_hosts_picture_is_looked_at_as_often_as_it_may_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(view, "part_states", lambda _: looked.append("parts") or [])
    monkeypatch.setattr(view.check, "findings", lambda _: looked.append("findings") or [])
    clock = [0.0]
    picture = view.View(Config(home=tmp_path), lambda: clock[0])
    for seconds in (0.0, 10.0, 20.0, 130.0):
        clock[0] = seconds
        found = picture.now()
    assert looked == ["parts", "findings", "parts", "parts", "findings"]
    assert found["storage"][0]["place"] == "home"
    assert 0 < found["storage"][0]["free"] <= found["storage"][0]["bytes"]
    assert found["memory"]["available"] <= found["memory"]["bytes"]
    assert found["processors"] >= 1
    assert found["versions"]["kernel"]
    assert found["certificates"] == []
