"""What lies beside an image in the registry, by cosign's convention: tag ``sha256-<hex>.<kind>`` in the same repository, which every registry takes.

Called by `chain` and by the registry itself when it lists and deletes. Each is a manifest with one blob for each content; its `subject` names the
image, for registries that know referrers.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from binder_onprem.building.blobs import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from binder_onprem.building.registry import DistributionRegistry

Kind = Literal["sig", "sbom", "scan"]
KINDS: Final[tuple[Kind, ...]] = ("sig", "sbom", "scan")
TYPES: Final[dict[Kind, str]] = {
    "sig": "application/vnd.dev.cosign.simplesigning.v1+json",
    "sbom": "application/vnd.cyclonedx+json",
    "scan": "application/vnd.binder-onprem.scan.v1+json",
}
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYERS: Final = 8
_TAG: Final = re.compile(r"sha256-([0-9a-f]{64})\.(sig|sbom|scan)")


@dataclass(frozen=True, slots=True)
class Attached:
    """One content.

    Attributes:
        content: Its bytes.
        annotations: Of its blob.
    """

    content: bytes
    annotations: Mapping[str, str] = field(default_factory=dict)


def tag(digest: str, kind: Kind) -> str:
    """Where it lies: of ``sha256:…``."""
    return f"{digest.replace(':', '-')}.{kind}"


def subject(name: str) -> str | None:
    """The image's digest that a tag of this form is about, None for any other tag."""
    match = _TAG.fullmatch(name)
    return f"sha256:{match[1]}" if match else None


async def put(registry: DistributionRegistry, path: str, digest: str, kind: Kind, attached: Attached) -> str:
    """Put it there, in place of what was; returns the content's digest.

    Args:
        registry: Has the image.
        path: The image's repository, ``binder/name``.
        digest: The image's.
        kind: What it is.
        attached: The content.

    Raises:
        RegistryUnavailable: Did not work.
    """
    content = await registry.put_blob(path, attached.content)
    # The configuration that cosign writes: an image without anything in it but this one layer.
    nothing = {"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": [content]}}
    configuration = json.dumps(nothing, separators=(",", ":")).encode()
    own = await registry.put_blob(path, configuration)
    size = await registry.size(path, digest)
    about = {"subject": {"mediaType": MANIFEST, "digest": digest, "size": size}} if size else {}
    layer = {"mediaType": TYPES[kind], "digest": content, "size": len(attached.content), "annotations": dict(attached.annotations)}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG_TYPE, "digest": own, "size": len(configuration)},
        "layers": [layer],
        **about,
    }
    await registry.put_manifest(path, json.dumps(manifest, separators=(",", ":")).encode(), tag(digest, kind))
    return content


async def get(registry: DistributionRegistry, path: str, digest: str, kind: Kind) -> list[Attached]:
    """What is there, its blobs checked against their digests; empty where there is nothing. Raises `RegistryUnavailable`."""
    found = await registry.manifest(path, tag(digest, kind))
    if found is None:
        return []
    layers: list[dict[str, Any]] = [layer for layer in found[1].get("layers", ())[:LAYERS] if layer.get("mediaType") == TYPES[kind]]
    return [Attached(await registry.blob(path, str(layer["digest"])), layer.get("annotations") or {}) for layer in layers]


async def forget(registry: DistributionRegistry, path: str, digest: str) -> None:
    """Delete all that lies beside an image; absent is fine. Raises `RegistryUnavailable`."""
    for kind in KINDS:
        found = await registry.find(path, tag(digest, kind))
        if found:
            await registry.erase(path, found)
