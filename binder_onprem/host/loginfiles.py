"""What a log-in needs on this machine: protected connections, a PAM service, files. `check` tells all, `up` refuses what cannot work."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binder_onprem.config.auth import LdapAccounts, PamAccounts
from binder_onprem.host import settingfiles
from binder_onprem.host.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binder_onprem.config import Config

PAM: Final = Path("/etc/pam.d")
TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{32,64}")
"""Of a program."""


def objection(config: Config) -> str | None:
    """Why nobody could log in, with what to do; None if nothing speaks against it."""
    files = (one for one in settingfiles.findings(config) if one.subject.startswith("auth."))
    return next((f"{one.subject}: {one.text}. {one.fix}" for one in (*findings(config), *files) if one.level == "fail"), None)


def findings(config: Config) -> Iterator[Finding]:
    """Look at the settings `auth`; the files that they name are looked at with all others'."""
    accounts = config.accounts
    if accounts is None:
        return
    if isinstance(accounts, PamAccounts) and not (PAM / accounts.service).is_file():
        yield Finding("fail", "auth.service", f"there is no {PAM / accounts.service}", "Name a service that this machine's PAM has.")
    yield from (
        fault for number, program in enumerate(accounts.services) if (fault := _program(f"auth.services.{number}.token_file", program.token_file))
    )
    if isinstance(accounts, LdapAccounts) and accounts.tls == "insecure" and not _loopback(accounts.address[0]):
        yield Finding("warn", "auth.server", "people's passwords go to the directory in the clear", "Use ldaps:// or start_tls: true.")
    if not config.public_url.startswith("https:") and not _loopback(config.listen.host):
        yield Finding(
            "warn", "auth", "people log in over http, so others on the way can read it", "Put a proxy with TLS in front and set listen.public_url."
        )
    yield Finding("ok", "auth", f"people log in by {accounts.kind}")  # type: ignore[attr-defined]


def _program(setting: str, file: Path) -> Finding | None:
    """What keeps the hub from starting, or is guessed too easily: the hub stores these without stretching them."""
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None  # told with all files that settings name
    if TOKEN.fullmatch(token):
        return None
    return Finding("fail", setting, f"{file} has no token of 32 to 64 letters, digits, _ or -", f"(umask 077; openssl rand -hex 32 >{file})")


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
