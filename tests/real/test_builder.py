"""Containers, layers and builds on the real engine with the real registry."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.building.builder import PodmanBuilder
from binder_onprem.building.dockerbuild import NETWORK, DockerBuild
from binder_onprem.building.enclosure import left
from binder_onprem.building.layerbuild import LayerBuild
from binder_onprem.building.pushing import Pushing
from binder_onprem.building.registry import DistributionRegistry, connected
from binder_onprem.config import Admission, Config, load
from binder_onprem.engine.containers import Containers, Exit, Run
from binder_onprem.engine.images import Images
from binder_onprem.errors import BuildFailed, EngineUnavailable, LimitHit, NotFound
from binder_onprem.host.baseimage import Made
from binder_onprem.host.sources import Sources
from binder_onprem.model import BuildRecord, BuildState, ImageRef, RepoSpec, ResolvedRepo
from binder_onprem.plan import Plan, Step
from tests.e2e.stand import Stand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from binder_onprem.events import Phase

pytestmark = pytest.mark.real
LABEL = {"io.binder-onprem.kind": "build"}
MIB = 1024**2
CONTENT = Step("content", "content", "")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A stand's home; or, while developing, one that the environment names."""
    if "BINDER_ONPREM_TEST_HOME" in os.environ:
        yield Path(os.environ["BINDER_ONPREM_TEST_HOME"])
        return
    # Its daemon would sweep what these tests make beside it, on a machine that is busy for two minutes.
    stand = Stand.new(samples=False, passes={"reconcile": 3600})
    try:
        stand.up()
        yield stand.home
    finally:
        stand.destroy()


@dataclass
class Log:
    lines: list[str] = field(default_factory=list)

    async def write(self, phase: Phase, message: str) -> None:  # noqa: ARG002
        self.lines.append(message)


@dataclass
class Works:
    config: Config
    base: str
    containers: Containers
    images: Images
    registry: DistributionRegistry
    log: Log = field(default_factory=Log)

    async def line(self, text: str) -> None:
        self.log.lines.append(text)

    async def run(self, script: str, name: str = "build-test-run", **changes: object) -> Exit:
        values = {
            "name": name,
            "image": self.base,
            "command": ("bash", "-c", script),
            "env": (),
            "user": "jovyan",
            "labels": tuple(LABEL.items()),
            "mounts": (),
            "memory": 512 * MIB,
            "cpus": 2,
            "pids": 256,
            "network": "none",
            "read_only": False,
        }
        self.log.lines.clear()
        return await self.containers.run(Run(**values | changes), self.line)  # type: ignore[arg-type]

    def record(self) -> BuildRecord:
        repo = ResolvedRepo(RepoSpec("git", "p", "http://x.test/y", "HEAD", "me-repo"), secrets.token_hex(20), "p", "u")
        return BuildRecord(secrets.token_hex(8), ImageRef.of(repo, self.config.image_prefix, "a" * 64), repo, BuildState.RUNNING, 0.0)

    async def build(self, *steps: Step, dockerfile: str = "", own: dict[str, object] | None = None, **limits: object) -> str:
        """Build; the image's reference. `own`: limits of this repository, in place of the site's `limits`."""
        specs = Admission.model_validate({"specs": [{"pattern": "git/"} | own]} if own else {})
        config = self.config.model_copy(update={"build": self.config.build.model_copy(update=limits), "admission": specs})
        record, self.log = self.record(), Log()
        directory = config.home / "builds" / record.id
        (directory / "src" / "sub").mkdir(parents=True)
        (directory / "src" / "sub" / "n.ipynb").write_text("{}")
        try:
            if dockerfile:
                (directory / "context").mkdir()
                (directory / "context" / "Dockerfile").write_text(f"FROM {self.base}\n{dockerfile}\n")
                sources = Sources(b"", None, "", None, None, None, None, (), frozenset())
                network = os.environ.get("BINDER_ONPREM_TEST_NETWORK", NETWORK)
                docker = DockerBuild(config, sources, self.images, self.registry, self.base, network)
                found = await docker.build(record, Plan("Dockerfile", "dockerfile"), directory, self.log, Pushing(nothing))
            else:
                layers = LayerBuild(config, self.containers, self.images, self.registry, self.base)
                found = await layers.build(record, Plan("ours", "layers", steps), directory, self.log, Pushing(nothing))
            assert await self.registry.digest(record.image) == found
            return record.image.at(found)
        finally:
            shutil.rmtree(directory)

    async def inside(self, image: str, script: str, userns: str = "auto:size=65536") -> list[str]:
        """What a script prints in a container of the image."""
        assert (await self.run(script, image=image, userns=userns, workdir="/home/jovyan")).code == 0, self.log.lines
        return list(self.log.lines)

    async def up(self) -> None:
        """Wait until something says that it is up."""
        async with asyncio.timeout(30):
            while "up" not in self.log.lines:  # noqa: ASYNC110 - it comes from another process
                await asyncio.sleep(0.05)

    async def nothing_left(self) -> None:
        assert await self.containers.labelled(LABEL) == []
        assert await asyncio.to_thread(left, self.config.listen.port) == set()


