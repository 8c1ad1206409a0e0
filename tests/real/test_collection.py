"""The registry's garbage collection with the real registry: bytes come back, what is kept stays, nothing that is pushed meanwhile is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession

from binder_onprem.building.collection import Collection
from binder_onprem.building.registry import DistributionRegistry, authorization, connected
from binder_onprem.config import Config, Listen
from binder_onprem.host import machine as host
from binder_onprem.host import site_files
from binder_onprem.host.parts import parts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.real
MIB = 1024**2


class Site:
    """A registry that can be restarted, as a supervisor does it."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.config = Config(home=home, listen=Listen(port=port - 4))
        site_files.write(self.config, host.look(home))
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        self.running = False
        # The thread of a collection that was cancelled goes on: its restart may meet the next one's, as a supervisor's orders would.
        self.turn = threading.Lock()

    def restart(self) -> None:
        with self.turn:
            self._end()
            self.restarts += 1
            part = parts(self.config)[0]
            self.process = subprocess.Popen(part.argv, user=part.user, group=part.user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        with self.turn:
            self._end()

    def _end(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(10)

    def collection(self) -> Collection:
        return Collection(self.config, self.restart, lambda: self.running)

    def used(self) -> int:
        return sum(file.stat().st_size for file in (self.config.home / "registry").rglob("data"))

    @property
    def read_only(self) -> bool:
        return "readonly" in (self.config.home / "etc" / "registry.yml").read_text()


@pytest.fixture
def site() -> Iterator[Site]:
    if os.geteuid() or not shutil.which("docker-registry"):
        pytest.skip("needs root and the distribution's registry")
    home = Path(tempfile.mkdtemp(prefix="boc", dir="/var/tmp"))
    site = Site(home)
    site.restart()
    try:
        yield site
    finally:
        site.stop()
        shutil.rmtree(home)


@pytest.fixture
async def registry(site: Site) -> AsyncIterator[DistributionRegistry]:
    async with connected(site.config) as registry:
        yield registry


async def image(registry: DistributionRegistry, name: str, *layers: bytes) -> str:
    path = f"binder/{name}"
    digests = [await registry.put_blob(path, layer) for layer in layers]
    configuration = json.dumps({"name": name}).encode()
    config = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": await registry.put_blob(path, configuration),
        "size": len(configuration),
    }
    blobs = [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": len(layer)}
        for digest, layer in zip(digests, layers, strict=True)
    ]
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": blobs}
    return await registry.put_manifest(path, json.dumps(manifest).encode(), "tag")


async def pulls(site: Site, name: str) -> bool:
    """Whether every blob of it comes."""
    account = (site.config.secrets / "registry-account").read_text().strip()
    async with ClientSession(headers=authorization(account)) as session, connected(site.config) as registry:
        found = await registry.manifest(f"binder/{name}", "tag")
        if found is None:
            return False
        for blob in (found[1]["config"], *found[1]["layers"]):
            async with session.get(f"http://{site.config.registry_host}/v2/binder/{name}/blobs/{blob['digest']}") as answer:
                if answer.status != 200 or len(await answer.read()) != blob["size"]:
                    return False
    return True


async def test_bytes_come_back_and_what_is_kept_still_pulls(site: Site, registry: DistributionRegistry) -> None:
    shared, own, other = (secrets.token_bytes(2 * MIB) for _ in range(3))
    gone = await image(registry, "gone", shared, own)
    await image(registry, "kept", shared, other)
    before = site.used()
    await registry.delete(f"{site.config.registry_host}/binder/gone@{gone}")
    assert await site.collection().collect()
    assert 2 * MIB <= before - site.used() < 2.1 * MIB
    assert await pulls(site, "kept")
    assert not await pulls(site, "gone")
    assert not site.read_only
    # The same image again, after the registry has forgotten that it ever had its layers.
    await image(registry, "gone", shared, own)
    assert await pulls(site, "gone")


async def test_what_is_pushed_meanwhile_is_not_lost(site: Site, registry: DistributionRegistry) -> None:
    await image(registry, "kept", secrets.token_bytes(MIB))
    collecting = asyncio.create_task(site.collection().collect())
    while not site.read_only:  # noqa: ASYNC110 - a file tells nobody
        await asyncio.sleep(0.005)
    pushing = [asyncio.create_task(image(registry, f"new-{number}", secrets.token_bytes(MIB))) for number in range(5)]
    assert await registry.find("binder/kept", "tag")
    assert await collecting
    await asyncio.gather(*pushing)
    assert all([await pulls(site, name) for name in ("kept", *(f"new-{number}" for number in range(5)))])


async def test_a_build_that_began_first_is_waited_for(site: Site, registry: DistributionRegistry) -> None:
    site.running = True
    assert not await site.collection().collect()
    assert site.restarts == 1
    site.running = False
    looks = iter([False, True])
    blob = secrets.token_bytes(MIB)
    await registry.put_blob("binder/half", blob)
    assert not await Collection(site.config, site.restart, lambda: next(looks)).collect()
    assert site.used() >= MIB
    assert not site.read_only


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2, 0.5, 1.0])
async def test_broken_off_at_any_moment_it_can_be_written_again(site: Site, registry: DistributionRegistry, delay: float) -> None:
    await image(registry, "kept", secrets.token_bytes(MIB))
    collecting = asyncio.create_task(site.collection().collect())
    await asyncio.sleep(delay)
    collecting.cancel()
    await asyncio.gather(collecting, return_exceptions=True)
    await site.collection().heal()
    await image(registry, "new", secrets.token_bytes(1000))
    assert not site.read_only
    assert await pulls(site, "kept")


CHILD = """
import asyncio, sys, pathlib
from binder_onprem.building.collection import Collection
from binder_onprem.config import load
config = load(home=pathlib.Path(sys.argv[1]), path=pathlib.Path(sys.argv[1]) / "config.yaml")
collection = Collection(config, lambda: None, lambda: False)
print("begun", flush=True)
asyncio.run(collection.collect())
"""


@pytest.mark.parametrize("delay", [0.02, 0.1, 0.3])
async def test_after_a_kill_the_next_start_heals(site: Site, registry: DistributionRegistry, delay: float) -> None:
    await image(registry, "kept", secrets.token_bytes(MIB))
    home = site.config.home
    (home / "config.yaml").write_text(json.dumps({"listen": {"port": site.config.listen.port}}))
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, str(home), stdout=asyncio.subprocess.PIPE)
    assert child.stdout
    await child.stdout.readline()
    await asyncio.sleep(delay)
    with contextlib.suppress(ProcessLookupError):  # it was fast
        child.kill()
    await child.wait()
    await site.collection().heal()
    assert not site.read_only
    assert not (home / "run" / "collecting").exists()
    await image(registry, "new", secrets.token_bytes(1000))
    assert await pulls(site, "kept")


async def test_never_beside_a_set_up(site: Site) -> None:
    import fcntl  # noqa: PLC0415 - one place

    with (site.config.run / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not await site.collection().collect()
    assert site.restarts == 1
