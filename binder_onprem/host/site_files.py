"""The directories, secrets and generated files of a site, its unprivileged user and the ids of its containers. Called by `up`; idempotent.

A file is written only when its contents change, so that a second `up` restarts nothing.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import bcrypt
import yaml

from binder_onprem.errors import ConfigError, HostUnfit
from binder_onprem.host import engine_files
from binder_onprem.host.parts import USER, parts, secret

if TYPE_CHECKING:
    from binder_onprem.config import Config
    from binder_onprem.host.machine import Host

FIRST_ID: Final = 2_000_000
IDS: Final = 16_777_216
"""256 containers of 65536 ids."""
SECRETS: Final = ("hub-state-key", "hub-token", "proxy-token", "site-secret", "admin-token", "registry-secret", "registry-account", "proxy.env")
"""Files below the home's ``secrets``, each of root alone."""
SETTINGS: Final = """\
# Settings of this Binder; every key has a default, the README has the table. After a change: `binder-onprem up`.

# listen:
#   host: 127.0.0.1      # address of the one public port
#   port: 8585

network:
  # Hosts beyond the public Internet that links may name. Loopback is here for the sample repository and for trying things out on this machine;
  # take it away when others use this Binder.
  allow: [127.0.0.0/8]

# session: {memory: 2 GiB, cpus: 2, idle: 900, age: 21600}
# build: {concurrency: 2, memory: 4 GiB, timeout: 1800}
# images: {budget: 50 GiB}
"""


def first_settings(home: Path) -> bool:
    """Write the settings file of a first run; False if one is there."""
    file = home / "config.yaml"
    if file.exists():
        return False
    try:
        home.mkdir(parents=True, exist_ok=True)
        file.write_text(SETTINGS, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{home} cannot be written. Run as root, or choose another directory with --home.") from error
    return True


def write(config: Config, host: Host) -> None:
    """Make user, ids, directories, secrets and files.

    Raises:
        HostUnfit: The system's user or id ranges cannot be made.
    """
    _make_user()
    for file in (Path("/etc/subuid"), Path("/etc/subgid")):
        _add_ids(file)
    _directories(config)
    _secrets(config)
    for name, text in engine_files.files(config, host).items():
        put(config.home / "etc" / name, text, 0o644)
    _trust(config)
    if config.remote is None:
        _registry(config)


def put(file: Path, text: str, mode: int, group: int | None = None) -> None:
    """Write a file if its contents are others; the rights hold before the contents are there."""
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    new = file.with_name(file.name + ".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    if group is not None:
        os.chown(new, 0, group)
    new.chmod(mode)
    new.write_text(text, encoding="utf-8")
    new.replace(file)


def _make_user() -> None:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        command = ("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", USER)
        if subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL).returncode:
            raise HostUnfit(f"The system user {USER} cannot be made. Make it by hand: useradd --system --user-group {USER}") from None


def _add_ids(file: Path) -> None:
    """A range for containers' user namespaces, behind those that others have."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    if any(line.startswith("containers:") for line in lines):
        return
    ends = [int(start) + int(count) for _, start, count in (line.split(":") for line in lines if line.count(":") == 2)]  # noqa: PLR2004 - name:start:count
    with file.open("a", encoding="utf-8") as ranges:
        ranges.write(f"containers:{max([FIRST_ID, *ends])}:{IDS}\n")


def _directories(config: Config) -> None:
    user = pwd.getpwnam(USER)
    home = config.home
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(home.stat().st_mode & 0o777 | 0o711)  # the unprivileged parts pass through
    for name, mode in {"etc": 0o755, "etc/networks": 0o755, "run": 0o755, "logs": 0o750, "logs/parts": 0o750, "tmp": 0o711, "storage": 0o711}.items():
        (home / name).mkdir(mode=mode, exist_ok=True)
    (home / "tmp").chmod(0o711)  # podman 5 mounts roots there, and the runtime walks to them in the container's user namespace
    config.secrets.mkdir(mode=0o700, exist_ok=True)
    registry = home / "registry"
    registry.mkdir(mode=0o750, exist_ok=True)
    os.chown(registry, user.pw_uid, user.pw_gid)
    engine_files.volatile(config).mkdir(mode=0o711, parents=True, exist_ok=True)


def _secrets(config: Config) -> None:
    for name in SECRETS[:6]:
        if not secret(config, name):
            put(config.secrets / name, secrets.token_hex(32) + "\n", 0o600)
    if not secret(config, "registry-account"):
        put(config.secrets / "registry-account", f"builder:{secrets.token_hex(32)}\n", 0o600)
    for part in parts(config):
        file = config.secrets / f"{part.name}.env"
        if part.hidden:
            put(file, "".join(f"{name}={_quoted(value)}\n" for name, value in part.hidden), 0o600)
        else:
            file.unlink(missing_ok=True)


def _quoted(value: str) -> str:
    """As systemd reads it in a file of an environment."""
    return '"' + re.sub(r'(["\\`$])', r"\\\1", value) + '"'


def _trust(config: Config) -> None:
    """A copy of a remote registry's certificates where podman's service looks for them."""
    file = engine_files.certificate(config)
    if file is None or config.registry_ca is None:
        return
    try:
        text = config.registry_ca.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HostUnfit(f"{config.registry_ca} cannot be read, by which the registry is trusted. Write it, then run this again.") from error
    file.parent.mkdir(parents=True, exist_ok=True)
    put(file, text, 0o644)


def _registry(config: Config) -> None:
    group = pwd.getpwnam(USER).pw_gid
    etc = config.home / "etc"
    user, _, password = secret(config, "registry-account").partition(":")
    accounts = etc / "registry.htpasswd"
    known = accounts.read_text(encoding="utf-8").strip().partition(":") if accounts.exists() else ("", "", "")
    if known[0] != user or not bcrypt.checkpw(password.encode(), known[2].encode()):
        # The password has 256 random bits, which no number of rounds makes safer; the registry checks it at every request.
        put(accounts, f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n", 0o640, group)
    put_registry(config)


def put_registry(config: Config, *, read_only: bool = False) -> None:
    """What the registry reads at its start; `read_only` for the time of a garbage collection."""
    text = "# Written by `binder-onprem up`; changes are lost.\n" + yaml.safe_dump(_registry_settings(config, read_only=read_only))
    put(config.home / "etc" / "registry.yml", text, 0o640, pwd.getpwnam(USER).pw_gid)


def _registry_settings(config: Config, *, read_only: bool) -> dict[str, Any]:
    maintenance: dict[str, Any] = {"uploadpurging": {"enabled": True, "age": "24h", "interval": "6h", "dryrun": False}}
    if read_only:
        maintenance = {"readonly": {"enabled": True}, "uploadpurging": {"enabled": False}}
    return {
        "version": 0.1,
        "log": {"level": "warn", "formatter": "json", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(config.home / "registry")},
            "delete": {"enabled": True},
            "maintenance": maintenance,
        },
        "http": {"addr": config.registry_host, "secret": secret(config, "registry-secret")},
        "auth": {"htpasswd": {"realm": "binder-onprem", "path": str(config.home / "etc" / "registry.htpasswd")}},
    }
