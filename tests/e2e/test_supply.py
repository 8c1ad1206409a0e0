"""What is in an image, who signed it, and that only signed images start where a site wants that; by the product's own commands."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.stand import launch, ready

if TYPE_CHECKING:
    from tests.e2e.conftest import Origin
    from tests.e2e.stand import Stand

pytestmark = pytest.mark.real

SIGNATURES = "application/vnd.oci.image.manifest.v1+json"


def registry(stand: Stand, method: str, path: str, data: bytes | None = None) -> tuple[bytes, str]:
    """The registry as somebody with its account reaches it: body and digest."""
    account = (stand.home / "secrets" / "registry-account").read_bytes().strip()
    headers = {"Authorization": f"Basic {base64.b64encode(account).decode()}", "Accept": SIGNATURES, "Content-Type": SIGNATURES}
    request = urllib.request.Request(f"http://127.0.0.1:{stand.port + 4}/v2/{path}", data, headers, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        return answer.read(), str(answer.headers.get("Docker-Content-Digest"))


async def test_an_image_has_a_list_and_a_signature_and_does_not_start_without(stand: Stand, origin: Origin) -> None:
    origin.make("papers", {"requirements.txt": "toolz==1.0.0\n"})
    image = (await ready(stand, origin.spec("papers")))["image"]
    papers = stand.json("images", "show", image)
    assert (papers["signature"], papers["sbom"]["signed"]) == ("good", True)
    assert papers["sbom"]["commit"] == origin.repositories["papers"].commit
    document = stand.json("images", "show", "--sbom", image.partition("@sha256:")[2][:12])
    parts = {item.get("purl", "").partition("?")[0] for item in document["components"]}
    assert "pkg:pypi/toolz@1.0.0" in parts
    assert any(part.startswith("pkg:pypi/jupyterlab@") for part in parts)
    assert any(part.startswith(("pkg:deb/debian/libc6@", "pkg:deb/ubuntu/libc6@")) for part in parts)
    host, _, path = image.partition("@")[0].partition("/")
    assert host
    tag = f"{path}/manifests/{image.partition('@')[2].replace(':', '-')}.sig"
    content, digest = registry(stand, "GET", tag)
    verified(stand, path, content)

    tampered: dict[str, Any] = json.loads(content)
    tampered["layers"][0]["annotations"] = {"dev.cosignproject.cosign/signature": base64.b64encode(b"x" * 70).decode()}
    registry(stand, "PUT", tag, json.dumps(tampered).encode())
    end, _ = await launch(stand, origin.spec("papers"))
    assert (end["phase"], end["code"], "not this site's" in end["message"]) == ("failed", "untrusted", True)
    registry(stand, "DELETE", tag.replace(tag.rpartition("/")[2], registry(stand, "GET", tag)[1]))
    end, _ = await launch(stand, origin.spec("papers"))
    assert (end["code"], "no signature" in end["message"]) == ("untrusted", True)
    assert stand.json("images", "sign", image)["signature"] == "good"
    assert registry(stand, "GET", tag)[1] != digest
    await ready(stand, origin.spec("papers"))


def verified(stand: Stand, path: str, manifest: bytes) -> None:
    """By other software, with the key that the command prints."""
    (layer,) = json.loads(manifest)["layers"]
    folder = stand.home / "run"
    (folder / "test.pub").write_text(stand.command("images", "key").stdout)
    (folder / "test.payload").write_bytes(registry(stand, "GET", f"{path}/blobs/{layer['digest']}")[0])
    (folder / "test.sig").write_bytes(base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"]))
    words = ["openssl", "dgst", "-sha256", "-verify", "test.pub", "-signature", "test.sig", "test.payload"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True, timeout=30)


async def test_an_image_of_a_dockerfile_has_its_list_too(stand: Stand, origin: Origin) -> None:
    origin.make("paperfile", {"Dockerfile": "FROM binder-onprem/base\nCOPY . .\n"})
    image = (await ready(stand, origin.spec("paperfile")))["image"]
    papers = stand.json("images", "show", image)
    assert (papers["signature"], papers["sbom"]["buildpack"]) == ("good", "Dockerfile")
    assert papers["sbom"]["components"]["pypi"] > 50
    assert papers["sbom"]["components"]["deb"] > 50


PACKAGE = "Package: ours\nVersion: 0.2.1\nTitle: Ours\nDescription: Of a test.\nLicense: GPL-3\nAuthor: A Test\nMaintainer: A Test <a@example.org>\n"
LANGUAGES = """#!/bin/bash
set -e
mkdir -p ~/rlibs ~/conda/conda-meta
R CMD INSTALL --library="$HOME/rlibs" ours
echo '{}' > ~/conda/conda-meta/numpy-base-1.26.4-py311hf175353_0.json
echo '==> a date <==' > ~/conda/conda-meta/history
"""


async def test_the_list_has_what_r_and_conda_have_installed(stand: Stand, origin: Origin) -> None:
    files = {"apt.txt": "r-base-core\n", "ours/DESCRIPTION": PACKAGE, "ours/NAMESPACE": "export(x)\n", "ours/R/x.R": "x <- function() 1\n"}
    origin.make("languages", {**files, "postBuild": LANGUAGES})
    end, before = await launch(stand, origin.spec("languages"))
    assert end["phase"] == "ready", [event["message"] for event in before[-20:]]
    document = stand.json("images", "show", "--sbom", end["image"].partition("@sha256:")[2][:12])
    parts = [item.get("purl", "").partition("?")[0] for item in document["components"]]
    assert "pkg:conda/numpy-base@1.26.4" in parts
    assert [part for part in parts if part.startswith("pkg:cran/ours@")] == ["pkg:cran/ours@0.2.1"], "installed, not its source"
    versions = {part.rpartition("@")[2] for part in parts if part.startswith(("pkg:cran/base@", "pkg:cran/stats@"))}
    (distribution,) = (part.rpartition("@")[2] for part in parts if part.startswith(("pkg:deb/debian/r-base-core@", "pkg:deb/ubuntu/r-base-core@")))
    assert {distribution.startswith(version) for version in versions} == {True}, "base R's own packages are as old as it"
