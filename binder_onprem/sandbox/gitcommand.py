"""Git as the sandbox runs it: no hooks, no templates, no helpers, no local protocol, never silent for ever.

Called by `clone`. Its configuration is a file of ours that submodules see, too; nothing of the system's or the repository's takes its place. Each
line of its output goes to the log, cut and without the sandbox's paths.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from binder_onprem.sandbox.lentcredential import Lent

TAIL_LINES: Final = 200
STALLED: Final = "nothing has come for too long"
_LINE_BYTES: Final = 8192
_KILL: Final = 9
_CONFIG: Final = """\
[protocol]
    allow = never
[protocol "http"]
    allow = always
[protocol "https"]
    allow = always
[protocol "git"]
    allow = always
[protocol "ssh"]
    allow = always
[core]
    hooksPath = /dev/null
    fsmonitor = false
    fsync = none
    askPass =
    attributesFile = /dev/null
    excludesFile = /dev/null
[init]
    templateDir =
    defaultBranch = main
[transfer]
    fsckObjects = true
[fetch]
    recurseSubmodules = false
[submodule]
    recurse = false
[fetch "fsck"]
    badDate = ignore
    badDateOverflow = ignore
    badEmail = ignore
    badTimezone = ignore
    missingEmail = ignore
    missingNameBeforeEmail = ignore
    missingSpaceBeforeDate = ignore
    missingSpaceBeforeEmail = ignore
    zeroPaddedDate = ignore
    zeroPaddedFilemode = ignore
[credential]
    helper =
[http]
    lowSpeedLimit = 100
    lowSpeedTime = {stall}
    emptyAuth = false
[gc]
    auto = 0
[maintenance]
    auto = false
[advice]
    detachedHead = false
[safe]
    directory = *
"""
_LFS: Final = """\
[filter "lfs"]
    process = git-lfs filter-process
    required = true
[lfs]
    locksverify = false
    activitytimeout = {stall}
    dialtimeout = {stall}
