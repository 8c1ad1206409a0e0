"""Builds on other machines: whom this Binder gives them to, and, on such a machine, for whom it builds."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated

from pydantic import Field, StringConstraints

from binder_onprem.config import kinds  # noqa: TC001 - pydantic reads it
from binder_onprem.config.frozen import Frozen

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?$")]
PORT = 8592


class BuilderHost(Frozen):
    """A machine that builds for this Binder."""

    name: Name = Field(description="what it is called in logs and by `binder-onprem builders`")
    url: kinds.HttpsOrigin = Field(description="https://host:port of the machine")
    ca_file: Path | None = Field(default=None, description="PEM bundle that its certificate is trusted by; default: the host's")
    token_file: Path = Field(description="file with the token that it takes orders by")


class BuildingFor(Frozen):
    """Makes this machine a builder of another Binder, and nothing else."""

    address: kinds.Address = Field(default="0.0.0.0", description="address it listens on")  # noqa: S104 - another machine asks
    port: int = Field(default=PORT, ge=1, le=65535, description="port it listens on, by HTTPS only")
    certificate_file: Path = Field(description="PEM file with its certificate, and the chain")
    key_file: Path = Field(description="PEM file with the certificate's key")
    token_file: Path = Field(description="file with the token that orders come with")
