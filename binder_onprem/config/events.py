"""What is told of what happens here: a file of events, webhooks to others, and the hooks by which others tell of pushes."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Literal

from pydantic import ByteSize, Field, PositiveInt

from binder_onprem.config import kinds  # noqa: TC001 - pydantic reads it
from binder_onprem.config.frozen import Frozen


class Webhook(Frozen):
    """One receiver of events."""

    url: kinds.Url
    secret_file: Path
    events: tuple[str, ...] = ()
    """Names of schemas; none: all."""


class Events(Frozen):
    """Where events go."""

    file: Path | None = Field(default=None, description="file that events are appended to, one JSON object a line; default: none")
    size: ByteSize = Field(default=ByteSize(64 * 1024**2), ge=4096, description="bytes after which the file of events is put aside")
    keep: int = Field(default=5, ge=1, le=1000, description="files of events put aside that stay")
    private: tuple[kinds.Pattern, ...] = Field(
        default=(), description="patterns of provider/path whose names stand in no event: a digest takes their place"
    )
    webhooks: dict[str, Webhook] = Field(default_factory=dict, description="map of name: url, secret_file and events (names of schemas; all if none)")
    outbox: PositiveInt = Field(default=10_000, description="events that wait for receivers at the most; more are not sent")


class PushHook(Frozen):
    """Who may tell of pushes, and of which repositories."""

    kind: Literal["github", "gitlab", "gitea", "generic"]
    secret_file: Path
    repositories: tuple[kinds.Pattern, ...] = Field(min_length=1)
    branches: tuple[kinds.Pattern, ...] = ()
    link: str | None = None