async def nothing() -> None:
    pass


@pytest.fixture
async def works(home: Path) -> AsyncIterator[Works]:
    config = load(None, home)
    images = Images(config)
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(connected(config))
        base = str(json.loads((home / "images.json").read_text())["base"])
        await images.fetch(base)
        found = Works(config, base, Containers(config.podman_socket), images, registry)
        yield found
        await found.nothing_left()


def step(script: str, user: str = "jovyan", key: str = "") -> Step:
    return Step("test step", "run", key, user, script)  # type: ignore[arg-type]


async def test_every_line_arrives_and_the_exit_status(works: Works) -> None:
    assert await works.run("seq 1 10000; echo err >&2; exit 3") == Exit(3, out_of_memory=False)
    assert [line for line in works.log.lines if line != "err"] == [str(number) for number in range(1, 10001)]
    assert "err" in works.log.lines


async def test_a_run_has_no_rights(works: Works) -> None:
    await works.run("grep -E 'Cap(Eff|Bnd)|NoNewPrivs' /proc/self/status; cat /proc/self/uid_map; ls /sys/class/net; env | grep -i proxy; true")
    text = "\n".join(works.log.lines)
    assert "CapEff:\t0000000000000000" in text
    assert "CapBnd:\t0000000000000000" in text
    assert "NoNewPrivs:\t1" in text
    assert works.log.lines[-1] == "lo"
    assert " 0 0 " not in " ".join(text.split())


@pytest.mark.parametrize("script", ["tail /dev/zero", "exec tail /dev/zero", "python3 -c 'bytearray(10**9)'; exit 1"])
async def test_out_of_memory_is_seen(works: Works, script: str) -> None:
    ended = await works.run(script, memory=128 * MIB)
    assert ended.out_of_memory
    assert ended.code


async def test_a_fork_bomb_ends_at_the_limit(works: Works) -> None:
    ended = await works.run(":(){ :|:& };: ; sleep 1; exit 1", pids=64)
    assert ended.out_of_processes


async def test_a_line_without_end_is_cut(works: Works) -> None:
    await works.run("head -c 200000000 /dev/zero | tr '\\0' x; echo; echo end")
    assert [len(line) > 8192 for line in works.log.lines] == [True, False]


async def test_a_missing_image_is_said(works: Works) -> None:
    with pytest.raises(NotFound):
        await works.run("true", image="sha256:" + "0" * 64)


async def test_cancelling_removes_what_ignores_signals(works: Works) -> None:
    task = asyncio.create_task(works.run("trap '' TERM INT; echo up; while :; do sleep 1; done"))
    await works.up()
    task.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task
    await works.nothing_left()


async def test_content_is_the_users_and_made_without_a_container(works: Works) -> None:
    image = await works.build(CONTENT)
    for userns in ("auto:size=65536", "host"):
        lines = await works.inside(image, "id -u; pwd; stat -c '%u %a' . sub sub/n.ipynb; touch sub/new", userns)
        assert lines == ["1000", "/home/jovyan", "1000 755", "1000 755", "1000 644"]


async def test_an_environment_is_made_once_however_many_ask(works: Works) -> None:
    made = step(f"echo {secrets.token_hex(8)} > environment", key="k" * 64)
    first, second = await asyncio.gather(works.build(made, CONTENT), works.build(made, CONTENT))
    assert first != second
    same = works.log
    await works.build(made, CONTENT)
    assert any("used again" in line for line in works.log.lines)
    assert same is not works.log
    assert await works.inside(first, "cat environment") == await works.inside(second, "cat environment")


