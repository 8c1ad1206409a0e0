"""What this machine's own package clients are configured to use, asked of the clients themselves.

Called by `sources` when `up` runs. Never writes; reaches the network only in `linked_hosts`, and there only through the clients.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

TIMEOUT: Final = 60
"""Seconds a client may take to answer."""
COMPONENTS: Final = frozenset({"main", "contrib", "non-free", "non-free-firmware", "universe", "restricted", "multiverse"})
PROBE: Final = "toml"
"""A tiny package; pip is asked where the index says its file lies."""
NPM_PROBE: Final = "configurable-http-proxy"
_PIP: Final = (sys.executable if importlib.util.find_spec("pip") else "/usr/bin/python3", "-m", "pip")
_DEFAULT_INDEX: Final = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"


def ask(*command: str, env: Mapping[str, str] | None = None) -> str:
    """A client's answer on stdout, stripped; "" if it is not there, fails or takes longer than `TIMEOUT` seconds."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=True, stdin=subprocess.DEVNULL, cwd="/", env={**os.environ, **(env or {})}
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
        logger.info("client gave no answer", extra={"client": command[0], "error": type(error).__name__})
        return ""
    return done.stdout.strip()


def release() -> Mapping[str, str]:
    """The distribution's ``os-release``."""
    pairs = (line.split("=", 1) for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines() if "=" in line)
    return {name: value.strip("\"'") for name, value in pairs}


def index(environ: Mapping[str, str]) -> str | None:
    """The Python package index that pip or uv is told to use; None: their default."""
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if environ.get(name):
            return environ[name]
    for line in ask(*_PIP, "config", "list").splitlines():
        key, _, value = line.partition("=")
        if key in ("global.index-url", "install.index-url"):
            return value.strip("'\"")
    return _uv_index(Path("/etc/uv/uv.toml")) or _uv_index(Path("~/.config/uv/uv.toml").expanduser())


def _uv_index(file: Path) -> str | None:
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
    named = [entry.get("url") for entry in settings.get("index", []) if entry.get("default")]
    url = settings.get("index-url") or (named[0] if named else None)
    return str(url) if url else None


def default_index() -> str:
    """The index pip uses when it is told nothing, as compiled into it."""
    return ask(_PIP[0], "-c", _DEFAULT_INDEX)


def npm_registry() -> str:
    """The registry npm uses, its default included; "" without npm."""
    answer = ask("npm", "config", "get", "registry")
    return answer if answer.startswith("http") else ""


def conda_alias() -> str | None:
    """The channel alias conda is told to use; None: its default."""
    for file in (Path("/etc/conda/.condarc"), Path("/etc/conda/condarc"), Path("~/.condarc").expanduser()):
        try:
            settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue
        if isinstance(settings, dict) and settings.get("channel_alias"):
            return str(settings["channel_alias"])
    return None


def apt_sources(suite: str) -> str:
    """The distribution's own archives as apt has them configured, in deb822 form, for a suite.

    Args:
        suite: Code name such as ``bookworm``; stands in for the host's own where they differ.
    """
    host = release().get("VERSION_CODENAME", suite)
    # ``name`` alone, ``name-updates``, ``name-security``, ``name/updates``: other projects' archives have other names or other components.
    ours = re.compile(rf"{re.escape(host)}([-/](updates|security|backports))?")
    found: dict[tuple[str, str], set[str]] = {}
    for line in ask("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages").splitlines():
        uri, _, rest = line.partition(" ")
        name, _, component = rest.partition(" ")
        if ours.fullmatch(name) and component in COMPONENTS:
            found.setdefault((uri, name.replace(host, suite, 1)), set()).add(component)
    keyring = Path(f"/usr/share/keyrings/{release().get('ID', 'debian')}-archive-keyring.gpg")
    signed = f"Signed-By: {keyring}\n" if keyring.exists() else ""
    return "\n".join(
        f"Types: deb\nURIs: {uri}\nSuites: {name}\nComponents: {' '.join(sorted(components))}\n{signed}" for (uri, name), components in found.items()
    )


def linked_hosts(pypi: str, npm: str, env: Mapping[str, str] | None = None) -> frozenset[tuple[str, int]]:
    """Hosts that an index's and a registry's answers link files on; asks them over the network by pip and npm.

    Args:
        pypi: Index URL; "" if it is not wanted.
        npm: Registry URL; "" if npm is not wanted.
        env: Further environment of theirs, such as a proxy.
    """
    links = []
    if pypi:
        options = (
            "install",
            "--dry-run",
            "--no-deps",
            "--ignore-installed",
            "--break-system-packages",
            "--quiet",
            "--report",
            "-",
            "--index-url",
            pypi,
        )
        report = ask(*_PIP, *options, PROBE, env={"PIP_FIND_LINKS": "", "PIP_ROOT_USER_ACTION": "ignore", **(env or {})})
        links.append(_report_url(report))
    if npm:
        links.append(ask("npm", "view", "--registry", npm, NPM_PROBE, "dist.tarball", env=env))
    return frozenset(found for link in links for found in host_of(link))


def _report_url(report: str) -> str:
    try:
        answer: Any = json.loads(report)
        return str(answer["install"][0]["download_info"]["url"])
    except (ValueError, KeyError, IndexError, TypeError):
        return ""


def host_of(url: str) -> tuple[tuple[str, int], ...]:
    """The URL's host and port as a tuple of one; empty for what is not http(s)."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        return ()
    return ((parts.hostname, port),) if parts.hostname else ()
