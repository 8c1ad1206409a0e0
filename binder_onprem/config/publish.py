"""Where a build service puts its images, so that another hub can pull them."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - pydantic reads it

from pydantic import Field, field_validator, model_validator

from binder_onprem.config.frozen import Frozen

_PLACE = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::\d{1,5})?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")


class Publish(Frozen):
    """A registry outside that finished images are copied to."""

    registry: str | None = Field(default=None, description="host:port/path of a registry that images are copied to; `imageName` is of it")
    account_file: Path | None = Field(default=None, description="file with user:password of an account that may push there")
    ca_file: Path | None = Field(default=None, description="PEM bundle that its certificate is trusted by; default: that of the site")

    @field_validator("registry")
    @classmethod
    def _place(cls, value: str | None) -> str | None:
        if value is not None and not _PLACE.fullmatch(value.rstrip("/")):
            message = "must be host, host:port or host:port/path, in lower case and without https://"
            raise ValueError(message)
        return value.rstrip("/") if value else value

    @model_validator(mode="after")
    def _belong(self) -> Publish:
        if self.registry is None and (self.account_file or self.ca_file):
            message = "account_file and ca_file belong to registry, which is not set"
            raise ValueError(message)
        return self
