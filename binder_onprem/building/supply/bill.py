"""The list of what is in an image as a CycloneDX document (SBOM). Pure; run in a thread, because a large one takes a moment."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cyclonedx.model.component import Component

    from binder_onprem.model import BuildRecord

TYPES: Final = ("pypi", "deb", "conda", "cran", "os")
SYSTEMS: Final = {"debian": "debian", "ubuntu": "ubuntu"}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,127}")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.:~!_^-]{0,127}")
_PROPERTY: Final = "io.binder-onprem"


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """Something installed: `type` is one of `TYPES`, `version` and `arch` may be ""."""

    type: str
    name: str
    version: str
    arch: str = ""


def parts(lines: Iterable[str]) -> tuple[Part, ...]:
    """What the sandbox has listed, sorted, each once; what does not look like a part is not one."""
    return tuple(sorted({part for line in lines if (part := _part(line))}))


def _part(line: str) -> Part | None:
    try:
        data = json.loads(line)
        kind, name, version, arch = (str(data.get(key, "")) for key in ("type", "name", "version", "arch"))
    except (ValueError, AttributeError, RecursionError):
        return None
    fine = kind in TYPES and _NAME.fullmatch(name) and (not version or _VERSION.fullmatch(version)) and (not arch or _NAME.fullmatch(arch))
    return Part(kind, name, version, arch) if fine else None


def document(build: BuildRecord, name: str, facts: Mapping[str, str], found: Sequence[Part]) -> bytes:
    """The document.

    Args:
        build: Says from what the image was made.
        name: Digest of its manifest.
        facts: Further properties of it: recipe, base image, buildpack.
        found: What is installed.
    """
    # An import of tenths of a second, needed by builds alone.
    from cyclonedx.model import ExternalReference, ExternalReferenceType, Property, XsUri  # noqa: PLC0415
    from cyclonedx.model.bom import Bom, BomMetaData  # noqa: PLC0415
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415
    from cyclonedx.output.json import JsonV1Dot6  # noqa: PLC0415

    told = {"repository": build.repo.url, "commit": build.repo.commit, **facts}
    image = Component(
        type=ComponentType.CONTAINER,
        name=build.image.repository,
        version=name,
        bom_ref=name,
        properties=[Property(name=f"{_PROPERTY}:{name}", value=value) for name, value in told.items()],
        external_references=[ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(build.repo.url))],
    )
    system = next((part.name for part in found if part.type == "os"), "")
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{build.image.repository}@{name}"),
        metadata=BomMetaData(component=image, timestamp=datetime.fromtimestamp(build.created, UTC)),
        components=[_component(part, system) for part in found],
    )
    bom.register_dependency(image, bom.components)
    return str(JsonV1Dot6(bom).output_as_string()).encode()


def _component(part: Part, system: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415 - same
    from packageurl import PackageURL  # noqa: PLC0415 - same

    if part.type == "os":
        return Component(type=ComponentType.OPERATING_SYSTEM, name=part.name, version=part.version, bom_ref=f"os:{part.name}")
    name = re.sub(r"[-_.]+", "-", part.name).lower() if part.type == "pypi" else part.name
    vendor = SYSTEMS.get(system, "debian") if part.type == "deb" else None
    address = PackageURL(part.type, vendor, name, part.version or None, {"arch": part.arch} if part.arch else None)
    return Component(type=ComponentType.LIBRARY, name=part.name, version=part.version, purl=address, bom_ref=address.to_string())


def summary(content: bytes) -> dict[str, Any]:
    """Counts by kind, and what the document says of the image; {} for what is no document of ours."""
    try:
        data = json.loads(content)
        kinds = Counter(str(item.get("purl", "")).partition(":")[2].partition("/")[0] or "os" for item in data["components"])
        said = {item["name"].partition(":")[2]: item["value"] for item in data["metadata"]["component"].get("properties", ())}
        return {"components": dict(sorted(kinds.items())), "serial": data.get("serialNumber"), **said}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def digest(content: bytes) -> str:
    """``sha256:…`` of a document."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
