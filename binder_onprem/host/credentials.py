"""The site's secrets: whether they are there, whether others can read them, whether the registry takes its account. Asked by `check` as root."""

from __future__ import annotations

import stat
from base64 import b64encode
from typing import TYPE_CHECKING, Final
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from binder_onprem.host.finding import Finding
from binder_onprem.host.site_files import SECRETS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from binder_onprem.config import Config

TIMEOUT: Final = 5
AGAIN: Final = "binder-onprem up makes it anew"


def findings(config: Config) -> Iterator[Finding]:
    """One finding for each fault; one in all if there is none; none before the first `up`."""
    if not config.secrets.is_dir():
        return
    faults = [fault for name in SECRETS if (fault := _fault(config.secrets / name))]
    faults += _open(config.secrets)
    yield from faults
    if not faults:
        yield Finding("ok", "secrets", f"{len(SECRETS)} files that only root reads")


def registry(config: Config) -> Finding | None:
    """Whether a registry that answers takes the account; None if it does, or does not answer."""
    try:
        account = (config.secrets / "registry-account").read_bytes().strip()
    except OSError:
        return None  # told above
    request = Request(f"http://{config.registry_host}/v2/", headers={"Authorization": f"Basic {b64encode(account).decode()}"})
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=TIMEOUT):
            return None
    except HTTPError as error:
        if error.code in (401, 403):
            return Finding("fail", "registry", "refuses the builder's account", "binder-onprem up: it writes the account down for the registry anew")
        return Finding("fail", "registry", f"answers with HTTP status {error.code}", f"See {config.logs / 'parts'} or the journal.")
    except OSError:
        return None


def _fault(file: Path) -> Finding | None:
    try:
        found = file.stat()
    except OSError:
        return Finding("fail", "secrets", f"{file} is missing", AGAIN)
    if not found.st_size:
        return Finding("fail", "secrets", f"{file} is empty", AGAIN)
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or found.st_uid:
        return Finding("fail", "secrets", f"{file} can be read by others than root", f"chown root {file}; chmod 600 {file}")
    return None


def _open(directory: Path) -> list[Finding]:
    if directory.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return [Finding("fail", "secrets", f"{directory} is open to others than root", f"chmod 700 {directory}")]
    return []
