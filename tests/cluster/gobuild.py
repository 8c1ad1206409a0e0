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

HERE: Final = Path(__file__).parent
KUBERNETES: Final = "v1.34.3"
NEXT: Final = "v1.34.4"
"""The same once more under another version, for upgrades: linked anew, not compiled."""
NEEDED: Final = (1, 26, 5)
"""Go's version that the modules below ask for."""

MODULES: Final[Mapping[str, tuple[str, str]]] = {
    "kine": ("github.com/k3s-io/kine@v0.17.5", "1"),
    "helm": ("helm.sh/helm/v3/cmd/helm@v3.19.0", "0"),
    "pebble": ("github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1", "0"),
    "coredns": ("github.com/coredns/coredns@v1.14.7", "0"),
}
"""Programs that are modules by themselves: name → module with version, and whether it needs a C compiler."""


@cache
def go_version() -> tuple[int, ...]:
    """Version of the machine's Go; () if there is none."""
    if not shutil.which("go"):
        return ()
    printed = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    return tuple(int(number) for number in re.findall(r"\d+", printed))


def kubernetes(version: str = KUBERNETES) -> Path:
    """Every component as one file, and pause; minutes the first time."""
    source = HERE / "kubernetes"
    files = (*sorted(source.rglob("*.go")), source / "go.mod", source / "go.sum")
    key = fingerprint(version, repr(go_version()), *(file.read_text(encoding="utf-8") for file in files))

    def make(folder: Path) -> None:
        major, minor = version.removeprefix("v").split(".")[:2]
        told = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
        flags = [
            f"-X {place}.{name}={value}"
            for place in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
            for name, value in told.items()
        ]
        go("build", "-ldflags", " ".join(["-s", "-w", *flags]), "-o", str(folder / "kubernetes"), ".", at=source)
        go("build", "-ldflags", "-s -w", "-o", str(folder / "pause"), "./pause", at=source)

    return kept("kubernetes", key, make, f"Building Kubernetes {version} from its modules, once: about ten minutes on two cores.")


def program(name: str) -> Path:
    """One of `MODULES`."""
    module, compiler = MODULES[name]

    def make(folder: Path) -> None:
        go("install", "-ldflags", "-s -w", module, at=folder, GOBIN=str(folder), CGO_ENABLED=compiler)

    return kept(name, fingerprint(module, repr(go_version())), make, f"Building {name}, once: a minute or two.") / name


def go(verb: str, *words: str, at: Path, **environment: str) -> None:
    """Run Go politely: other tests want the cores as well."""
    command = ["nice", "-n", "2", "go", verb, "-trimpath", *words]
    done = subprocess.run(
        command,
        cwd=at,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod" if verb == "install" else "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"go {verb} failed:\n{done.stdout[-3000:]}")
