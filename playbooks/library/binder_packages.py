#!/usr/bin/python
"""Packages of the distribution, with a record of those that were not there before, so that `reset` takes away exactly these."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import grp
import json
import os
import pwd
import re
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

RECORD = Path("/var/lib/binder-deploy/packages.json")
UNITS = Path("/etc/systemd/system")
BUNDLE = RECORD.parent / "bundle"
"""Where the role bundle puts packages and the one source that then counts."""
JOURNAL = Path("/var/lib/dpkg/updates")
"""Has files where dpkg was cut off."""
SCRIPTS = Path("/var/lib/dpkg/info")
GROUP = "group:"
"""Before the names of groups, where these stand beside users."""
LOCK = Path("/var/lib/dpkg/lock-frontend")
"""Held by whoever is at work with dpkg, such as the host's own upgrades after a boot."""
APT = ("apt-get", "-y", "-q", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=600")


def states() -> dict[str, str]:
    """Every package that dpkg knows, in the two letters of what is wanted and what is."""
    done = subprocess.run(("dpkg-query", "-W", "-f", "${db:Status-Abbrev}\t${Package}\n"), capture_output=True, text=True, check=True)
    return {name: state for state, _, name in (line.partition("\t") for line in done.stdout.splitlines())}


def installed() -> set[str]:
    """Names of the packages that are here."""
    return {name for name, state in states().items() if state.startswith("ii")}


def interrupted() -> bool:
    """Whether a run of dpkg was cut off, by its journal or by packages that are half there; one that goes on is none."""
    with LOCK.open("a") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return any(JOURNAL.glob("[0-9]*")) or any(state[1:2] in ("H", "U", "F") for state in states().values())


def essential() -> set[str]:
    """Names of the packages that apt refuses to remove."""
    shown = "${Essential}${Protected}\t${Package}\n"
    done = subprocess.run(("dpkg-query", "-W", "-f", shown), capture_output=True, text=True, check=True)
    return {name for flags, _, name in (line.partition("\t") for line in done.stdout.splitlines()) if "yes" in flags}


def accounts() -> set[str]:
    """Names of the users of this host, and those of its groups after `GROUP`."""
    return {entry.pw_name for entry in pwd.getpwall()} | {f"{GROUP}{entry.gr_name}" for entry in grp.getgrall()}


def deserted(group: str) -> bool:
    """Whether there is this group, and nobody in it."""
    found = next((entry for entry in grp.getgrall() if entry.gr_name == group), None)
    return found is not None and not found.gr_mem and all(entry.pw_gid != found.gr_gid for entry in pwd.getpwall())


def made(begun: set[str]) -> set[str]:
    """Accounts that our packages have made since this run began with those.

    Of a run that was cut off before it those, too, that our packages' scripts name: between the two, the host's administrators may have made some.
    """
    known = recorded()
    before = begun - set(known["accounts"]) if any(name.startswith(GROUP) for name in known["accounts"]) else set()
    files = [file for name in known["packages"] for file in (*SCRIPTS.glob(f"{name}.postinst"), *SCRIPTS.glob(f"{name}:*.postinst"))]
    words = {word for file in files for word in re.findall(r"[\w-]+", file.read_text(encoding="utf-8", errors="replace"))}
    return (accounts() - begun) | {name for name in before if name.removeprefix(GROUP) in words}


def recorded() -> dict[str, list[str]]:
    """What this module has brought so far: packages, masked units, users and paths that packages have made and do not purge."""
    empty: dict[str, list[str]] = {"packages": [], "masked": [], "users": [], "paths": [], "accounts": []}
    return {**empty, **(json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {})}


def record(**more: set[str]) -> None:
    """Add to the record."""
    known = recorded()
    written(known | {kind: sorted({*known[kind], *names}) for kind, names in more.items()})


def forget(kind: str) -> None:
    """Take a kind out of the record."""
    written(recorded() | {kind: []})


def written(known: dict[str, list[str]]) -> None:
    """Write the record; a power cut leaves the old or the new one."""
    RECORD.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = RECORD.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(json.dumps(known))
        file.flush()
        os.fsync(file.fileno())
    new.replace(RECORD)


def apt() -> tuple[str, ...]:
    """apt-get: by the bundle's source alone where there is one, with lists of its own, so that the host's sources are neither asked nor changed."""
    if not (BUNDLE / "apt.list").exists():
        return APT
    (BUNDLE / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    own = {
        "Dir::Etc::sourcelist": BUNDLE / "apt.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": BUNDLE / "lists",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        # What is fetched is this host's own files, which only root reads.
        "APT::Sandbox::User": "root",
    }
    return (*APT, *(word for name, value in own.items() for word in ("-o", f"{name}={value}")))


def environment() -> dict[str, str]:
    """Of programs that ask nobody."""
    return {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def run(module: AnsibleModule, *command: str) -> None:
    """Run a program of apt; what it said is the failure's message."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment())
    if done.returncode:
        module.fail_json(msg=f"{' '.join(command[:2])} failed: {(done.stderr or done.stdout).strip()[-2000:]}", command=list(command))


def heal(module: AnsibleModule) -> None:
    """Finish what a run that was cut off has left half done."""
    done = subprocess.run(("dpkg", "--configure", "-a"), capture_output=True, check=False, stdin=subprocess.DEVNULL, env=environment())
    if done.returncode == 0 and not interrupted():
        return
    # One that was cut off before what it needs was unpacked cannot be configured: apt brings the rest, by lists that may have been cut off, too.
    run(module, *apt(), "update")
    run(module, *apt(), "--fix-broken", "install")
    # One that is half unpacked is put there anew.
    if half := sorted(name for name, state in states().items() if state[1:2] == "H"):
        run(module, *apt(), "--reinstall", "install", *half)


def planned(names: list[str]) -> set[str]:
    """What apt would install for these, with what they need."""
    done = subprocess.run((*apt(), "--simulate", "install", *names), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return {line.split()[1] for line in done.stdout.splitlines() if line.startswith("Inst ")}


def install(module: AnsibleModule, names: list[str], masked: list[str], unpurged: list[str]) -> None:
    """Install what is missing."""
    before = installed()
    missing = sorted(set(names) - before)
    broken = interrupted()
    if module.check_mode or not (missing or broken):
        module.exit_json(changed=bool(missing) or broken, missing=missing)
    for unit in masked:
        # The package's own service must not start: ours is another one, with other settings.
        link = UNITS / unit
        if not link.is_symlink() and not link.exists():
            record(masked={unit})
            link.symlink_to("/dev/null")
    # What a run that is cut off has made of accounts is known by what was there before it.
    begun = accounts()
    record(accounts=set(recorded()["accounts"]) or begun)
    if broken:
        heal(module)
        missing = sorted(set(names) - installed())
    if missing:
        fetch(module, missing, before, unpurged)
    record(users=made(begun))
    forget("accounts")
    module.exit_json(changed=True, missing=missing)


def fetch(module: AnsibleModule, missing: list[str], before: set[str], unpurged: list[str]) -> None:
    """Let apt install these, and record what comes with them."""
    # A bundle's lists are made of its files in no time, and another bundle may have come.
    plan = set() if (BUNDLE / "apt.list").exists() else planned(missing)
    if not plan:
        run(module, *apt(), "update")
        plan = planned(missing)
    # Written before: what a power cut interrupts is known to be ours all the same.
    record(packages=plan - before, paths={path for path in unpurged if not Path(path).exists()})
    run(module, *apt(), "install", *missing)


def removed_with(names: list[str]) -> set[str]:
    """What apt would remove with these."""
    done = subprocess.run((*APT, "--simulate", "purge", *names), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return {line.split()[1] for line in done.stdout.splitlines() if line.startswith(("Remv ", "Purg "))}


def cleared(paths: list[str]) -> None:
    """Remove these files, and these directories where nothing else has come into them; a path may have ``*`` in it."""
    for path in (Path(found) for pattern in sorted(paths, reverse=True) for found in glob.glob(pattern)):  # noqa: PTH207 - absolute ones
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.rmdir()
        else:
            path.unlink(missing_ok=True)


def remove(module: AnsibleModule) -> None:
    """Purge what the record has, and take its users and masks away."""
    if not RECORD.exists():
        module.exit_json(changed=False, removed=[])
    known = recorded()
    # Those, too, that a run which was cut off has left half installed.
    here = {name for name, state in states().items() if state[1:2] not in ("n", "c")}
    names = sorted(set(known["packages"]) & here - essential())
    others = sorted(removed_with(names) - set(names)) if names else []
    if others:
        module.fail_json(
            msg=f"These packages have come later and need what is to go: {', '.join(others)}. Remove them, or delete {RECORD} to keep all."
        )
    if not module.check_mode:
        begun = accounts()
        if interrupted():
            heal(module)
        known["users"] = sorted({*known["users"], *made(begun)})
        if names:
            # Debian 13 takes e2fsprogs for essential, but a host that had none before does without it.
            run(module, *APT, "--allow-remove-essential", "purge", *names)
        for user in sorted(name for name in set(known["users"]) & accounts() if not name.startswith(GROUP)):
            run(module, "userdel", user)
        for group in sorted(name.removeprefix(GROUP) for name in known["users"] if name.startswith(GROUP)):
            if deserted(group):
                run(module, "groupdel", group)
        cleared(known["paths"])
        for unit in known["masked"]:
            (UNITS / unit).unlink(missing_ok=True)
        RECORD.unlink()
    module.exit_json(changed=True, removed=names)


def main() -> None:
    """Install or remove."""
    spec = {
        "name": {"type": "list", "elements": "str", "default": []},
        "masked": {"type": "list", "elements": "str", "default": []},
        "unpurged": {"type": "list", "elements": "str", "default": []},
        "state": {"type": "str", "choices": ["present", "recorded_absent"], "default": "present"},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    if module.params["state"] == "present":
        install(module, module.params["name"], module.params["masked"], module.params["unpurged"])
    remove(module)


if __name__ == "__main__":
    main()