"""


class GitFailed(Exception):
    """Git ended with an error; `words` are the last lines of its own."""

    def __init__(self, words: list[str]) -> None:
        super().__init__("git failed")
        # What the server says through git is prefixed; it must not decide how the failure is told.
        self.words = "\n".join(line for line in words if not line.startswith("remote:"))


class Git:
    """Runs git for one clone.

    Args:
        top: The clone's directory, on a file system that nothing else writes to.
        stall: Seconds without a word or a byte after which a command is ended.
        say: Gets each line for the log.
        ssh: Directory with the site's key and known hosts, or "": then ssh has no key.
        lent: What opens a private repository; None: nothing.
    """

    def __init__(self, top: Path, stall: float, say: Callable[[str], None], ssh: str = "", lent: Lent | None = None) -> None:
        self._top = top
        self._stall = stall
        self._say = say
        self._home = Path(os.environ.get("HOME", "/tmp"))  # noqa: S108 - the sandbox's own
        self._lent = lent.kept(self._home) if lent else None
        self._opening = lent.configuration(self._lent) if lent and self._lent else ""
        self._configured(_CONFIG)
        self._ssh = ssh
        self._key = self._home / Path(ssh).name / "key" if ssh else None
        self._hidden = {str(top): "the repository"} | ({f"{ssh}/known_hosts": "known_hosts_file", str(self._key): "ssh_key_file"} if ssh else {})
        self._hidden |= dict.fromkeys(lent.hidden(), "***") if lent else {}
        if self._key:
            self._copy_key(self._key)
        self._environment = self._surroundings()

    def run(self, *words: str, at: Path | None = None) -> None:
        """Run a command in the clone, or in a submodule of it. Raises `GitFailed`."""
        self._followed_to_its_end(["git", "-C", str(at or self._top), *words])

    def init(self, *words: str) -> None:
        """Make the clone's directory. Raises `GitFailed`."""
        self._followed_to_its_end(["git", "init", *words, "--", str(self._top)])

    def read(self, *words: str, at: Path | None = None) -> bytes:
        """Output of a short command that needs no network; empty when it fails."""
        command = ["git", "-C", str(at or self._top), *words]
        return subprocess.run(command, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False).stdout

    def with_large_files(self) -> None:
        """From now on Git LFS's filter is there."""
        self._configured(_CONFIG + _LFS)

    def forget_key(self) -> None:
        """Remove the copies of what was lent; what follows reads what the repository says."""
        for file in (self._key, self._lent):
            if file:
                file.unlink(missing_ok=True)

    def _copy_key(self, key: Path) -> None:
        """For ssh, which refuses a key that others may read; below the name that no repository can guess."""
        key.parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write((Path(self._ssh) / "key").read_bytes())

    def _ssh_command(self) -> str:
        command = os.environ.get("GIT_SSH_COMMAND", "ssh") + " -F /dev/null -o BatchMode=yes -o LogLevel=ERROR"
        if not self._key:
            return f"{command} -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/dev/null"
        known = f"-o StrictHostKeyChecking=yes -o UserKnownHostsFile={self._ssh}/known_hosts -o GlobalKnownHostsFile=/dev/null"
        return f"{command} -o IdentitiesOnly=yes -o IdentityFile={self._key} {known}"

    def _configured(self, content: str) -> None:
        (self._home / "gitconfig").write_text(content.format(stall=max(1, round(self._stall))) + self._opening, encoding="utf-8")

    def _surroundings(self) -> dict[str, str]:
        # Loopback goes through the gate as well: here it is the sandbox's own, which has nothing.
        kept = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy" and name != "GIT_CONFIG_PARAMETERS"}
        return kept | {
            "HOME": str(self._home),
            "LC_ALL": "C",
            "GIT_CONFIG_GLOBAL": str(self._home / "gitconfig"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "GIT_SSH_COMMAND": self._ssh_command(),
            "GIT_LFS_SKIP_SMUDGE": "1",
            "no_proxy": "",
        }

    def _followed_to_its_end(self, command: list[str]) -> None:
        with subprocess.Popen(
            command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            said = self._followed(process)
            if process.wait() != 0:
                raise GitFailed(said)

    def _followed(self, process: subprocess.Popen[bytes]) -> list[str]:
        """Hand over what it says while it lives; end it when neither a word nor a byte on the disk has come for too long."""
        watch = _Silence(self._top.parent, self._stall)
        output = _Output(self._say, self._hidden)
        stream = process.stdout.fileno() if process.stdout else -1
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while True:
                if selector.select(timeout=1.0):
                    chunk = os.read(stream, 65536)
                    if not chunk:
                        return output.end()
                    output.feed(chunk)
                    watch.heard()
                elif watch.over():
                    os.killpg(process.pid, _KILL)
                    process.wait()
                    raise GitFailed([*output.end(), STALLED])


class _Silence:
    """Notices when nothing happens: no output, and nothing written on the file system that is the clone's alone."""

    def __init__(self, place: Path, seconds: float) -> None:
        self._place = place
        self._seconds = seconds
        self._free = os.statvfs(place).f_bfree
        self._since = time.monotonic()

    def heard(self) -> None:
        self._since = time.monotonic()

    def over(self) -> bool:
        free = os.statvfs(self._place).f_bfree
        if free != self._free:
            self._free = free
            self.heard()
        return time.monotonic() - self._since > self._seconds


class _Output:
    """Git's output as lines: progress at most once a second, no paths of the sandbox, bounded length."""

    def __init__(self, say: Callable[[str], None], hidden: Mapping[str, str]) -> None:
        self._say = say
        self._hidden = hidden
        self._rest = b""
        self._shown = float("-inf")
        self._last: list[str] = []

    def feed(self, chunk: bytes) -> None:
        # ssh ends its lines with both; a line that ends with the first alone is progress
        *lines, self._rest = re.split(rb"(?<=\n)|(?<=\r)(?=[^\n])", self._rest + chunk)
        if len(self._rest) > _LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._line(line)

    def end(self) -> list[str]:
        if self._rest:
            self._line(self._rest)
            self._rest = b""
        return self._last

    def _line(self, line: bytes) -> None:
        progress = line.endswith(b"\r")
        if progress and time.monotonic() - self._shown < 1:
            return
        text = line[:_LINE_BYTES].decode("utf-8", "replace").strip()
        for path, words in self._hidden.items():
            text = text.replace(path, words)
        if not text:
            return
        if progress:
            self._shown = time.monotonic()
        self._last = [*self._last[-TAIL_LINES:], text]
        self._say(text)
