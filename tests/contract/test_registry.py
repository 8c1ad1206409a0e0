"""The same assertions against the real registry and the fake one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import socket
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import bcrypt
import pytest
from aiohttp import web

from binder_onprem.building import registry as registry_module
from binder_onprem.building.registry import DistributionRegistry, authorization, connected
from binder_onprem.config import Config
from binder_onprem.errors import LimitHit, RegistryUnavailable
from binder_onprem.model import ImageRef
from tests.contract.fake_registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from binder_onprem.config import Config as _Config

COMMIT = "c" * 40


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configuration(home: Path, port: int) -> _Config:
    (home / "secrets").mkdir(exist_ok=True)
    (home / "secrets" / "registry-account").write_text("builder:secret\n")
    return Config.model_validate({"home": home, "listen": {"port": port - 4}})


@asynccontextmanager
async def real(home: Path, port: int) -> AsyncIterator[None]:
    if not shutil.which("docker-registry"):
        pytest.skip("the distribution's registry is not installed")
    users = b"builder:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4))
    (home / "users").write_bytes(users)
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(home / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "x"},
        "auth": {"htpasswd": {"realm": "r", "path": str(home / "users")}},
        "log": {"level": "error"},
    }
    (home / "registry.yml").write_text(json.dumps(settings))
    command = ["docker-registry", "serve", str(home / "registry.yml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: ASYNC220 - ended below
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            await asyncio.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def fake(registry: FakeRegistry, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(registry.application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real)])
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DistributionRegistry]:
    port = free_port()
    server = real(tmp_path, port) if request.param == "real" else fake(FakeRegistry(), port)
    async with server, connected(configuration(tmp_path, port)) as client:
        yield client


async def push(registry: DistributionRegistry, path: str, tag: str, data: bytes = b"layer") -> tuple[str, dict[str, object]]:
    config = json.dumps({"architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}, "x": tag}).encode()
    blobs = [{"mediaType": "application/octet-stream", "digest": await registry.put_blob(path, blob), "size": len(blob)} for blob in (config, data)]
    manifest = {"schemaVersion": 2, "mediaType": registry_module.MANIFEST, "config": blobs[0], "layers": blobs[1:]}
    return await registry.put_manifest(path, json.dumps(manifest).encode(), tag), manifest


async def test_an_image_is_there_once_it_was_pushed(registry: DistributionRegistry) -> None:
    image = ImageRef(f"{registry._host}/binder/a", f"{COMMIT}-1")
    assert await registry.digest(image) is None
    digest, manifest = await push(registry, "binder/a", image.tag)
    assert await registry.digest(image) == digest
    assert await registry.manifest("binder/a", digest) == (digest, manifest)
    assert (await registry.configuration("binder/a", manifest["config"]["digest"]))["x"] == image.tag  # type: ignore[index]


async def test_images_are_listed_with_sizes_and_only_ours(registry: DistributionRegistry) -> None:
    assert await registry.images() == []
    digest, manifest = await push(registry, "binder/a", "t1")
    await push(registry, "binder/b", "t2")
    await push(registry, "binder-base", "t3")
    found = {image.reference: image for image in await registry.images()}
    assert {reference.partition("@")[0] for reference in found} == {f"{registry._host}/binder/a", f"{registry._host}/binder/b"}
    image = found[f"{registry._host}/binder/a@{digest}"]
    assert image.size == 5 + manifest["config"]["size"]  # type: ignore[index]


async def test_an_environment_is_listed_once_no_image_stands_on_it(registry: DistributionRegistry) -> None:
    await push(registry, "binder-env", "k" * 64, b"environment")
    image, _ = await push(registry, "binder/a", "t", b"environment")
    assert [found.reference.partition("@")[0] for found in await registry.images()] == [f"{registry._host}/binder/a"]
    await registry.delete(f"{registry._host}/binder/a@{image}")
    assert [found.reference.partition("@")[0] for found in await registry.images()] == [f"{registry._host}/binder-env"]


async def test_many_tags_come_in_pages(registry: DistributionRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "PAGE", 2)
    for number in range(5):
        await push(registry, f"binder/{number}", "t")
    assert len(await registry.images()) == 5


async def test_deleting_twice_is_fine_and_the_image_is_gone(registry: DistributionRegistry) -> None:
    digest, _ = await push(registry, "binder/a", "t")
    for _ in range(2):
        await registry.delete(f"{registry._host}/binder/a@{digest}")
    assert await registry.digest(ImageRef(f"{registry._host}/binder/a", "t")) is None
    assert await registry.images() == []


async def test_a_blob_of_another_repository_is_mounted_not_moved(registry: DistributionRegistry) -> None:
    digest = await registry.put_blob("binder-base", b"shared")
    assert await registry.mount("binder/a", digest, "binder-base")
    assert not await registry.mount("binder/a", "sha256:" + "0" * 64, "binder-base")


async def test_a_large_blob_is_streamed(registry: DistributionRegistry) -> None:
    digest = hashlib.sha256()

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(64):
            chunk = bytes([number]) * 65536
            digest.update(chunk)
            yield chunk

    await registry.upload("binder/a", chunks, lambda: f"sha256:{digest.hexdigest()}")
    assert await registry.mount("binder/b", f"sha256:{digest.hexdigest()}", "binder/a")


async def test_the_contents_own_error_ends_the_push_at_once(registry: DistributionRegistry) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        raise LimitHit("too much")

    async with asyncio.timeout(5):
        with pytest.raises(LimitHit):
            await registry.upload("binder/a", chunks, lambda: "sha256:" + "0" * 64)


async def test_an_image_whose_layers_are_missing_is_not_taken(registry: DistributionRegistry) -> None:
    absent = {"mediaType": "application/octet-stream", "digest": "sha256:" + "0" * 64, "size": 1}
    manifest = {"schemaVersion": 2, "mediaType": registry_module.MANIFEST, "config": absent, "layers": [absent]}
    with pytest.raises(RegistryUnavailable):
        await registry.put_manifest("binder/a", json.dumps(manifest).encode(), "t")


async def test_a_wrong_account_is_an_error_never_absent(registry: DistributionRegistry) -> None:
    async with aiohttp.ClientSession(headers=authorization("builder:wrong")) as session:
        stranger = DistributionRegistry(session, registry._host, "binder")
        with pytest.raises(RegistryUnavailable, match="refuses our account"):
            await stranger.digest(ImageRef(f"{registry._host}/binder/a", "t"))


async def test_a_name_of_another_registry_is_refused(registry: DistributionRegistry) -> None:
    with pytest.raises(RegistryUnavailable):
        await registry.delete("elsewhere.test/binder/a@sha256:" + "0" * 64)


async def test_the_account_is_not_carried_elsewhere(registry: DistributionRegistry) -> None:
    with pytest.raises(RegistryUnavailable):
        await registry._send("PATCH", "http://elsewhere.test:5000/v2/a/blobs/uploads/1")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
async def test_a_registry_whose_disk_is_full_says_so_and_works_again_with_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "PUSH_SECONDS", 0.1)
    disk, port = tmp_path / "data", free_port()
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], check=True)  # noqa: ASYNC221 - at once
    try:
        async with real(tmp_path, port), connected(configuration(tmp_path, port)) as client:
            for size in (10**6, 1):
                with pytest.raises(RegistryUnavailable, match="The disk of the image registry is full"):
                    await client.put_blob("binder/a", bytes(size))
            subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)  # noqa: ASYNC221 - at once
            assert await client.put_blob("binder/a", bytes(10**6))
    finally:
        subprocess.run(["umount", disk], check=True)  # noqa: ASYNC221 - at once


# Faults that only the fake can be told to have.


@asynccontextmanager
async def faulty(tmp_path: Path, *faults: int) -> AsyncIterator[tuple[FakeRegistry, DistributionRegistry]]:
    server, port = FakeRegistry(), free_port()
    async with fake(server, port), connected(configuration(tmp_path, port)) as client:
        server.faults += faults
        yield server, client


@pytest.mark.parametrize("faults", [(503,), (500, 502, 429), (0,), (0, 0, 503)])
async def test_what_passes_is_asked_again(tmp_path: Path, faults: tuple[int, ...]) -> None:
    async with faulty(tmp_path, *faults) as (server, client):
        assert await client.find("binder/a", "t") is None
        assert server.requests == len(faults) + 2


async def test_a_push_outlives_faults_and_leaves_no_half_upload(tmp_path: Path) -> None:
    async with faulty(tmp_path, 503, 0) as (server, client):
        digest = await client.put_blob("binder/a", b"data")
        assert server.blobs == {"binder/a": {digest: b"data"}}
        assert server.uploads == {}


async def test_a_registry_that_stays_away_is_unavailable_in_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "PAUSES", (0.01,))
    monkeypatch.setattr(registry_module, "ASK_SECONDS", 0.2)
    async with connected(configuration(tmp_path, free_port())) as client, asyncio.timeout(10):
        with pytest.raises(RegistryUnavailable, match="does not answer"):
            await client._ask("GET", "", seconds=0.2)


@pytest.mark.parametrize("status", [404, 302, 400])
async def test_something_else_on_the_port_is_not_taken_for_absent(tmp_path: Path, status: int) -> None:
    async with faulty(tmp_path, status, status) as (_, client):
        with pytest.raises(RegistryUnavailable):
            await client.find("binder/a", "t")


async def test_a_missing_account_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RegistryUnavailable, match="into its file"):
        async with connected(Config(home=tmp_path)):
            pass
