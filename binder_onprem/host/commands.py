"""Long-running commands of the set-up: their output goes to a log file, their end is certain, and a failure names the log.

Used by `baseimage`. Never given anything that a repository brings.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from binder_onprem.errors import HostUnfit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TAIL = 12
"""Lines of a failed command's output that its error shows."""


class Commands:
    """Runs commands one after the other.

    Args:
        log: File that gets all output; written anew.
        proxy: ``http://host:port`` for the commands, or None.
        no_proxy: Hosts reached without it.
    """

    def __init__(self, log: Path, proxy: str | None, no_proxy: tuple[str, ...]) -> None:
        self.log = log
        log.write_bytes(b"")
        names = ("http_proxy", "https_proxy")
        values = {name: proxy for name in names if proxy} | ({"no_proxy": ",".join(no_proxy)} if proxy and no_proxy else {})
        self.proxies: Mapping[str, str] = values | {name.upper(): value for name, value in values.items()}

    def run(self, *words: str, timeout: float) -> str:
        """Run to the end; what it printed on both channels.

        Args:
            words: Program and arguments.
            timeout: Seconds until it and its children are ended.

        Raises:
            HostUnfit: It is not installed, it failed, or it took too long.
        """
        with self.log.open("r+b") as log:
            start = log.seek(0, os.SEEK_END)
            code = self._wait(words, log.fileno(), timeout)
        with self.log.open("rb") as log:
            log.seek(start)
            printed = log.read().decode(errors="replace")
        if code:
            how = "took too long" if code == -signal.SIGALRM else "failed"
            tail = "\n".join(printed.splitlines()[-TAIL:])
            raise HostUnfit(f"`{words[0]} {_verb(words)}` {how}; all of its output is in {self.log}. Its last lines:\n{tail}")
        return printed

    def output(self, *words: str) -> str:
        """What a quick question prints; "" if the answer is no."""
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HostUnfit(f"`{words[0]}` does not run on this machine. Install it, or see `binder-onprem check`.") from error
        return done.stdout.strip() if done.returncode == 0 else ""

    def _wait(self, words: tuple[str, ...], output: int, timeout: float) -> int:
        try:
            child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **self.proxies}, start_new_session=True
            )
        except OSError as error:
            raise HostUnfit(f"`{words[0]}` does not run on this machine. Install it, or see `binder-onprem check`.") from error
        try:
            return child.wait(timeout)
        except subprocess.TimeoutExpired:
            return -signal.SIGALRM
        finally:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the process group: first so that it can clean up (mounts, temporary directories), then for certain."""
    for number, patience in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)):
        if child.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(patience)


def _verb(words: tuple[str, ...]) -> str:
    return next((word for word in words[1:] if not word.startswith("-")), "")
