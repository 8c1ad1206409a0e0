"""The two sides that are compared: clicks on a Binder that is up, and plain podman on its storage."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from binder_onprem.host import engine_files
from binder_onprem.host.baseimage import made

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binder_onprem.config import Config

PATIENCE: Final = 600.0
POLL: Final = 0.01
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class CheckFailed(Exception):
    """A run did not do what it was timed for."""


@dataclass(frozen=True, slots=True)
class Clicked:
    """A session that came of a click.

    Attributes:
        url, token: Of the session.
        user: Hub user.
        seconds: From the click to the first 200 of ``api/status`` with the token.
        built: From the click to the end of the build; None: nothing was built.
        log: Messages of the stream.
    """

    url: str
    token: str
    user: str
    seconds: float
    built: float | None
    log: str


def click(config: Config, clone_url: str, ref: str = "HEAD") -> Clicked:
    """Click the link of a repository and wait until its session answers."""
    request = asking(f"{config.public_url}build/git/{quote(clone_url, safe='')}/{ref}", Accept="text/event-stream")
    built, messages = None, []
    start = time.monotonic()
    with _open(request, timeout=PATIENCE) as stream:
        for line in stream:
            if not line.startswith(b"data:"):
                continue
            event: dict[str, Any] = json.loads(line[5:])
            messages.append(event.get("message", ""))
            if event["phase"] == "building" and built is None:
                built = 0.0
            elif event["phase"] in ("built", "launching") and built == 0.0:
                built = time.monotonic() - start
            elif event["phase"] == "failed":
                raise CheckFailed(event["message"])
            elif event["phase"] == "ready":
                wait(event["url"], event["token"])
                user = event["url"].rstrip("/").rsplit("/", 1)[1]
                return Clicked(event["url"], event["token"], user, time.monotonic() - start, built, "".join(messages))
    raise CheckFailed("the stream ended without a session")


def wait(url: str, token: str, patience: float = 60) -> None:
    """Until ``api/status`` answers 200."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        with suppress(OSError):
            if "started" in ask(f"{url}api/status", token):
                return
        time.sleep(POLL)
    raise CheckFailed("the server does not answer")


def asking(url: str, **headers: str) -> urllib.request.Request:
    """A GET of the Binder or of a session, on loopback."""
    return urllib.request.Request(url, headers=headers)  # noqa: S310 - the URL is the Binder's own


def ask(url: str, token: str) -> dict[str, Any]:
    """GET of a session's API."""
    with _open(asking(url, Authorization=f"token {token}"), timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def check_content(url: str, token: str, notebook: str, holds: str = "") -> None:
    """The repository's notebook is there, and only for who has the token."""
    found = ask(f"{url}api/contents/{notebook}", token)
    if holds not in json.dumps(found["content"]):
        raise CheckFailed("the session has another version of the notebook")
    try:
        ask(f"{url}api/contents/{notebook}", "wrong")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return
    raise CheckFailed("the session opens without its token")


def leave(config: Config, user: str) -> None:
    """Stop a session, outside of what is timed."""
    command = [Path(sys.executable).parent / "binder-onprem", "--home", config.home, "servers", "stop", user]
    subprocess.run(command, check=False, capture_output=True, timeout=60)


class Podman:
    """Plain podman on the Binder's storage."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.environment = {**os.environ, **engine_files.environment(config)}

    def __call__(self, *words: str) -> str:
        done = subprocess.run(["podman", *words], env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode:
            raise CheckFailed(f"podman {words[0]}: {done.stderr.strip()[-500:]}")
        return done.stdout.strip()

    def image_of(self, user: str) -> str:
        """ID of the image that a user's session runs."""
        name = self("ps", "--quiet", f"--filter=label=io.binder-onprem.launch={user[-16:]}")
        return self("inspect", "--format={{.Image}}", name.split()[0])

    @contextmanager
    def session(self, image: str, port: int) -> Iterator[tuple[str, str, float]]:
        """Plain ``podman run`` of an image with a session's limits: URL, token, seconds until ``api/status`` answered 200."""
        token, name, limits = secrets.token_hex(16), f"bench-{secrets.token_hex(4)}", self.config.session
        words = (
            *("run", "--detach", f"--name={name}", "--cap-drop=all", "--userns=auto:size=65536", "--network=binder-sessions"),
            *(f"--publish=127.0.0.1:{port}:8888", f"--memory={int(limits.memory)}", f"--pids-limit={limits.pids}", f"--cpus={limits.cpus}", image),
            *("jupyter-lab", "--ip=0.0.0.0", "--port=8888", "--no-browser", f"--IdentityProvider.token={token}"),
        )
        try:
            start = time.monotonic()
            self(*words)
            url = f"http://127.0.0.1:{port}/"
            wait(url, token)
            yield url, token, time.monotonic() - start
        finally:
            self.remove(name)

    def install(self, requirements: Path) -> float:
        """Seconds of ``uv pip install`` into the base image and a commit of the result."""
        name = f"bench-{secrets.token_hex(4)}"
        result = f"localhost/{name}"
        config, base = self.config, made(self.config).base_id
        proxy = [f"--env={variable}={config.network.proxy}" for variable in ("http_proxy", "https_proxy") if config.network.proxy]
        options = (f"--name={name}", "--network=host", f"--volume={requirements}:/requirements.txt:ro", *proxy)
        try:
            start = time.monotonic()
            self("run", *options, base, "uv", "pip", "install", "--compile-bytecode", "-r", "/requirements.txt")
            self("commit", "--quiet", name, result)
            seconds = time.monotonic() - start
            self("run", "--rm", "--network=none", result, "python", "-c", "import numpy, pandas, matplotlib")
        finally:
            self.remove(name)
            with suppress(CheckFailed):
                self("rmi", "--force", result)
        return seconds

    def remove(self, name: str) -> None:
        """Stop first: a forced removal of a running container often finds its mounts busy."""
        for words in (("stop", "--time=0", name), ("rm", "--force", "--time=0", name)):
            with suppress(CheckFailed):
                self(*words)
