"""The sandbox against real git servers, through the real gate, on the real engine."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from binder_onprem.building import lentkey
from binder_onprem.building.prepare import Sandbox, sweep
from binder_onprem.building.volume import volume
from binder_onprem.config import Config
from binder_onprem.egress import forward
from binder_onprem.egress.addresses import AddressRules
from binder_onprem.egress.gate import REFUSAL
from binder_onprem.engine.containers import Containers, Mount, Run
from binder_onprem.errors import AddressRefused, BinderError, BuildFailed, EngineUnavailable, LimitHit, ProviderUnavailable, RefNotFound
from binder_onprem.events import Phase
from binder_onprem.host.gates import gates
from binder_onprem.host.sources import Sources
from binder_onprem.model import BuildRecord, BuildState, ImageRef, RepoSpec, ResolvedRepo
from binder_onprem.sandbox.clone import Clone, Source
from tests.e2e.stand import Stand
from tests.real.gitserver import commit, endless, git, repository, serving, silent
from tests.repos import sshd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from binder_onprem.plan import Plan

pytestmark = pytest.mark.real
MIB = 1024**2
NO_SOURCES = Sources(b"", None, "", None, None, None, None, (), frozenset())


@pytest.fixture(scope="module", autouse=True)
def engine() -> Iterator[Engine]:
    """The sandbox image and the engine of a stand; or, while developing, those that the environment names."""
    if "BINDER_ONPREM_TEST_SANDBOX" in os.environ:
        ENGINE.append(Engine(os.environ["BINDER_ONPREM_TEST_SANDBOX"], Path(os.environ["BINDER_ONPREM_TEST_PODMAN"])))
        yield ENGINE[-1]
        return
    # Its daemon would sweep what these tests make beside it, on a machine that is busy for two minutes.
    stand = Stand.new(samples=False, passes={"reconcile": 3600})
    try:
        stand.up()
        ENGINE.append(Engine(json.loads((stand.home / "images.json").read_text())["sandbox"], stand.home / "run" / "podman.sock"))
        yield ENGINE[-1]
    finally:
        stand.destroy()


@dataclass(frozen=True)
class Engine:
    image: str
    socket: Path


ENGINE: list[Engine] = []


@dataclass
class Log:
    lines: list[tuple[str, str]] = field(default_factory=list)

    async def write(self, phase: Phase, message: str) -> None:
        self.lines.append((phase.value, message))

    def __str__(self) -> str:
        return "\n".join(message for _, message in self.lines)


@dataclass
class Bench:
    config: Config
    containers: Containers
    home: Path

    async def prepare(self, url: str, sha: str, log: Log | None = None, build_id: str = "0123456789abcdef") -> Plan:
        spec = RepoSpec("git", "x", url, "HEAD", "x")
        build = BuildRecord(build_id, ImageRef("r", "t"), ResolvedRepo(spec, sha, "x", url), BuildState.RUNNING, 0.0)
        sandbox = Sandbox(self.config, NO_SOURCES, self.containers, ENGINE[-1].image, base="127.0.0.1:8589/binder-base@sha256:" + "a" * 64)
        return await sandbox.prepare(build, log or Log(), self.directory)

    @property
    def directory(self) -> Path:
        return self.home / "builds" / "b"

    async def leftovers(self) -> list[str]:
        containers = [found.name for found in await self.containers.labelled({"io.binder-onprem.build": "0123456789abcdef"})]
        return [*containers, *self.files()]

    def files(self) -> list[str]:
        mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(self.home) in line]
        loops = subprocess.run(["losetup", "-l", "-n"], capture_output=True, text=True, check=True).stdout
        return [*mounts, *(line for line in loops.splitlines() if str(self.home) in line), *map(str, self.home.glob("builds/*.sandbox"))]


@asynccontextmanager
async def bench(
    home: Path, *, allow: tuple[str, ...] = ("127.0.0.0/8",), limit: int = 64 * MIB, stall: float = 15, config: Config | None = None
) -> AsyncIterator[Bench]:
    config = config or Config.model_validate({"home": home, "build": {"repository": limit}, "resolve": {"timeout": stall}})
    clones, builds = gates(config, NO_SOURCES, AddressRules(allow, config.network.pool))
    async with clones.serving(config.clone_gate_socket / "gate.sock", None), builds.serving(config.gate_socket / "gate.sock", None):
        made = Bench(config, Containers(ENGINE[-1].socket), home)
        yield made
        # The kernel frees a loop device a moment after the mount that used it.
        for _ in range(20):
            if not (left := await made.leftovers()):
                break
            await asyncio.sleep(0.1)
        assert left == []


async def test_a_small_repository_is_prepared_fast_as_layers(tmp_path: Path) -> None:
    sha = repository(tmp_path / "git", "a", {"requirements.txt": "numpy\n", "n.ipynb": "{}"})
    log = Log()
    with serving(tmp_path / "git") as url:
        async with bench(tmp_path) as it:
            await it.prepare(f"{url}/a", sha)
            start = time.monotonic()
            plan = await it.prepare(f"{url}/a", sha, log)
            took = time.monotonic() - start
            assert (it.directory / "src" / "n.ipynb").read_text() == "{}"
            assert git(it.directory / "src", "-c", "safe.directory=*", "rev-parse", "HEAD") == sha
    assert plan.kind == "layers"
    assert [step.name for step in plan.steps] == ["python packages", "content"]
    assert "/out" not in str(log)
    assert {phase for phase, _ in log.lines} <= {"fetching", "building"}
    assert took < 10, f"{took:.2f} s"
    print(f"prepare: {took:.2f} s")  # noqa: T201 - shown with -s


async def test_an_older_commit_and_one_that_is_not_there(tmp_path: Path) -> None:
    first = repository(tmp_path / "git", "a", {"one": "1"})
    commit(tmp_path / "git" / "a", {"two": "2"})
    with serving(tmp_path / "git") as url:
        async with bench(tmp_path) as it:
            await it.prepare(f"{url}/a", first)
            assert not (it.directory / "src" / "two").exists()
            with pytest.raises(RefNotFound, match="not in the repository"):
                await it.prepare(f"{url}/a", "1" * 40)
            with pytest.raises(RefNotFound, match="does not exist or is private"):
                await it.prepare(f"{url}/absent", first)


async def test_a_version_made_of_tags_has_its_tags(tmp_path: Path) -> None:
    """And only then is the history there: it may be large."""
    folder = tmp_path / "git"
    first = repository(folder, "tagged", {"pyproject.toml": '[build-system]\nrequires = ["hatchling", "hatch-vcs"]\n', "a.txt": "1"})
    git(folder / "tagged", "tag", "-a", "v2.3.4", "-m", "release", first)
    (folder / "tagged" / "a.txt").write_text("2")
    git(folder / "tagged", "commit", "--all", "--quiet", "-m", "next")
    sha = git(folder / "tagged", "rev-parse", "HEAD")
    plain = repository(folder, "plain", {"pyproject.toml": '[project]\nname = "x"\n'})
    with serving(folder) as url:
        async with bench(tmp_path) as it:
            await it.prepare(f"{url}/tagged", sha)
            clone = ("-c", "safe.directory=*")
            assert git(it.directory / "src", *clone, "describe", "--tags", "--dirty") == f"v2.3.4-1-g{sha[:7]}"
            await it.prepare(f"{url}/plain", plain)
            assert git(it.directory / "src", *clone, "rev-parse", "--is-shallow-repository") == "true"


async def test_a_dockerfile_is_screened_and_kept(tmp_path: Path) -> None:
    sha = repository(tmp_path / "git", "a", {"binder/Dockerfile": "FROM binder-base:latest\nCOPY . .\n", "Dockerfile": "FROM other"})
    with serving(tmp_path / "git") as url:
        async with bench(tmp_path) as it:
            plan = await it.prepare(f"{url}/a", sha)
            dockerfile = (it.directory / "context" / "Dockerfile").read_text()
    assert (plan.kind, plan.buildpack) == ("dockerfile", "Dockerfile")
    assert dockerfile.lstrip().startswith("FROM 127.0.0.1:8589/binder-base@sha256:")


@pytest.mark.parametrize(
    ("files", "buildpack", "named"),
    [
        ({"environment.yml": "dependencies: [numpy]\n"}, "CondaBuildPack", "environment.yml"),
        ({"binder/default.nix": "{}"}, "NixBuildPack", "default.nix"),
        ({"runtime.txt": "python-3.9\n", "requirements.txt": "numpy\n"}, "PythonBuildPack", "runtime.txt"),
    ],
)
async def test_everything_else_is_repo2dockers_and_what_it_needs_is_asked_first(
    tmp_path: Path, files: dict[str, str], buildpack: str, named: str
) -> None:
    """No address beyond loopback is allowed on this bench, so nothing can be reached; tests/real/test_stock.py has the rest with a mirror."""
    sha, log = repository(tmp_path / "git", "a", files), Log()
    with serving(tmp_path / "git") as url:
        async with bench(tmp_path) as it:
            with pytest.raises(BuildFailed, match=rf"{named} .* can be reached"):
                await it.prepare(f"{url}/a", sha, log)
    assert f"Using {buildpack} builder" in str(log)


async def test_a_server_that_never_answers(tmp_path: Path) -> None:
    sha = repository(tmp_path / "git", "a", {"one": "1"})
    with serving(tmp_path / "git", silent) as url:
        async with bench(tmp_path, stall=3) as it:
            start = time.monotonic()
            with pytest.raises(ProviderUnavailable, match=r"did not answer in 3 s"):
                await it.prepare(f"{url}/a", sha)
            assert time.monotonic() - start < 10


async def test_an_endless_pack_ends_at_the_limit(tmp_path: Path) -> None:
    sha = repository(tmp_path / "git", "a", {"one": "1"})
    with serving(tmp_path / "git", endless) as url:
        async with bench(tmp_path, limit=16 * MIB) as it:
            log = Log()
            with pytest.raises(LimitHit, match="larger than 16 MiB"):
                await it.prepare(f"{url}/a", sha, log)


async def test_a_large_checkout_ends_at_the_limit(tmp_path: Path) -> None:
    sha = repository(tmp_path / "git", "a", {f"zeros{number}": bytes(40 * MIB) for number in range(3)})
    with serving(tmp_path / "git") as url:
        async with bench(tmp_path, limit=16 * MIB) as it:
            with pytest.raises(LimitHit, match="larger than 16 MiB"):
                await it.prepare(f"{url}/a", sha)


async def test_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = repository(tmp_path / "git", "a", {f"d{number % 50}/f{number}": "" for number in range(3000)})
    monkeypatch.setattr("binder_onprem.building.prepare.FILES", 2000)
    with serving(tmp_path / "git") as url:
        async with bench(tmp_path) as it:
            with pytest.raises(LimitHit, match="too many files"):
                await it.prepare(f"{url}/a", sha)


async def test_an_address_that_the_rules_refuse(tmp_path: Path) -> None:
    sha = repository(tmp_path / "git", "a", {"one": "1"})
    with serving(tmp_path / "git") as url:
        async with bench(tmp_path, allow=()) as it:
            with pytest.raises(AddressRefused):
                await it.prepare(f"{url}/a", sha)


async def test_submodules_are_fetched_and_hooks_never_run(tmp_path: Path) -> None:
    """The repository of CVE-2025-48384: a submodule whose path ends with a carriage return, beside a link to the hooks of its git directory."""
    top = tmp_path / "git"
    inner = repository(top, "inner", {"inside": "1", "hooks/post-checkout": "#!/bin/sh\ntouch /out/src/owned\n"})
    (top / "inner" / "hooks" / "post-checkout").chmod(0o755)
    commit(top / "inner", {})
    repository(top, "a", {"one": "1"})
    with serving(top) as url:
        place = top / "a"
        inner = git(top / "inner", "rev-parse", "HEAD")
        (place / ".gitmodules").write_text(f'[submodule "good"]\n\tpath = good\n\turl = {url}/inner\n')
        git(place, "update-index", "--add", "--cacheinfo", f"160000,{inner},good")
        git(place, "add", ".gitmodules")
        git(place, "commit", "--quiet", "-m", "y")
        good = git(place, "rev-parse", "HEAD")
        (place / ".gitmodules").write_text(f'[submodule "bad"]\n\tpath = "bad\\r"\n\turl = {url}/inner\n')
        git(place, "update-index", "--add", "--cacheinfo", f"160000,{inner},bad\r")
        git(place, "add", ".gitmodules")
        (place / "bad").symlink_to(".git/modules/bad/hooks")
        git(place, "add", "bad")
        git(place, "commit", "--quiet", "-m", "z")
        bad = git(place, "rev-parse", "HEAD")
        async with bench(tmp_path) as it:
            await it.prepare(f"{url}/a", good)
            assert (it.directory / "src" / "good" / "inside").read_text() == "1"
            with pytest.raises(BuildFailed):
                await it.prepare(f"{url}/a", bad)
            assert not (it.directory / "src" / "owned").exists()


async def test_a_submodule_of_this_machine_is_not_fetched(tmp_path: Path) -> None:
    top = tmp_path / "git"
    sha = repository(top, "inner", {"inside": "1"})
    repository(top, "a", {".gitmodules": f'[submodule "x"]\n\tpath = x\n\turl = file://{top}/inner\n'})
    git(top / "a", "update-index", "--add", "--cacheinfo", f"160000,{sha},x")
    git(top / "a", "commit", "--quiet", "-m", "y")
    with serving(top) as url:
        async with bench(tmp_path) as it:
            with pytest.raises(BuildFailed, match="submodule 'x' could not be fetched"):
                await it.prepare(f"{url}/a", git(top / "a", "rev-parse", "HEAD"))


async def test_links_lead_nowhere(tmp_path: Path) -> None:
    repository(tmp_path / "git", "a", {"one": "1"})
    place = tmp_path / "git" / "a"
    (place / "binder").symlink_to("/etc")
    bad = commit(place, {})
    (place / "binder").unlink()
    (place / "passwd").symlink_to("/etc/passwd")
    good = commit(place, {"run.sh": "x"})
    with serving(tmp_path / "git") as url:
        async with bench(tmp_path) as it:
            with pytest.raises(BuildFailed, match="leads out of the repository"):
                await it.prepare(f"{url}/a", bad)
            await it.prepare(f"{url}/a", good)
            assert (it.directory / "src" / "passwd").is_symlink()


async def test_cancelling_leaves_nothing(tmp_path: Path) -> None:
    sha = repository(tmp_path / "git", "a", {"one": "1"})
    with serving(tmp_path / "git", silent) as url:
        async with bench(tmp_path) as it:
            task = asyncio.create_task(it.prepare(f"{url}/a", sha))
            await asyncio.sleep(1.5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await it.leftovers() == []
            with pytest.raises(BinderError):
                await it.prepare("http://127.0.0.1:9/a", sha)


async def test_a_process_that_was_killed_leaves_what_the_next_one_clears(tmp_path: Path) -> None:
    """As after SIGKILL: mount, loop device, container directory are there, nobody cleans up."""
    sha = repository(tmp_path / "git", "a", {"one": "1"})
    with serving(tmp_path / "git") as url:
        async with bench(tmp_path) as it:
            place = it.directory.parent / "b.sandbox"
            left = volume(place, 64 * MIB, 1000)
            await left.__aenter__()
            assert it.files()
            await it.prepare(f"{url}/a", sha)
            assert it.files() == []
            second = volume(place, 64 * MIB, 1000)
            await second.__aenter__()
            it.directory.mkdir(parents=True, exist_ok=True)
            await sweep(it.directory)
            await sweep(it.directory)
            assert (it.files(), it.directory.exists()) == ([], False)


async def test_large_numbers_of_files_take_a_bounded_time(tmp_path: Path) -> None:
    sha = repository(tmp_path / "git", "a", {f"d{number % 100}/f{number}": str(number) for number in range(20_000)})
    with serving(tmp_path / "git") as url:
        async with bench(tmp_path, limit=512 * MIB) as it:
            start = time.monotonic()
            plan = await it.prepare(f"{url}/a", sha)
            took = time.monotonic() - start
    assert plan.kind == "layers"
    assert took < 60, f"{took:.1f} s"
    print(f"20,000 files: {took:.1f} s")  # noqa: T201 - shown with -s


async def test_a_missing_image_is_our_fault(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        sources = Sources(b"", None, "", None, None, None, None, (), frozenset())
        sandbox = Sandbox(it.config, sources, it.containers, "localhost/no-such-image:latest", base="x")
        spec = RepoSpec("git", "x", "http://127.0.0.1:9/x", "HEAD", "x")
        build = BuildRecord("0123456789abcdef", ImageRef("r", "t"), ResolvedRepo(spec, "a" * 40, "x", spec.url), BuildState.RUNNING, 0.0)
        with pytest.raises(EngineUnavailable):
            await sandbox.prepare(build, Log(), it.directory)


async def test_a_chain_of_submodules_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the container: what is tested is counting."""
    top = tmp_path / "git"
    monkeypatch.setattr("binder_onprem.sandbox.clone.SUBMODULES", 3)
    monkeypatch.setenv("HOME", str(tmp_path))
    with serving(top) as url:
        sha = repository(top, "r0", {"one": "1"})
        for number in range(1, 6):
            repository(top, f"r{number}", {".gitmodules": f'[submodule "x"]\n\tpath = x\n\turl = {url}/r{number - 1}\n'})
            git(top / f"r{number}", "update-index", "--add", "--cacheinfo", f"160000,{sha},x")
            git(top / f"r{number}", "commit", "--quiet", "-m", "y")
            sha = git(top / f"r{number}", "rev-parse", "HEAD")
        with pytest.raises(LimitHit, match="more than 3 submodules"):
            await asyncio.to_thread(Clone(Source(f"{url}/r5", sha, 15, 64 * MIB), tmp_path / "src", [].append).make)


