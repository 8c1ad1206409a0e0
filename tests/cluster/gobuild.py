"""What the tests' Kubernetes is made of, built from Go modules by the machine's own Go and its proxy; kept in the cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binder_onprem.model import fingerprint
from tests.cluster.cache import kept

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE: Final = Path(__file__).parent / "kubernetes"
"""The module of all but pebble: what its programs share is compiled once."""

KUBERNETES: Final = "v1.34.3"
NEXT: Final = "v1.34.4"
"""The same once more under another version, for upgrades: linked anew, not compiled."""
NEEDED: Final = (1, 24)
"""Go's version that the modules ask for."""

PROGRAMS: Final[Mapping[str, tuple[str, dict[str, str]]]] = {
    "kine": ("github.com/k3s-io/kine", {"CGO_ENABLED": "1", "GOFLAGS": "-tags=netgo,osusergo"}),
    "helm": ("helm.sh/helm/v3/cmd/helm", {}),
    "coredns": ("./coredns", {}),
}
"""What else is built of Kubernetes' module, whose packages are compiled by then: name → package, and Go's environment. SQLite needs a C compiler."""

PEBBLE: Final = "github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1"
"""An ACME server."""


@cache
def go_version() -> tuple[int, ...]:
    """Version of the machine's Go; () if there is none."""
    if not shutil.which("go"):
        return ()
    printed = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    return tuple(int(number) for number in re.findall(r"\d+", printed))


def kubernetes(version: str = KUBERNETES) -> Path:
    """Every component as one file, and pause; minutes the first time."""

    def make(folder: Path) -> None:
        major, minor = version.removeprefix("v").split(".")[:2]
        told = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
        flags = [
            f"-X {place}.{name}={value}"
            for place in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
            for name, value in told.items()
        ]
        go("build", "-ldflags", " ".join(["-s", "-w", *flags]), "-o", str(folder / "kubernetes"), ".", at=SOURCE)
        go("build", "-ldflags", "-s -w", "-o", str(folder / "pause"), "./pause", at=SOURCE)

    return kept("kubernetes", fingerprint(version, _sources()), make, f"Building Kubernetes {version}, once: about eight minutes on two cores.")


def program(name: str) -> Path:
    """One of `PROGRAMS`."""
    package, environment = PROGRAMS[name]

    def make(folder: Path) -> None:
        go("build", "-ldflags", "-s -w", "-o", str(folder / name), package, at=SOURCE, **environment)

    return kept(name, fingerprint(name, _sources()), make, f"Building {name}, once: half a minute, or two.") / name


def pebble() -> Path:
    """An ACME server."""

    def make(folder: Path) -> None:
        go("install", "-ldflags", "-s -w", PEBBLE, at=folder, GOBIN=str(folder), GOFLAGS="-mod=mod")

    return kept("pebble", fingerprint(PEBBLE, repr(go_version())), make, "Building pebble, once: a minute.") / "pebble"


def _sources() -> str:
    """What the programs are made of, and by which Go."""
    files = (*sorted(SOURCE.rglob("*.go")), SOURCE / "go.mod", SOURCE / "go.sum")
    return fingerprint(repr(go_version()), *(file.read_text(encoding="utf-8") for file in files))


def go(verb: str, *words: str, at: Path, **environment: str) -> None:
    """Run Go politely: other tests want the cores as well."""
    command = ["nice", "-n", "2", "go", verb, "-trimpath", *words]
    done = subprocess.run(
        command,
        cwd=at,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"go {verb} failed:\n{done.stdout[-3000:]}")
