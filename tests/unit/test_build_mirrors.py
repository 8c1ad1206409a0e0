"""What builds are told of a mirror on this machine's own loopback: that it is not theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.building.dockerbuild import DockerBuild
from binder_onprem.building.layerbuild import LayerBuild, _Work
from binder_onprem.config import Config
from binder_onprem.host.sources import Sources
from binder_onprem.model import BuildRecord, BuildState, ImageRef, RepoSpec, ResolvedRepo
from binder_onprem.plan import Plan, Step

if TYPE_CHECKING:
    from pathlib import Path

NOBODY: Any = None
BUILD = BuildRecord("1" * 16, ImageRef("r", "t"), ResolvedRepo(RepoSpec("git", "x", "u", "HEAD", "x"), "a" * 40, "x", "u"), BuildState.RUNNING, 0.0)


def sources(*hosts: tuple[str, int]) -> Sources:
    return Sources(b"", None, "", None, None, None, None, (), frozenset(hosts))


@pytest.mark.parametrize(("hosts", "direct"), [((), "localhost,127.0.0.1,::1"), ((("127.0.0.1", 3141),), "localhost,::1")])
def test_steps_and_dockerfiles(hosts: tuple[tuple[str, int], ...], direct: str, tmp_path: Path) -> None:
    config, given = Config(home=tmp_path), sources(*hosts)
    arguments = dict(DockerBuild(config, given, NOBODY, NOBODY, "base")._arguments())
    assert arguments["NO_PROXY"] == arguments["no_proxy"] == direct
    plan = Plan("Python", "layers", env=(("BINDER_DIRECT", "*"),))
    work = _Work(BUILD, plan, tmp_path, NOBODY, "r", config.build, NOBODY)
    layers = LayerBuild(config, NOBODY, NOBODY, NOBODY, "base", direct=given.direct)
    assert dict(layers._run(work, Step("x", "run", "", script="true"), 0, "i").env)["BINDER_DIRECT"] == direct