async def test_a_site_whose_builds_reach_mirrors_only_clones_all_the_same(tmp_path: Path) -> None:
    sha = repository(tmp_path / "git", "a", {"requirements.txt": "numpy\n"})
    settings = {"home": tmp_path, "network": {"builds": "mirrors", "allow": ["127.0.0.0/8"]}}
    config = Config.model_validate(settings)
    with serving(tmp_path / "git") as url:
        async with bench(tmp_path, config=config) as it:
            await it.prepare(f"{url}/a", sha)
            log, mounts = Log(), (Mount(str(config.gate_socket), "/gate"), Mount(str(Path(forward.__file__)), "/forward.py"))
            fetch = f"curl -sS -o /dev/null -w '%{{http_code}}' {url}/a/info/refs; echo; curl -sS {url}/a/info/refs"
            run = Run(
                name="build-0123456789abcdef-1",
                image=ENGINE[-1].image,
                command=("python3", "/forward.py", "/gate/gate.sock", "--", "env", "no_proxy=", "NO_PROXY=", "sh", "-c", fetch),
                env=(("HOME", "/tmp"),),  # noqa: S108 - the sandbox's
                user="65534:65534",
                labels=(("io.binder-onprem.build", "0123456789abcdef"),),
                mounts=mounts,
                memory=256 * MIB,
                cpus=1,
                pids=64,
                network="none",
                read_only=True,
            )

            async def line(text: str) -> None:
                await log.write(Phase.BUILDING, text)

            await it.containers.run(run, line)
            assert str(log).split("\n", 1) == ["403", REFUSAL]


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    with sshd.serving(tmp_path_factory.mktemp("ssh") / "d") as server:
        yield server


