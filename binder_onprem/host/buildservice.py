"""What `check` says about a build service for another hub: can its images be pulled there, and who may ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binder_onprem.host import machine as host
from binder_onprem.host.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from binder_onprem.config import Config

PARTS = 2
"""Words of a line of the clients' file."""


def findings(config: Config) -> Iterator[Finding]:
    """Look at the settings `publish`, `web.api_only` and `web.clients_file`."""
    for name in host.wanted(config):
        yield Finding("fail", name, "is not installed, and publish.registry needs it", f"apt-get install {name}")
    for setting, file in (("publish.account_file", config.publish.account_file), ("publish.ca_file", config.publish.ca_file)):
        if file and not file.is_file():
            yield Finding("fail", setting, f"{file} is not there", "Write it, or take the setting away.")
    if config.web.api_only and not config.publish.registry:
        text = "images keep the name of this machine's own registry, which no other machine can pull from"
        yield Finding("warn", "publish.registry", text, "Name a registry that the other hub pulls from.")
    if config.web.clients_file:
        yield _clients(config.web.clients_file)


def _clients(file: Path) -> Finding:
    try:
        lines = [line.split() for line in file.read_text(encoding="ascii").splitlines() if line.strip() and not line.startswith("#")]
    except (OSError, UnicodeDecodeError):
        return Finding("fail", "web.clients_file", f"{file} cannot be read: no program may build", "Write lines of a name and a token.")
    wrong = sum(len(line) != PARTS or len(line[1]) < 16 for line in lines)  # noqa: PLR2004 - of `web.services`
    if wrong:
        return Finding("warn", "web.clients_file", f"{wrong} lines have no token of at least 16 characters", "Correct them, as: name token")
    if file.stat().st_mode & 0o077:
        return Finding("warn", "web.clients_file", "others on this machine can read the tokens", f"chmod 600 {file}")
    return Finding("ok", "web.clients_file", f"{len(lines)} programs")
