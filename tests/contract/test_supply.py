"""An image's papers: contents, signature and scan beside it in the registry, real and fake; tampering, rotation, deletion."""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from binder_onprem.building.supply import attached, bill, signing
from binder_onprem.building.supply.attached import Attached
from binder_onprem.building.supply.bill import Part
from binder_onprem.building.supply.chain import Chain
from binder_onprem.building.supply.keys import Keys
from binder_onprem.config import Config
from binder_onprem.errors import BuildFailed, EngineUnavailable, HostUnfit, RegistryUnavailable, Untrusted
from binder_onprem.host.baseimage import Made
from binder_onprem.model import BuildRecord, BuildState, ImageRef, RepoSpec, ResolvedRepo
from binder_onprem.plan import UV, Plan
from tests.contract.test_registry import push, registry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from binder_onprem.building.registry import DistributionRegistry
    from binder_onprem.events import Phase

__all__ = ["registry"]

REPO = ResolvedRepo(RepoSpec("gh", "o/r/HEAD", "https://example.org/o/r", "HEAD", "o-r"), "c" * 40, "o/r/c", "https://example.org/o/r")
FOUND = (Part("deb", "libc6", "2.36-9+deb12u10", "amd64"), Part("os", "debian", "12"), Part("pypi", "Importlib_Metadata", "8.0"))
MADE = Made("h/binder-base@sha256:b", "id", "sandbox", "r" * 64)
PLAN = Plan(UV, "layers")


@dataclass
class Contents:
    """What the sandbox would list."""

    found: tuple[Part, ...] | None = FOUND

    async def read(self, build_id: str, reference: str) -> tuple[Part, ...]:
        assert (len(build_id), "@sha256:" in reference) == (16, True)
        if self.found is None:
            raise EngineUnavailable("no podman")
        return self.found


@dataclass
class Log:
    lines: list[str] = field(default_factory=list)

    async def write(self, phase: Phase, line: str) -> None:
        del phase
        self.lines.append(line)


def chain(home: Path, registry: DistributionRegistry, contents: Contents | None = None, **supply: object) -> Chain:
    config = Config.model_validate({"home": home, "supply": supply})
    config.secrets.mkdir(exist_ok=True)
    keys = Keys(config)
    keys.ready()
    return Chain(config, registry, contents or Contents(), keys, MADE)  # type: ignore[arg-type]


async def built(registry: DistributionRegistry, name: str = "a") -> tuple[BuildRecord, str, str]:
    image = ImageRef(f"{registry._host}/binder/{name}", "t")
    digest, _ = await push(registry, f"binder/{name}", "t")
    return BuildRecord("0123456789abcdef", image, REPO, BuildState.PUSHING, 1_700_000_000.0), digest, image.at(digest)


async def test_an_image_has_its_papers_and_may_be_started(registry: DistributionRegistry, tmp_path: Path) -> None:
    build, digest, reference = await built(registry)
    mine, log = chain(tmp_path, registry, verify=True, scan=["/bin/sh", "-c", "grep -c purl >/dev/null; echo fine, $IMAGE"]), Log()
    with pytest.raises(Untrusted, match="no signature"):
        await mine.verify(reference)
    await mine.attest(build, PLAN, digest, log)
    await mine.verify(reference)
    papers = await mine.papers(reference)
    assert papers["signature"] == "good"
    assert papers["sbom"] | {} == papers["sbom"] | {
        "components": {"deb": 1, "os": 1, "pypi": 1},
        "repository": "https://example.org/o/r",
        "commit": "c" * 40,
        "recipe": "r" * 64,
        "base": MADE.base,
        "buildpack": UV,
        "signed": True,
    }
    assert (papers["scan"]["accepted"], papers["scan"]["sentence"]) == (True, f"fine, {reference}")
    assert len(log.lines) == 4
    document = json.loads(await mine.sbom(reference) or b"")
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert {item.get("purl") for item in document["components"]} == {
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64",
        "pkg:pypi/importlib-metadata@8.0",
        None,
    }


async def test_papers_are_no_images_and_go_with_theirs(registry: DistributionRegistry, tmp_path: Path) -> None:
    build, digest, reference = await built(registry)
    mine = chain(tmp_path, registry)
    await mine.attest(build, PLAN, digest, Log())
    assert [image.reference for image in await registry.images()] == [reference]
    await registry.delete(reference)
    assert await registry.images() == []
    assert [await attached.get(registry, "binder/a", digest, kind) for kind in attached.KINDS] == [[], [], []]


async def test_papers_without_an_image_go_like_an_unused_image(registry: DistributionRegistry, tmp_path: Path) -> None:
    build, digest, _ = await built(registry)
    await chain(tmp_path, registry).attest(build, PLAN, digest, Log())
    await registry.erase("binder/a", digest)  # as when the service is killed in the middle
    left = [image.reference for image in await registry.images()]
    assert len(left) == 2
    for reference in left:
        await registry.delete(reference)
    assert await registry.images() == []


