"""What links may choose: everything that can be chosen is listed here by the administrator, with who may."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import ByteSize, Field, PositiveFloat, PositiveInt, StringConstraints, field_validator

from binder_onprem.config.frozen import Frozen

DIGEST: Final = re.compile(r"[a-z0-9.-]+(?::\d{1,5})?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+@sha256:[0-9a-f]{64}")
CDI: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9_.-]+=[A-Za-z0-9][A-Za-z0-9_.:-]*")
RESERVED: Final = re.compile(
    r"(?i)PATH|HOME|USER|SHELL|IFS|ENV|BASH_.*|LD_.*|PYTHON.*|JUPYTER.*|JPY_.*|BINDER_.*|NB_.*|R_.*|R2D_.*|REPO_DIR|(HTTPS?|FTP|ALL|NO)_PROXY|.*TOKEN.*|SSL_.*"
)
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
_Line = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f]*$")]


class Audience(Frozen):
    """Who may have something; nobody named: everybody."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


class Open(Audience):
    """Something to choose, and who may."""

    title: _Line = ""


class Profile(Open):
    """Resources of a session; what is not given is as in `session`."""

    memory: ByteSize | None = None
    cpus: PositiveFloat | None = None
    pids: PositiveInt | None = None
    devices: tuple[str, ...] = ()

    @field_validator("devices")
    @classmethod
    def _devices(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not CDI.fullmatch(name) and not re.fullmatch(r"/dev/[A-Za-z0-9_/-]+", name):
                message = f"{name}: a device is /dev/… or a CDI name as nvidia.com/gpu=all"
                raise ValueError(message)
        return value


class Data(Open):
    """A directory of this machine that sessions read."""

    path: Path
    at: str | None = Field(default=None, pattern=r"^/(data|srv|mnt|opt|home/jovyan)(/[A-Za-z0-9._-]+)+$")

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        if not value.is_absolute() or ".." in value.parts or value == Path("/"):
            message = "must be an absolute path below the root"
            raise ValueError(message)
        return value

    @field_validator("at")
    @classmethod
    def _plain(cls, value: str | None) -> str | None:
        if value and {".", ".."} & set(value.split("/")):
            message = "must be a plain path"
            raise ValueError(message)
        return value


class Prebuilt(Open):
    """An image that is started as it is."""

    image: str

    @field_validator("image")
    @classmethod
    def _digest(cls, value: str) -> str:
        if not DIGEST.fullmatch(value):
            message = "must name an image by digest: host/name@sha256:…"
            raise ValueError(message)
        return value


class Choices(Frozen):
    """What links may choose."""

    profiles: dict[_Name, Profile] = Field(
        default_factory=dict,
        description="map of name: title, memory, cpus, pids, devices, users, groups, roles; the first where none is named",
    )
    data: dict[_Name, Data] = Field(
        default_factory=dict, description="map of name: path, at, title, users, groups, roles; directories mounted read-only at /data/NAME, or `at`"
    )
    environment: tuple[str, ...] = Field(default=(), description="names of variables that links may set in a session, as COURSE or COURSE_*")
    images: dict[_Name, Prebuilt] = Field(
        default_factory=dict, description="map of name: image by digest, title, users, groups, roles; started as they are, nothing is built"
    )

    @field_validator("environment")
    @classmethod
    def _variables(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{1,62}\*?", name) or RESERVED.fullmatch(name.rstrip("*")):
                message = f"{name}: links may not set this variable"
                raise ValueError(message)
        return value

    def place(self, name: str) -> str:
        """Where a data set is in a session."""
        return self.data[name].at or f"/data/{name}"