def with_key(home: Path, server: sshd.Sshd, **files: Path) -> Config:
    part = {"kind": "git", "ssh_key_file": server.key, "known_hosts_file": server.known_hosts} | files
    return Config.model_validate({"home": home, "providers": [part], "network": {"allow": ["127.0.0.0/8"]}})


def marks(key: Path) -> list[bytes]:
    """Every line of a private key, and what its text holds once decoded."""
    lines = key.read_bytes().splitlines()
    return [*lines[1:-1], b"PRIVATE KEY", base64.b64decode(b"".join(lines[1:-1]))[-100:-60]]


async def test_a_clone_over_ssh_leaves_nothing_of_the_key(tmp_path: Path, ssh: sshd.Sshd) -> None:
    server = ssh
    files = {"requirements.txt": "numpy\n", "apt.txt": "tree\n", "n.ipynb": "{}", "Dockerfile": "FROM binder-base\nCOPY . .\n"}
    sha, log = repository(tmp_path / "git", "a", files), Log()
    seen: list[str] = []

    async def look(it: Bench) -> None:
        while not seen or "git-upload-pack" not in server.asked.read_text():
            for found in await it.containers.labelled({"io.binder-onprem.build": "0123456789abcdef"}):
                with contextlib.suppress(BinderError):
                    seen.append(json.dumps(await it.containers.inspect(found.name)))
            await asyncio.sleep(0.02)

    async with bench(tmp_path, config=with_key(tmp_path, server)) as it:
        watching = asyncio.create_task(look(it))
        await it.prepare(server.url(tmp_path / "git" / "a"), sha, log)
        await asyncio.wait_for(watching, 5)
        everything = [path for path in it.home.rglob("*") if path.is_file() and not path.is_symlink() and (tmp_path / "git") not in path.parents]
        assert (it.directory / "src" / "n.ipynb") in everything
        assert (it.directory / "plan.json") in everything
        assert not list(it.home.glob("builds/*.ssh"))
        texts = [path.read_bytes() for path in everything] + [str(log).encode(), "".join(seen).encode()]
    assert f"git-upload-pack '{tmp_path}/git/a'" in server.asked.read_text().splitlines()
    assert '"RW": false' in "".join(seen)
    for mark in marks(server.key):
        assert mark in b"".join([server.key.read_bytes(), base64.b64decode(b"".join(server.key.read_bytes().splitlines()[1:-1]))])
        assert not [text for text in texts if mark in text]


