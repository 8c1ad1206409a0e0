"""The project that is a session's home, as the daemon names it and as it is in the container's specification. Pure; `session` uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from binder_onprem.engine.containers import mapped
from binder_onprem.errors import InvalidSpec
from binder_onprem.project import FILES, IDS, SLOTS, first_id, home_of

if TYPE_CHECKING:
    from pathlib import Path

ELSEWHERE: Final = "/tmp/of-this-session"  # noqa: S108 - in the session's own container
"""Where a project's server keeps what is of this start alone."""
OWN: Final = ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")
"""Directories that server and kernels write to. Those after the first are in the home, but for one that is full: nothing would start in it."""


class Project(BaseModel):
    """The project that is the session's home: names of what this site has, never a path of the host.

    Attributes:
        id: Of its volume, which the daemon has mounted.
        slot: Which ids its files have.
        path: Of the home in the container.
        full: Hardly anything can be written in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    slot: Annotated[int, Field(ge=0, lt=SLOTS)]
    path: Annotated[str, StringConstraints(max_length=1000)]
    full: bool = False

    @field_validator("path")
    @classmethod
    def _home(cls, value: str) -> str:
        try:
            return home_of({"WorkingDir": value})
        except InvalidSpec:
            raise ValueError("no home") from None

    def ids(self) -> dict[str, Any]:
        """The ids of its files, in podman's form."""
        return mapped(first_id(self.slot), IDS)

    def mount(self, folder: Path) -> dict[str, Any]:
        """Of the home; where its volume is not mounted there is nothing of this name, and the start fails.

        Args:
            folder: Where this site's volumes are.
        """
        source = str(folder / self.id / FILES)
        return {"type": "bind", "source": source, "destination": self.path, "options": ["rbind", "rw", "nosuid", "nodev"]}

    def directories(self) -> dict[str, str]:
        """Variables by which what server and kernels write themselves is not in the home."""
        return {name: f"{ELSEWHERE}/{name.lower()}" for name in (OWN if self.full else OWN[:1])}
