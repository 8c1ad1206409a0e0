#!/usr/bin/python
"""Python's packages of lock files as wheels for another machine's Python and processor, by this machine's pip.

What pip fetches it compares with the locks' hashes. A package that has sources only is built here, if its wheel is one for every machine; `built.sed`
adds such a wheel's hash to the lock's one of its sources. What was interrupted begins anew, by pip's own cache.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
MISSING = re.compile(r"No matching distribution found for ([A-Za-z0-9._-]+)==")
OLDEST = {"x86_64": 5, "aarch64": 17}
"""The first glibc 2.x that wheels name for a processor."""
PROCESSORS = {"amd64": "x86_64", "arm64": "aarch64"}
DAY = "1577836800"
"""The date in what is built, in seconds: the same bytes from the same sources."""


def entries(lock: str, python: str, machine: str) -> dict[str, str]:
    """A lock's packages for a Python and a processor: name → its lines, without a condition, which pip would ask of this machine."""
    # Only pip's own is there wherever pip is.
    from pip._vendor.packaging.markers import Marker  # noqa: PLC0415

    about = {"python_version": ".".join(python.split(".")[:2]), "python_full_version": python, "platform_machine": machine}
    found = {}
    for text in re.findall(r"^[A-Za-z0-9](?:.*\\\n)*.*", lock, re.MULTILINE):
        wanted, _, more = text.partition(" \\\n")
        wanted, _, condition = wanted.partition(" ; ")
        if not condition or Marker(condition).evaluate({**about, "implementation_name": "cpython"}):
            found[wanted.partition("==")[0]] = f"{wanted} \\\n{more}"
    return found


def hashes(entry: str) -> list[str]:
    """The hashes of a lock's package."""
    return re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)


def rule(entry: str, wheel: Path) -> str:
    """A line for sed: where the lock has the hash of the sources, that of what was built of them stands, too."""
    return f"s/--hash=sha256:{hashes(entry)[0]}/& --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}/\n"


def tags(libc: int, arch: str) -> list[str]:
    """Names of platforms whose wheels run with glibc 2.`libc`."""
    processor = PROCESSORS[arch]
    old = ["manylinux2014"] + ["manylinux2010", "manylinux1"] * (arch == "amd64")
    names = [*(f"manylinux_2_{minor}" for minor in range(libc, OLDEST[processor] - 1, -1)), *old, "linux"]
    return [f"{name}_{processor}" for name in names]


class Pip:
    """This machine's pip, for the Python of another one."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        asked = module.params
        platforms = [word for tag in tags(asked["libc"], asked["arch"]) for word in ("--platform", tag)]
        self.target = ("--only-binary=:all:", "--implementation=cp", f"--python-version={asked['python']}", *platforms)
        self.env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "SOURCE_DATE_EPOCH": DAY}
        if CERTIFICATES.exists() and self.run("config", "get", "global.cert", fine=True) is None:
            self.env.setdefault("PIP_CERT", str(CERTIFICATES))

    def run(self, *words: str, fine: bool = False) -> str | None:
        """None if it failed and `fine` says that it may; else a failure ends the module. "" if all went well, what is missing otherwise."""
        done = subprocess.run(
            (sys.executable, "-m", "pip", *words), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=self.env
        )
        if done.returncode == 0:
            return ""
        if fine:
            return None
        if found := MISSING.search(done.stderr):
            return found[1]
        said = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("ERROR: Ignored the following"))
        return self.module.fail_json(msg=f"pip failed: {said.strip()[-2000:]} Check what pip is configured for (pip config list), then run it again.")

    def fetch(self, lock: Path, place: Path, work: Path) -> str:
        """A lock's wheels; returns sed's rules for those that were built."""
        asked = self.module.params
        wanted, sources = entries(lock.read_text(encoding="utf-8"), asked["python"], PROCESSORS[asked["arch"]]), dict[str, str]()
        rest = work / "rest.lock"
        while True:
            rest.write_text("".join(f"{text}\n" for text in wanted.values()), encoding="utf-8")
            lacking = self.run("download", "--quiet", "--no-deps", "--require-hashes", *self.target, f"--dest={place}", f"--requirement={rest}")
            if not lacking:
                return "".join(self.build(name, text, place, work) for name, text in sources.items())
            if lacking not in wanted:
                self.module.fail_json(msg=f"{lacking} of {lock} is not to be had. Check what pip is configured for (pip config list).")
            sources[lacking] = wanted.pop(lacking)

    def build(self, name: str, entry: str, place: Path, work: Path) -> str:
        """Build a package from its sources."""
        (work / "one.lock").write_text(entry + "\n", encoding="utf-8")
        made = work / name
        words = (
            "--quiet",
            "--use-pep517",
            "--no-deps",
            "--no-cache-dir",
            "--require-hashes",
            f"--wheel-dir={made}",
            f"--requirement={work / 'one.lock'}",
        )
        if self.run("wheel", *words):
            self.module.fail_json(msg=f"{name} has neither a wheel nor sources here. Check what pip is configured for (pip config list).")
        wheel = next(made.glob("*.whl"))
        if not wheel.name.endswith("-none-any.whl"):
            python, arch = self.module.params["python"], self.module.params["arch"]
            self.module.fail_json(
                msg=f"{name} has no wheel for Python {python} on {arch}, and what is built of its sources is for this machine alone."
            )
        text = rule(entry, wheel)
        wheel.replace(place / wheel.name)
        return text


def main() -> None:
    """Fetch all if the locks or the machine are other ones than before."""
    spec = {
        "locks": {"type": "list", "elements": "path", "required": True},
        "further": {"type": "list", "elements": "str", "default": []},
        "python": {"type": "str", "required": True},
        "libc": {"type": "int", "required": True},
        "arch": {"type": "str", "required": True},
        "cache": {"type": "path", "required": True},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    asked, folder = module.params, Path(module.params["cache"])
    locks = [Path(lock) for lock in asked["locks"]]
    named = [asked["python"], str(asked["libc"]), asked["arch"], *asked["further"], *(lock.read_text(encoding="utf-8") for lock in locks)]
    key = hashlib.sha256("\0".join(named).encode()).hexdigest()
    known = folder / "key"
    changed = not known.exists() or known.read_text(encoding="utf-8") != key
    if changed and not module.check_mode:
        known.unlink(missing_ok=True)
        work, wheels = folder / "work", folder / "wheels"
        shutil.rmtree(work, ignore_errors=True)
        (work / "wheels").mkdir(parents=True)
        pip = Pip(module)
        rules = "".join(pip.fetch(lock, work / "wheels", work) for lock in locks)
        if asked["further"] and (lacking := pip.run("download", "--quiet", *pip.target, f"--dest={work / 'wheels'}", "--", *asked["further"])):
            module.fail_json(msg=f"{lacking}, of bundle_wheels or needed by them, has no wheel for Python {asked['python']} on {asked['arch']}.")
        (work / "wheels" / "built.sed").write_text(rules, encoding="utf-8")
        shutil.rmtree(wheels, ignore_errors=True)
        (work / "wheels").replace(wheels)
        shutil.rmtree(work)
        known.write_text(key, encoding="utf-8")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
