"""A registry on another machine: TLS by a CA of the site's, an account that pushes and one that pulls, with the real registry and podman."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from binder_onprem.building.registry import connected
from binder_onprem.config import Config
from binder_onprem.engine.images import Images
from binder_onprem.errors import EngineUnavailable, HostUnfit, RegistryUnavailable
from binder_onprem.host import baseimage, engine_files, remoteregistry, site_files, sources
from binder_onprem.hub.podman_session import EngineDown, Podman
from binder_onprem.model import ImageRef
from tests.real import tlsregistry
from tests.real.engine import Engine, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tlsregistry.TlsRegistry]:
    with tlsregistry.running(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


def settings(registry: tlsregistry.TlsRegistry, **others: object) -> dict[str, object]:
    account = str(registry.account)
    there = {"kind": "remote", "address": f"127.0.0.1:{registry.port}", "push_account_file": account, "pull_account_file": account}
    return there | {"ca_file": str(registry.ca)} | others


@pytest.fixture(scope="module")
def engine(registry: tlsregistry.TlsRegistry) -> Iterator[Engine]:
    with running(registry=settings(registry)) as engine:
        yield engine


def small(engine: Engine, name: str) -> str:
    """An image of a few bytes, local."""
    engine.podman("build", "--quiet", f"--tag={name}", "-", stdin=f"FROM scratch\nLABEL name={name.rpartition('/')[2]}\n")
    return name


async def test_podman_pushes_and_pulls_by_digest_over_tls(engine: Engine) -> None:
    config, images = engine.config, Images(engine.config)
    image = ImageRef(f"{config.image_prefix}/o-r-0123456789ab", "tag")
    await images.push(small(engine, "localhost/small:latest"), f"{image.repository}:tag")
    async with connected(config) as registry:
        digest = await registry.digest(image)
        assert digest
        assert [one.reference for one in await registry.images()] == [image.at(digest)]
        await images.fetch(image.at(digest))
        assert await images.exists(image.at(digest))
        await images.remove(image.at(digest))
        spawner = Podman(config.podman_socket, config.pull_account.read_text().strip(), tls=True)
        await spawner.pull(image.at(digest), 60)
        assert await images.exists(image.at(digest))
        await registry.put_blob("binder/o-r-0123456789ab", b"{}")


async def test_a_registry_that_nobody_vouches_for_gets_nothing(engine: Engine, registry: tlsregistry.TlsRegistry, tmp_path: Path) -> None:
    stranger = tlsregistry.certificates(tmp_path)[0]
    config = Config.model_validate(engine.config.model_dump() | {"registry": settings(registry, ca_file=stranger)})
    async with connected(config) as nobody:
        with pytest.raises(RegistryUnavailable):
            await nobody.ping()
    certificate = engine_files.certificate(engine.config)
    assert certificate
    right = certificate.read_text()
    certificate.write_text(stranger.read_text())
    try:
        with pytest.raises(EngineUnavailable):
            await Images(engine.config).push(small(engine, "localhost/other:latest"), f"{engine.config.image_prefix}/other:tag")
        with pytest.raises(EngineDown, match=r"x509|certificate"):
            await Podman(engine.config.podman_socket, tlsregistry.ACCOUNT, tls=True).pull(f"{engine.config.image_prefix}/o@sha256:{'0' * 64}", 60)
    finally:
        certificate.write_text(right)


async def test_the_base_image_goes_there(engine: Engine) -> None:
    made = baseimage.make(engine.config, sources.read(engine.config), lambda _: None)
    assert made.base.startswith(f"{engine.config.registry_host}/binder-base@sha256:")
    async with connected(engine.config) as registry:
        assert await registry.find("binder-base", made.base.partition("@")[2]) == made.base.partition("@")[2]
    assert baseimage.make(engine.config, sources.read(engine.config), lambda _: None) == made


def test_check_tries_both_accounts(engine: Engine, registry: tlsregistry.TlsRegistry, tmp_path: Path) -> None:
    found = list(remoteregistry.findings(engine.config))
    assert [one.level for one in found] == ["warn", "ok"]
    assert "pull_account_file push, too" in found[0].text
    wrong = tmp_path / "wrong"
    wrong.write_text("pusher:wrong")

    def said(**others: object) -> list[tuple[str, str]]:
        config = Config.model_validate(engine.config.model_dump() | {"registry": settings(registry, **others)})
        return [(one.level, one.text) for one in remoteregistry.findings(config)]

    assert said(push_account_file=wrong)[0] == ("fail", "refuses the account in registry.push_account_file")
    assert ("fail", "refuses the account in registry.pull_account_file") in said(pull_account_file=wrong)
    assert said(ca_file=tlsregistry.certificates(tmp_path)[0]) == [("fail", f"127.0.0.1:{registry.port} shows a certificate that is not trusted")]
    assert "cannot be read" in said(ca_file=tmp_path / "none")[0][1]
    assert said(address="127.0.0.1:9") == [("fail", "127.0.0.1:9 does not answer")]
    assert not list((tmp_path / "data").rglob("_uploads/*/data"))
    assert not list(remoteregistry.findings(Config()))


def test_one_that_only_reads_is_told(engine: Engine, tmp_path: Path) -> None:
    with tlsregistry.running(tmp_path, read_only=True) as reading:
        config = Config.model_validate(engine.config.model_dump() | {"registry": settings(reading)})
        found = list(remoteregistry.findings(config))
    assert [(one.level, one.text) for one in found] == [("fail", "does not let the account in registry.push_account_file push")]


def test_up_says_that_the_certificates_are_missing(engine: Engine, tmp_path: Path) -> None:
    there = engine.config.registry.model_copy(update={"ca_file": tmp_path / "none"})
    with pytest.raises(HostUnfit, match="cannot be read"):
        site_files._trust(engine.config.model_copy(update={"registry": there}))


def test_the_accounts_are_in_no_process_list(engine: Engine) -> None:
    password = tlsregistry.ACCOUNT.partition(":")[2]
    assert password not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert password not in replace(engine).podman("info")
