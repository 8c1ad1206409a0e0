"""What goes over the wire is what BinderHub's clients read."""

from __future__ import annotations

import json

from binder_onprem.errors import BinderError, InvalidSpec, LimitHit, RateLimited
from binder_onprem.events import Phase, Progress, Ready, encode, failed_wire, progress_wire
from binder_onprem.model import Server

READY = Ready(
    Server("u", "http://h/jupyter/user/u/", "T"), "r@sha256:0", "https://g/x", "https://g/x/c", "http://h/", "v2/gh/a/b/HEAD", "v2/gh/a/b/c"
)


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    data = encode({"phase": "building", "message": "a\r\n\ndata: {}\u2028 é \0"}, "1.2")
    assert data.startswith(b"id: 1.2\ndata: {")
    assert data.endswith(b"}\n\n")
    assert data.count(b"\n") == 3
    assert json.loads(data.split(b"data: ", 1)[1])["message"] == "a\r\n\ndata: {}\u2028 é \0"


def test_ready_has_the_eight_strings() -> None:
    wire = READY.wire()
    names = {"url", "token", "image", "repo_url", "binder_ref_url", "binder_launch_host", "binder_request", "binder_persistent_request"}
    assert all(isinstance(wire[name], str) for name in names)
    assert (wire["phase"], wire["token"]) == ("ready", "T")


def test_every_event_has_phase_and_message() -> None:
    for error in (InvalidSpec("no"), LimitHit("too much"), RateLimited("later", retry_after=3.4), BinderError("x")):
        wire = failed_wire(error)
        assert (wire["phase"], wire["message"].endswith("\n"), wire["code"]) == ("failed", True, error.code)
    assert failed_wire(RateLimited("later", retry_after=3.4))["retry_after"] == 3
    progress = progress_wire(Progress(Phase.WAITING, "m", data={"position": 2, "phase": "forged"}))
    assert progress == {"phase": "waiting", "message": "m", "position": 2}
