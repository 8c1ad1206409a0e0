"""The API on one image: how it is named, who may ask, what comes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import pytest

from binder_onprem.errors import InvalidSpec, NotFound
from binder_onprem.web.admin.papers import _found
from tests.unit.webstand import ADMIN, IMAGE, Records, stand

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = "a" * 10 + "1" * 54, "a" * 10 + "2" * 54
IMAGES: list[Any] = [SimpleNamespace(reference=f"127.0.0.1:1/binder/{name}@sha256:{digest}", size=3) for name, digest in (("x-1", ONE), ("y-2", TWO))]


@pytest.mark.parametrize(
    "name", [IMAGES[0].reference, f"binder/x-1@sha256:{ONE}", f"sha256:{ONE}", ONE, ONE[:11], f"sha256:{ONE[:11]}", "x-1", "binder/x-1"]
)
def test_an_image_is_found_by_what_people_have_of_it(name: str) -> None:
    assert _found(name, IMAGES) is IMAGES[0]


@pytest.mark.parametrize("name", ["", "x", "x-1@sha256:" + TWO, "sha256:", "b" * 10, ONE[:5], "/", "@", "x-1@"])
def test_another_is_not(name: str) -> None:
    with pytest.raises(NotFound):
        _found(name, IMAGES)


def test_one_of_several_is_not_guessed() -> None:
    with pytest.raises(InvalidSpec, match="2 images"):
        _found("a" * 10, IMAGES)


class Papers:
    """A supply chain that knows one image."""

    def __init__(self) -> None:
        self.signed: list[str] = []

    async def papers(self, reference: str) -> dict[str, Any]:
        return {"reference": reference, "sbom": None, "signature": "good" if self.signed else "none", "scan": None}

    async def sbom(self, reference: str) -> bytes | None:
        return b'{"bomFormat": "CycloneDX"}' if reference in self.signed else None

    async def sign(self, reference: str) -> None:
        self.signed.append(reference)


async def test_papers_are_for_the_administrator(tmp_path: Path) -> None:
    async with stand(tmp_path, records=Records()) as site, aiohttp.ClientSession() as session:
        site.site.line.supply = Papers()  # type: ignore[misc]
        path = f"{site.url}api/images/{quote(IMAGE, safe='')}"
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with session.get(path) as answer:
            assert answer.status == 403
        async with session.get(path, headers=headers) as answer:
            assert await answer.json() == {
                "reference": IMAGE,
                "sbom": None,
                "signature": "none",
                "scan": None,
                "size": 11,
                "last_used": 7.0,
            }
        async with session.get(f"{path}/sbom", headers=headers) as answer:
            assert answer.status == 404
        async with session.post(f"{path}/sign", headers=headers) as answer:
            assert (await answer.json())["signature"] == "good"
        async with session.get(f"{path}/sbom", headers=headers) as answer:
            assert (answer.content_type, await answer.read()) == ("application/vnd.cyclonedx+json", b'{"bomFormat": "CycloneDX"}')
        async with session.get(f"{site.url}api/images/nothing", headers=headers) as answer:
            assert answer.status == 404