async def test_a_clone_over_ssh_from_a_host_whose_key_is_another(tmp_path: Path, ssh: sshd.Sshd) -> None:
    server = ssh
    sha, log = repository(tmp_path / "git", "a", {"x": "x"}), Log()
    async with bench(tmp_path, config=with_key(tmp_path, server, known_hosts_file=server.strangers)) as it:
        with pytest.raises(AddressRefused, match="does not know the ssh key"):
            await it.prepare(server.url(tmp_path / "git" / "a"), sha, log)
        assert "Host key verification failed" in str(log)
        assert "known_hosts_file" in str(log)
        assert not list(it.home.glob("builds/*.ssh"))
    async with bench(tmp_path, config=with_key(tmp_path, server, ssh_key_file=server.other)) as it:
        with pytest.raises(RefNotFound):
            await it.prepare(server.url(tmp_path / "git" / "a"), sha, log)


async def test_a_repository_cannot_name_the_key(tmp_path: Path, ssh: sshd.Sshd) -> None:
    """Links of a repository to where a key might be, in every file that is read while it is examined."""
    server = ssh
    names = ("requirements.txt", "environment.yml", "apt.txt", "runtime.txt", ".lfsconfig", "setup.py", "Dockerfile")
    for number, target in enumerate(("/tmp/key", "/key", "/proc/self/environ", "/proc/self/mountinfo", "/ssh/key")):  # noqa: S108 - the sandbox's
        sha, log = linked(tmp_path / "git", f"r{number}", (*names[number % len(names) :], "requirements.txt"), target), Log()
        async with bench(tmp_path, config=with_key(tmp_path, server)) as it:
            with contextlib.suppress(BuildFailed, LimitHit):
                await it.prepare(server.url(tmp_path / "git" / f"r{number}"), sha, log)
            texts = [path.read_bytes() for path in it.directory.rglob("*") if path.is_file() and not path.is_symlink()] + [str(log).encode()]
        assert texts
        assert not [text for text in texts if any(mark in text for mark in marks(server.key))]