async def test_what_a_step_changes_is_in_the_image(works: Works) -> None:
    script = """
    cd /home/jovyan/sub; ln -s /etc/shadow link; mkfifo pipe; rm n.ipynb; touch .wh.x; cp /bin/true su; chmod 6755 su
    echo x > one; ln one two; mkdir shut; touch -d 1999-01-01 old; chmod 000 shut; rm -rf /home/jovyan/.bashrc
    """
    image = await works.build(CONTENT, step(script))
    lines = await works.inside(image, "cd sub; LC_ALL=C ls -A1; stat -c '%a %h %Y' su one shut old; test ! -e ~/.bashrc; echo done")
    assert lines[:6] == ["link", "old", "one", "shut", "su", "two"]
    assert [line.split()[:2] for line in lines[6:9]] == [["755", "1"], ["644", "2"], ["0", "2"]]
    assert lines[9].endswith(" 915148800")


async def test_root_may_install_but_not_more(works: Works) -> None:
    image = await works.build(
        step("install -o 33 -m 4755 /bin/true /usr/bin/su-test; ! mount -t tmpfs x /mnt; ! mknod /dev/x c 1 3", "root"), CONTENT
    )
    assert await works.inside(image, "stat -c '%u %a' /usr/bin/su-test") == ["33 4755"]


@pytest.mark.parametrize(
    ("script", "limits", "words"),
    [
        ("tail /dev/zero", {"memory": 128 * MIB}, "out of memory, limit 0.125 GiB"),
        (":(){ :|:& };: ; sleep 1; exit 1", {"pids": 100}, "too many processes, limit 100"),
        ("head -c 3G /dev/zero > big; sleep 30", {"disk": 200 * MIB}, "wrote more than 0.195 GiB"),
        ("truncate -s 1T big", {"disk": 200 * MIB}, "wrote more than 0.195 GiB"),
    ],
)
async def test_each_limit_has_its_words(works: Works, script: str, limits: dict[str, object], words: str) -> None:
    with pytest.raises(LimitHit, match=words):
        await works.build(step(script), **limits)


async def test_a_step_that_fails_names_itself(works: Works) -> None:
    with pytest.raises(BuildFailed, match="Test step: failed with exit status 7"):
        await works.build(step("exit 7"))


@pytest.mark.parametrize("delay", [0.03, 0.1, 0.2, 0.3, 0.4, 0.6])
async def test_a_build_cancelled_at_any_time_leaves_nothing(works: Works, delay: float) -> None:
    task = asyncio.create_task(works.build(step("head -c 50M /dev/urandom > x"), CONTENT))
    await asyncio.sleep(delay)
    task.cancel()
    await asyncio.wait([task])
    await works.nothing_left()


async def test_a_dockerfile_keeps_its_files_and_loses_its_labels(works: Works) -> None:
    image = await works.build(
        dockerfile=f"LABEL evil=1\nVOLUME /x\nUSER root\nRUN : {secrets.token_hex(4)}; grep CapBnd /proc/self/status; echo hi > /hi\nUSER jovyan"
    )
    assert "CapBnd:\t00000000000000db" in works.log.lines
    assert await works.inside(image, "id -u; cat /hi") == ["1000", "hi"]
    path = works.registry.path(image.partition("@")[0])
    found = await works.registry.manifest(path, image.partition("@")[2])
    assert found
    configuration = await works.registry.configuration(path, found[1]["config"]["digest"])
    assert set(configuration["config"]["Labels"]) == {"org.opencontainers.image.revision", "io.binder-onprem.buildpack"}
    assert "Volumes" not in configuration["config"]


@pytest.mark.parametrize(
    ("line", "limits", "words"),
    [
        ("RUN tail /dev/zero", {"memory": 128 * MIB}, "out of memory"),
        ("RUN bash -c ':(){ :|:& };: ; sleep 1; exit 1'", {"pids": 64}, "too many processes"),
        ("RUN head -c 3G /dev/zero > /home/jovyan/big; sleep 30", {"disk": 200 * MIB}, "wrote more than"),
    ],
)
async def test_a_dockerfile_has_limits_too(works: Works, line: str, limits: dict[str, object], words: str) -> None:
    with pytest.raises(LimitHit, match=words):
        await works.build(dockerfile=line, **limits)


