"""Clone one changeset of a hostile Mercurial repository from a hostile server.

Called by `examine` in the sandbox, only where the site has enabled Mercurial. No configuration of the system's or the repository's, no extensions, no
ssh, no subrepositories (each could name a command or another protocol), and nothing of the link's is ever read as an option.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Final

from binder_onprem.errors import AddressRefused, BinderError, BuildFailed, ProviderUnavailable, RefNotFound
from binder_onprem.sandbox.download import GATE, too_large

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SETTINGS: Final = (
    "ui.interactive=no",
    "ui.ssh=false",
    "ui.remotecmd=false",
    "ui.merge=internal:fail",
    "subrepos.allowed=no",
    "phases.publish=no",
    "http_proxy.always=yes",
    "progress.disable=yes",
    "server.bundle1=no",
    "ui.clonebundles=no",
)
LINE: Final = 4096
TAIL: Final = 100
_FULL: Final = re.compile(r"No space left on device|File too large|Disk quota")
_MISSING: Final = re.compile(
    r"HTTP Error 40[134]|unknown revision|not found|authorization failed|does not appear to be an hg repository", re.IGNORECASE
)
_UNREACHABLE: Final = re.compile(
    r"abort: error: |timed out|Connection (refused|reset|closed)|HTTP Error (429|5\d\d)|ended unexpectedly|unexpected response|certificate",
    re.IGNORECASE,
)
_SUBREPOS: Final = re.compile(r"subrepo", re.IGNORECASE)


def clone(url: str, node: str, target: Path, say: Callable[[str], None], stall: float, limit: int) -> None:  # noqa: PLR0913, PLR0917 - what a clone needs
    """Clone.

    Args:
        url: Checked by the provider; http or https.
        node: 40 hex digits.
        target: Directory to make, on a file system of its own whose size is the limit.
        say: Gets each line for the log.
        stall: Seconds without a word or a byte on the disk after which the server counts as gone.
        limit: Bytes of a repository, for the message.

    Raises:
        RefNotFound: No such repository or changeset, or it is private.
        ProviderUnavailable: The server does not answer.
        LimitHit: Larger than the limit.
        AddressRefused: The gate refuses the address.
        BuildFailed: Mercurial refuses it.
    """
    if shutil.which("hg") is None:
        raise BuildFailed("Mercurial is not in the sandbox's image. The administrator must run `binder-onprem up` after enabling it.")
    for words in (
        ("clone", "--noupdate", "--stream", "--rev", node, "--", url, str(target)),
        ("--cwd", str(target), "update", "--clean", "--rev", node),
    ):
        code, said, silent = _run(words, target, say, stall)
        if code or silent:
            raise _told(said, silent=silent, stall=stall, limit=limit)
    shutil.rmtree(target / ".hg", ignore_errors=True)


def _run(words: tuple[str, ...], target: Path, say: Callable[[str], None], stall: float) -> tuple[int, str, bool]:
    settings = [word for setting in SETTINGS for word in ("--config", setting)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HG") and name.lower() != "no_proxy"}
    environment |= {"HGRCPATH": "", "HGPLAIN": "1", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
    with subprocess.Popen(
        ["hg", *settings, *words], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        watch = _Watch(process, target.parent, stall)
        said: list[str] = []
        while process.stdout and (line := process.stdout.readline(LINE)):
            watch.heard()
            text = line.decode("utf-8", "replace").strip().replace(str(target), "the repository")
            said = [*said[-TAIL:], text]
            say(text)
        return process.wait(), "\n".join(said), watch.ended()


class _Watch:
    """Ends a process when neither a word nor a byte on the disk has come for too long."""

    def __init__(self, process: subprocess.Popen[bytes], place: Path, seconds: float) -> None:
        self._process, self._place, self._seconds = process, place, seconds
        self._since, self._free = time.monotonic(), 0
        self._over, self.silent = threading.Event(), False
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def heard(self) -> None:
        self._since = time.monotonic()

    def ended(self) -> bool:
        """Whether it was ended for its silence; stops looking."""
        self._over.set()
        self._thread.join()
        return self.silent

    def _look(self) -> None:
        while not self._over.wait(0.5):
            free = os.statvfs(self._place).f_bfree
            if free != self._free:
                self._free = free
                self.heard()
            if time.monotonic() - self._since > self._seconds:
                self.silent = True
                self._process.kill()
                return


def _told(said: str, *, silent: bool, stall: float, limit: int) -> BinderError:  # noqa: PLR0911 - a table
    """The class and the sentence for a failure; Mercurial's own words stay in the log."""
    if silent:
        return ProviderUnavailable(f"The Mercurial server did not answer in {stall:.0f} s. Try again later.")
    if _FULL.search(said):
        return too_large(limit)
    if GATE in said:
        return AddressRefused("The address of the Mercurial server is not one that links may name here.")
    if _SUBREPOS.search(said):
        return BuildFailed("The repository has subrepositories, which this site does not fetch.")
    if _MISSING.search(said):
        return RefNotFound("The repository does not exist or is private. Check the link; only public repositories can be launched.")
    if _UNREACHABLE.search(said):
        return ProviderUnavailable("The Mercurial server does not answer, or breaks off. Try again later.")
    return BuildFailed("The repository could not be cloned; the log has Mercurial's own words.")
