"""What a context of repo2docker's fetches from elsewhere, and whether it can be had from here: asked before a build is spent on it.

Called in the sandbox by `examine` and `engine`. Asks through the builds' own gate, so the answer is the one that the build would get; sends
nothing but the wish for a connection. Never takes longer than `TIMEOUT`.
"""

from __future__ import annotations

import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from binder_onprem.sandbox.buildpack import Environment

TIMEOUT: Final = 5.0
"""Seconds for all hosts together."""
HOSTS: Final = 16
FILE_BYTES: Final = 1024**2
ANSWER_BYTES: Final = 4096
SEVERAL: Final = ("RBuildPack", "JuliaProjectTomlBuildPack")
"""Buildpacks that fetch from several places."""
_URL: Final = re.compile(r"https?://[A-Za-z0-9.-]+(?::\d{1,5})?(?=[/\"'\s]|$)")
_UNREACHED: Final = (502, 503, 504)
_REFUSED: Final = b"address rules of this site"
_RAISED: Final = 8


def origins(context: Path) -> tuple[str, ...]:
    """``https://host`` of everything that the Dockerfile and its build scripts name outside of comments, sorted, at most `HOSTS`."""
    found: set[str] = set()
    for file in (context / "Dockerfile", *sorted((context / "build_script_files").glob("*"))):
        if file.is_file():
            lines = file.read_bytes()[:FILE_BYTES].decode("utf-8", "replace").splitlines()
            found.update(url for line in lines if not line.lstrip().startswith("#") for url in _URL.findall(line))
    return tuple(sorted(found))[:HOSTS]


def silent(wanted: Collection[str], gate: str) -> tuple[str, ...]:
    """Hosts that cannot be reached.

    Args:
        wanted: Origins, ``https://host:port``.
        gate: Unix socket of the gate.
    """
    end = time.monotonic() + TIMEOUT
    with ThreadPoolExecutor(HOSTS) as pool:
        reached = list(pool.map(lambda origin: _answers(origin, gate, end), wanted))
    return tuple(urlsplit(origin).hostname or "" for origin, there in zip(wanted, reached, strict=True) if not there)


def _answers(origin: str, gate: str, end: float) -> bool:
    parts = urlsplit(origin)
    # A tunnel is for TLS: a site's proxy gives none to port 80.
    target = f"CONNECT {parts.hostname}:{parts.port or 443}" if parts.scheme == "https" else f"GET {origin}/"
    request = f"{target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(max(0.1, end - time.monotonic()))
            connection.connect(gate)
            connection.sendall(request.encode("ascii"))
            answer = b""
            while b"\r\n\r\n" not in answer and len(answer) < ANSWER_BYTES and (more := connection.recv(ANSWER_BYTES)):
                answer += more
                connection.settimeout(max(0.1, end - time.monotonic()))
        status = int(answer.split(b" ", 2)[1])
    except (OSError, ValueError, IndexError):
        return False
    if parts.scheme == "https":
        return status == 200  # noqa: PLR2004 - tunnelled
    return status not in _UNREACHED and _REFUSED not in answer


def unreached(error: BaseException) -> str | None:
    """The host that repo2docker asked in vain while it rendered, "" if that is not known; None when the network is not what failed."""
    import requests  # noqa: PLC0415 - only repo2docker's own buildpacks ask anything, and it is slow to import

    seen: BaseException | None = error
    for _ in range(_RAISED):
        if seen is None:
            break
        if isinstance(seen, requests.RequestException):
            return (urlsplit(seen.request.url or "").hostname or "") if seen.request is not None else ""
        seen = seen.__cause__ or seen.__context__
    return None


def sentence(buildpack: str, environment: Environment, hosts: Collection[str], mirrors: Mapping[str, str]) -> str:
    """What to tell people.

    Args:
        buildpack: Name of repo2docker's class.
        environment: The repository's files.
        hosts: Those that do not answer.
        mirrors: The site's, by name.
    """
    named = [host for host in hosts if host][:4]
    where = f" (no answer from {', '.join(named)})" if named else ""
    own = sorted({name for name, url in mirrors.items() if urlsplit(url).hostname in named})
    what, instead = _what(buildpack, environment)
    if own:
        return f"{what}, and this site's mirror for it does not answer{where}. Try again later, or tell the administrator: mirrors.{own[0]}."
    none = "not all of this" if buildpack in SEVERAL else "none"
    return f"{what}, and {none} can be reached from here{where}. {instead}"


def _what(buildpack: str, environment: Environment) -> tuple[str, str]:
    """What is needed, and what to do when it cannot be had."""
    if buildpack == "NixBuildPack":
        return "default.nix needs Nix from a channel of Nix packages", (
            "Describe the environment in requirements.txt and apt.txt, or ask the administrator to let builds reach such a channel."
        )
    if buildpack == "JuliaProjectTomlBuildPack":
        name = "JuliaProject.toml" if environment.has("JuliaProject.toml") else "Project.toml"
        return f"{name} needs Julia from a download server, and Python from a conda channel", (
            "Ask the administrator to let builds reach them, and to set mirrors.conda."
        )
    if buildpack == "RBuildPack":
        name = "runtime.txt" if environment.has("runtime.txt") else "DESCRIPTION"
        return f"{name} needs R and its packages from download servers, and Python from a conda channel", (
            "Ask the administrator for mirrors.cran, mirrors.conda and a way to R itself, or take R by apt.txt (r-base, r-cran-irkernel) instead."
        )
    for name in ("environment.yml", "environment.yaml"):
        if buildpack == "CondaBuildPack" and environment.has(name):
            return f"{name} needs packages from a conda channel", (
                "Ask the administrator to set mirrors.conda, or describe the environment in requirements.txt."
            )
    return f"{_asker(environment)} needs another Python than this site's own one, from a conda channel", (
        "Ask the administrator to set mirrors.conda, or let the repository accept this site's Python."
    )


def _asker(environment: Environment) -> str:
    """The file that asks for another Python."""
    if environment.has("runtime.txt"):
        asked = " ".join((environment.read("runtime.txt") or "").split())[:40]
        return f"runtime.txt ({asked})"
    return next((name for name in ("Pipfile", "Pipfile.lock", "pyproject.toml") if environment.has(name)), "The repository")
