"""What happens around the end of a session: the warning, and the files that its person has changed."""

from __future__ import annotations

from pydantic import ByteSize, Field

from binder_onprem.config.frozen import Frozen


class Ending(Frozen):
    """The warning and the files."""

    warn: float = Field(default=300, ge=0, description="seconds before its end that a session's page warns, where it is JupyterLab or Notebook 7")
    download: ByteSize = Field(default=ByteSize(2 * 1024**3), description="bytes of changed files that a download from a running session has")
    keep: float = Field(
        default=3600,
        ge=0,
        description="seconds that the changed files of a session are kept for whoever has its token, however it ended, "
        "unless its own person stopped it; 0: never",
    )
    bytes: ByteSize = Field(
        default=ByteSize(256 * 1024**2), description="bytes of files that are kept of one session; what is more is named, not kept"
    )
    total: ByteSize = Field(default=ByteSize(4 * 1024**3), description="bytes of archives kept at once; the oldest go first")
