"""What is known, signed and checked of an image."""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from binder_onprem.config.frozen import Frozen


class Supply(Frozen):
    """List of contents, signature, scan."""

    sbom: bool = Field(default=True, description="list what is installed in each image that is built, as CycloneDX, beside it in the registry")
    sign: bool = Field(default=True, description="sign each image that is built with the site's key, as cosign does")
    verify: bool = Field(default=False, description="start only images with a good signature of the site's keys")
    scan: tuple[str, ...] = Field(
        default=(),
        description="command that looks at each image before its use: the list on its input, the image in IMAGE; exit status 0 accepts",
    )
    scan_timeout: PositiveFloat = Field(default=120, description="seconds that command may take; after that the build fails")
