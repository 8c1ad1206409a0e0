"""Links to images that the administrator has listed, from another registry: fetched as nobody, started as they are; and what goes wrong with them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from binder_onprem.config import load
from binder_onprem.host import engine_files
from tests.e2e.kernel import kernel
from tests.e2e.stand import launch, ready
from tests.e2e.test_idle import settings
from tests.real import tlsregistry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Origin
    from tests.e2e.stand import Stand

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def listed(stand: Stand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Settings with an image that is there, one that is not, one whose registry is down and one for administrators only."""
    folder = tmp_path_factory.mktemp("prebuilt")
    with tlsregistry.running(folder, accounts=False) as outside:
        trusted = Path(f"/etc/containers/certs.d/127.0.0.1:{outside.port}")  # as an administrator has a registry of his own trusted
        trusted.mkdir(parents=True)
        shutil.copy(outside.ca, trusted / "ca.crt")
        try:
            image = _pushed(stand, f"127.0.0.1:{outside.port}/stats/r-base")
            absent, away = f"{image.partition('@')[0]}@sha256:{'0' * 64}", f"127.0.0.1:1/stats/r-base@sha256:{'1' * 64}"
            images = {
                "stats": {"image": image, "title": "Statistics"},
                "absent": {"image": absent},
                "away": {"image": away},
                "own": {"image": image, "roles": ["admin"]},
            }
            with settings(stand, choice=stand.settings["choice"] | {"images": images}):
                yield images
        finally:
            shutil.rmtree(trusted)


def _pushed(stand: Stand, name: str) -> str:
    """An image on this Binder's base, in another registry and on this machine no more; by digest."""
    environment = os.environ | dict(engine_files.environment(load(home=stand.home)))

    def podman(*words: str, given: str = "") -> str:
        done = subprocess.run(["podman", *words], env=environment, input=given, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    text = "FROM localhost/binder-onprem/base\nUSER root\nRUN echo made elsewhere > /srv/where\nUSER jovyan\n"
    podman("build", "--quiet", "--network=none", "--tag", f"{name}:1", "-", given=text)
    digest = stand.home / "tmp" / "prebuilt.digest"
    podman("push", "--quiet", f"--digestfile={digest}", f"{name}:1")
    podman("rmi", f"{name}:1")
    return f"{name}@{digest.read_text().strip()}"


def unbuilt(origin: Origin) -> str:
    """A repository that nothing could be built of."""
    if "unbuilt" not in origin.repositories:
        origin.make("unbuilt", {"requirements.txt": "no-such-package-anywhere==1\n"})
    return origin.spec("unbuilt")


async def test_a_listed_image_is_started_as_it_is_and_nothing_is_built(stand: Stand, origin: Origin, listed: dict[str, Any]) -> None:
    end, before = await launch(stand, f"{unbuilt(origin)}?image=stats")
    assert end["phase"] == "ready", (end, before[-10:])
    assert end["image"] == listed["stats"]["image"]
    assert not [event for event in before if event["phase"] in ("fetching", "building")]
    async with kernel(end) as session:
        assert await session.run("import os; print(open('/srv/where').read(), os.path.exists('requirements.txt'))") == "made elsewhere\n False\n"
    assert (await ready(stand, f"{unbuilt(origin)}?image=stats"))["image"] == listed["stats"]["image"]


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("absent", "spawn", "is not in its registry. Tell the administrator."),
        ("away", "hub", "cannot be fetched from its registry now. Try again in a moment"),
        ("own", "refused", "image=own"),
        ("other", "invalid_spec", "There is: "),
    ],
)
@pytest.mark.usefixtures("listed")
async def test_what_is_not_there_not_allowed_or_not_answering_is_said(stand: Stand, origin: Origin, name: str, code: str, words: str) -> None:
    end, before = await launch(stand, f"{unbuilt(origin)}?image={name}")
    assert (end["phase"], end["code"], words in end["message"]) == ("failed", code, True), end
    assert not [event for event in before if event["phase"] in ("fetching", "building")]
