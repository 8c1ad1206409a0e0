"""Where images are kept: in a registry of our own on loopback, or in one on another machine, over TLS and with two accounts."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Literal

from pydantic import Field, field_validator

from binder_onprem.config.frozen import Frozen

_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?:(\d{1,5})")


class LocalRegistry(Frozen):
    """One of ours, on loopback; its account is made at the first `up`."""

    kind: Literal["local"] = Field(default="local", description="local: one of ours on loopback; remote: one on another machine, over HTTPS")


class RemoteRegistry(Frozen):
    """One on another machine, for this Binder alone: what no launch uses is deleted there."""

    kind: Literal["remote"]
    address: str = Field(description="host:port of a remote one, for this Binder alone; spoken to by HTTPS only")
    ca_file: Path | None = Field(default=None, description="PEM bundle that its certificate is trusted by; default: network.ca_file, the host's")
    push_account_file: Path = Field(description="file with user:password of the account that builds push and old images are deleted with")
    pull_account_file: Path = Field(description="file with user:password of the account that sessions' images are pulled with")

    @field_validator("address")
    @classmethod
    def _host(cls, value: str) -> str:
        found = _HOST.fullmatch(value)
        if found is None or not 0 < int(found[1]) < 65536:  # noqa: PLR2004 - ports
            message = "must be host:port in lower case, without https://, such as registry.uni.example:5000"
            raise ValueError(message)
        return value


Registry = Annotated[LocalRegistry | RemoteRegistry, Field(discriminator="kind")]