@pytest.mark.parametrize("dockerfile", [False, True])
async def test_a_repository_has_the_limits_that_are_its_own(works: Works, dockerfile: bool) -> None:  # noqa: FBT001 - a case
    def asked(script: str) -> dict[str, Any]:
        # Another text each time, or podman's cache has the step.
        return {"dockerfile": f"RUN : {secrets.token_hex(4)}; {script}"} if dockerfile else {}

    def steps(script: str) -> tuple[Step, ...]:
        return () if dockerfile else (step(script),)

    large, wide = "python3 -c 'len(bytearray(220 * 2**20))'", "head -c 250M /dev/zero > big; sleep 4; rm big"
    await works.build(*steps(large), **asked(large), memory=128 * MIB, own={"build_memory": "512MiB"})
    await works.build(*steps(wide), **asked(wide), disk=100 * MIB, own={"build_disk": "1GiB"})
    with pytest.raises(LimitHit, match=r"out of memory, limit 0.125 GiB"):
        await works.build(*steps(large), **asked(large), memory=512 * MIB, own={"build_memory": "128MiB"})


async def test_a_dockerfile_that_fails(works: Works) -> None:
    with pytest.raises(BuildFailed, match="last lines of the log"):
        await works.build(dockerfile="RUN echo reason; exit 1")
    assert "reason" in works.log.lines


async def test_a_dockerfiles_step_that_sleeps_is_ended(works: Works) -> None:
    task = asyncio.create_task(works.build(dockerfile="RUN trap '' TERM; echo up; sleep 1000"))
    await works.up()
    task.cancel()
    async with asyncio.timeout(15):
        await asyncio.wait([task])
    assert task.cancelled()
    await works.nothing_left()


@dataclass
class Prepared:
    """Stands in for the sandbox."""

    calls: int = 0

    async def prepare(self, build: BuildRecord, log: Log, directory: Path) -> Plan:  # noqa: ARG002
        self.calls += 1
        (directory / "src").mkdir(parents=True)
        (directory / "src" / "n.ipynb").write_text("{}")
        return Plan("ours", "layers", (CONTENT,), notices=("a notice",))


async def test_the_builder_makes_an_image_once_and_sweeps_what_a_crash_left(works: Works) -> None:
    preparation = Prepared()
    sources = Sources(b"", None, "", None, None, None, None, (), frozenset())
    made = Made(works.base, "", "", "")
    builder = PodmanBuilder(works.config, sources, works.containers, works.images, works.registry, preparation, made)
    record, pushed = works.record(), []

    async def pushing() -> None:
        pushed.append(1)

    digest = await builder.build(record, works.log, pushing)
    assert await builder.build(record, works.log, pushing) == digest
    assert (preparation.calls, len(pushed)) == (1, 2)
    assert "a notice" in works.log.lines
    left_over = works.config.home / "builds" / "feedfacefeedface"
    left_over.mkdir(parents=True)
    await works.run("true", name="build-feedfacefeedface-0", labels=(*LABEL.items(), ("io.binder-onprem.build", "feedfacefeedface")))
    task = asyncio.create_task(works.run("echo up; sleep 100", labels=(*LABEL.items(), ("io.binder-onprem.build", "other"))))
    await works.up()
    await builder.sweep(frozenset({"feedfacefeedface"}))
    assert left_over.exists()
    # The other's container was removed under it.
    async with asyncio.timeout(20):
        await asyncio.wait([task])
    await builder.sweep(frozenset())
    assert not left_over.exists()


def service(socket: Path) -> int:
    """Process id of the engine's service on that socket."""
    ends = (str(socket.resolve()).encode(), str(socket).encode())
    for process in Path("/proc").glob("[0-9]*"):
        words = (process / "cmdline").read_bytes().split(b"\0") if (process / "cmdline").exists() else []
        if b"service" in words and any(word.endswith(ends) for word in words):
            return int(process.name)
    raise AssertionError("no service")


# podman-py leaves a socket open when nobody listens.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_the_engine_killed_in_the_middle_is_unavailable_and_the_next_try_works(works: Works) -> None:
    task = asyncio.create_task(works.run("echo up; sleep 1000"))
    await works.up()
    os.kill(service(works.config.podman_socket), signal.SIGKILL)
    async with asyncio.timeout(10):
        with pytest.raises(EngineUnavailable):
            await task
    if "BINDER_ONPREM_TEST_RESTART" in os.environ:
        subprocess.Popen(os.environ["BINDER_ONPREM_TEST_RESTART"], shell=True, start_new_session=True)  # noqa: ASYNC220, S602
    async with asyncio.timeout(60):
        while True:
            try:
                await works.containers.ping()
                break
            except EngineUnavailable:
                await asyncio.sleep(0.2)
    # The one that went on without us is replaced.
    assert (await works.run("echo again")).code == 0
    assert works.log.lines == ["again"]
