#!/usr/bin/python
"""Packages of a distribution's release with everything they need, as a repository of files that apt takes without a network.

apt itself decides and fetches, for a machine on which nothing is installed, in a state of its own: this machine's packages stay as they are.
What it fetches it checks against the archive's signed index; what an interrupted run has fetched stays.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

PLANNED = re.compile(r"^Inst (\S+) \((\S+) .*\[(\w+)\]\)", re.MULTILINE)
INDEX = ("Packages", "Release")


def options(folder: Path, sources: str, arch: str) -> list[str]:
    """For apt: a state of its own; `sources` is "" for those that this machine has."""
    own = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder,
        "Dir::Cache::archives": folder / "debs",
        "APT::Architecture": arch,
        "APT::Architectures": arch,
        "APT::Install-Recommends": "false",
        "APT::Update::Error-Mode": "any",
        # Reads and writes where only this account may.
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "true",
    }
    if sources:
        own |= {"Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "/dev/null"}
    return [word for name, value in own.items() for word in ("-o", f"{name}={value}")]


def apt(module: AnsibleModule, program: str, *words: str) -> str:
    """What a program of apt prints."""
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run((program, *words), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=env)
    if done.returncode:
        module.fail_json(msg=f"{program} failed: {done.stderr.strip()[-2000:]} Check this machine's package sources, then run it again.")
    return done.stdout


def planned(said: str) -> dict[str, str]:
    """What apt says that it would install: name=version → its file."""
    return {f"{name}={version}": f"{name}_{version.replace(':', '%3a')}_{arch}.deb" for name, version, arch in PLANNED.findall(said)}


def upstream(files: dict[str, str], name: str) -> str:
    """A package's version as its makers call it; "" if it is not among them."""
    return next((found[1] for found in (re.match(rf"{name}=(?:\d+:)?(\d+(?:\.\d+)+)", key) for key in files) if found), "")


def index(shown: str, files: dict[str, str], release: str) -> dict[str, str]:
    """The repository's index from the archive's own records: the files of `INDEX`."""
    records = {}
    for record in re.split(r"\n\n+", shown.strip()):
        fields = dict(re.findall(r"^(Package|Version): (\S+)", record, re.MULTILINE))
        key = f"{fields.get('Package')}={fields.get('Version')}"
        if key in files:
            records[key] = re.sub(r"^Filename: .*$", f"Filename: ./{files[key]}", record, flags=re.MULTILINE)
    packages = "".join(f"{records[key]}\n\n" for key in sorted(records))
    digest, size = hashlib.sha256(packages.encode()).hexdigest(), len(packages.encode())
    return {"Packages": packages, "Release": f"Origin: binder-onprem\nLabel: bundle\nCodename: {release}\nSHA256:\n {digest} {size} Packages\n"}


def main() -> None:
    """Fetch what is missing, write the index, take away what is no longer needed."""
    spec = {
        "names": {"type": "list", "elements": "str", "required": True},
        "arch": {"type": "str", "required": True},
        "release": {"type": "str", "required": True},
        "sources": {"type": "path", "default": ""},
        "cache": {"type": "path", "required": True},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    folder = Path(module.params["cache"])
    debs = folder / "debs"
    for path in (folder / "state/lists/partial", debs / "partial"):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    own = options(folder, module.params["sources"], module.params["arch"])
    names = sorted(set(module.params["names"]))
    apt(module, "apt-get", *own, "-q", "update")
    # Beside what is asked for: what every installation of the release begins with, of which base images are made.
    shown = apt(module, "apt-cache", *own, "dumpavail")
    first = re.findall(r"^Package: (\S+)\n(?:.+\n)*?Priority: required$", shown, re.MULTILINE)
    wanted = sorted({*names, *first, "apt"})
    files = planned(apt(module, "apt-get", *own, "-y", "-q", "--simulate", "install", *wanted))
    missing = sorted(name for name in files.values() if not (debs / name).exists())
    told = {"changed": bool(missing), "missing": missing, "python": upstream(files, "python3"), "libc": upstream(files, "libc6")}
    if module.check_mode:
        module.exit_json(**told)
    if missing:
        apt(module, "apt-get", *own, "-y", "-q", "--download-only", "install", *wanted)
    texts = index(apt(module, "apt-cache", *own, "show", "--no-all-versions", *sorted(files)), files, module.params["release"])
    for name, text in texts.items():
        (debs / name).write_text(text, encoding="utf-8")
    for path in debs.iterdir():
        if path.is_file() and path.name not in {*files.values(), *INDEX}:
            path.unlink()
    module.exit_json(**told, root=str(debs))


if __name__ == "__main__":
    main()
