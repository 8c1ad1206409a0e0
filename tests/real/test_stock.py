"""repo2docker's own buildpacks on this site's base image: a conda environment from a mirror, from the link to the kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.e2e.kernel import kernel
from tests.e2e.stand import Stand, git_spec, launch
from tests.real import condamirror
from tests.repos import GitServer, Repository

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real
FILES = {
    "binder/environment.yml": "channels: [conda-forge]\ndependencies:\n - python=3.12\n",
    "binder/apt.txt": "tree\n",
    "binder/postBuild": "#!/bin/bash\nwget --version > built.txt\n",
    "binder/start": '#!/bin/bash\nexport STARTED=yes\nexec "$@"\n',
}
CODE = "import os, shutil, sys; print(os.environ['STARTED'], shutil.which('tree'), sys.prefix, os.path.getsize('built.txt') > 0, shutil.which('gcc'))"


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    """A Binder with a conda mirror; or, while developing, the one that the environment names."""
    if "BINDER_ONPREM_TEST_HOME" in os.environ:
        yield Stand.at(Path(os.environ["BINDER_ONPREM_TEST_HOME"]))
        return
    stand = Stand.new(samples=False)
    try:
        stand.configure(mirrors={"conda": f"http://127.0.0.1:{stand.port + 11}/conda"})
        stand.up()
        yield stand
    finally:
        stand.destroy()


async def test_an_environment_yml_with_everything_beside_it(stand: Stand, tmp_path: Path) -> None:
    Repository.make(tmp_path, "conda", FILES)
    port = urlsplit(stand.settings["mirrors"]["conda"]).port
    assert port
    with condamirror.serving(port) as asked, GitServer(tmp_path) as server:
        end, before = await launch(stand, git_spec(server.url("conda")))
        assert end["phase"] == "ready", "".join(event["message"] for event in before)[-3000:] + end["message"]
        async with kernel(end) as session:
            printed = await session.run(CODE)
    assert printed.split() == ["yes", "/usr/bin/tree", "/srv/conda/envs/notebook", "True", "/usr/bin/gcc"]
    if "BINDER_ONPREM_TEST_HOME" in os.environ:
        return  # a home that was used before has the steps in podman's cache, and asks nothing again
    first, micromamba, index, *locked, last = asked
    assert first == "/"  # whether it is there
    assert micromamba.startswith("/conda/conda-forge/linux-64/micromamba-")
    assert [index, last] == ["/conda/conda-forge/linux-64/repodata.json.zst", "/conda/conda-forge/noarch/repodata.json.zst"]
    assert len(locked) == 3
    assert all(path.startswith("/conda/conda-forge/") for path in locked)


async def test_a_mirror_that_does_not_answer_is_named_before_anything_is_built(stand: Stand, tmp_path: Path) -> None:
    Repository.make(tmp_path, "conda", {"environment.yml": "dependencies: []\n"})
    with GitServer(tmp_path) as server:
        end, _ = await launch(stand, git_spec(server.url("conda")))
    assert end["phase"] == "failed"
    assert "environment.yml" in end["message"]
    assert "mirrors.conda" in end["message"]
