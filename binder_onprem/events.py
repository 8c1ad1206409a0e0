"""What a launch says while it goes on, and how that is written on the wire.

`launch.launch` yields `Progress` and ends with `Ready` or `Done`; the web and the CLI turn a `BinderError` into `Failed`. Every event on the wire has
``phase`` and ``message`` (strict clients need both) and one of the eight phases that BinderHub's clients know.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from binder_onprem.errors import BinderError
    from binder_onprem.model import Server


class Phase(StrEnum):
    """BinderHub's phases; a push is told as BUILDING, because clients do not all know `pushing`."""

    WAITING = "waiting"
    FETCHING = "fetching"
    BUILDING = "building"
    BUILT = "built"
    LAUNCHING = "launching"
    READY = "ready"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Stage(StrEnum):
    """The part of a launch that an event's id counts in; their order is the order of the stream."""

    RESOLVE = "1"
    BUILD = "2"
    LAUNCH = "3"


@dataclass(frozen=True, slots=True)
class Progress:
    """Something happened.

    Attributes:
        phase: Where the launch is.
        message: A line for people, usually ended by a line feed; log lines come as they are, cleaned and cut.
        stage, number: With the launch's key they make the event's id; numbers grow by one within a stage, and a build's are those of its
            log, the same for every viewer.
        data: Further fields on the wire (``imageName``, ``build``, ``position``, ``estimate`` in seconds).
    """

    phase: Phase
    message: str
    stage: Stage = Stage.RESOLVE
    number: int = 0
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ready:
    """The session answers; the last event of a launch that worked.

    Attributes:
        server: The session.
        image: ``…@sha256:…``.
        repo_url, ref_url, host, request, persistent_request: BinderHub's fields of the same meaning.
    """

    server: Server
    image: str
    repo_url: str
    ref_url: str
    host: str
    request: str
    persistent_request: str
    client_ip: str = ""

    def wire(self) -> dict[str, Any]:
        """The eight string fields of BinderHub's `ready`."""
        return {
            "phase": Phase.READY.value,
            "message": f"server running at {self.server.url}\n",
            "url": self.server.url,
            "token": self.server.token,
            "image": self.image,
            "repo_url": self.repo_url,
            "binder_ref_url": self.ref_url,
            "binder_launch_host": self.host,
            "binder_request": self.request,
            "binder_persistent_request": self.persistent_request,
            "binder_client_ip": self.client_ip,
        }


@dataclass(frozen=True, slots=True)
class Done:
    """The image is there; the last event of a launch that was to build only.

    Attributes:
        image: ``…@sha256:…`` as whoever asked can pull it.
        found: Nothing had to be built.
    """

    image: str
    found: bool

    def wire(self) -> dict[str, Any]:
        """BinderHub's `ready` of a `build_only` request: no session, so no URL and no token."""
        return {"phase": Phase.READY.value, "message": f"Done! {'Found built image' if self.found else 'Image built'}\n", "imageName": self.image}


def progress_wire(event: Progress) -> dict[str, Any]:
    """The fields of a `Progress` on the wire."""
    return {**event.data, "phase": event.phase.value, "message": event.message}


def failed_wire(error: BinderError) -> dict[str, Any]:
    """The fields of the `failed` event that an error becomes."""
    wire: dict[str, Any] = {
        "phase": Phase.FAILED.value,
        "message": error.message.rstrip("\n") + "\n",
        "status_code": error.status,
        "code": error.code,
        "retryable": error.retryable,
    }
    if error.retry_after is not None:
        wire["retry_after"] = round(error.retry_after)
    return wire


def encode(wire: dict[str, Any], event_id: str | None = None) -> bytes:
    """One server-sent event: an optional ``id:`` line, one ``data:`` line with one space, an empty line.

    JSON escapes line feeds, so a hostile message cannot end the line.
    """
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}data: {json.dumps(wire, separators=(',', ':'))}\n\n".encode()


KEEPALIVE = b":keepalive\n\n"
