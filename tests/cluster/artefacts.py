"""The directory that a site's air gap has of k3s: the real release's, if a variable names one, else our stand-in packed just like it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import zstandard

from binder_onprem.config import Config
from binder_onprem.host import clients, sources
from binder_onprem.model import fingerprint
from tests.cluster.cache import kept
from tests.cluster.gobuild import KUBERNETES, NEEDED, NEXT, go, go_version, kubernetes, program

if TYPE_CHECKING:
    from collections.abc import Iterator

K3S: Final = Path(__file__).parent / "k3s"
"""The stand-in's own source."""

VARIABLE: Final = "K3S_ARTIFACTS"
"""Names a directory with `k3s`, `sha256sum-amd64.txt` and `k3s-airgap-images-amd64.tar.zst` of a real release."""

LATER: Final = "K3S_LATER_ARTIFACTS"
"""Names a later real release, for the tests of upgrades."""

IMAGES: Final = "k3s-airgap-images-amd64.tar.zst"
SUITE: Final = "bookworm"
"""The oldest system that the stand-in runs on: programs of its distribution run on newer ones as well."""

PACKAGES: Final = ("busybox", "conntrack", "containerd", "containernetworking-plugins", "ethtool", "ipset", "iptables", "runc", "socat")
COMPONENTS: Final = ("etcd", "etcdctl", "etcdutl", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl")
PROGRAMS: Final = (
    "bin/containerd", "bin/containerd-shim-runc-v2", "bin/ctr", "bin/socat", "lib/cni/bridge", "lib/cni/host-local", "lib/cni/loopback",
    "lib/cni/portmap", "sbin/conntrack", "sbin/ethtool", "sbin/ipset", "sbin/runc", "sbin/xtables-nft-multi",
)  # fmt: skip
"""Below ``/usr`` or, where a package keeps to the older places, below ``/``."""

LIBRARIES: Final = ("libip4tc", "libip6tc", "libipset", "libmnl", "libnetfilter_conntrack", "libnfnetlink", "libnftnl", "libseccomp", "libxtables")
TABLES: Final = ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore")


def real() -> bool:
    """Whether a real k3s is used."""
    return bool(os.environ.get(VARIABLE))


def directory(version: str = KUBERNETES) -> Path:
    """The artefacts; the stand-in is made if the cache does not have it."""
    if given := os.environ.get(VARIABLE):
        return Path(given)
    files = sorted(file for file in K3S.rglob("*") if file.is_file())
    parts = (kubernetes(version), program("kine"), program("coredns"), _debian())
    key = fingerprint(*map(str, parts), Path(__file__).read_text(encoding="utf-8"), *(file.read_text(encoding="utf-8") for file in files))
    return kept("k3s", key, lambda folder: _pack(folder, version), f"Packing the stand-in for k3s {version}.")


def following() -> Path:
    """Artefacts of a later version: the stand-in's, or those that a variable names; those of `directory` where only one real release was given."""
    if real():
        return Path(os.environ.get(LATER) or directory())
    return directory(NEXT)


def helm() -> Path:
    """Helm, which a chart's tests call."""
    return program("helm")


def kubectl() -> Path:
    """kubectl for this machine, of the release that the hosts run."""
    folder = kubernetes()
    with suppress(FileExistsError):
        (folder / "kubectl").symlink_to("kubernetes")
    return folder / "kubectl"


def _pack(folder: Path, version: str) -> None:
    go("build", "-ldflags", f"-s -w -X main.release={version}+k3s1", "-o", str(folder / "k3s"), ".", at=K3S)
    archive = _payload(version)
    with (folder / "k3s").open("ab") as file:
        file.write(archive)
        file.write(hashlib.sha256(archive).digest() + len(archive).to_bytes(8, "big"))
    (folder / IMAGES).write_bytes(zstandard.compress(_images(), 3))
    sums = (f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in ("k3s", IMAGES))
    (folder / "sha256sum-amd64.txt").write_text("".join(sums), encoding="utf-8")


def _payload(version: str) -> bytes:
    """What the stand-in unpacks on a node, as a compressed archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=3) as archive:
        archive.add(kubernetes(version) / "kubernetes", "bin/kubernetes")
        archive.add(program("kine"), "bin/kine")
        links = dict.fromkeys(COMPONENTS, "kubernetes") | dict.fromkeys(TABLES, "xtables-nft-multi")
        for name, target in links.items():
            _put(archive, f"bin/{name}", target)
        for name, path in _of_debian():
            archive.add(path, name)
    return buffer.getvalue()


def _of_debian() -> Iterator[tuple[str, Path]]:
    root = _debian()
    for program_path in PROGRAMS:
        yield f"bin/{Path(program_path).name}", _placed(program_path)
    for library in sorted([*root.glob("usr/lib/*-linux-gnu/*.so.*"), *root.glob("lib/*-linux-gnu/*.so.*")]):
        if library.name.startswith(LIBRARIES):
            yield f"lib/{library.name}", library.resolve()
    for extension in sorted(root.glob("usr/lib/*-linux-gnu/xtables/*.so")):
        yield f"lib/xtables/{extension.name}", extension.resolve()


def _placed(program_path: str) -> Path:
    return next(path for path in (_debian() / "usr" / program_path, _debian() / program_path) if path.is_file())


@cache
def _debian() -> Path:
    """Packages of the oldest system, unpacked and not installed; asking apt for its sources takes a second, so once."""
    apt = clients.apt_sources(SUITE)

    def make(folder: Path) -> None:
        listed, bundle = folder / "site.sources", folder / "ca.crt"
        listed.write_text(apt, encoding="utf-8")
        bundle.write_bytes(sources.read(Config()).ca_bundle)
        options = ("--quiet", "--variant=extract", f"--include={','.join(PACKAGES)}", f'--aptopt=Acquire::https::CAInfo "{bundle}"')
        command = ["mmdebstrap", *options, '--aptopt=APT::Sandbox::User "root"', SUITE, str(folder / "root"), str(listed)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800, check=False)
        if done.returncode:
            raise RuntimeError(f"mmdebstrap failed:\n{done.stdout[-3000:]}")

    return kept("debian", fingerprint(apt, *PACKAGES), make, "Fetching containerd and what belongs to it.") / "root"


def _images() -> bytes:
    """The images of the air gap, each one static program, as `docker save` writes them."""
    return archive_of(
        {
            "docker.io/rancher/mirrored-pause:3.6": {"pause": (kubernetes() / "pause").read_bytes()},
            "docker.io/rancher/mirrored-coredns-coredns:1.14.0": {"coredns": program("coredns").read_bytes()},
            "docker.io/rancher/mirrored-library-busybox:1.36.1": busybox(),
        }
    )


def busybox() -> dict[str, bytes | str]:
    """Contents of an image with a shell and what goes with one."""
    tools = ("cat", "grep", "hostname", "httpd", "id", "mkdir", "nc", "nslookup", "sh", "sleep", "timeout", "wget")
    libraries = "lib/x86_64-linux-gnu"
    files = {"bin/busybox": "bin/busybox", "lib64/ld-linux-x86-64.so.2": f"{libraries}/ld-linux-x86-64.so.2"}
    files |= {name: name for name in (f"{libraries}/libc.so.6", f"{libraries}/libresolv.so.2")}
    return {path: _placed(source).read_bytes() for path, source in files.items()} | {f"bin/{tool}": "busybox" for tool in tools}


def archive_of(images: dict[str, dict[str, bytes | str]]) -> bytes:
    """Images from nothing: name → programs, and links to these; the first one is the entry point."""
    buffer, manifest = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, programs in images.items():
            layer = _layer(programs)
            digest = hashlib.sha256(layer).hexdigest()
            config = json.dumps(
                {
                    "architecture": "amd64",
                    "os": "linux",
                    "config": {"Entrypoint": [f"/{next(iter(programs))}"]},
                    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
                }
            ).encode()
            label = hashlib.sha256(config).hexdigest()
            _put(archive, f"{digest}.tar", layer)
            _put(archive, f"{label}.json", config)
            manifest.append({"Config": f"{label}.json", "RepoTags": [name], "Layers": [f"{digest}.tar"]})
        _put(archive, "manifest.json", json.dumps(manifest).encode())
    return buffer.getvalue()


def _layer(programs: dict[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in programs.items():
            _put(archive, name, data, 0o755)
    return buffer.getvalue()


def _put(archive: tarfile.TarFile, name: str, data: bytes | str, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    if isinstance(data, str):
        entry.type, entry.linkname = tarfile.SYMTYPE, data
        archive.addfile(entry)
        return
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def needed() -> str:
    """Why the stand-in cannot be made here; "" if it can, or if a real k3s is given."""
    if real():
        return ""
    if not (shutil.which("gcc") or shutil.which("cc")):
        return f"the stand-in for k3s needs a C compiler: install gcc, or name a real release in {VARIABLE}"
    found = go_version()
    if found < NEEDED:
        has = ".".join(map(str, found)) or "no Go"
        needs = ".".join(map(str, NEEDED))
        return f"the stand-in for k3s is built with Go {needs} or newer and this machine has {has}: install it, or name a real release in {VARIABLE}"
    return ""
