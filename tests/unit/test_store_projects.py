"""People's projects as they are kept, on both databases."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from binder_onprem.errors import StoreUnavailable
from binder_onprem.project import Project
from binder_onprem.store import open_engine, opened
from binder_onprem.store.projects import SqlProjects

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

THESIS = Project(
    "0123456789abcdef",
    "ada",
    "thesis",
    0,
    2**40,
    "gh",
    "o/r/HEAD",
    "https://h/o/r",
    "c" * 40,
    f"gh/o/r/{'c' * 40}",
    "",
    created=1.0,
    used=1.0,
)
OTHER = replace(THESIS, id="1123456789abcdef", owner="bob", slot=1, used=5.0)


@pytest.fixture
async def projects(url: str) -> AsyncIterator[SqlProjects]:
    async with open_engine(url) as engine, opened(SqlProjects, engine) as found:
        yield found


async def test_each_has_their_own_and_what_changes_is_kept(projects: SqlProjects) -> None:
    await projects.add(THESIS)
    await projects.add(OTHER)
    assert await projects.projects() == [OTHER, THESIS]
    assert await projects.projects("ada") == [THESIS]
    await projects.change(THESIS.id, {"used": 9.0, "made": True, "bytes": 2**35, "image": "r/x@sha256:1"})
    assert await projects.projects("ada") == [replace(THESIS, used=9.0, made=True, bytes=2**35, image="r/x@sha256:1")]
    await projects.drop(THESIS.id)
    await projects.drop(THESIS.id)
    await projects.change(THESIS.id, {"used": 10.0})
    assert await projects.projects() == [OTHER]


@pytest.mark.parametrize("twin", [replace(THESIS, id="2123456789abcdef", slot=2), replace(OTHER, id="3123456789abcdef", name="more", slot=0)])
async def test_no_two_have_one_name_or_one_range_of_ids(projects: SqlProjects, twin: Project) -> None:
    await projects.add(THESIS)
    with pytest.raises(StoreUnavailable):
        await projects.add(twin)
    assert await projects.projects() == [THESIS]


async def test_text_that_a_database_refuses_is_made_plain(projects: SqlProjects) -> None:
    await projects.add(replace(THESIS, path="o/r/a\0b"))
    assert [project.path for project in await projects.projects()] == ["o/r/a\ufffdb"]
