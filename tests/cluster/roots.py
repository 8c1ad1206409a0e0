"""Root file systems of servers, made of the distribution's packages by the machine's own apt sources; kept in the user's cache directory."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from binder_onprem.config import Config
from binder_onprem.host import clients, sources
from binder_onprem.model import fingerprint
from tests.cluster.cache import kept

SUITES: Final = ("bookworm", "trixie")
"""Debian 12 and 13."""

PACKAGES: Final = (
    "ca-certificates", "curl", "dbus", "gnupg", "iproute2", "iputils-ping", "kmod", "less", "nftables",
    "openssh-server", "procps", "python3", "sudo", "systemd", "systemd-sysv", "tzdata",
)  # fmt: skip
"""What a server has before anybody's playbook: no container tool of any kind."""

HERE: Final = Path(__file__).parent
CERTIFICATES: Final = Path(sources.__file__).parent / "base" / "site" / "certificates.py"


def tree(suite: str) -> Path:
    """The directory of the root, which nobody may change; made if the cache does not have it, which takes half a minute."""
    found = sources.read(Config())
    apt = clients.apt_sources(suite)
    pip = f"[global]\nindex-url = {found.pypi}\n" if found.pypi else ""
    script, certificates, zipcode = (file.read_text(encoding="utf-8") for file in (HERE / "root.sh", CERTIFICATES, HERE / "zipcode.py"))
    key = fingerprint(suite, apt, pip, found.ca_bundle.decode(), script, certificates, zipcode, *PACKAGES)

    def make(folder: Path) -> None:
        site = folder / "site"
        site.mkdir()
        files = {"site.sources": apt, "pip.conf": pip, "ca.crt": found.ca_bundle.decode(), "certificates.py": certificates, "zipcode.py": zipcode}
        for name, text in files.items():
            (site / name).write_text(text, encoding="utf-8")
        _bootstrap(suite, site, folder / "root")

    return kept(f"root-{suite}", key, make, f"Installing {suite}'s packages into a new root: half a minute.") / "root"


def _bootstrap(suite: str, site: Path, target: Path) -> None:
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        f'--aptopt=Acquire::https::CAInfo "{site / "ca.crt"}"',
        '--aptopt=APT::Sandbox::User "root"',
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=force-unsafe-io",
        "--skip=cleanup/apt/lists",
        f'--customize-hook=sh {HERE / "root.sh"} "$1" {site}',
        suite,
        str(target),
        str(site / "site.sources"),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800, check=False)
    if done.returncode:
        raise RuntimeError(f"mmdebstrap of {suite} failed:\n{done.stdout[-3000:]}")
