"""Copying images to a registry outside, with real registries and skopeo: same digest, accounts by file, what goes wrong in our words."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from binder_onprem.building.publication import Publication
from binder_onprem.building.registry import connected
from binder_onprem.config import Config
from binder_onprem.errors import RegistryUnavailable
from binder_onprem.host import sources
from binder_onprem.model import ImageRef
from tests.contract.test_registry import configuration, free_port, push
from tests.contract.test_registry import real as local_registry
from tests.real import tlsregistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.real


class Site:
    """A registry of ours with an image in it, and one outside."""

    def __init__(self, config: Config, outside: tlsregistry.TlsRegistry, image: ImageRef, digest: str) -> None:
        self.config, self.outside, self.image, self.digest = config, outside, image, digest

    def publication(self, **publish: object) -> Publication:
        settings = {"registry": self.outside.place, "account_file": self.outside.account, "ca_file": self.outside.ca} | publish
        config = Config.model_validate(self.config.model_dump() | {"publish": {key: value for key, value in settings.items() if value}})
        return Publication(config, sources.Sources(b"", None, "", None, None, None, None, (), frozenset()))

    def outside_has(self, reference: str) -> bytes:
        words = ("skopeo", "inspect", "--raw", f"--cert-dir={self.outside.ca.parent}", f"--creds={tlsregistry.ACCOUNT}", f"docker://{reference}")
        return subprocess.run(words, capture_output=True, check=True, timeout=60).stdout


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    ours, port = tmp_path / "ours", free_port()
    for folder in ("etc", "run", "tmp"):
        (ours / folder).mkdir(parents=True)
    config = configuration(ours, port)
    image = ImageRef(f"{config.registry_host}/binder/o-r-0123456789ab", f"{'c' * 40}-{'e' * 12}")
    (ours / "etc" / "registries.conf").write_text(f'[[registry]]\nlocation = "{config.registry_host}"\ninsecure = true\n')
    with tlsregistry.running(tmp_path / "outside") as outside:
        async with local_registry(ours, port), connected(config) as registry:
            digest, _ = await push(registry, "binder/o-r-0123456789ab", image.tag)
            yield Site(config, outside, image, digest)


async def test_the_copy_has_the_originals_digest_and_its_own_name(site: Site) -> None:
    publication = site.publication()
    first, second = await asyncio.gather(*(publication.publish(site.image, site.digest) for _ in range(2)))
    assert first == second == f"{site.outside.place}/o-r-0123456789ab@{site.digest}"
    assert site.outside_has(first) == site.outside_has(f"{site.outside.place}/o-r-0123456789ab:{site.image.tag}")
    assert json.loads(site.outside_has(first))["schemaVersion"] == 2
    assert await publication.publish(site.image, site.digest) == first
    assert not list(site.config.run.iterdir())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [("account", "refuses our account"), ("none", "refuses our account"), ("ca", "is not trusted"), ("down", "does not take it"), ("file", "read")],
)
async def test_what_goes_wrong_is_said_in_our_words(site: Site, tmp_path: Path, wrong: str, words: str) -> None:
    (tmp_path / "wrong").write_text("pusher:planted-wrong-password")
    other_ca, _, _ = tlsregistry.certificates(tmp_path / "other")
    settings: dict[str, dict[str, object]] = {
        "account": {"account_file": tmp_path / "wrong"},
        "none": {"account_file": None},
        "ca": {"ca_file": other_ca},
        "down": {"registry": f"127.0.0.1:{free_port()}/x"},
        "file": {"account_file": tmp_path / "absent"},
    }
    with pytest.raises(RegistryUnavailable, match=words) as caught:
        await site.publication(**settings[wrong]).publish(site.image, site.digest)
    assert "planted" not in caught.value.message
    assert not list(site.config.run.iterdir())


async def test_whoever_leaves_stops_no_copy_that_others_wait_for(site: Site) -> None:
    publication = site.publication()
    leaving = asyncio.create_task(publication.publish(site.image, site.digest))
    staying = asyncio.create_task(publication.publish(site.image, site.digest))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).endswith(site.digest)
    with pytest.raises(asyncio.CancelledError):
        await leaving
