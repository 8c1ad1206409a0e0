"""The plan comes out of a container that hostile code may own: whatever is not a plan is refused, in words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.errors import BuildFailed
from binder_onprem.plan import PLAN_BYTES, Plan, Step

if TYPE_CHECKING:
    from pathlib import Path

PLAN = Plan(
    "python", "layers", (Step("pip", "run", "0" * 64, "root", "true", ("a/b",)), Step("content", "content", "")), (("A", "b"),), ("x",), ("n",), 3
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    PLAN.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == PLAN


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "shell"},
        {"steps": [{"name": "x"}]},
        {"steps": 3},
        {"env": [["A", 1]]},
        {"env": [["A\0", "b"]]},
        {"bytes": "many"},
        {"notices": [None]},
        {"steps": [{"name": "x", "kind": "run", "key": "", "user": "admin", "script": "", "files": []}]},
        {"steps": [{"name": "x", "kind": "run", "key": "", "user": "root", "script": "", "files": ["../../etc/shadow"]}]},
        {"steps": [{"name": "x", "kind": "run", "key": "", "user": "root", "script": "", "files": ["/etc/shadow"]}]},
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    PLAN.write(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text(json.dumps(json.loads((tmp_path / "plan.json").read_text()) | change))
    with pytest.raises(BuildFailed):
        Plan.read(tmp_path / "plan.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", " " * (PLAN_BYTES + 1), '{"kind": ' * 100_000])
def test_junk_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(BuildFailed):
        Plan.read(tmp_path / "plan.json")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    PLAN.write(tmp_path / "other.json")
    (tmp_path / "plan.json").symlink_to("other.json")
    with pytest.raises(BuildFailed):
        Plan.read(tmp_path / "plan.json")
    with pytest.raises(BuildFailed):
        Plan.read(tmp_path / "missing.json")
