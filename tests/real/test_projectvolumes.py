"""Projects' volumes on the real engine: made whole or not at all, the same files and owners at every start, no larger than their quota."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from binder_onprem.config import load
from binder_onprem.engine.containers import Containers, Mount, Run
from binder_onprem.engine.images import Images
from binder_onprem.engine.projectvolumes import ProjectVolumes
from binder_onprem.errors import LimitHit, NotFound
from binder_onprem.project import first_id
from tests.e2e.stand import Stand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.real
MIB = 1024**2
SIZE = 48 * MIB
ONE, TWO = "0123456789abcdef", "1123456789abcdef"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Of a Binder that is up."""
    if running := os.environ.get("BINDER_ONPREM_TEST_HOME"):
        yield Path(running)
        return
    stand = Stand.new(samples=False)
    try:
        stand.up()
        yield stand.home
    finally:
        stand.destroy()


@pytest.fixture
def image(home: Path) -> str:
    return str(json.loads((home / "images.json").read_text(encoding="utf-8"))["base"])


@pytest.fixture
async def volumes(home: Path) -> AsyncIterator[ProjectVolumes]:
    folder = home / "projects-of-the-test"
    found = made(home, folder)
    yield found
    for volume in (ONE, TWO):
        assert await found.remove(volume)
    await found.sweep()
    assert not list(folder.glob("*"))
    folder.rmdir()


def made(home: Path, folder: Path) -> ProjectVolumes:
    config = load(home=home)
    return ProjectVolumes(folder, Containers(config.podman_socket), Images(config))


async def inside(home: Path, image: str, files: Path, slot: int, script: str) -> tuple[int, str]:
    """Run a script as the image's user with a project's files as its home."""
    said: list[str] = []

    async def line(text: str) -> None:
        said.append(text)

    run = Run(
        name="binder-test-project",
        image=image,
        command=("/bin/sh", "-c", script),
        env=(),
        user="jovyan",
        labels=(),
        mounts=(Mount(str(files), "/home/jovyan", writable=True),),
        memory=256 * MIB,
        cpus=1,
        pids=64,
        network="none",
        read_only=True,
        workdir="/home/jovyan",
        userns=f"from:{first_id(slot)}",
    )
    ended = await Containers(load(home=home).podman_socket).run(run, line)
    return ended.code, "\n".join(said)


async def test_what_is_written_is_there_at_the_next_start_and_the_quota_ends_it(home: Path, image: str, volumes: ProjectVolumes) -> None:
    await volumes.make(ONE, 3, SIZE, image)
    files = await volumes.mount(ONE)
    code, said = await inside(home, image, files, 3, "ls -A; id -un; touch mine && stat -c %U mine .bashrc")
    assert (code, {".bashrc", ".profile"} <= set(said.split())) == (0, True), said
    assert said.endswith("jovyan\njovyan\njovyan")
    assert (files / "mine").stat().st_uid == first_id(3) + 1000
    code, said = await inside(home, image, files, 3, "dd if=/dev/zero of=big bs=1M count=100 2>&1")
    assert (code, "No space left on device" in said) == (1, True), said
    assert (await volumes.used(ONE) or 0) > 30 * MIB
    assert await volumes.unmount(ONE)
    assert await volumes.mounted() == frozenset()
    assert await volumes.used(ONE) is None
    files = await made(home, files.parents[2]).mount(ONE)
    code, said = await inside(home, image, files, 3, "ls mine && rm big && df --output=avail -B1M . | tail -1")
    assert (code, said.split()[0]) == (0, "mine")
    assert await volumes.mounted() == {ONE}


async def test_what_is_freed_inside_is_freed_on_the_disk(home: Path, image: str, volumes: ProjectVolumes) -> None:
    await volumes.make(ONE, 0, SIZE, image)
    files = await volumes.mount(ONE)
    file = files.parents[1] / "volume.img"
    empty = file.stat().st_blocks
    assert (await inside(home, image, files, 0, "head -c 20000000 /dev/urandom > big; sync"))[0] == 0
    os.sync()
    assert file.stat().st_blocks > empty + 18_000_000 // 512
    assert (await inside(home, image, files, 0, "rm big"))[0] == 0
    for attempt in range(100):
        os.sync()
        if attempt == 50:  # the kernel discards after a commit, mostly at once; what it has put off is given back when asked for
            await asyncio.to_thread(subprocess.run, ["fstrim", str(files.parent)], check=True)
        # Meanwhile the kernel zeroes the inode tables, a megabyte that the file gains.
        if file.stat().st_blocks < empty + 8_000_000 // 512:
            break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("still on the disk")


@pytest.mark.parametrize("size", [32 * MIB, 128 * MIB, 460 * MIB, 1024 * MIB, 100 * 1024 * MIB])
async def test_it_holds_what_was_promised(image: str, volumes: ProjectVolumes, size: int) -> None:
    await volumes.make(ONE, 0, size, image)
    await volumes.mount(ONE)
    assert await volumes.free(ONE) >= size


async def test_files_that_do_not_fit_make_no_project(image: str, volumes: ProjectVolumes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def large(_image: str) -> str:
        return "/usr"

    monkeypatch.setattr(volumes, "home", large)
    with pytest.raises(LimitHit, match="do not fit"):
        await volumes.make(ONE, 0, SIZE, image)
    assert not volumes.there(ONE)
    with pytest.raises(NotFound, match="gone from the disk"):
        await volumes.mount(ONE)


def left(folder: Path) -> list[str]:
    """Mounts and loop devices below a directory."""
    loops = subprocess.run(["losetup", "--list", "--noheadings", "--output", "BACK-FILE"], capture_output=True, text=True, check=True).stdout
    return [line for line in (*Path("/proc/mounts").read_text(encoding="ascii").splitlines(), *loops.splitlines()) if str(folder) in line]


async def test_a_kill_in_the_middle_leaves_nothing_that_is_taken_for_whole(home: Path, image: str, volumes: ProjectVolumes) -> None:
    """The process that makes one is killed at twelve moments; what is there afterwards is whole, or goes."""
    folder = home / "projects-of-the-test"
    program = (
        "import asyncio,sys; from pathlib import Path; from tests.real.test_projectvolumes import made, SIZE\n"
        "home, folder, volume, image = sys.argv[1:]\n"
        "print('begun', flush=True); asyncio.run(made(Path(home), Path(folder)).make(volume, 0, SIZE, image)); print('made', flush=True)"
    )
    whole = 0
    for moment in range(12):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, str(home), str(folder), TWO, image, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert child.stdout
        assert await child.stdout.readline() == b"begun\n"
        await asyncio.sleep(0.08 * moment)
        with suppress(ProcessLookupError):
            child.kill()
        said = await child.stdout.read()
        await child.wait()
        await volumes.sweep()
        assert [path.name for path in folder.glob("*")] in ([], [TWO])
        assert b"made" not in said or volumes.there(TWO)
        if volumes.there(TWO):
            whole += 1
            files = await volumes.mount(TWO)
            assert (files / ".bashrc").is_file()
            assert await volumes.remove(TWO)
    assert whole < 12  # the first ones are killed before they can be
    assert not left(folder)
