"""A real sshd on loopback: unprivileged port, its own host key, one account whose key may read repositories and nothing else."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/authorized
StrictModes no
PermitRootLogin forced-commands-only
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
LogLevel VERBOSE
"""


@dataclass(frozen=True)
class Sshd:
    """One that runs.

    Attributes:
        port: On 127.0.0.1.
        user: Whose account.
        key: Private key that it lets in.
        other: Private key that it does not.
        known_hosts: With its host key.
        strangers: A file of the same kind, with the key of somebody else under its name.
        asked: Every command that was asked for, one a line.
    """

    port: int
    user: str
    key: Path
    other: Path
    known_hosts: Path
    strangers: Path
    asked: Path

    def url(self, path: Path | str) -> str:
        """URL of a repository."""
        return f"ssh://{self.user}@127.0.0.1:{self.port}{path}"


def _key(file: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "canary", "-f", str(file)], check=True)
    return file.with_suffix(".pub").read_text()


@contextmanager
def serving(folder: Path) -> Iterator[Sshd]:
    """Run it until the context ends."""
    folder.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host, key, strange = _key(folder / "host"), _key(folder / "key"), _key(folder / "strange")
    _key(folder / "other")
    shell = folder / "shell"
    shell.write_text(f'#!/bin/sh\nprintf "%s\\n" "$SSH_ORIGINAL_COMMAND" >>{folder}/asked\nexec git-shell -c "$SSH_ORIGINAL_COMMAND"\n')
    shell.chmod(0o755)
    (folder / "asked").touch()
    safe = "GIT_CONFIG_COUNT=1,GIT_CONFIG_KEY_0=safe.directory,GIT_CONFIG_VALUE_0=*"
    (folder / "authorized").write_text(f'restrict,command="env {safe.replace(",", " ")} {shell}" {key}')
    name = f"[127.0.0.1]:{port}"
    (folder / "known_hosts").write_text(f"{name} {' '.join(host.split()[:2])}\n")
    (folder / "strangers").write_text(f"{name} {' '.join(strange.split()[:2])}\n")
    (folder / "config").write_text(CONFIG.format(port=port, folder=folder))
    Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log, subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=log) as process:
        try:
            _wait(port)
            yield Sshd(port, getpass.getuser(), folder / "key", folder / "other", folder / "known_hosts", folder / "strangers", folder / "asked")
        finally:
            process.terminate()


def _wait(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError("sshd does not listen")