async def test_cosign_finds_what_it_looks_for(registry: DistributionRegistry, tmp_path: Path) -> None:
    build, digest, _ = await built(registry)
    await chain(tmp_path, registry).attest(build, PLAN, digest, Log())
    found = await registry.manifest("binder/a", f"sha256-{digest.removeprefix('sha256:')}.sig")
    assert found
    (layer,) = found[1]["layers"]
    assert (layer["mediaType"], found[1]["subject"]["digest"]) == ("application/vnd.dev.cosign.simplesigning.v1+json", digest)
    payload = await registry.blob("binder/a", layer["digest"])
    assert json.loads(payload)["critical"] == {
        "identity": {"docker-reference": f"{registry._host}/binder/a"},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    # By other software than ours, with the key as it is given to others.
    (tmp_path / "payload").write_bytes(payload)
    (tmp_path / "signature").write_bytes(base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"]))
    words = ["openssl", "dgst", "-sha256", "-verify", tmp_path / "etc/signing.pub", "-signature", tmp_path / "signature", tmp_path / "payload"]
    assert "OK" in subprocess.run(words, capture_output=True, text=True, check=True).stdout  # noqa: ASYNC221 - a moment


async def test_a_signature_of_somebody_else_or_of_another_image_is_none(registry: DistributionRegistry, tmp_path: Path) -> None:
    _, digest, reference = await built(registry)
    other, _, _ = await built(registry, "b")
    mine = chain(tmp_path, registry, verify=True)
    (tmp_path / "else").mkdir()
    theirs = Keys(chain_config(tmp_path / "else"))
    theirs.ready()
    forged = signing.signed(theirs, reference.partition("@")[0], digest, {})
    moved = signing.signed(mine._keys, other.image.repository, "sha256:" + "0" * 64, {})
    cut = Attached(signing.payload("x", digest, {}), {signing.ANNOTATION: "not base64!"})
    for bad in (forged, moved, cut, Attached(b"{}"), Attached(b"[" * 5000), Attached(b'{"critical": 1}')):
        await attached.put(registry, "binder/a", digest, "sig", bad)
        with pytest.raises(Untrusted, match="not this site's"):
            await mine.verify(reference)
        assert (await mine.papers(reference))["signature"] == "bad"
    await mine.sign(reference)
    await mine.verify(reference)


def chain_config(home: Path) -> Config:
    config = Config(home=home)
    config.secrets.mkdir(exist_ok=True)
    return config


async def test_a_list_that_was_exchanged_is_told(registry: DistributionRegistry, tmp_path: Path) -> None:
    build, digest, reference = await built(registry)
    mine = chain(tmp_path, registry)
    await mine.attest(build, PLAN, digest, Log())
    await attached.put(registry, "binder/a", digest, "sbom", Attached(bill.document(build, digest, {}, FOUND[:1])))
    papers = await mine.papers(reference)
    assert (papers["signature"], papers["sbom"]["signed"]) == ("good", False)


async def test_keys_are_rotated_and_forgotten(registry: DistributionRegistry, tmp_path: Path) -> None:
    build, digest, reference = await built(registry)
    mine = chain(tmp_path, registry, verify=True)
    await mine.attest(build, PLAN, digest, Log())
    first = mine._keys.public
    mine._keys.rotate()
    assert mine._keys.public != first
    mine._keys.rotate()
    await mine.verify(reference)
    assert {(tmp_path / "secrets" / name).stat().st_mode & 0o777 for name in ("signing-key", "signing-keys-retired")} == {0o600}
    assert (tmp_path / "etc/signing.pub").read_text() == mine._keys.public
    mine._keys.rotate(forget=True)
    with pytest.raises(Untrusted):
        await mine.verify(reference)
    (tmp_path / "secrets/signing-key").write_text("nonsense")
    with pytest.raises(HostUnfit, match="images key --rotate"):
        await mine.verify(reference)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/bin/sh", "-c", "cat >/dev/null; echo line; echo libc6 is too old; exit 3"], "refuses the image: libc6 is too old"),
        (["/bin/sh", "-c", "exit 4"], "refuses the image: exit status 4"),
        (["/no/such/program"], "did not work"),
        (["/bin/sh", "-c", "sleep 60 & sleep 60"], "did not work"),
        (["/bin/sh", "-c", "yes | head -c 3000000; printf '\\033[31mbad'; exit 1"], "refuses the image: [31mbad"),
    ],
)
async def test_a_scan_may_refuse_and_then_there_is_no_signature(
    registry: DistributionRegistry, tmp_path: Path, command: Sequence[str], words: str
) -> None:
    build, digest, reference = await built(registry)
    mine = chain(tmp_path, registry, scan=command, scan_timeout=2)
    with pytest.raises(BuildFailed) as refused:
        await mine.attest(build, PLAN, digest, Log())
    assert words in refused.value.message
    assert (await mine.papers(reference))["signature"] == "none"


async def test_without_a_list_the_image_is_used_unless_the_site_asks_for_more(registry: DistributionRegistry, tmp_path: Path) -> None:
    build, digest, reference = await built(registry)
    log = Log()
    await chain(tmp_path, registry, Contents(None)).attest(build, PLAN, digest, log)
    assert "used all the same" in log.lines[-1]
    assert (await chain(tmp_path, registry).papers(reference))["sbom"] is None
    with pytest.raises(EngineUnavailable):
        await chain(tmp_path, registry, Contents(None), verify=True).attest(build, PLAN, digest, log)


async def test_what_was_good_is_so_while_the_registry_is_away(
    registry: DistributionRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, digest, reference = await built(registry)
    mine = chain(tmp_path, registry, verify=True)
    await mine.attest(build, PLAN, digest, Log())
    await mine.verify(reference)

    async def away(*_: object) -> None:
        raise RegistryUnavailable("away")

    monkeypatch.setattr(registry, "manifest", away)
    await mine.verify(reference)
    with pytest.raises(RegistryUnavailable):
        await chain(tmp_path, registry, verify=True).verify(reference)
