"""What a layer or a configuration is called in a registry; shared by those who make, stack and push them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer or configuration.

    Attributes:
        digest: ``sha256:…`` of its bytes as pushed.
        size: In bytes.
        media_type: OCI's name of its kind.
        diff_id: Digest of a layer's uncompressed form.
    """

    digest: str
    size: int
    media_type: str
    diff_id: str = ""