def linked(top: Path, name: str, files: tuple[str, ...], target: str) -> str:
    repository(top, name, {"x": "x"})
    for file in files:
        (top / name / file).unlink(missing_ok=True)
        (top / name / file).symlink_to(target)
    return commit(top / name, {".gitattributes": "*.bin filter=lfs\n"})


async def test_what_an_interrupted_clone_left_of_the_key_is_swept(tmp_path: Path, ssh: sshd.Sshd) -> None:
    config = with_key(tmp_path, ssh)
    spec = RepoSpec("git", "x", ssh.url("/a"), "HEAD", "x")
    with lentkey.lent(config, ResolvedRepo(spec, "a" * 40, "x", spec.url), tmp_path / "builds" / "b") as mount:
        assert mount is not None
        assert not mount.writable
        assert len(mount.target) == 33
        assert (tmp_path / "builds" / "b.ssh").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "builds" / "b.ssh").exists()
    (tmp_path / "builds" / "b.ssh" / "files").mkdir(parents=True)
    await sweep(tmp_path / "builds" / "b")
    assert not (tmp_path / "builds" / "b.ssh").exists()
    http = RepoSpec("git", "x", "https://example.org/x", "HEAD", "x")
    with lentkey.lent(config, ResolvedRepo(http, "a" * 40, "x", http.url), tmp_path / "builds" / "b") as mount:
        assert mount is None
